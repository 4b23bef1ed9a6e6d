"""Figures of the look inside: heat maps, and one's own photograph."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowers_utils.data import Split
from flowers_utils.insight.inside import Heat
from flowers_utils.plotting.style import (
    BLUE,
    VERMILION,
    figure_function,
    gallery,
    labels,
)


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


@figure_function
def heat(photos: Split, heats: Sequence[Heat], class_names: Sequence[str], *, title: str) -> Figure:
    """Photographs above, and below the places that the class in the caption depends on."""
    names = labels(class_names, limit=19)
    upper = [
        (x, f"is {names[y]}", "black") for x, y in zip(photos.images, photos.labels, strict=True)
    ]
    lower = [
        (None, names[h.target], BLUE if h.target == y else VERMILION)
        for h, y in zip(heats, photos.labels, strict=True)
    ]
    columns, methods = max(4, len(photos)), ", ".join(sorted({h.method for h in heats}))
    heading = f"Bright places decide for the class below the photograph ({methods})"
    figure = gallery(heading, title, [upper, lower], columns=columns)
    for ax, photo, one in zip(figure.axes[columns:], photos.images, heats, strict=False):
        _show_heat(ax, photo, one)
    return figure
