"""Figures of training: its course, what moved, what transfer is worth, where the time goes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowers_utils.evaluation import Estimate
from flowers_utils.plotting.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    figure_function,
    new_figure,
    plain_log_axis,
    whiskers,
)
from flowers_utils.plotting.text import label

STYLES = ((BLUE, "o", "-"), (VERMILION, "s", "--"), (GREEN, "^", ":"), (ORANGE, "D", "-."))


@figure_function
def curves(history: Sequence[Mapping[str, Any]], *, title: str) -> Figure:
    """Loss, accuracy and learning rates of both phases, epoch by epoch.

    `history` holds the rows of Phase 1, then of Phase 2. A dashed line marks where Phase 2
    starts, a star the epoch that was best on val in each phase.
    """
    stars = _best_epochs(history)
    best = ", ".join(f"{history[at]['val_accuracy']:.1%} in epoch {at + 1}" for at in stars)
    figure = new_figure("Training in two phases", title, height=6.2, alt=f"Best on val: {best}.")
    axes = figure.subplot_mosaic([["loss", "accuracy"], ["rate", "rate"]], height_ratios=(3, 2))
    epochs = np.arange(1, len(history) + 1)
    for name, scale, unit in (("loss", 1, "nats"), ("accuracy", 100, "%")):
        for part, colour, marker in (("train", BLUE, "o"), ("val", ORANGE, "s")):
            values = [scale * row[f"{part}_{name}"] for row in history]
            axes[name].plot(epochs, values, color=colour, marker=marker, markersize=4, label=part)
        axes[name].set_ylabel(f"{name} ({unit})")
    _mark_best(axes["accuracy"], history, stars)
    _mark_the_fall(axes["accuracy"], history)
    _draw_rates(axes["rate"], history, epochs)
    boundary = sum(row["phase"] == 1 for row in history) + 0.5
    for ax in axes.values():
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        if 1 < boundary < len(history):
            ax.axvline(boundary, color=GREY, linestyle="--", linewidth=1, label="Phase 2 starts")
        ax.grid()
    handles, names = axes["accuracy"].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def _best_epochs(history: Sequence[Mapping[str, Any]]) -> list[int]:
    """The position of the epoch with the best val accuracy of each phase."""
    phases = sorted({row["phase"] for row in history})
    own = [[i for i, row in enumerate(history) if row["phase"] == phase] for phase in phases]
    return [max(rows, key=lambda i: history[i]["val_accuracy"]) for rows in own]


def _mark_best(ax: Axes, history: Sequence[Mapping[str, Any]], stars: Sequence[int]) -> None:
    values = [100 * history[at]["val_accuracy"] for at in stars]
    style = {"color": VERMILION, "markersize": 13, "linestyle": "none", "markeredgecolor": "black"}
    ax.plot([at + 1 for at in stars], values, marker="*", zorder=5, label="best on val", **style)
    ax.set_title(f"best on val: {', then '.join(f'{v:.1f} %' for v in values)}", fontsize=10)
    ax.margins(y=0.15)


def _mark_the_fall(ax: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    """Say that val falls at first in Phase 2, if it does: above, where it covers no curve."""
    first = sum(row["phase"] == 1 for row in history)
    if not 0 < first < len(history):
        return
    before = history[_best_epochs(history[:first])[0]]["val_accuracy"]
    after = history[first]["val_accuracy"]
    if after >= before:
        return
    fall = 100 * (before - after)
    ax.set_title(f"{ax.get_title()}\nPhase 2 first falls by {fall:.1f} points", fontsize=10)


def _draw_rates(ax: Axes, history: Sequence[Mapping[str, Any]], epochs: np.ndarray) -> None:
    """Learning rates of the head and of the backbone, as steps on a log scale."""
    rates = [list(row["learning_rates"].values()) for row in history]
    head = [values[-1] for values in rates]
    backbone = [values[0] if len(values) > 1 else np.nan for values in rates]
    ax.step(epochs, head, where="mid", color=GREEN, marker="o", markersize=4, label="head")
    if not np.all(np.isnan(backbone)):
        style = {"color": VERMILION, "marker": "^", "markersize": 4, "linestyle": "-."}
        ax.step(epochs, backbone, where="mid", **style, label="backbone")
    ax.set(ylabel="learning rate", yscale="log")
    known = [rate for rate in (*head, *backbone) if not np.isnan(rate)]
    plain_log_axis(ax.yaxis, min(known), max(known), steps=(1,))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))


@figure_function
def movement(moved: Mapping[str, float], *, title: str) -> Figure:
    """How far each stage's weights moved in Phase 2, relative to their size."""
    words = ", ".join(f"{name} {value:.1%}" for name, value in moved.items())
    figure = new_figure("How far each stage moved in Phase 2", title, height=3.2, alt=f"{words}.")
    ax = figure.subplots()
    bars = ax.bar(list(moved), [100 * value for value in moved.values()], color=BLUE, alpha=0.8)
    ax.bar_label(bars, fmt="%.2g", fontsize=9)
    ax.set(ylabel="change (% of the weights' size)")
    ax.tick_params(axis="x", labelrotation=0 if len(moved) < 8 else 60)
    ax.margins(y=0.15)
    return figure


@figure_function
def three_numbers(accuracies: Mapping[str, Estimate], *, guessing: float, title: str) -> Figure:
    """Val accuracy, with intervals, of several ways to train on the same photographs."""
    words = ", ".join(f"{name} {e.percent()}" for name, e in accuracies.items())
    figure = new_figure("What transfer is worth", title, height=2.4, alt=f"{words}.")
    ax = figure.subplots()
    estimates = list(accuracies.values())
    values = [100 * estimate.value for estimate in estimates]
    colours = [BLUE, GREEN, ORANGE] * len(values)
    bars = {"color": colours[: len(values)], "alpha": 0.8, "xerr": whiskers(estimates)}
    ax.barh(list(accuracies), values, **bars, capsize=4)
    for y, estimate in enumerate(estimates):
        ax.text(100 * estimate.high + 1, y, f"{estimate.value:.1%}", va="center")
    ax.axvline(100 * guessing, color="black", linestyle="--")
    note = f"accuracy on val (%) with its 95 % interval; dashed line: guessing ({guessing:.1%})"
    ax.set(xlabel=note, xlim=(0, 112))
    ax.set_xticks(range(0, 101, 20))
    ax.invert_yaxis()
    return figure


@figure_function
def experiment(results: Mapping[str, Sequence[Mapping[str, float]]], *, title: str) -> Figure:
    """Training loss and val accuracy, epoch by epoch, of the same head under several settings."""
    ends = [f"{name}: {100 * rows[-1]['val_accuracy']:.1f} %" for name, rows in results.items()]
    alt = f"Val accuracy in the last epoch: {'; '.join(ends)}."
    figure = new_figure("The same head, one setting changed", title, height=3.9, alt=alt)
    loss, accuracy = figure.subplots(1, 2)
    for (name, rows), (colour, marker, line) in zip(results.items(), STYLES * 9, strict=False):
        epochs = [row["epoch"] for row in rows]
        style = {"color": colour, "marker": marker, "linestyle": line, "markersize": 4}
        loss.plot(epochs, [row["train_loss"] for row in rows], **style, label=label(name))
        accuracy.plot(epochs, [100 * row["val_accuracy"] for row in rows], **style)
    known = [row["train_loss"] for rows in results.values() for row in rows]
    known = [value for value in known if np.isfinite(value) and value > 1e-3]  # as good as 0
    if known and max(known) > 20 * min(known):
        loss.set_yscale("log")
        steps = (1,) if max(known) > 1e3 * min(known) else (1, 2, 5)
        plain_log_axis(loss.yaxis, min(known), max(known), steps=steps)
        loss.set_ylim(bottom=0.8 * min(known))
    loss.set(xlabel="epoch", ylabel="training loss (nats)")
    accuracy.set(xlabel="epoch", ylabel="accuracy on val (%)", ylim=(0, 100))
    for ax in (loss, accuracy):
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid()
    figure.legend(loc="outside lower center", ncols=min(3, len(results)))
    return figure


@figure_function
def training_size(points: Sequence[tuple[int, Estimate]], *, title: str) -> Figure:
    """Accuracy on val against the number of training photographs, with 95 % intervals."""
    counts, estimates = zip(*points, strict=True)
    words = ", ".join(f"{n:,} photographs {e.value:.0%}" for n, e in points)
    figure = new_figure(
        "Would more photographs help? Linear head, frozen backbone",
        title,
        height=3.6,
        alt=f"{words}.",
    )
    ax = figure.subplots()
    values = [100 * estimate.value for estimate in estimates]
    ax.errorbar(counts, values, whiskers(estimates), fmt="o-", color=BLUE, capsize=4)
    for count, value in zip(counts, values, strict=True):
        place = {"xytext": (8, -14), "textcoords": "offset points"}
        ax.annotate(f"{value:.0f} %", (count, value), **place)
    ax.set(xscale="log", xmargin=0.1)
    ax.set_xticks(counts, [f"{n:,}" for n in counts])
    ax.minorticks_off()
    ax.set(xlabel="training photographs (logarithmic)", ylabel="accuracy on val (%)")
    ax.grid()
    return figure


@figure_function
def time_parts(seconds: Mapping[str, Mapping[str, float]], *, title: str) -> Figure:
    """Where the time of an epoch goes: name of a loop -> seconds of each part."""
    totals = {name: sum(parts.values()) for name, parts in seconds.items()}
    words = ", ".join(f"{name} {total:.1f} s" for name, total in totals.items())
    figure = new_figure("Where does the time go?", title, height=2.8, alt=f"{words} an epoch.")
    ax, left = figure.subplots(), np.zeros(len(seconds))
    looks = zip((GREY, ORANGE, BLUE, GREEN, VERMILION), ("", "//", "..", "xx", "--"), strict=True)
    for part, (colour, hatch) in zip(next(iter(seconds.values())), looks, strict=False):
        values = np.array([parts[part] for parts in seconds.values()])
        style = {"color": colour, "hatch": hatch, "edgecolor": "white", "alpha": 0.85}
        ax.barh([label(name) for name in seconds], values, left=left, **style, label=part)
        left += values
    for y, total in enumerate(left):
        ax.text(total, y, f"  {total:.1f} s", va="center")
    ax.set(xlabel="seconds an epoch")
    ax.margins(x=0.12)
    ax.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=3)
    return figure
