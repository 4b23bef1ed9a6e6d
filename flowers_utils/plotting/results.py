"""Figures of results: own ones beside others, accuracy against cost, and what carried over."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowers_utils.evaluation import Z_95, Estimate
from flowers_utils.plotting import style

LEAST_POINTS = 8  # on the axis of an accuracy: less would make chance look like a difference
Scores = Mapping[str, Estimate]  # "phase1" or "phase2" -> top-1
PHASE_TITLES = {"phase1": "Phase 1: feature extraction", "phase2": "Phase 2: fine-tuning"}


@style.figure_function
def closing(
    expected: Mapping[str, dict], *, val: Scores, test: Scores, title: str, why_not: str | None
) -> Figure:
    """Own top-1 of each phase with 95 % intervals, beside what was promised, published, measured.

    `test` has the phases that were scored on it. With `why_not` (from `why_not_comparable`) the
    figure shows the own results alone.
    """
    heading = "Your results" if why_not else "Your results beside those of others"
    own = {"yours, val": (val, style.BLUE, "s", 0.08)}
    own["yours, test"] = (test, style.VERMILION, "o", 0.33)
    facts = {
        f"{PHASE_TITLES[phase]}, {name}": estimate.percent()
        for name, (scores, *_) in own.items()
        for phase, estimate in scores.items()
    }
    figure = style.new_figure(heading, title, height=3.6 if why_not else 4.4, facts=facts)
    ax = figure.subplots()
    if not why_not:
        _draw_others(ax, list(expected.values()))
    for name, (scores, colour, marker, offset) in own.items():
        heights = [list(expected).index(phase) + offset for phase in scores]
        values, intervals = style.percents(scores.values())
        look = {"color": colour, "fmt": marker, "markersize": 8, "capsize": 4}
        ax.errorbar(values, heights, xerr=intervals, label=f"{name} (95 % interval)", **look)
        for x, y in zip(values, heights, strict=True):
            ax.annotate(f"{x:.1f}%", (x, y), (0, -17), textcoords="offset points", ha="center")
    ax.set_yticks(range(len(expected)), [PHASE_TITLES[p].replace(": ", ":\n") for p in expected])
    ax.set(ylim=(len(expected) - 0.35, -0.5), xlabel="accuracy (%)")
    ax.margins(x=0.1)
    ax.grid(axis="x")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _draw_others(ax: Axes, expected: Sequence[Mapping]) -> None:
    """What was promised, published and measured, a row of markers each."""
    kinds = (
        ("promised", [[known["promised"]] for known in expected], "D", "black"),
        ("published (test)", [known["published"] for known in expected], "o", "white"),
        ("measured on photographs (val)", [k["measured"] for k in expected], "^", style.GREEN),
    )
    for row, (name, values, marker, fill) in enumerate(kinds):
        places = [(100 * x, y - 0.42 + 0.14 * row) for y, own in enumerate(values) for x in own]
        look = {"linestyle": "none", "color": "black", "markerfacecolor": fill, "markersize": 8}
        ax.plot(*zip(*places, strict=True), marker=marker, label=name, **look)


@style.figure_function
def tradeoff(
    rows: Sequence[Mapping[str, Any]], heading: str, *, cost: str, accuracy: str, title: str
) -> Figure:
    """Accuracy against cost: a marker for each row, and a line across at the mean of its name.

    `cost` and `accuracy` are keys of the rows, such as "minutes" and "test" (0..1, None: left out).
    """
    points: dict[str, list] = {}
    for row in rows:
        if row[accuracy] is not None:
            points.setdefault(row["name"], []).append((row[cost], 100 * row[accuracy]))
    means = {name: np.mean(own, axis=0) for name, own in points.items()}
    facts = {name: f"{y:.1f} % at {x:,.4g} {cost}" for name, (x, y) in means.items()}
    figure = style.new_figure(heading, title, height=3.8, facts=facts)
    ax = figure.subplots()
    for (name, own), (colour, marker, _) in zip(points.items(), style.LOOKS * 9, strict=False):
        ax.plot(*zip(*own, strict=True), marker, color=colour, markersize=8, alpha=0.7)
        if len(own) > 1:
            ax.plot(*means[name], marker="_", color=colour, markersize=34, markeredgewidth=2.5)
        text, place = f"{style.label(name, limit=24)}: {means[name][1]:.1f} %", (20, 0)
        ax.annotate(text, means[name], place, textcoords="offset points", va="center")
    ax.set(xlabel=cost, ylabel=f"accuracy on {accuracy} (%)")
    ax.margins(x=0.3, y=0.2)
    ax.set_xlim(0, None)
    low, high = ax.get_ylim()
    middle, half = (low + high) / 2, max((high - low) / 2, LEAST_POINTS / 2)
    ax.set_ylim(middle - half, middle + half)
    ax.grid()
    return figure


@style.figure_function
def carried_over(rows: Sequence[tuple[str, float, float, float]], *, title: str) -> Figure:
    """What each change of a recipe gains: on small copies (left) and on photographs (right).

    `rows` are (name, points gained on copies, on photographs, standard error of the latter).
    """
    names, copies, photographs, errors = zip(*rows, strict=True)
    intervals = Z_95 * np.array(errors)
    facts = {
        name: f"{left:+.1f}, then {right:+.1f} ± {half:.1f}"
        for name, left, right, half in zip(names, copies, photographs, intervals, strict=True)
    }
    heading, height = "What each change gains, in points of accuracy", 1.3 + 0.3 * len(rows)
    figure = style.new_figure(heading, title, height=height, facts=facts)
    left, right = figure.subplots(1, 2, sharey=True, sharex=True)
    for ax, gains, error in ((left, copies, None), (right, photographs, intervals)):
        colours = [style.GREEN if gain > 0 else style.ORANGE for gain in gains]
        ax.barh(range(len(rows)), gains, xerr=error, color=colours, alpha=0.8, capsize=3)
        for y, gain in enumerate(gains):
            ax.annotate(f"{gain:+.1f}", (1.01, y), xycoords=("axes fraction", "data"), va="center")
        ax.axvline(0, color="black", linewidth=1)
        ax.set(xlabel="points gained")
        ax.grid(axis="x")
    left.set(title="on small copies")
    right.set(title="on photographs, with 95 % intervals")
    left.set_yticks(range(len(rows)), [style.label(name, limit=30) for name in names])
    left.invert_yaxis()
    return figure
