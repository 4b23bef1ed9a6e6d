"""Figures of training: its course, what moved, what transfer is worth, where the time goes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowers_utils.evaluation import Estimate
from flowers_utils.plotting.colours import BLUE, GREEN, GREY, ORANGE, VERMILION
from flowers_utils.plotting.style import (
    figure_function,
    new_figure,
    percents,
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
    phases = [[i for i, row in enumerate(history) if row["phase"] == phase] for phase in (1, 2)]
    accuracy = np.array([100 * row["val_accuracy"] for row in history])
    stars = [rows[accuracy[rows].argmax()] for rows in phases if rows]
    best = ", then ".join(f"{accuracy[at]:.1f} %" for at in stars)
    figure = new_figure("Training in two phases", title, height=6.2)
    axes = figure.subplot_mosaic([["loss", "accuracy"], ["rate", "rate"]], height_ratios=(3, 2))
    epochs = np.arange(1, len(history) + 1)
    for name, scale, unit in (("loss", 1, "nats"), ("accuracy", 100, "%")):
        for part, colour, marker in (("train", BLUE, "o"), ("val", ORANGE, "s")):
            values = [scale * row[f"{part}_{name}"] for row in history]
            axes[name].plot(epochs, values, color=colour, marker=marker, markersize=4, label=part)
        axes[name].set_ylabel(f"{name} ({unit})")
    star = {"color": VERMILION, "markersize": 13, "markeredgecolor": "black", "zorder": 5}
    axes["accuracy"].plot(epochs[stars], accuracy[stars], "*", **star, label="best on val")
    axes["accuracy"].set_title(f"best on val: {best}", fontsize=10)
    axes["accuracy"].margins(y=0.15)
    _draw_rates(axes["rate"], history, epochs)
    for ax in axes.values():
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid()
    if all(phases):
        _mark_phase_2(axes.values(), len(phases[0]), accuracy)
    figure.legend(
        *axes["accuracy"].get_legend_handles_labels(), loc="outside lower center", ncols=4
    )
    return figure


def _mark_phase_2(axes: Iterable[Axes], first: int, accuracy: np.ndarray) -> None:
    """A line where Phase 2 starts, and how far val falls there, if it does."""
    loss, right, rate = axes
    for ax in (loss, right, rate):
        ax.axvline(first + 0.5, color=GREY, linestyle="--", linewidth=1, label="Phase 2 starts")
    fall = accuracy[:first].max() - accuracy[first : first + 5].min()
    if fall > 0:
        text = f"{right.get_title()}\nPhase 2 first falls by up to {fall:.1f} points"
        right.set_title(text, fontsize=10)  # above, where it covers no curve


def _draw_rates(ax: Axes, history: Sequence[Mapping[str, Any]], epochs: np.ndarray) -> None:
    """Learning rates of the head and of the backbone, as steps on a log scale."""
    rates = [list(row["learning_rates"].values()) or [np.nan] for row in history]  # nan: fitted
    backbone = [values[0] if len(values) > 1 else np.nan for values in rates]
    style = {"where": "mid", "markersize": 4}
    ax.step(epochs, [each[-1] for each in rates], color=GREEN, marker="o", **style, label="head")
    ax.step(epochs, backbone, "-.", color=VERMILION, marker="^", **style, label="backbone")
    ax.set(ylabel="learning rate", yscale="log", xlim=(0.5, len(epochs) + 0.5))
    known = [rate for each in rates for rate in each if rate > 0]
    if known:
        plain_log_axis(ax.yaxis, min(known), max(known))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))


@figure_function
def movement(moved: Mapping[str, float], *, title: str) -> Figure:
    """How far each stage's weights moved in Phase 2, relative to their size."""
    facts = {name: f"{value:.1%}" for name, value in moved.items()}
    figure = new_figure("How far each stage moved in Phase 2", title, height=3.2, facts=facts)
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
    facts = {name: estimate.percent() for name, estimate in accuracies.items()}
    figure = new_figure("What transfer is worth", title, height=2.4, facts=facts)
    ax, estimates = figure.subplots(), list(accuracies.values())
    bars = {"color": (BLUE, GREEN, ORANGE), "alpha": 0.8, "capsize": 4}
    ax.barh(list(accuracies), percents(estimates), xerr=whiskers(estimates), **bars)
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
    facts = {name: f"{rows[-1]['val_accuracy']:.1%} of val" for name, rows in results.items()}
    figure = new_figure("The same head, one setting changed", title, height=3.9, facts=facts)
    loss, accuracy = figure.subplots(1, 2)
    for (name, rows), (colour, marker, line) in zip(results.items(), STYLES * 9, strict=False):
        epochs = [row["epoch"] for row in rows]
        style = {"color": colour, "marker": marker, "linestyle": line, "markersize": 4}
        loss.plot(epochs, [row["train_loss"] for row in rows], **style, label=label(name))
        accuracy.plot(epochs, [100 * row["val_accuracy"] for row in rows], **style)
    known = [row["train_loss"] for rows in results.values() for row in rows]
    if max(known) > 20 * min(known) > 0:
        loss.set_yscale("log")
        plain_log_axis(loss.yaxis, min(known), max(known))
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
    facts = {f"{n:,} photographs": f"{e.value:.0%}" for n, e in points}
    heading = "Would more photographs help? Linear head, frozen backbone"
    figure = new_figure(heading, title, height=3.6, facts=facts)
    ax, values = figure.subplots(), percents(estimates)
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
    facts = {name: f"{sum(parts.values()):.1f} s" for name, parts in seconds.items()}
    figure = new_figure("Where does the time go?", title, height=2.8, facts=facts)
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
