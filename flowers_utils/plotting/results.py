"""How sure the network is, own results beside promised ones, and backbones side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowers_utils.evaluation import Estimate, Metrics
from flowers_utils.insight.advice import PHASE_TITLES
from flowers_utils.insight.comparison import ComparisonRow, why_no_comparison
from flowers_utils.plotting.colours import BLUE, GREY, VERMILION
from flowers_utils.plotting.gallery import empty_figure
from flowers_utils.plotting.style import figure_function, new_figure, percents, whiskers

FEW = 10  # photographs in a bin of confidence, whose accuracy is then hardly known


@figure_function
def reliability(before: Metrics, after: Metrics, *, temperature: float, title: str) -> Figure:
    """Accuracy against confidence before and after temperature scaling, with bin counts below.

    Bars of fewer than FEW photographs are hollow.
    """
    heading = "Is the network right in 80 % of the cases where it is 80 % sure?"
    figure = new_figure(heading, title, height=5.4)
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    words = ("before", f"after, temperature {temperature:.2f}")
    for (top, bottom), word, scored in zip(axes.T, words, (before, after), strict=True):
        width = 100 / len(scored.bin_count)
        centres = (np.arange(len(scored.bin_count)) + 0.5) * width
        heights = 100 * np.nan_to_num(scored.bin_accuracy)
        many = scored.bin_count >= FEW
        for chosen, fill, label in (
            (many, BLUE, "measured"),
            (~many, "none", f"on fewer than {FEW}"),
        ):
            look = {"color": fill, "edgecolor": BLUE, "label": label}
            top.bar(centres[chosen], heights[chosen], width * 0.9, **look)
        line = {"color": "black", "linewidth": 1.5, "label": "perfectly calibrated"}
        top.plot([0, 100], [0, 100], "--", **line)
        top.set(xlim=(0, 100), ylim=(0, 100), title=f"{word}: calibration error {scored.ece:.1%}")
        bottom.bar(centres, scored.bin_count, width * 0.9, color=GREY)
        bottom.set(xlabel="confidence (%)")
    axes[0, 0].set(ylabel="accuracy (%)")
    axes[1, 0].set(ylabel="photographs")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
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
    own = {"yours, val": (val, BLUE, "s", 0.06), "yours, test": (test, VERMILION, "o", 0.3)}
    heading = "Your results" if why_not else "Your results beside promised and published ones"
    facts = {
        f"{PHASE_TITLES[phase]}, {name}": scores[phase].percent()
        for name, (scores, *_) in own.items()
        for phase in expected
        if scores.get(phase)
    }
    figure = new_figure(heading, title, height=3.4 if why_not else 3.9, facts=facts)
    ax = figure.subplots()
    for name, (scores, *style, offset) in own.items():
        scored = {y + offset: scores.get(phase) for y, phase in enumerate(expected)}
        _draw_own(ax, scored, style, f"{name} (95 % interval)")
    if not why_not:
        _draw_known(ax, list(expected.values()))
    titles = [PHASE_TITLES[phase].replace(": ", ":\n") for phase in expected]
    ax.set_yticks(range(len(expected)), titles)
    ax.set(ylim=(len(expected) - 0.5, -0.5), xlabel="accuracy (%)")
    ax.margins(x=0.1)
    ax.grid(axis="x")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _draw_known(ax: Axes, expected: Sequence[Mapping]) -> None:
    style = {"color": "black", "markersize": 9, "linestyle": "none"}
    promised = [(100 * known["promised"], y - 0.14) for y, known in enumerate(expected)]
    ax.plot(*zip(*promised, strict=True), marker="D", label="promised", **style)
    published = [
        (100 * x, y - 0.32) for y, known in enumerate(expected) for x in known["published"]
    ]
    style |= {"marker": "o", "markerfacecolor": "white", "label": "published (test)"}
    ax.plot(*zip(*published, strict=True), **style)


def _draw_own(
    ax: Axes, scored: Mapping[float, Estimate | None], style: Sequence[str], name: str
) -> None:
    """Values with their 95 % intervals, each at its height; `style` is a colour and a marker."""
    places = {y: score for y, score in scored.items() if score}
    if not places:
        return
    values, scores = percents(places.values()), list(places.values())
    look = {"color": style[0], "fmt": style[1], "markersize": 8, "capsize": 4}
    ax.errorbar(values, list(places), xerr=whiskers(scores), **look, label=name)
    below = {"xytext": (0, -7), "textcoords": "offset points", "ha": "center", "va": "top"}
    for x, y in zip(values, places, strict=True):
        ax.annotate(f"{x:.1f}%", (x, y), **below, fontsize=9)


@figure_function
def comparison(rows: Sequence[ComparisonRow], *, title: str) -> Figure:
    """Val accuracy (95 % interval) of each backbone that has weights, the fastest on top.

    With fewer than two of them there is a sentence instead.
    """
    heading, why_not = "Which backbone? The fastest on top", why_no_comparison(rows)
    if why_not:
        return empty_figure(heading, title, why_not)
    trained = sorted((row for row in rows if row.val), key=lambda row: row.latency_ms)
    facts = {row.name: f"{row.val.percent()}, {row.latency_ms:.0f} ms" for row in trained}
    figure = new_figure(heading, title, height=1.5 + 0.6 * len(trained), facts=facts)
    ax = figure.subplots()
    scores = {y: row.val for y, row in enumerate(trained)}
    _draw_own(ax, scores, (BLUE, "s"), "a new head, the backbone frozen")
    sizes = [f"{r.name}\n{r.latency_ms:.0f} ms, {r.parameters / 1e6:.1f} M" for r in trained]
    ax.set_yticks(range(len(trained)), sizes, fontsize=9)
    ax.set_xlabel(
        "accuracy on val (%) with its 95 % interval; at the names: time for one image, parameters"
    )
    ax.margins(y=0.15)
    ax.invert_yaxis()
    ax.grid()
    figure.legend(loc="outside lower center")
    return figure
