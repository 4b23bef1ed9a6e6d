"""Figures of photographs and of the network, before anything is trained."""

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from flowers_utils.plotting import style

BLOCK = ("conv 3x3", "BatchNorm", "ReLU", "conv 3x3", "BatchNorm")
CAPTION = 19  # characters of a line that fit below a picture


@style.figure_function
def pictures(
    images: Sequence[Any], captions: Sequence[str] | None, heading: str, *, title: str
) -> Figure:
    """Pictures `(3, H, W)`, uint8 or 0..1, each below its caption, six in a row.

    A "\\n" in a caption starts a new line. Without captions sixteen small ones stand in a row.
    """
    tiles = []
    for image, caption in zip(images, captions or [""] * len(images), strict=True):
        lines = [textwrap.fill(style.label(line), CAPTION) for line in caption.split("\n")]
        tiles.append((image, "\n".join(lines), "black"))
    return style.gallery(heading, title, tiles, 6 if captions else 16)


@style.figure_function
def block() -> Figure:
    """One BasicBlock of ResNet18: two convolutions, and the skip connection around them."""
    heading = "One BasicBlock with its skip connection"
    words = {"in this order": ", ".join(BLOCK), "then": "the input is added, ReLU"}
    figure = style.new_figure(heading, "", height=2.3, facts=words)
    ax = figure.subplots()
    ax.set_axis_off()
    colours = {"conv 3x3": style.BLUE, "+": style.VERMILION}
    steps = [(2.2 + 1.35 * i, 0.58, text) for i, text in enumerate(BLOCK)]  # centre, half its width
    steps = [(0.9, 0.2, "x"), *steps, (8.85, 0.3, "+"), (10, 0.45, "ReLU"), (11.2, 0.45, "output")]
    for centre, half, text in steps:
        shape = "circle,pad=0" if text == "+" else "round,pad=0,rounding_size=0.1"
        look = {"boxstyle": shape, "facecolor": colours.get(text, style.GREY), "alpha": 0.3}
        if text not in ("x", "output"):
            ax.add_patch(FancyBboxPatch((centre - half, -0.3), 2 * half, 0.6, **look))
        ax.text(centre, 0, text, ha="center", va="center", fontsize=9)
    arrow = {"arrowstyle": "-|>", "mutation_scale": 10, "shrinkA": 0, "shrinkB": 0}
    for left, right in pairwise(steps):
        ends = (left[0] + left[1], 0), (right[0] - right[1], 0)
        ax.add_patch(FancyArrowPatch(*ends, color="black", **arrow))
    skip, around = ((0.9, 0.3), (8.85, 0.3)), "bar,fraction=-0.1"
    ax.add_patch(FancyArrowPatch(*skip, connectionstyle=around, color=style.VERMILION, **arrow))
    text = "skip connection: x itself (a 1x1 convolution where the shape changes)"
    ax.text(4.9, 1.25, text, ha="center", va="bottom", color=style.VERMILION)
    ax.text(4.9, -0.75, "F(x): what the block learns", ha="center", va="top", color=style.BLUE)
    ax.text(8.85, -0.45, "F(x) + x", ha="center", va="top")
    ax.set(xlim=(0.4, 11.8), ylim=(-1.2, 1.8))
    return figure


@style.figure_function
def gradient_sizes(with_skip: Sequence[float], without: Sequence[float]) -> Figure:
    """Size of the gradient at each block, from `gradient_at_each_block` with and without skips."""
    heading = (
        "The gradient at each block of an untrained stack, divided by that behind the last block"
    )
    facts = {"at the first block": f"{with_skip[0]:.3g} with skips, {without[0]:.3g} without"}
    figure = style.new_figure(heading, "", height=3.4, facts=facts)
    ax = figure.subplots()
    blocks = np.arange(1, len(with_skip) + 1)
    ax.semilogy(blocks, with_skip, color=style.BLUE, marker="o", label="with skip connections")
    ax.semilogy(blocks, without, color=style.VERMILION, marker="s", linestyle="--", label="without")
    for values in (with_skip, without):
        ax.annotate(f"{values[0]:.3g}", (1, values[0]), (-4, 8), textcoords="offset points")
    ax.axhline(1, color=style.GREY, linestyle=":")  # the same at every block
    ax.margins(y=0.12)
    ax.set(xlabel="block, from the image to the loss", ylabel="relative size of the gradient")
    ax.grid()
    figure.legend(loc="outside lower center", ncols=2)
    return figure
