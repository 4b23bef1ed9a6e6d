"""The figures of the evaluation and of the look inside. Each takes data and returns a figure.

`title` names the data and stands in every figure's title; photographs are uint8 (3, S, S).
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from flowers_utils.data import Split
from flowers_utils.evaluation import Estimate, Evaluation, wilson
from flowers_utils.insight.inside import ConfusedPair, Explanation
from flowers_utils.plotting.training import (
    BLUE,
    GREEN,
    GREY,
    VERMILION,
    picture_grid,
    shorten,
    to_picture,
)


def _photo(ax: plt.Axes, image: np.ndarray | None, caption: str, *, weight: str = "normal") -> None:
    if image is not None:
        ax.imshow(to_picture(image))
    ax.set_title(caption, fontsize=8, weight=weight)


def _whiskers(estimates: Sequence[Estimate]) -> np.ndarray:
    return np.array([[max(0, e.value - e.low), max(0, e.high - e.value)] for e in estimates]).T


def plot_confusion(evaluation: Evaluation, *, title: str, labelled: int = 24) -> Figure:
    """Confusion matrix for many classes: only mistakes are marked, larger and darker where more.

    Confused classes stand side by side; the `labelled` rows with most mistakes are named.
    """
    order = _confused_side_by_side(evaluation.confusion)
    matrix = evaluation.confusion[np.ix_(order, order)]
    mistakes, side = matrix - np.diag(np.diag(matrix)), len(matrix)
    figure, ax = plt.subplots(figsize=(9, 8.4), layout="constrained")
    ax.plot([-0.5, side - 0.5], [-0.5, side - 0.5], color=GREY, linewidth=1, zorder=0)
    if mistakes.any():
        _draw_mistakes(figure, ax, mistakes)
    for row, column in np.argwhere(matrix) if side <= 20 else ():
        ax.text(column + 0.2, row - 0.2, matrix[row, column], fontsize=9)
    named = _spaced(mistakes.sum(axis=1), labelled)
    names = [shorten(evaluation.class_names[order[i]]) for i in named]
    ax.set_yticks(named, names, fontsize=8)
    ax.set_xticks(named, names, fontsize=8, rotation=90)
    ax.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5), aspect="equal")
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.grid(alpha=0.25)
    wrong = f"{mistakes.sum():,} of {matrix.sum():,} photographs"
    ax.set_title(f"Which flowers are taken for which: {wrong} ({title})")
    return figure


def _confused_side_by_side(confusion: np.ndarray) -> np.ndarray:
    """An order of the classes, by clustering, in which those that are confused are neighbours."""
    if len(confusion) < 3:
        return np.arange(len(confusion))
    distance = 1 / (1.0 + confusion + confusion.T)
    np.fill_diagonal(distance, 0)
    return leaves_list(linkage(squareform(distance), "average", optimal_ordering=True))


def _draw_mistakes(figure: Figure, ax: plt.Axes, mistakes: np.ndarray) -> None:
    rows, columns = np.nonzero(mistakes)
    counts = mistakes[rows, columns]
    width = min(440 / len(mistakes), 16) * (0.7 + 0.35 * np.log2(counts)).clip(max=2.2)
    style = {"cmap": "inferno_r", "norm": LogNorm(0.4, max(counts.max(), 5)), "marker": "s"}
    dots = ax.scatter(columns, rows, width**2, counts, **style)
    bar = figure.colorbar(dots, ax=ax, shrink=0.6, label="photographs (larger square: more)")
    bar.minorticks_off()
    ticks = [n for n in (1, 2, 3, 5, 10, 20, 50, 100) if n <= counts.max()]
    bar.set_ticks(ticks, labels=map(str, ticks))


def _spaced(importance: np.ndarray, count: int) -> list[int]:
    """Up to `count` positions, most important first, none so close that labels would overlap."""
    gap, chosen = max(1, round(len(importance) / 34)), []
    for position in np.argsort(-importance, kind="stable"):
        if len(chosen) < count and all(abs(position - other) >= gap for other in chosen):
            chosen.append(int(position))
    return sorted(chosen)


def plot_confused_pairs(
    pairs: Sequence[ConfusedPair], images: np.ndarray, class_names: Sequence[str], *, title: str
) -> Figure:
    """Up to ten pairs as two photographs, one above the other, with the mistakes counted."""
    figure, axes = picture_grid(2 if len(pairs) <= 5 else 4, 5, size=1.8)
    for i, pair in enumerate(pairs[:10]):
        upper = 10 * (i // 5) + i % 5
        sides = (
            (axes[upper], pair.first, pair.first_example, pair.first_as_second, "↓"),
            (axes[upper + 5], pair.second, pair.second_example, pair.second_as_first, "↑"),
        )
        for ax, label, example, times, arrow in sides:
            photo = None if example is None else images[example]
            _photo(ax, photo, f"{shorten(class_names[label])}\n{arrow} {times} taken for the other")
    figure.suptitle(f"The most confused pairs, one above the other ({title})")
    return figure


def plot_class_bars(evaluation: Evaluation, *, title: str, k: int = 10) -> Figure:
    """Recall of the k weakest and the k strongest classes, with 95 % Wilson intervals."""
    ranked = np.argsort(evaluation.recall, kind="stable")  # nan, for want of photographs, last
    ranked = ranked[: np.count_nonzero(evaluation.support)]
    k = min(k, max(1, len(ranked) // 2))
    groups = (("weakest", ranked[:k][::-1], VERMILION, "//"), ("strongest", ranked[-k:], BLUE, ""))
    figure, axes = plt.subplots(1, 2, figsize=(9, 1.4 + 0.32 * k), layout="constrained")
    for ax, (word, classes, colour, hatch) in zip(axes, groups, strict=True):
        bounds = [wilson(evaluation.confusion[c, c], evaluation.support[c]) for c in classes]
        ax.barh(range(k), [e.value for e in bounds], color=colour, hatch=hatch, edgecolor="white",
                alpha=0.85, xerr=_whiskers(bounds), error_kw={"capsize": 2})  # fmt: skip
        names = [f"{shorten(evaluation.class_names[c])} ({evaluation.support[c]})" for c in classes]
        ax.set_yticks(range(k), names, fontsize=8)
        ax.set(xlim=(0, 1), xlabel="recall (share recognised)", title=f"the {k} {word}")
    figure.suptitle(f"Classes (number of photographs), with 95 % intervals ({title})")
    return figure


def plot_mistakes(
    evaluation: Evaluation, positions: Sequence[int], images: np.ndarray, *, title: str
) -> Figure:
    """The photographs at `positions` (from `most_confident_mistakes`) with claim and truth."""
    figure, axes = picture_grid(max(1, -(-len(positions) // 5)), 5, size=1.8)
    names = [shorten(name) for name in evaluation.class_names]
    for ax, i in zip(axes, positions, strict=False):
        says, true = names[evaluation.predictions[i]], names[evaluation.labels[i]]
        _photo(ax, images[i], f"says {says}\n({evaluation.confidences[i]:.0%} sure)\nis {true}")
    figure.suptitle(f"The most confident mistakes ({title})")
    return figure


def plot_reliability(
    before: Evaluation, after: Evaluation, *, temperature: float, title: str
) -> Figure:
    """Accuracy against confidence before and after temperature scaling, with bin counts below."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 5.6), sharex=True, height_ratios=(3, 1),
                                layout="constrained")  # fmt: skip
    words = ("before", f"after, temperature {temperature:.2f}")
    for (top, bottom), word, scored in zip(axes.T, words, (before, after), strict=True):
        width = 1 / len(scored.bin_count)
        centres = (np.arange(len(scored.bin_count)) + 0.5) * width
        top.bar(centres, np.nan_to_num(scored.bin_accuracy), width * 0.9, color=BLUE, alpha=0.8)
        top.plot([0, 1], [0, 1], "--", color="black", linewidth=1, label="perfectly calibrated")
        top.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title=f"{word}: ECE {scored.ece:.1%}")
        bottom.bar(centres, scored.bin_count, width * 0.9, color=GREY)
        bottom.set(xlabel="confidence", ylabel="photographs")
    axes[0, 0].legend(loc="upper left", fontsize=8)
    figure.suptitle(f"Is the network right in 80 % of the cases where it is 80 % sure? ({title})")
    return figure


def plot_training_size(points: Sequence[tuple[int, Estimate]], *, title: str) -> Figure:
    """Accuracy on val against the number of training photographs, with 95 % intervals."""
    counts, estimates = zip(*points, strict=True)
    figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
    values = [estimate.value for estimate in estimates]
    ax.errorbar(counts, values, _whiskers(estimates), fmt="o-", color=BLUE, capsize=4)
    for count, value in zip(counts, values, strict=True):
        ax.annotate(f"{value:.0%}", (count, value), (-32, 6), textcoords="offset points")
    ax.set(xscale="log", xmargin=0.1)
    ax.set_xticks(counts, [f"{n:,}" for n in counts])
    ax.minorticks_off()
    ax.set(xlabel="training photographs (logarithmic)", ylabel="top-1 accuracy on val")
    ax.set_title(f"Would more photographs help? Linear head, frozen backbone ({title})")
    ax.grid(alpha=0.3)
    return figure


def plot_filters(filters: Tensor, *, title: str) -> Figure:
    """First-layer filters (K, 3, h, w) in 0..1; grey is weight 0."""
    figure, axes = picture_grid(-(-len(filters) // 16), 16, size=0.56)
    for ax, image in zip(axes, filters, strict=False):
        ax.imshow(to_picture(image))
    figure.suptitle(f"What the first layer looks for ({title})")
    return figure


def plot_feature_maps(maps: Mapping[str, Tensor], photo: np.ndarray, *, title: str) -> Figure:
    """For one photograph the seven liveliest maps of each stage, one row a stage."""
    figure, axes = picture_grid(len(maps), 8, size=1.13)
    for row, (name, answers) in zip(axes.reshape(-1, 8), maps.items(), strict=True):
        _photo(row[0], photo, f"{name}: {answers.shape[-2]} x {answers.shape[-1]}")
        liveliest = answers.flatten(1).std(dim=1).argsort(descending=True)[:7]
        for ax, channel in zip(row[1:], liveliest.tolist(), strict=False):
            ax.imshow(answers[channel])
            ax.set_title(f"map {channel}", fontsize=7)
    figure.suptitle(f"One photograph, stage by stage: from edges to parts ({title})")
    return figure


def _overlay(ax: plt.Axes, photo: np.ndarray, seen: Explanation, verdict: str, said: str) -> None:
    _photo(ax, photo, f"says {shorten(said)}\n{seen.probabilities.max():.0%}, {verdict}")
    ax.imshow(seen.heat, cmap="inferno", alpha=0.25 + 0.5 * seen.heat.numpy(), vmin=0, vmax=1)


def plot_grad_cam(
    photos: Split, explanations: Sequence[Explanation], class_names: Sequence[str], *, title: str
) -> Figure:
    """Photographs above, and where the network looked below."""
    count = len(photos)
    figure, axes = picture_grid(2, count, size=9 / max(4, count))
    for i, (label, seen) in enumerate(zip(photos.labels.tolist(), explanations, strict=True)):
        _photo(axes[i], photos.images[i], shorten(class_names[label]))
        verdict = "right" if seen.predicted == label else "wrong"
        if seen.target != seen.predicted:
            verdict += f"; heat: {shorten(class_names[seen.target])}"
        _overlay(axes[i + count], photos.images[i], seen, verdict, class_names[seen.predicted])
    figure.suptitle(f"Where the network looks; bright places speak for its answer ({title})")
    return figure


def plot_phase_change(
    photo: np.ndarray, phases: Sequence[Explanation], names: Sequence[str], *, title: str
) -> Figure:
    """One photograph (see `compare_phases`): evidence for its true class, and the answers."""
    label = phases[0].target
    figure, axes = plt.subplots(2, 2, figsize=(9, 5.6), height_ratios=(2, 1), layout="constrained")
    top = sum(seen.probabilities for seen in phases).argsort(descending=True)[:4].flip(0).tolist()
    style = {"hatch": ["//" * (c == label) for c in top],
             "color": [GREEN if c == label else GREY for c in top]}  # fmt: skip
    for phase, (column, seen) in enumerate(zip(axes.T, phases, strict=True), start=1):
        verdict = f"{'right' if seen.predicted == label else 'wrong'}, Phase {phase}"
        _overlay(column[0], photo, seen, verdict, names[seen.predicted])
        column[0].set_axis_off()
        column[1].barh(range(len(top)), seen.probabilities[top], **style)
        column[1].set_yticks(range(len(top)), [shorten(names[c]) for c in top], fontsize=8)
        column[1].set(xlim=(0, 1), xlabel=f"probability after Phase {phase} (hatched: truth)")
    figure.suptitle(f"What fine-tuning changed for one {shorten(names[label])} ({title})")
    return figure


def plot_neighbours(
    asked: Split, train: Split, found: tuple[Tensor, Tensor], names: Sequence[str], *, title: str
) -> Figure:
    """Each photograph with its nearest training flowers (from `nearest_neighbours`), a row each."""
    columns = 1 + found[0].shape[1]
    figure, axes = picture_grid(len(asked), columns, size=9 / max(5, columns))
    for i, (row, label) in enumerate(zip(axes.reshape(-1, columns), asked.labels, strict=True)):
        _photo(row[0], asked.images[i], f"asked:\n{shorten(names[label])}", weight="bold")
        for ax, place, cosine in zip(row[1:], found[0][i], found[1][i], strict=True):
            other = train.labels[place]
            name = "same class" if other == label else shorten(names[other])
            _photo(ax, train.images[place], f"{name}\ncosine {cosine:.2f}")
    figure.suptitle(f"The nearest training flowers, in the network's eyes ({title})")
    return figure
