"""Figures of training: its course, what moved, what transfer is worth, small experiments."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowers_utils.evaluation import wilson
from flowers_utils.plotting import style


@style.figure_function
def curves(history: Sequence[Mapping[str, Any]], *, title: str) -> Figure:
    """Loss, accuracy and learning rates, epoch by epoch: rows of Phase 1, then those of Phase 2."""
    phases = [[i for i, row in enumerate(history) if row["phase"] == phase] for phase in (1, 2)]
    accuracy = np.array([100 * row["val_accuracy"] for row in history])
    stars = [rows[accuracy[rows].argmax()] for rows in phases]
    best = "best on val: " + ", then ".join(f"{accuracy[at]:.1f} %" for at in stars)
    first, line = len(phases[0]), {"color": style.GREY, "linestyle": "--", "linewidth": 1}
    fall = accuracy[:first].max() - accuracy[first : first + 5].min()
    if fall > 0:
        best += f"\nPhase 2 first falls by up to {fall:.1f} points"
    figure = style.new_figure("Training in two phases", title, height=6.2)
    axes = figure.subplot_mosaic([["loss", "accuracy"], ["rate", "rate"]], height_ratios=(3, 2))
    epochs = np.arange(1, len(history) + 1)
    for name, scale, unit in (("loss", 1, "nats"), ("accuracy", 100, "%")):
        for part, colour, marker in (("train", style.BLUE, "o"), ("val", style.ORANGE, "s")):
            values = [scale * row[f"{part}_{name}"] for row in history]
            axes[name].plot(epochs, values, color=colour, marker=marker, markersize=4, label=part)
        axes[name].set_ylabel(f"{name} ({unit})")
    star = {"color": style.VERMILION, "markersize": 13, "markeredgecolor": "black", "zorder": 5}
    axes["accuracy"].plot(epochs[stars], accuracy[stars], "*", **star, label="best on val")
    axes["accuracy"].set_title(best, fontsize=10)  # above, where it covers no curve
    axes["accuracy"].margins(y=0.15)
    _draw_rates(axes["rate"], history, epochs)
    for ax in axes.values():
        ax.axvline(first + 0.5, **line, label="Phase 2 starts")
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid()
    shown = axes["accuracy"].get_legend_handles_labels()
    figure.legend(*shown, loc="outside lower center", ncols=4)
    return figure


def _draw_rates(ax: Axes, history: Sequence[Mapping[str, Any]], epochs: np.ndarray) -> None:
    """Learning rates of the head and of the backbone, as steps on a log scale."""
    rates = [list(row["learning_rates"].values()) or [np.nan] for row in history]  # nan: fitted
    head = [values[-1] for values in rates]
    backbone = [values[0] if len(values) > 1 else np.nan for values in rates]
    look = {"where": "mid", "markersize": 4}
    ax.step(epochs, head, color=style.GREEN, marker="o", **look, label="head")
    ax.step(epochs, backbone, "-.", color=style.VERMILION, marker="^", **look, label="backbone")
    ax.set(ylabel="learning rate", yscale="log", xlim=(0.5, len(epochs) + 0.5))
    style.plain_log_axis(ax.yaxis)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))


@style.figure_function
def bars(rows: Sequence[Mapping[str, Any]], heading: str, *, count: int, title: str) -> Figure:
    """Mean val accuracy under each name, with its 95 % interval and the seeds as dots.

    `rows` have name, seed and val (0..1); `count` is how many photographs val has.
    """
    names = list(dict.fromkeys(row["name"] for row in rows))
    seeds = {name: [row["val"] for row in rows if row["name"] == name] for name in names}
    means = {name: wilson(mean(values) * count, count) for name, values in seeds.items()}
    facts = {name: f"{each.percent()}, seeds: {len(seeds[name])}" for name, each in means.items()}
    figure = style.new_figure(heading, title, height=1.2 + 0.45 * len(names), facts=facts)
    ax = figure.subplots()
    values, intervals = style.percents(means.values())
    ax.barh(range(len(names)), values, xerr=intervals, color=style.BLUE, alpha=0.6, capsize=4)
    for y, (name, estimate) in enumerate(means.items()):
        dots = [100 * value for value in seeds[name]]
        if len(dots) > 1:
            ax.plot(dots, [y + 0.22] * len(dots), "o", color="black", markersize=5)
        ax.text(max(100 * estimate.high, *dots) + 1, y, f"{estimate.value:.1%}", va="center")
    ax.set_yticks(range(len(names)), [style.label(name, limit=34) for name in names])
    ax.set_xticks(range(0, 101, 20))
    several = "; dots: one seed each" if len(rows) > len(names) else ""
    ax.set(xlabel=f"accuracy on val (%); line: 95 % interval{several}", xlim=(0, 111))
    ax.invert_yaxis()
    return figure


@style.figure_function
def experiment(results: Mapping[str, Sequence[Mapping[str, float]]], *, title: str) -> Figure:
    """Training loss and val accuracy, epoch by epoch, of the same head under several settings."""
    facts = {name: f"{rows[-1]['val_accuracy']:.1%} of val" for name, rows in results.items()}
    figure = style.new_figure("The same head, one setting changed", title, height=3.9, facts=facts)
    loss, accuracy = figure.subplots(1, 2)
    for (name, rows), (colour, marker, line) in zip(results.items(), style.LOOKS * 9, strict=False):
        epochs = [row["epoch"] for row in rows]
        look = {"color": colour, "marker": marker, "linestyle": line, "markersize": 4}
        loss.plot(epochs, [row["train_loss"] for row in rows], **look, label=style.label(name))
        accuracy.plot(epochs, [100 * row["val_accuracy"] for row in rows], **look)
    known = [row["train_loss"] for rows in results.values() for row in rows]
    if max(known) > 20 * min(known) > 0:
        loss.set_yscale("log")
        style.plain_log_axis(loss.yaxis)
    loss.set(xlabel="epoch", ylabel="training loss (nats)")
    accuracy.set(xlabel="epoch", ylabel="accuracy on val (%)", ylim=(0, 100))
    for ax in (loss, accuracy):
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid()
    figure.legend(loc="outside lower center", ncols=min(3, len(results)))
    return figure
