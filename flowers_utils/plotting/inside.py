"""Figures of the look inside: heat maps, and one's own photograph."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowers_utils.data import Split
from flowers_utils.insight.inside import Heat
from flowers_utils.plotting import style


def _show_heat(ax: Axes, photo: np.ndarray, heat: Heat) -> None:
    """The photograph in grey below the heat, so that colours are heat alone."""
    ax.imshow(np.asarray(photo).mean(axis=0), cmap="gray", vmin=0, vmax=255)
    values = heat.values.numpy()
    if values.any():
        ax.imshow(values, cmap="inferno", alpha=0.15 + 0.6 * values, vmin=0, vmax=1)
        return
    box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none"}
    place = {"ha": "center", "va": "center", "transform": ax.transAxes}
    ax.text(0.5, 0.5, "no place\nspeaks for it", fontsize=9, bbox=box, **place)


@style.figure_function
def heat(photos: Split, heats: Sequence[Heat], class_names: Sequence[str], *, title: str) -> Figure:
    """Photographs above, and below the places that the class in the caption depends on."""
    names = style.labels(class_names, limit=19)
    columns, methods = max(4, len(photos)), ", ".join(sorted({h.method for h in heats}))
    upper, lower = [], []
    for photo, true, one in zip(photos.images, photos.labels, heats, strict=True):
        upper.append((photo, f"is {names[true]}", "black"))
        colour = style.BLUE if one.target == true else style.VERMILION
        lower.append((None, names[one.target], colour))
    upper += [style.EMPTY] * (columns - len(photos))
    heading = f"Bright places decide for the class below the photograph ({methods})"
    figure = style.gallery(heading, title, upper + lower, columns)
    for ax, photo, one in zip(figure.axes[columns:], photos.images, heats, strict=False):
        _show_heat(ax, photo, one)
    return figure
