"""Small pictures in rows, each below its caption."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from flowers_utils.plotting.style import WIDTH, Picture, new_figure

Tile = tuple[Any, str] | tuple[Any, str, str]  # a picture (None: a free place), caption, its colour


def in_rows(tiles: Sequence[Tile], columns: int) -> list[Sequence[Tile]]:
    """The tiles in rows of `columns`, the last one maybe shorter."""
    return [tiles[start : start + columns] for start in range(0, len(tiles), columns)]


def gallery(
    heading: str,
    title: str,
    rows: Sequence[Sequence[Tile]],
    *,
    columns: int | None = None,
    side: float = 1.75,
) -> Picture:
    """Small pictures below their captions, row by row; a picture is at most `side` inches wide."""
    columns = columns or max(map(len, rows))
    lines = max(len(tile[1].splitlines()) for row in rows for tile in row)
    text = 0.1 + 0.165 * lines if lines else 0.0
    height = 0.45 + len(rows) * (min(side, 0.975 * WIDTH / columns) + text)
    figure = new_figure(heading, title, height=height)
    for axes, row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        for ax in axes:
            ax.set_axis_off()
        for ax, tile in zip(axes, row, strict=False):
            show_photo(ax, *tile)
    return figure


def show_photo(ax: Axes, image: Any, caption: str = "", colour: str = "black") -> None:
    """An image (3, H, W), a map (H, W) or None for an empty place, below its caption."""
    ax.set_axis_off()
    if image is not None:
        image = np.asarray(image)
        ax.imshow(image if image.ndim == 2 else image.transpose(1, 2, 0), cmap="viridis")
    ax.set_title(caption, fontsize=9, color=colour)


def empty_figure(heading: str, title: str, why: str) -> Picture:
    """A sentence in place of a drawing that has nothing to show."""
    figure = new_figure(heading, title, height=1.5, facts={"empty": why})
    ax = figure.subplots()
    ax.set_axis_off()
    ax.text(0.5, 0.5, textwrap.fill(why, 70), ha="center", va="center", transform=ax.transAxes)
    return figure
