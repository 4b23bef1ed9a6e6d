"""The picture of README.md: four practice flowers, what the network says, where it looks, the curves.

Practice flowers are drawn by this project, so they may be shown; photographs are never drawn here.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import flowers_utils as fu
from flowers_utils.data import Split
from flowers_utils.insight.inside import Explanation
from flowers_utils.plotting.colours import BLUE, GREEN, GREY, ORANGE, VERMILION
from flowers_utils.plotting.style import figure_function

SIZE, DPI = (12.0, 6.0), 100  # 1,200 pixels wide; README shows it at about 830
COLOURS = 256  # of the palette, which keeps the file small
PURE = (255, 255, 255, *(round(255 * part) for part in to_rgb(VERMILION)))  # never dithered
RIGHT, GUESSES, TRIED = 3, 3, 600
SURE = (0.45, 0.95)  # so that the second guess can be seen


def choose_flowers(labels: Tensor, probabilities: Tensor) -> list[int]:
    """Positions of three right answers, of genera far apart, and one mistake: the truth came second."""
    top = probabilities.topk(2, dim=1)
    hit = top.indices[:, 0] == labels
    near = top.indices[:, 1] == labels
    sure = (top.values[:, 0] > SURE[0]) & (top.values[:, 0] < SURE[1])
    parts = np.array_split(np.arange(int(labels.max()) + 1), RIGHT + 1)
    chosen = []
    for number, classes in enumerate(parts, start=1):
        wanted = hit if number <= RIGHT else near & ~hit
        inside = (labels >= int(classes[0])) & (labels <= int(classes[-1]))
        for mask in (wanted & sure & inside, wanted & inside, wanted):
            if mask.any():
                found = mask.nonzero()[:, 0]
                chosen.append(int(found[number * len(found) // (RIGHT + 2)]))
                break
    return chosen


def explain(folder: Path, seed: int) -> tuple[Split, list[Explanation], Sequence[str]]:
    """The chosen test flowers of a finished practice run, with what its final network says."""
    data, device = fu.load_data("practice", seed=seed), fu.choose_device()
    checkpoint = fu.load_checkpoint(folder / "resnet18_final.pth")
    model, temperature = fu.model_from_checkpoint(checkpoint), checkpoint["temperature"]
    some = data.test.subset(range(0, len(data.test), max(1, len(data.test) // TRIED)))
    logits, labels = fu.predict_logits(model, some, device)
    flowers = some.subset(choose_flowers(labels, (logits / temperature).softmax(dim=1)))
    seen = [
        fu.insight.grad_cam(model, photo, device, temperature=temperature)
        for photo in flowers.images
    ]
    return flowers, seen, data.class_names


def _smooth(photo: np.ndarray) -> np.ndarray:
    """A small (3, S, S) photograph as a larger (H, W, 3), so that edges are not stairs."""
    image = Image.fromarray(photo.transpose(1, 2, 0))
    return np.asarray(image.resize((256, 256), Image.Resampling.BICUBIC))


def _draw_guesses(ax: Axes, seen: Explanation, label: int, names: Sequence[str]) -> None:
    top = seen.probabilities.topk(GUESSES)
    for place, (share, guess) in enumerate(
        zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ):
        truth, weight = guess == label, "bold" if guess == label else "normal"
        style = {"color": GREEN if truth else GREY, "hatch": "//" if truth else ""}
        ax.barh(place, share, height=0.3, edgecolor="white", **style)
        ax.text(share + 0.02, place, f"{share:.0%}", va="center", fontsize=12, weight=weight)
        ax.text(0, place - 0.25, names[guess], fontsize=12, weight=weight)
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
        best = start + phase["best_epoch"]
        value = 100 * phase["best_val_accuracy"]
        ax.plot(best, value, "*", color=VERMILION, markersize=16, markeredgecolor="black", zorder=5)
        ax.annotate(
            f"{value:.1f} %",
            (best, value),
            (0, 10),
            textcoords="offset points",
            ha="center",
            fontsize=13,
        )
        end = start + len(phase["history"])
        ax.text((start + end) / 2 + 0.5, 3, phase["name"], ha="center", fontsize=13, color="black")
        start = end
    ax.axvline(len(phases[0]["history"]) + 0.5, color=GREY, linestyle=":")
    ax.set(xlabel="epoch", ylim=(0, 100), xlim=(0, len(history) + 1))
    ax.set_title("accuracy (%), stars: best on val", fontsize=13)
    ax.legend(loc="center right", frameon=False, fontsize=13, bbox_to_anchor=(1, 0.3))
    ax.grid()


@figure_function
def draw(
    flowers: Split,
    seen: Sequence[Explanation],
    names: Sequence[str],
    phases: Sequence[Mapping[str, Any]],
) -> Figure:
    """Left the flowers, a column each; right the accuracy of both phases, epoch by epoch."""
    figure = Figure(figsize=SIZE, dpi=DPI)
    for number, (photo, label, answer) in enumerate(
        zip(flowers.images, flowers.labels.tolist(), seen, strict=True)
    ):
        place = {"left": 12 + 208 * number, "width": 186}
        shown, looks = (_axes(figure, top=top, height=186, **place) for top in (34, 254))
        picture = _smooth(photo)
        shown.imshow(picture)
        shown.set_title(f"is {names[label]}", fontsize=13)
        heat = np.asarray(Image.fromarray(answer.heat.numpy()).resize((256, 256)))
        looks.imshow(picture.mean(axis=2), cmap="gray", vmin=0, vmax=255)
        looks.imshow(heat, cmap="inferno", alpha=0.1 + 0.55 * heat, vmin=0, vmax=1)
        looks.set_title("it looks here", fontsize=13)
        for ax in (shown, looks):
            ax.set_axis_off()
        _draw_guesses(_axes(figure, top=448, height=145, **place), answer, label, names)
    _draw_curves(_axes(figure, top=34, height=508, left=896, width=292), phases)
    return figure


def _axes(figure: Figure, *, left: int, top: int, width: int, height: int) -> Axes:
    """Axes at a place in pixels, from the upper left corner."""
    across, down = (side * DPI for side in SIZE)
    return figure.add_axes(
        (left / across, 1 - (top + height) / down, width / across, height / down)
    )


def save_picture(folder: Path, results: Mapping[str, Any], target: Path) -> int:
    """Draw the finished practice run in `folder` into the PNG `target`; returns its bytes."""
    phases = [results["phases"][key] for key in ("phase1", "phase2")]
    file = io.BytesIO()
    draw(*explain(folder, results["seed"]), phases).savefig(file, format="png")
    target.parent.mkdir(exist_ok=True)
    image = Image.open(file).convert("RGB")
    palette = image.quantize(COLOURS - len(PURE) // 3)
    palette.putpalette([*PURE, *palette.getpalette()])
    image = image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    image.putpalette([255 if value > 251 else value for value in image.getpalette()])  # pure white
    image.save(target, optimize=True)
    return target.stat().st_size
