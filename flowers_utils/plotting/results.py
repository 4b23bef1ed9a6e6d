"""How sure the network is, own results beside promised ones, and backbones side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowers_utils.evaluation import Estimate, Metrics
from flowers_utils.insight.advice import PHASE_TITLES
from flowers_utils.insight.comparison import ComparisonRow, why_no_comparison
from flowers_utils.plotting.style import (
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    figure_function,
    new_figure,
    say_why_empty,
    whiskers,
)

PHASES = (
    ("Phase 1", "phase1_top1", ORANGE, "o", -0.14),
    ("Phase 2", "phase2_top1", BLUE, "s", 0.14),
)


@figure_function
def reliability(before: Metrics, after: Metrics, *, temperature: float, title: str) -> Figure:
    """Accuracy against confidence before and after temperature scaling, with bin counts below."""
    figure = new_figure(
        "Is the network right in 80 % of the cases where it is 80 % sure?",
        title,
        height=5.4,
        alt=f"Expected calibration error {before.ece:.1%} before, {after.ece:.1%} after.",
    )
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    words = ("before", f"after, temperature {temperature:.2f}")
    for (top, bottom), word, scored in zip(axes.T, words, (before, after), strict=True):
        width = 100 / len(scored.bin_count)
        centres = (np.arange(len(scored.bin_count)) + 0.5) * width
        heights = 100 * np.nan_to_num(scored.bin_accuracy)
        top.bar(centres, heights, width * 0.9, color=BLUE, alpha=0.8, label="measured")
        line = {"color": "black", "linewidth": 1.5, "label": "perfectly calibrated"}
        top.plot([0, 100], [0, 100], "--", **line)
        top.set(xlim=(0, 100), ylim=(0, 100), title=f"{word}: calibration error {scored.ece:.1%}")
        bottom.bar(centres, scored.bin_count, width * 0.9, color=GREY)
        bottom.set(xlabel="confidence (%)")
    axes[0, 0].set(ylabel="accuracy (%)")
    axes[1, 0].set(ylabel="photographs")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


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
    figure = new_figure(heading, title, height=3.9, alt=f"{'; '.join(words)}.")
    ax = figure.subplots()
    for y, (phase, known) in enumerate(expected.items()):
        if not why_not:
            _draw_known(ax, y, known, first=y == 0)
        for offset, (scores, colour, marker) in zip((0.06, 0.3), own.values(), strict=True):
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
    ax.plot([100 * known["promised"]], [y - 0.14], marker="D", label=names[0], **style)
    published = [100 * value for value in known["published"]]
    style |= {"markerfacecolor": "white"}
    ax.plot(published, [y - 0.32] * len(published), marker="o", label=names[1], **style)


def _draw_own(ax: Axes, y: float, score: Estimate, *, colour: str, marker: str) -> None:
    style = {"color": colour, "fmt": marker, "markersize": 8, "capsize": 4}
    ax.errorbar([100 * score.value], [y], xerr=whiskers([score]), **style)
    place = {"xytext": (0, -7), "textcoords": "offset points", "ha": "center", "va": "top"}
    ax.annotate(f"{score.value:.1%}", (100 * score.value, y), **place, fontsize=9)


@figure_function
def comparison(rows: Sequence[ComparisonRow], *, title: str) -> Figure:
    """Val accuracy (95 % interval) of each backbone that was trained, the fastest on top.

    With fewer than two of them there is a sentence instead.
    """
    why_not = why_no_comparison(rows)
    trained = sorted((r for r in rows if r.best is not None), key=lambda row: row.latency_ms)
    words = [f"{r.name} {r.best.percent()}, {r.latency_ms:.1f} ms an image" for r in trained]
    figure = new_figure(
        "Which backbone? The fastest on top",
        title,
        height=1.5 if why_not else 1.5 + 0.6 * len(trained),
        alt=why_not or f"{'; '.join(words)}.",
    )
    ax = figure.subplots()
    if why_not:
        say_why_empty(ax, why_not)
        return figure
    for name, key, colour, marker, offset in PHASES:
        scored = [(y, getattr(row, key)) for y, row in enumerate(trained) if getattr(row, key)]
        if scored:
            values = [100 * estimate.value for _, estimate in scored]
            style = {"color": colour, "fmt": marker, "markersize": 8, "capsize": 4}
            bars = whiskers([estimate for _, estimate in scored])
            places = [y + offset for y, _ in scored]
            ax.errorbar(values, places, xerr=bars, **style, label=f"after {name}")
    sizes = [f"{r.name}\n{r.latency_ms:.0f} ms, {r.parameters / 1e6:.1f} M" for r in trained]
    ax.set_yticks(range(len(trained)), sizes, fontsize=9)
    ax.set_xlabel(
        "accuracy on val (%) with its 95 % interval; at the names: time for one image, parameters"
    )
    ax.invert_yaxis()
    ax.grid()
    figure.legend(loc="outside lower center", ncols=2)
    return figure
