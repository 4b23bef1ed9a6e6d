"""What all figures share: size, colours, fonts, and how a notebook shows them.

Figures are made without pyplot: nothing stays open, no backend is chosen (so MPLBACKEND cannot
make them vanish), and the settings that a student made are as they were afterwards.
"""

import functools
import io
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from flowers_utils.evaluation import Estimate
from flowers_utils.plotting.text import fonts_here, label

# Okabe and Ito's colours, told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"

WIDTH = 8.8  # inches: 634 pixels at 72 dpi, which fits a window of 800 pixels unshrunk
DPI = 72
LINE = 88  # characters of a heading
STYLE = {
    "figure.facecolor": "white",  # in a dark theme too: axes and texts are black
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "figure.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "hatch.linewidth": 0.8,
}


class Picture(Figure):
    """A figure that shows itself in a notebook, whatever the backend, with its text in words."""

    alt = ""  # for readers who cannot see it

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=DPI)
        data = {"image/png": file.getvalue(), "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt}}


def figure_function(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorator: the function draws in the lesson's style, whatever the student has set."""

    @functools.wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> Figure:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update({**STYLE, "font.family": list(fonts_here())})
            return draw(*args, **kwargs)

    return styled


def new_figure(heading: str, title: str, *, height: float, alt: str) -> Picture:
    """An empty figure headed by a sentence and the data's title; `alt` says what one would see."""
    figure = Picture(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    data = f"({label(title)})" if title else ""
    # a long heading keeps its line, and the data's title stands below
    gap = " " if len(heading) + len(data) < LINE else "\n"
    figure.suptitle(f"{textwrap.fill(heading, LINE)}{gap}{data}".strip())
    figure.alt = f"{heading} {data}".strip().replace(r"\$", "$") + f". {alt}"
    return figure


def picture_grid(
    figure: Picture, rows: int, columns: int, *, height_ratios: Sequence[float] | None = None
) -> np.ndarray:
    """`rows` x `columns` axes for pictures, without ticks, as a flat array."""
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=height_ratios).ravel()
    for ax in axes:
        ax.set_axis_off()
    return axes


def show_photo(ax: Axes, image: Any, caption: str = "", **text: Any) -> None:
    """A uint8 image (3, H, W), or None for an empty place, below its caption."""
    if image is not None:
        ax.imshow(np.asarray(image).transpose(1, 2, 0))
    ax.set_title(caption, **{"fontsize": 9, **text})


def say_why_empty(ax: Axes, why: str) -> None:
    """A sentence in place of a drawing that has nothing to show."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, textwrap.fill(why, 70), ha="center", va="center", transform=ax.transAxes)


def whiskers(estimates: Sequence[Estimate], *, scale: float = 100) -> np.ndarray:
    """The 95 % intervals as matplotlib takes them: distances below and above, (2, N)."""
    sides = [[e.value - e.low, e.high - e.value] for e in estimates]
    return scale * np.array(sides, dtype=float).reshape(-1, 2).T.clip(0)


def plain_log_axis(
    axis: Axis, low: float, high: float, *, steps: Sequence[int] = (1, 2, 5)
) -> None:
    """Ticks of a logarithmic axis as plain numbers (1, 2, 5, 10, ...) between `low` and `high`."""
    marks = [step * 10.0**power for power in range(-9, 10) for step in steps]
    ticks = [mark for mark in marks if low / 2.1 <= mark <= high * 2.1]
    axis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())
