"""Figures of the flowers, of augmentation and of the network, before anything is trained."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from flowers_utils.data import FlowerData
from flowers_utils.plotting.colours import BLUE, GREY, ORANGE, VERMILION
from flowers_utils.plotting.gallery import gallery, in_rows
from flowers_utils.plotting.style import figure_function, new_figure
from flowers_utils.plotting.text import label, labels


@figure_function
def samples(data: FlowerData, *, count: int = 12, seed: int = 0) -> Figure:
    """`count` training photographs of different classes, with their names."""
    rng, truth = np.random.default_rng(seed), data.train.labels.numpy()
    classes, names = rng.permutation(np.unique(truth))[:count], labels(data.class_names, limit=16)
    photos = [data.train.images[rng.choice(np.flatnonzero(truth == c))] for c in classes]
    rows = in_rows([(photo, names[c]) for photo, c in zip(photos, classes, strict=True)], 6)
    return gallery("Some flowers of the training set", data.title, rows)


@figure_function
def pictures(images: np.ndarray, names: Sequence[str], heading: str, *, title: str) -> Figure:
    """Up to six pictures `(N, 3, S, S)` uint8 in a row, each under its name."""
    row = list(zip(images, labels(names, limit=16), strict=False))[:6]
    return gallery(heading, title, [row])


@figure_function
def augmentations(original: np.ndarray, augmented: np.ndarray, *, title: str) -> Figure:
    """One photograph `(3, R, R)` beside eight augmentations of it `(8, 3, S, S)`, all uint8."""
    draws = [(image, f"draw {i}") for i, image in enumerate(augmented, start=1)]
    rows = [[(original, "as it is", BLUE), *draws[:4]], [(None, ""), *draws[4:]]]
    return gallery("One flower under eight augmentations", title, rows)


@figure_function
def architecture(shapes: Sequence[tuple[str, tuple[int, ...]]], *, title: str) -> Figure:
    """The network stage by stage: each (name, output shape), first to last.

    A box is as high as the maps are (on a square-root scale) and as wide as there are channels
    (logarithmic), so one sees maps shrink while channels grow.
    """
    words = {name: "x".join(map(str, (*shape[1:], shape[0]))) for name, shape in shapes}
    figure = new_figure(title, "", height=2.9, facts=words)
    ax = figure.subplots()
    ax.set_axis_off()
    largest, right = max(shape[-1] for _, shape in shapes if len(shape) == 3), 0.0
    for name, shape in shapes:
        side = shape[1] if len(shape) == 3 else 1
        height, width = (side / largest) ** 0.5, 0.12 * np.log2(max(2, shape[0]))
        centre = right + max(0.6, width / 2)
        colour, hatch = (ORANGE, "//") if (name, shape) == shapes[-1] else (BLUE, "")
        box = (centre - width / 2, 0.5 - height / 2), width, height
        ax.add_patch(Rectangle(*box, facecolor=colour, hatch=hatch, edgecolor="black", alpha=0.5))
        size = "\nx".join(words[name].rsplit("x", 1))  # in one line they would touch
        text = f"{label(name, limit=14)}\n{size}"
        ax.text(centre, -0.04, text, ha="center", va="top", fontsize=9)
        right = centre + max(0.6, width / 2)
    ax.set(xlim=(0, right), ylim=(-0.4, 1.02))
    note = "height of a box: height of the maps (square root); width: number of channels (log)"
    figure.supxlabel(note, fontsize=9, color=GREY)
    return figure


@figure_function
def gradient_sizes(with_skip: Sequence[float], without: Sequence[float]) -> Figure:
    """Size of the gradient at each block of a deep stack, with and without skip connections."""
    heading = "How much of the error signal reaches each block of an untrained stack"
    facts = {"at the first block": f"{with_skip[0]:.2g} with skips, {without[0]:.2g} without"}
    figure = new_figure(heading, "", height=3.4, facts=facts)
    ax = figure.subplots()
    blocks = np.arange(1, len(with_skip) + 1)
    ax.semilogy(blocks, with_skip, color=BLUE, marker="o", label="with skip connections")
    ax.semilogy(blocks, without, color=VERMILION, marker="s", linestyle="--", label="without")
    ax.set(xlabel="block, from the image to the loss", ylabel="gradient (behind the last: 1)")
    ax.grid()
    figure.legend(loc="outside lower center", ncols=2)
    return figure
