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
    can_be_drawn,
    figure_function,
    gallery,
    label,
    labels,
    new_figure,
    show_photo,
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


@figure_function
def own_photo(
    picture: np.ndarray, heat: Heat, guesses: Sequence[tuple[str, float, int]], *, title: str
) -> Figure:
    """A photograph `(3, S, S)`, its heat map, and the most probable classes as bars.

    `guesses` are (class name, probability 0..1, class number), the most probable first, as a
    `Predictor` returns them.
    """
    names, shares, _ = zip(*guesses, strict=True)
    facts = {name: f"{share:.0%}" for name, share, _ in guesses}
    figure = new_figure("One photograph", title, height=3.0, facts=facts)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    show_photo(left, picture, "what the network gets")
    show_photo(middle, None, f"bright places decide\n({heat.method})")
    _show_heat(middle, picture, heat)
    bars = right.barh(range(len(names)), [100 * share for share in shares], color=BLUE)
    right.bar_label(bars, fmt="%.0f %%", padding=3)
    shown = [name if can_be_drawn(name) else f"class {number}" for name, _, number in guesses]
    ranked = [f"{i}. {label(name, limit=19)}" for i, name in enumerate(shown, start=1)]
    right.set_yticks(range(len(names)), ranked, fontsize=9)
    right.set(xlabel="probability (%)", xlim=(0, 118), title="most probable classes")
    right.invert_yaxis()
    return figure
