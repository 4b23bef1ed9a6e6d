"""Figures of the flowers, of augmentation and of the network, before anything is trained."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from flowers_utils.data import FlowerData
from flowers_utils.plotting.style import (
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    figure_function,
    new_figure,
    picture_grid,
    show_photo,
)
from flowers_utils.plotting.text import label, labels


@figure_function
def samples(data: FlowerData, *, count: int = 12, seed: int = 0) -> Figure:
    """`count` training photographs of different classes, with their names."""
    rng, truth = np.random.default_rng(seed), data.train.labels.numpy()
    classes, names = rng.permutation(np.unique(truth))[:count], labels(data.class_names, limit=16)
    columns = min(6, len(classes))
    rows = -(-len(classes) // columns)
    figure = new_figure(
        "Some flowers of the training set",
        data.title,
        height=0.4 + 1.75 * rows,
        alt=f"Photographs of {', '.join(data.class_names[c] for c in classes)}.",
    )
    axes = picture_grid(figure, rows, columns)
    for ax, c in zip(axes, classes, strict=False):
        show_photo(ax, data.train.images[rng.choice(np.flatnonzero(truth == c))], names[c])
    return figure


@figure_function
def pictures(images: np.ndarray, names: Sequence[str], *, title: str) -> Figure:
    """Up to six pictures `(N, 3, S, S)` uint8 in a row, each under its name."""
    count = min(6, len(images))
    alt = f"{count} pictures: {', '.join(names[:count])}."
    figure = new_figure("Flowers it was never told about", title, height=2.1, alt=alt)
    axes = picture_grid(figure, 1, count)
    for ax, image, name in zip(axes, images, labels(names, limit=16), strict=False):
        show_photo(ax, image, name)
    return figure


@figure_function
def augmentations(original: np.ndarray, augmented: np.ndarray, *, title: str) -> Figure:
    """One photograph `(3, R, R)` beside eight augmentations of it `(8, 3, S, S)`, all uint8."""
    alt = "The same photograph cropped, mirrored, rotated and recoloured in eight ways."
    figure = new_figure("One flower under eight augmentations", title, height=4.0, alt=alt)
    axes = picture_grid(figure, 2, 5)
    show_photo(axes[0], original, "as it is", weight="bold")
    for draw, ax in enumerate([*axes[1:5], *axes[6:]]):
        show_photo(ax, augmented[draw], f"draw {draw + 1}")
    return figure


def shape_in_words(shape: tuple[int, ...]) -> str:
    """`(64, 56, 56)` -> `56x56x64`, `(102,)` -> `102`."""
    return f"{shape[1]}x{shape[2]}x{shape[0]}" if len(shape) == 3 else str(shape[0])


@figure_function
def architecture(shapes: Sequence[tuple[str, tuple[int, ...]]], *, title: str) -> Figure:
    """The network stage by stage: each (name, output shape), first to last.

    A box is as high as the maps are (on a square-root scale) and as wide as there are channels
    (logarithmic), so one sees maps shrink while channels grow.
    """
    words = [f"{name} {shape_in_words(shape)}" for name, shape in shapes]
    figure = new_figure(title, "", height=2.9, alt=f"Stages in order: {', '.join(words)}.")
    ax = figure.subplots()
    ax.set_axis_off()
    largest, right = max(shape[-1] for _, shape in shapes if len(shape) == 3), 0.0
    for place, (name, shape) in enumerate(shapes):
        side = shape[1] if len(shape) == 3 else 1
        height, width = (side / largest) ** 0.5, 0.12 * np.log2(max(2, shape[0]))
        centre = right + max(0.6, width / 2)
        colour, hatch = (ORANGE, "//") if place == len(shapes) - 1 else (BLUE, "")
        box = (centre - width / 2, 0.5 - height / 2), width, height
        ax.add_patch(Rectangle(*box, facecolor=colour, hatch=hatch, edgecolor="black", alpha=0.5))
        size = "\nx".join(shape_in_words(shape).rsplit("x", 1))  # in one line they would touch
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
    figure = new_figure(
        "How much of the error signal reaches each block of an untrained stack",
        "",
        height=3.4,
        alt=f"At the first block {with_skip[0]:.2g} with skip connections, {without[0]:.2g} "
        "without, if the size behind the last block is 1.",
    )
    ax = figure.subplots()
    blocks = np.arange(1, len(with_skip) + 1)
    ax.semilogy(blocks, with_skip, color=BLUE, marker="o", label="with skip connections")
    ax.semilogy(blocks, without, color=VERMILION, marker="s", linestyle="--", label="without")
    ax.set(xlabel="block, from the image to the loss", ylabel="gradient (behind the last: 1)")
    ticks = 10.0 ** np.arange(np.floor(np.log10(min(without))), 2)[::2]
    ax.yaxis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    ax.grid()
    figure.legend(loc="outside lower center", ncols=2)
    return figure
