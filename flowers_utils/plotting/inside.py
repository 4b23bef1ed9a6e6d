"""Figures of the look inside: heat maps."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from flowers_utils.data import Split
from flowers_utils.insight.inside import Heat
from flowers_utils.plotting import style


@style.figure_function
def heat(photos: Split, heats: Sequence[Heat], class_names: Sequence[str], *, title: str) -> Figure:
    """Photographs above, and below the places that the class in the caption depends on."""
    names, upper, lower = style.labels(class_names, limit=19), [], []
    for photo, true, one in zip(photos.images, photos.labels, heats, strict=True):
        upper.append((photo, f"is {names[true]}", "black"))
        caption = names[one.target] if one.values.any() else "no place speaks\nfor the class"
        colour = style.BLUE if one.target == true else style.VERMILION
        lower.append((_overlay(photo, one.values.numpy()), caption, colour))
    columns, methods = max(4, len(photos)), ", ".join(sorted({h.method for h in heats}))
    upper += [style.EMPTY] * (columns - len(photos))
    heading = f"Bright: places on which the predicted class depends, estimated by {methods}"
    return style.gallery(heading, title, upper + lower, columns)


def _overlay(photo: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The photograph in grey below the heat, so that colours are heat alone: `(3, H, W)`, 0..1."""
    colours = mpl.colormaps["inferno"](heat)[..., :3].transpose(2, 0, 1)
    opaque = 0.15 + 0.6 * heat
    return opaque * colours + (1 - opaque) * np.mean(photo, axis=0) / 255
