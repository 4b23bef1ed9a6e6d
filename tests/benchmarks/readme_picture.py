"""The picture of README.md: four practice flowers with the network's guesses, and both curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import flowers_utils as fu
from flowers_utils.data import Split
from flowers_utils.plotting.style import BLUE, GREEN, GREY, ORANGE, VERMILION, figure_function
from flowers_utils.storage.results import load_results

Phases = Sequence[Mapping[str, Any]]  # as in results.json
SIZE, DPI = (12.0, 4.2), 100  # 1,200 pixels wide; README shows it at about 830


def choose_flowers(labels: Tensor, probabilities: Tensor) -> list[int]:
    """Positions of three correct predictions, far apart, and of a mistake whose second guess is true."""
    top = probabilities.topk(2, dim=1)
    correct, near = (top.indices == labels[:, None]).unbind(dim=1)
    clear = (top.values[:, 0] > 0.45) & (top.values[:, 0] < 0.95)  # so that the second one is seen
    correct, near = ((mask & clear).nonzero()[:, 0].tolist() for mask in (correct, near))
    return [*(correct[len(correct) * part // 6] for part in (1, 3, 5)), near[len(near) // 2]]


def _draw_guesses(ax: Axes, probabilities: Tensor, label: int, names: Sequence[str]) -> None:
    values, guesses = (part.tolist() for part in probabilities.topk(3))
    for place, (value, guess) in enumerate(zip(values, guesses, strict=True)):
        style = {"color": GREEN, "hatch": "//"} if guess == label else {"color": GREY}
        bar = ax.barh(place, value, 0.3, edgecolor="white", **style)
        ax.bar_label(bar, [f"{value:.0%}"], padding=3)
        ax.text(0, place - 0.25, names[guess], weight="bold" if guess == label else "normal")
    ax.set(xlim=(0, 1.25), ylim=(2.4, -0.75))
    ax.set_axis_off()


def _draw_curves(ax: Axes, phases: Phases) -> None:
    history, start = [row for phase in phases for row in phase["history"]], 0
    epochs = np.arange(1, len(history) + 1)
    for part, colour, line in (("train", BLUE, "--"), ("val", ORANGE, "-")):
        values = [100 * row[f"{part}_accuracy"] for row in history]
        ax.plot(epochs, values, line, color=colour, linewidth=2.5, label=part)
    for phase in phases:
        best, height = start + phase["best_epoch"], 100 * phase["best_val_accuracy"]
        ax.plot(best, height, "*", color=VERMILION, markersize=16, markeredgecolor="black")
        ax.text(best, height + 4, f"{height:.1f} %", ha="center")
        ax.text(start + len(phase["history"]) / 2 + 0.5, 3, phase["name"], ha="center")
        start += len(phase["history"])
    ax.axvline(len(phases[0]["history"]) + 0.5, color=GREY, linestyle=":")
    ax.set(xlabel="epoch", ylim=(0, 100), title="accuracy (%), stars: best on val")
    ax.legend(loc="center right", frameon=False)
    ax.grid()


@figure_function
def draw(flowers: Split, probabilities: Tensor, names: Sequence[str], phases: Phases) -> Figure:
    """Left the flowers, a column for each; right the accuracy of both phases, epoch by epoch."""
    mpl.rcParams.update({"font.size": 12, "axes.titlesize": 12, "legend.fontsize": 12})
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    columns = len(flowers)
    grid = figure.add_gridspec(2, columns + 1, width_ratios=[1] * columns + [1.6])
    for column, label in enumerate(flowers.labels.tolist()):
        photo, guesses = (figure.add_subplot(grid[row, column]) for row in (0, 1))
        photo.imshow(flowers.images[column].transpose(1, 2, 0), interpolation="bicubic")
        photo.set_title(f"truth: {names[label]}")
        photo.set_axis_off()
        _draw_guesses(guesses, probabilities[column], label, names)
    _draw_curves(figure.add_subplot(grid[:, columns]), phases)
    return figure


def save_picture(folder: Path, target: Path) -> None:
    """Draw the finished practice run in `folder` into the PNG `target`."""
    results = load_results(folder / "results.json")
    data, device = fu.load_data("practice", seed=results["seed"]), fu.choose_device()
    checkpoint = fu.load_checkpoint(folder / "resnet18_final.pth")
    model = device.place(fu.model_from_checkpoint(checkpoint))
    logits, labels = fu.predict_logits(model, data.test, device)
    probabilities = (logits / checkpoint["temperature"]).softmax(dim=1)
    chosen = choose_flowers(labels, probabilities)
    phases = [results["phases"][key] for key in ("phase1", "phase2")]
    flowers = data.test.subset(chosen)
    draw(flowers, probabilities[chosen], data.class_names, phases).savefig(target)
    image = Image.open(target).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(target, optimize=True)
