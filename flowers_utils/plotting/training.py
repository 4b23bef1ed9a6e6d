"""The figures of data and training. Each function takes data and returns a matplotlib figure."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from flowers_utils.data import FlowerData, Split

# Okabe and Ito's colours, told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"


def to_picture(image: torch.Tensor | np.ndarray) -> np.ndarray:
    """uint8 image `(3, H, W)` -> `(H, W, 3)`, as matplotlib shows it."""
    return np.asarray(image).transpose(1, 2, 0)


def picture_grid(rows: int, columns: int, *, size: float = 1.7) -> tuple[Figure, np.ndarray]:
    """A figure with `rows` x `columns` axes for pictures, without ticks; axes as a flat array."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(size * columns, (size + 0.35) * rows), layout="constrained"
    )
    axes = np.atleast_1d(axes).ravel()
    for ax in axes:
        ax.set_axis_off()
    return figure, axes


def plot_samples(data: FlowerData, *, count: int = 12, seed: int = 0) -> Figure:
    """`count` training photographs of different classes, with their names."""
    rng = np.random.default_rng(seed)
    labels = data.train.labels.numpy()
    classes = rng.permutation(np.unique(labels))[:count]
    figure, axes = picture_grid(-(-len(classes) // 6), min(6, len(classes)))
    for ax, label in zip(axes, classes, strict=False):
        ax.imshow(to_picture(data.train.images[rng.choice(np.flatnonzero(labels == label))]))
        ax.set_title(shorten(data.class_names[label]), fontsize=9)
    figure.suptitle(f"Some flowers of the training set ({data.title})")
    return figure


def shorten(name: str, *, limit: int = 20) -> str:
    """A class name that fits above a small picture."""
    return name if len(name) <= limit else name[: limit - 1] + "…"


def plot_augmentations(original: np.ndarray, augmented: np.ndarray, *, title: str) -> Figure:
    """One photograph `(3, R, R)` beside eight augmentations of it `(8, 3, S, S)`, all uint8."""
    figure, axes = picture_grid(2, 5)
    pictures = [original, *augmented[:4], None, *augmented[4:8]]
    for ax, picture in zip(axes, pictures, strict=True):
        if picture is not None:
            ax.imshow(to_picture(picture))
    axes[0].set_title("as it is", fontsize=9)
    for number, ax in enumerate([*axes[1:5], *axes[6:]], start=1):
        ax.set_title(f"draw {number}", fontsize=9)
    figure.suptitle(f"One flower under eight augmentations ({title})")
    return figure


def plot_curves(history: Sequence[dict[str, Any]], *, title: str) -> Figure:
    """Loss, accuracy and learning rates of both phases, epoch by epoch.

    `history` holds the rows of Phase 1, then of Phase 2. A dashed line marks where Phase 2
    starts, a star the epoch that was best on val in each phase.
    """
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    epochs = np.arange(1, len(history) + 1)
    boundary = sum(row["phase"] == 1 for row in history) + 0.5
    for ax, what, unit in ((axes[0], "loss", "nats"), (axes[1], "accuracy", "%")):
        scale = 100 if unit == "%" else 1
        for part, colour, marker in (("train", BLUE, "o"), ("val", ORANGE, "s")):
            values = [scale * row[f"{part}_{what}"] for row in history]
            ax.plot(epochs, values, color=colour, marker=marker, markersize=3, label=part)
        ax.set(title=what.capitalize(), ylabel=f"{what} ({unit})")
    _mark_best(axes[1], history)
    _plot_rates(axes[2], history, epochs)
    for ax in axes:
        ax.set_xlabel("epoch")
        if 1 < boundary < len(history):
            ax.axvline(boundary, color=GREY, linestyle="--", linewidth=1, label="Phase 2 starts")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    figure.suptitle(f"Training in two phases ({title})")
    return figure


def _mark_best(ax: plt.Axes, history: Sequence[dict[str, Any]]) -> None:
    """A star at the epoch with the best val accuracy of each phase."""
    for phase in sorted({row["phase"] for row in history}):
        at = [i for i, row in enumerate(history) if row["phase"] == phase]
        best = max(at, key=lambda i: history[i]["val_accuracy"])
        value = 100 * history[best]["val_accuracy"]
        ax.plot(best + 1, value, "*", color=VERMILION, markersize=13, zorder=5,
                label="best on val" if phase == history[0]["phase"] else None)  # fmt: skip
        ax.annotate(f"{value:.1f} %", (best + 1, value), xytext=(-4, -15), ha="right",
                    textcoords="offset points", fontsize=9)  # fmt: skip
    ax.margins(y=0.12)


def _plot_rates(ax: plt.Axes, history: Sequence[dict[str, Any]], epochs: np.ndarray) -> None:
    """Learning rates of the head and of the backbone, as steps on a log scale."""
    head_name = list(history[-1]["learning_rates"])[-1]
    head = [row["learning_rates"].get(head_name, np.nan) for row in history]
    backbone = [next(iter(row["learning_rates"].values())) if len(row["learning_rates"]) > 1
                else np.nan for row in history]  # fmt: skip
    ax.step(epochs, head, where="mid", color=GREEN, marker="o", markersize=3, label="head")
    if not np.all(np.isnan(backbone)):
        ax.step(epochs, backbone, where="mid", color=VERMILION, marker="^", markersize=3,
                label="backbone")  # fmt: skip
    ax.set(title="Learning rate", ylabel="learning rate", yscale="log")


def plot_architecture(shapes: Sequence[tuple[str, str]], *, title: str) -> Figure:
    """The network as a row of boxes: each (name, output shape as text), first to last."""
    figure, ax = plt.subplots(figsize=(12, 2.6), layout="constrained")
    heights = np.linspace(1.0, 0.45, len(shapes))
    for i, ((name, shape), height) in enumerate(zip(shapes, heights, strict=True)):
        head = i == len(shapes) - 1
        box = FancyBboxPatch((i, 0.5 - height / 2), 0.72, height, boxstyle="round,pad=0.02",
                             facecolor=ORANGE if head else BLUE, alpha=0.35)  # fmt: skip
        ax.add_patch(box)
        ax.text(i + 0.36, 0.5, f"{name}\n\n{shape}", ha="center", va="center", fontsize=9)
        if not head:
            ax.annotate("", (i + 0.97, 0.5), (i + 0.76, 0.5), arrowprops={"arrowstyle": "->"})
    ax.set(xlim=(-0.1, len(shapes) - 0.1), ylim=(-0.1, 1.1))
    ax.set_axis_off()
    figure.suptitle(title)
    return figure


def plot_gradient_sizes(with_skip: Sequence[float], without: Sequence[float]) -> Figure:
    """Size of the gradient at each block of a deep stack, with and without skip connections."""
    figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    blocks = np.arange(1, len(with_skip) + 1)
    ax.semilogy(blocks, with_skip, color=BLUE, marker="o", label="with skip connections")
    ax.semilogy(blocks, without, color=VERMILION, marker="s", linestyle="--", label="without")
    ax.set(xlabel="block, from the image to the loss", ylabel="gradient (behind the last block: 1)",
           title="How much of the error signal reaches each block")  # fmt: skip
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


def plot_movement(moved: dict[str, float], *, title: str) -> Figure:
    """How far each stage's weights moved in Phase 2, relative to their size."""
    figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
    bars = ax.bar(list(moved), [100 * value for value in moved.values()], color=BLUE, alpha=0.7)
    ax.bar_label(bars, fmt="%.1f %%", fontsize=9)
    ax.set(ylabel="change (% of the norm)", title=f"How far each stage moved in Phase 2 ({title})")
    ax.tick_params(axis="x", labelrotation=0 if len(moved) < 8 else 60)
    ax.margins(y=0.15)
    return figure


def plot_three_numbers(accuracies: dict[str, float], *, chance: float, title: str) -> Figure:
    """Val accuracy (fractions) of several ways to train on the same photographs."""
    figure, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
    colours = [BLUE, GREEN, ORANGE][: len(accuracies)]
    names = list(accuracies)
    bars = ax.barh(names, [100 * v for v in accuracies.values()], color=colours, alpha=0.8)
    ax.bar_label(bars, fmt="%.1f %%", padding=4)
    ax.axvline(100 * chance, color=GREY, linestyle="--", label=f"guessing ({chance:.1%})")
    ax.set(xlabel="accuracy on val (%)", xlim=(0, 108), title=f"What transfer is worth ({title})")
    ax.invert_yaxis()
    ax.legend(loc="upper right")  # beside the shortest bar
    return figure


def plot_predictions(
    split: Split,
    probabilities: torch.Tensor,
    class_names: Sequence[str],
    *,
    title: str,
    count: int = 6,
    seed: int = 0,
) -> Figure:
    """A row of right and a row of wrong predictions; `probabilities` is `(N, classes)`."""
    confidence, guess = probabilities.max(dim=1)
    right = (guess == split.labels).numpy()
    rng = np.random.default_rng(seed)
    figure, axes = picture_grid(2, count)
    for row, (mask, word) in enumerate(((right, "right"), (~right, "wrong"))):
        chosen = rng.permutation(np.flatnonzero(mask))[:count]
        for ax, i in zip(axes[row * count :], chosen, strict=False):
            ax.imshow(to_picture(split.images[i]))
            text = f"{word}, {confidence[i]:.0%}\n{shorten(class_names[guess[i]])}"
            if word == "wrong":
                text += f"\nis {shorten(class_names[split.labels[i]], limit=17)}"
            ax.set_title(text, fontsize=8, color=BLUE if word == "right" else VERMILION)
    figure.suptitle(f"Predictions, right and wrong ({title})")
    return figure


def plot_time(seconds: dict[str, dict[str, float]], *, title: str) -> Figure:
    """Where the time of an epoch goes: name of a loop -> seconds of each part."""
    figure, ax = plt.subplots(figsize=(9, 2.8), layout="constrained")
    parts = list(next(iter(seconds.values())))
    left = np.zeros(len(seconds))
    hatches = ("", "//", "..", "xx", "--")
    for part, colour, hatch in zip(parts, (GREY, ORANGE, BLUE, GREEN, VERMILION), hatches,
                                   strict=False):  # fmt: skip
        values = np.array([loop[part] for loop in seconds.values()])
        ax.barh(list(seconds), values, left=left, color=colour, alpha=0.75, hatch=hatch, label=part)
        left += values
    for y, total in enumerate(left):
        ax.text(total, y, f"  {total:.1f} s", va="center")
    ax.set(xlabel="seconds an epoch", title=f"Where does the time go? ({title})")
    ax.margins(x=0.12)
    ax.invert_yaxis()
    ax.legend(ncols=len(parts), fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.28))
    return figure


def plot_own_photo(
    picture: np.ndarray,
    heat: np.ndarray,
    names: Sequence[str],
    probabilities: Sequence[float],
    *,
    title: str,
) -> Figure:
    """A photograph `(3, S, S)`, where the network looked `(S, S)`, and its best guesses as bars."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for ax in axes[:2]:
        ax.imshow(to_picture(picture))
        ax.set_axis_off()
    axes[0].set_title("as the network gets it")
    axes[1].imshow(heat, cmap="inferno", alpha=0.5)
    axes[1].set_title("where it looked (Grad-CAM)")
    bars = axes[2].barh(
        [shorten(name) for name in names], [100 * p for p in probabilities], color=BLUE
    )
    axes[2].bar_label(bars, fmt="%.0f %%", padding=3)
    axes[2].set(xlabel="calibrated probability (%)", xlim=(0, 112), title="its best guesses")
    axes[2].invert_yaxis()
    figure.suptitle(f"One photograph ({title})")
    return figure
