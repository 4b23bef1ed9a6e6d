"""What all figures share: size, colours, fonts, and how a notebook shows them.

Figures are made without pyplot: nothing stays open, no backend is chosen (so MPLBACKEND cannot
make them vanish), and the settings that a student made are as they were afterwards.
"""

import functools
import io
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from flowers_utils.evaluation import Estimate
from flowers_utils.plotting.text import fonts_here, label

WIDTH, DPI = 8.8, 72  # inches and pixels an inch: a window of 800 pixels shows it unshrunk
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

    facts = ""

    @property
    def alt(self) -> str:
        """Its heading, the facts that it shows and its captions: for readers who cannot see it."""
        captions = [ax.get_title() for ax in self.axes if ax.get_title()]
        words = [self.get_suptitle(), self.facts, *captions]
        return "; ".join(" ".join(w.split()) for w in words if w).replace(r"\$", "$") + "."

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
            mpl.rcParams.update({**STYLE, "font.family": fonts_here()})
            return draw(*args, **kwargs)

    return styled


def new_figure(
    heading: str, title: str, *, height: float, facts: Mapping[str, Any] | None = None
) -> Picture:
    """An empty figure headed by a sentence and the data's title; `facts` are what it shows."""
    figure = Picture(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    data = f"({label(title)})" if title else ""
    # a long heading keeps its line, and the data's title stands below
    gap = " " if len(heading) + len(data) < LINE else "\n"
    figure.suptitle(f"{textwrap.fill(heading, LINE)}{gap}{data}".strip())
    figure.facts = ", ".join(f"{name}: {value}" for name, value in (facts or {}).items())
    return figure


def whiskers(estimates: Sequence[Estimate]) -> np.ndarray:
    """The 95 % intervals in % as matplotlib takes them: distances below and above, (2, N)."""
    sides = [[e.value - e.low, e.high - e.value] for e in estimates]
    return 100 * np.array(sides).T.clip(0)


def percents(values: Iterable[Estimate]) -> list[float]:
    """The values of estimates, in %."""
    return [100 * estimate.value for estimate in values]


def plain_log_axis(axis: Axis, low: float, high: float) -> None:
    """Ticks of a logarithmic axis as plain numbers (0.1, 1, 10, ...) between `low` and `high`."""
    ticks = [tick for tick in 10.0 ** np.arange(-9, 10) if low / 2.1 <= tick <= high * 2.1]
    axis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())
