"""The picture of README.md: four practice flowers with the network's guesses, and both phases' curves.

Practice flowers are drawn by this project, so they may be shown; photographs are never drawn here.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import flowers_utils as fu
from flowers_utils.data import Split
from flowers_utils.plotting.style import BLUE, GREEN, GREY, ORANGE, VERMILION, figure_function
from flowers_utils.storage.results import load_results

SIZE, DPI = (12.0, 4.2), 100  # 1,200 pixels wide; README shows it at about 830
CORRECT, GUESSES = 3, 3
LIKELY = (0.45, 0.95)  # probability of the first guess, so that the second one can be seen


def choose_flowers(labels: Tensor, probabilities: Tensor) -> list[int]:
    """Positions of three correct predictions, of classes far apart, and of one near miss."""
    top = probabilities.topk(2, dim=1)
    correct, near = (top.indices == labels[:, None]).unbind(dim=1)
    clear = (top.values[:, 0] > LIKELY[0]) & (top.values[:, 0] < LIKELY[1])
    chosen = []
    for number, classes in enumerate(np.array_split(np.arange(int(labels.max()) + 1), CORRECT + 1)):
        wanted = correct if number < CORRECT else near
        inside = (labels >= int(classes[0])) & (labels <= int(classes[-1]))
        found = next(
            mask for mask in (wanted & clear & inside, wanted & inside, wanted) if mask.any()
        )
        places = found.nonzero()[:, 0]
        chosen.append(int(places[len(places) // 2]))
    return chosen


def _draw_guesses(ax: Axes, probabilities: Tensor, label: int, names: Sequence[str]) -> None:
    top = probabilities.topk(GUESSES)
    for place, (value, guess) in enumerate(zip(*(part.tolist() for part in top), strict=True)):
        truth = guess == label
        style = {"color": GREEN if truth else GREY, "hatch": "//" if truth else ""}
        ax.barh(place, value, height=0.3, edgecolor="white", **style)
        ax.text(value + 0.02, place, f"{value:.0%}", va="center", fontsize=12)
        ax.text(0, place - 0.25, names[guess], fontsize=12, weight="bold" if truth else "normal")
    ax.set(xlim=(0, 1.25), ylim=(GUESSES - 0.6, -0.75))
    ax.set_axis_off()


def _draw_curves(ax: Axes, phases: Sequence[Mapping[str, Any]]) -> None:
    history = [row for phase in phases for row in phase["history"]]
    epochs = np.arange(1, len(history) + 1)
    for part, colour, line in (("train", BLUE, "--"), ("val", ORANGE, "-")):
        values = [100 * row[f"{part}_accuracy"] for row in history]
        ax.plot(epochs, values, line, color=colour, linewidth=2.5, label=part)
    start = 0
    for phase in phases:
        place = (start + phase["best_epoch"], 100 * phase["best_val_accuracy"])
        ax.plot(*place, "*", color=VERMILION, markersize=16, markeredgecolor="black", zorder=5)
        offset = {"xytext": (0, 10), "textcoords": "offset points", "ha": "center"}
        ax.annotate(f"{place[1]:.1f} %", place, fontsize=13, **offset)
        middle = start + len(phase["history"]) / 2 + 0.5
        ax.text(middle, 3, phase["name"], ha="center", fontsize=13)
        start += len(phase["history"])
    ax.axvline(len(phases[0]["history"]) + 0.5, color=GREY, linestyle=":")
    ax.set(xlabel="epoch", ylim=(0, 100), xlim=(0, len(history) + 1))
    ax.set_title("accuracy (%), stars: best on val", fontsize=13)
    ax.legend(loc="center right", frameon=False, fontsize=13)
    ax.grid()


@figure_function
def draw(
    flowers: Split,
    probabilities: Tensor,
    names: Sequence[str],
    phases: Sequence[Mapping[str, Any]],
) -> Figure:
    """Left the flowers, a column for each; right the accuracy of both phases, epoch by epoch."""
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    columns = len(flowers)
    grid = figure.add_gridspec(2, columns + 1, width_ratios=[1] * columns + [1.6])
    for column, label in enumerate(flowers.labels.tolist()):
        photo, guesses = (figure.add_subplot(grid[row, column]) for row in (0, 1))
        picture = Image.fromarray(flowers.images[column].transpose(1, 2, 0))
        photo.imshow(picture.resize((256, 256), Image.Resampling.BICUBIC))  # edges without stairs
        photo.set_title(f"truth: {names[label]}", fontsize=12)
        photo.set_axis_off()
        _draw_guesses(guesses, probabilities[column], label, names)
    _draw_curves(figure.add_subplot(grid[:, columns]), phases)
    return figure


def save_picture(folder: Path, target: Path) -> int:
    """Draw the finished practice run in `folder` into the PNG `target`; returns its bytes."""
    results = load_results(folder / "results.json")
    data, device = fu.load_data("practice", seed=results["seed"]), fu.choose_device()
    checkpoint = fu.load_checkpoint(folder / "resnet18_final.pth")
    model = device.place(fu.model_from_checkpoint(checkpoint))
    logits, labels = fu.predict_logits(model, data.test, device)
    probabilities = (logits / checkpoint["temperature"]).softmax(dim=1)
    chosen = choose_flowers(labels, probabilities)
    phases = [results["phases"][key] for key in ("phase1", "phase2")]
    flowers, file = data.test.subset(chosen), io.BytesIO()
    draw(flowers, probabilities[chosen], data.class_names, phases).savefig(file, format="png")
    target.parent.mkdir(exist_ok=True)
    image = Image.open(file).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(target, optimize=True)
    return target.stat().st_size
