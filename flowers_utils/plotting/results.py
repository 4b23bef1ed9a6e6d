"""Closing figures: own results beside promised and published ones, and backbones side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowers_utils.evaluation import Estimate
from flowers_utils.insight.advice import PHASE_TITLES
from flowers_utils.insight.comparison import ComparisonRow, why_no_comparison
from flowers_utils.plotting.style import (
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    figure_function,
    new_figure,
    plain_log_axis,
    say_why_empty,
    whiskers,
)

AREA_PER_MILLION = 16  # square points of a marker for a million parameters
PHASES = (("Phase 1", "phase1_top1", ORANGE, "o"), ("Phase 2", "phase2_top1", BLUE, "s"))


@figure_function
def closing(
    expected: Mapping[str, dict],
    *,
    val: Mapping[str, Estimate],
    test: Mapping[str, Estimate | None],
    title: str,
    why_not: str | None = None,
) -> Figure:
    """Own top-1 of each phase with 95 % intervals, beside what was promised and published.

    With `why_not` (from `why_not_comparable`) the figure shows the own results alone.
    """
    own = {"yours, val": (val, BLUE, "s"), "yours, test": (test, VERMILION, "o")}
    words = [
        f"{PHASE_TITLES[phase]}, {name} {scores[phase].percent()}"
        for phase in expected
        for name, (scores, _, _) in own.items()
        if scores.get(phase)
    ]
    heading = "Your results" if why_not else "Your results beside promised and published ones"
    figure = new_figure(heading, title, height=3.4, alt=f"{'; '.join(words)}.")
    ax = figure.subplots()
    for y, (phase, known) in enumerate(expected.items()):
        if not why_not:
            _draw_known(ax, y, known, first=y == 0)
        for offset, (scores, colour, marker) in zip((0.12, 0.3), own.values(), strict=True):
            if scores.get(phase):
                _draw_own(ax, y + offset, scores[phase], colour=colour, marker=marker)
    for name, (scores, colour, marker) in own.items():
        if any(scores.get(phase) for phase in expected):
            ax.plot([], [], marker, color=colour, markersize=8, label=f"{name} (95 % interval)")
    ax.set_yticks(range(len(expected)), [PHASE_TITLES[p].replace(": ", ":\n") for p in expected])
    ax.set(ylim=(len(expected) - 0.5, -0.5), xlabel="accuracy (%)")
    if why_not:
        ax.set_xlim(0, 100)
    ax.margins(x=0.1)
    ax.grid(axis="x")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _draw_known(ax: Axes, y: float, known: Mapping, *, first: bool) -> None:
    style = {"color": "black", "markersize": 9, "linestyle": "none"}
    names = ("promised", "published (test)") if first else (None, None)
    ax.plot([100 * known["promised"]], [y - 0.12], marker="D", label=names[0], **style)
    published = [100 * value for value in known["published"]]
    style |= {"markerfacecolor": "white"}
    ax.plot(published, [y - 0.3] * len(published), marker="o", label=names[1], **style)


def _draw_own(ax: Axes, y: float, score: Estimate, *, colour: str, marker: str) -> None:
    style = {"color": colour, "fmt": marker, "markersize": 8, "capsize": 4}
    ax.errorbar([100 * score.value], [y], xerr=whiskers([score]), **style)
    place = {"xytext": (0, -4), "textcoords": "offset points", "ha": "center", "va": "top"}
    ax.annotate(f"{score.value:.1%}", (100 * score.value, y), **place, fontsize=9)


@figure_function
def comparison(rows: Sequence[ComparisonRow], *, title: str) -> Figure:
    """Val accuracy (95 % interval) against the time for one image; larger markers, more parameters.

    Only backbones that were trained are drawn; with fewer than two of them there is a sentence.
    """
    why_not, trained = why_no_comparison(rows), [row for row in rows if row.best is not None]
    words = [f"{r.name} {r.best.percent()}, {r.latency_ms:.1f} ms an image" for r in trained]
    figure = new_figure(
        "Which backbone? Accuracy against time",
        title,
        height=1.5 if why_not else 4.8,
        alt=why_not or f"{'; '.join(words)}.",
    )
    ax = figure.subplots()
    if why_not:
        say_why_empty(ax, why_not)
        return figure
    for row in trained:
        _draw_trained(ax, row)
    times, side = [row.latency_ms for row in trained], rows[0].image_size
    ax.set(xscale="log", xlim=(min(times) / 1.6, max(times) * 2.2), ylabel="accuracy on val (%)")
    ax.set_xlabel(f"time for one image of {side} x {side} (ms, logarithmic)")
    plain_log_axis(ax.xaxis, min(times), max(times))
    ax.grid()
    for name, key, colour, marker in PHASES:
        if any(getattr(row, key) is not None for row in trained):
            style = {"color": colour, "marker": marker, "edgecolor": "black"}
            ax.scatter([], [], 70, label=f"after {name}", **style)
    figure.legend(loc="outside lower center", ncols=2, title="larger marker: more parameters")
    return figure


def _draw_trained(ax: Axes, row: ComparisonRow) -> None:
    """Both phases of a backbone, joined by a dotted line."""
    area = AREA_PER_MILLION * row.parameters / 1e6
    points = [(getattr(row, key), colour, marker) for _, key, colour, marker in PHASES]
    points = [point for point in points if point[0] is not None]
    heights = [100 * estimate.value for estimate, _, _ in points]
    ax.plot([row.latency_ms] * len(points), heights, color=GREY, linewidth=1, linestyle=":")
    for estimate, colour, marker in points:
        at = row.latency_ms, 100 * estimate.value
        ax.errorbar(*at, whiskers([estimate]), color=colour, capsize=4)
        ax.scatter(*at, area, color=colour, marker=marker, edgecolor="black", zorder=3)
    ax.annotate(
        f"{row.name}\n{row.parameters / 1e6:.1f} M",
        (row.latency_ms, heights[-1]),
        (6 + np.sqrt(area) / 2, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
    )
