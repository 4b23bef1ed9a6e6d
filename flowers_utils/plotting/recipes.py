"""Figures of part two's last section: which learning rate, which change, which recipe?"""

from collections.abc import Sequence
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from flowers_utils.insight.study import gains
from flowers_utils.plotting.colours import BLUE, GREEN, GREY, ORANGE
from flowers_utils.plotting.style import figure_function, new_figure

LOOKS = ("osD^v", (GREY, GREEN, BLUE, ORANGE, "black"))


@figure_function
def rate_finder(found: Sequence[tuple[float, float]], *, chosen: float, title: str) -> Figure:
    """The loss of each batch while the learning rate grows: (rate, loss) for each step.

    `chosen` is the recipe's rate, drawn as a dashed line. The thick line is a mean of nine steps.
    """
    rates, losses = (np.array(column) for column in zip(*found, strict=True))
    smooth = np.convolve(losses, np.ones(9) / 9, mode="valid")
    facts = {"lowest mean loss at a rate of": f"{rates[4:-4][smooth.argmin()]:.1g}"}
    figure = new_figure("Which learning rate suits a new head?", title, height=3.4, facts=facts)
    ax = figure.subplots()
    ax.plot(rates, losses, color=GREY, linewidth=1, label="each batch")
    ax.plot(rates[4:-4], smooth, color=BLUE, linewidth=2.5, label="mean of nine batches")
    ax.axvline(chosen, color="black", linestyle="--", label=f"the lesson's rate, {chosen:g}")
    ax.set(xscale="log", xlabel="learning rate (logarithmic)", ylabel="loss (nats)")
    ax.set_ylim(0, 1.5 * losses[:9].mean())
    ax.grid()
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@figure_function
def ablation(rows: Sequence[dict[str, Any]], *, title: str) -> Figure:
    """What each change of a recipe brings on val, against the first row's recipe, seed by seed.

    `rows` are those of the study's trials: name, seed, val (a fraction 0..1).
    """
    gained = gains(rows)
    order, means = list(gained), [mean(points) for points in gained.values()]
    facts = {name: f"{value:+.1f}" for name, value in zip(order, means, strict=True)}
    base = mean(row["val"] for row in rows if row["name"] == rows[0]["name"])
    heading = f"One change at a time, against {base:.1%} of the improved recipe"
    figure = new_figure(heading, title, height=0.27 * len(order) + 1.3, facts=facts)
    ax = figure.subplots()
    ax.barh(order, means, color=[GREEN if each > 0 else ORANGE for each in means], alpha=0.7)
    for y, name in enumerate(order):
        ax.plot(gained[name], [y] * len(gained[name]), "o", color="black", markersize=4)
        ax.annotate(f"{means[y]:+.1f}", (1.01, y), xycoords=("axes fraction", "data"), va="center")
    ax.axvline(0, color="black", linewidth=1)
    ax.set(xlabel="points of val gained; a dot is one seed")
    ax.grid(axis="x")
    ax.invert_yaxis()
    return figure


@figure_function
def courses(rows: Sequence[dict[str, Any]], *, title: str) -> Figure:
    """Val from epoch to epoch of the study's whole recipes, against minutes of training.

    The first run of each recipe that has a course.
    """
    runs = {row["name"]: row for row in reversed(rows) if row.get("course")}
    names = dict.fromkeys(row["name"] for row in rows)  # each keeps its colour in all figures
    facts = {name: f"ends at {row['course'][-1][1]:.1%}" for name, row in runs.items()}
    figure = new_figure("Val after each epoch of the recipes", title, height=3.6, facts=facts)
    ax = figure.subplots()
    for name, marker, colour in zip(names, *LOOKS, strict=False):
        if name not in runs:
            continue
        seconds, val = np.array(runs[name]["course"]).T
        style = {"color": colour, "marker": marker, "markersize": 4, "label": name}
        ax.plot(seconds / 60, 100 * val, **style)
    ax.set(xlabel="minutes of training", ylabel="accuracy on val (%)", xlim=(0, None))
    ax.grid()
    figure.legend(loc="outside lower center", ncols=len(names))
    return figure


@figure_function
def recipes(rows: Sequence[dict[str, Any]], *, title: str) -> Figure:
    """Accuracy against minutes of training: a point a run.

    `rows` are those of the study's whole recipes: name, seconds, val, test (fractions 0..1).
    """
    names = list(dict.fromkeys(row["name"] for row in rows))
    figure = new_figure("Accuracy against minutes of training", title, height=3.6)
    for ax, key in zip(figure.subplots(1, 2), ("val", "test"), strict=True):
        for name, marker, colour in zip(names, *LOOKS, strict=False):
            runs = [row for row in rows if row["name"] == name]
            minutes = [row["seconds"] / 60 for row in runs]
            right = [100 * row[key] for row in runs]
            ax.plot(minutes, right, marker, color=colour, markersize=8, label=name)
        ax.set(xlabel="minutes of training", ylabel=f"accuracy on {key} (%)", xlim=(0, None))
        ax.margins(y=0.2)
        ax.grid()
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(names))
    return figure
