"""Figures of the evaluation and of the look inside. Each takes data and returns a figure.

`title` names the data ("Oxford Flowers102", "practice flowers") and stands in every figure's title.
Photographs are uint8 (3, S, S), a split's `images`.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from flowers_utils.evaluation import Estimate, Evaluation, wilson
from flowers_utils.interpret import ConfusedPair, Explanation

BLUE, ORANGE, VERMILION, GREEN, GREY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#999999"
WIDTH = 9.0  # inches, as wide as a notebook's cell


def _photo(ax: Axes, image: np.ndarray | Tensor, caption: str = "", **text: object) -> None:
    ax.imshow(np.asarray(image).transpose(1, 2, 0))
    ax.set_title(caption, fontsize=8, **text)
    ax.set_axis_off()


def _grid(rows: int, columns: int, title: str, *, cell: float = 2.2) -> tuple[Figure, np.ndarray]:
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, rows * cell), squeeze=False, layout="constrained"
    )
    figure.suptitle(title)
    for ax in axes.flat:
        ax.set_axis_off()
    return figure, axes


def _short(name: str, length: int = 20) -> str:
    return name if len(name) <= length else f"{name[: length - 3]}..."


def _neighbours_first(confusion: np.ndarray) -> np.ndarray:
    """An order of the classes in which those taken for one another stand side by side."""
    if len(confusion) < 3:
        return np.arange(len(confusion))
    together = (confusion + confusion.T).astype(float)
    np.fill_diagonal(together, 0)
    distance = 1 / (1 + together)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance), "average", optimal_ordering=True)
    return leaves_list(tree)


def plot_confusion(evaluation: Evaluation, *, title: str, labelled: int = 24) -> Figure:
    """Confusion matrix for many classes: only mistakes are marked, larger and darker where more.

    Classes that are confused stand side by side; the `labelled` rows with most mistakes are named.
    """
    order = _neighbours_first(evaluation.confusion)
    matrix = evaluation.confusion[np.ix_(order, order)]
    mistakes = matrix - np.diag(np.diag(matrix))
    rows, columns = np.nonzero(mistakes)
    counts, side = mistakes[rows, columns], len(matrix)
    figure, ax = plt.subplots(figsize=(WIDTH, 8.4), layout="constrained")
    ax.plot([-0.5, side - 0.5], [-0.5, side - 0.5], color=GREY, linewidth=1, zorder=0)
    cell = 440 / side  # points
    if len(counts):
        size = (cell * np.clip(0.7 + 0.5 * np.log2(counts), 0.5, 3)) ** 2
        norm = LogNorm(0.7, max(counts.max(), 2))
        dots = ax.scatter(
            columns, rows, size.clip(4, 400), counts, cmap="viridis_r", norm=norm, marker="s"
        )
        bar = figure.colorbar(dots, ax=ax, shrink=0.6, label="photographs (larger square: more)")
        ticks = [n for n in (1, 2, 5, 10, 20, 50, 100) if n <= counts.max()]
        bar.set_ticks(ticks, labels=[str(n) for n in ticks])
        bar.minorticks_off()
    named = _spaced(mistakes.sum(axis=1), labelled)
    names = [_short(evaluation.class_names[order[i]]) for i in named]
    ax.set_yticks(named, names, fontsize=8)
    ax.set_xticks(named, names, fontsize=8, rotation=90)
    ax.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5), aspect="equal")
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.grid(alpha=0.25)
    wrong = f"{mistakes.sum():,} of {matrix.sum():,} photographs"
    ax.set_title(f"{title}: which flowers are taken for which ({wrong})")
    return figure


def _spaced(importance: np.ndarray, count: int) -> list[int]:
    """Up to `count` positions, most important first, none so close that labels would overlap."""
    gap, chosen = max(1, round(len(importance) / 34)), []
    for position in np.argsort(-importance, kind="stable"):
        near = any(abs(position - other) < gap for other in chosen)
        if len(chosen) < count and not near:
            chosen.append(int(position))
    return sorted(chosen)


def plot_confused_pairs(
    pairs: Sequence[ConfusedPair], images: np.ndarray, class_names: Sequence[str], *, title: str
) -> Figure:
    """Each of up to ten pairs as two photographs, one above the other, with the mistakes counted."""
    rows = max(1, -(-len(pairs) // 5))
    figure, axes = _grid(2 * rows, 5, f"{title}: the most confused pairs", cell=2.25)
    for i, pair in enumerate(pairs[:10]):
        upper, lower = axes[2 * (i // 5), i % 5], axes[2 * (i // 5) + 1, i % 5]
        sides = (
            (upper, pair.first, pair.first_example, f"{pair.first_as_second}x called the lower"),
            (lower, pair.second, pair.second_example, f"{pair.second_as_first}x called the upper"),
        )
        for ax, label, example, note in sides:
            caption = f"{_short(class_names[label])}\n{note}"
            if example is None:
                ax.set_title(f"{caption}\n(no photograph here)", fontsize=8)
            else:
                _photo(ax, images[example], caption)
    return figure


def plot_class_bars(evaluation: Evaluation, *, title: str, k: int = 10) -> Figure:
    """Recall of the k weakest and the k strongest classes, with 95 % Wilson intervals."""
    ranked = np.argsort(evaluation.recall, kind="stable")
    ranked = ranked[~np.isnan(evaluation.recall[ranked])]
    k = min(k, max(1, len(ranked) // 2))
    groups = (("weakest", ranked[:k], VERMILION, "//"), ("strongest", ranked[-k:], BLUE, ""))
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 1.4 + 0.32 * k), layout="constrained")
    for ax, (word, classes, colour, hatch) in zip(axes, groups, strict=True):
        recall, support = evaluation.recall[classes], evaluation.support[classes]
        bounds = [wilson(r * n, n) for r, n in zip(recall, support, strict=True)]
        whiskers = [[e.value - e.low for e in bounds], [e.high - e.value for e in bounds]]
        ax.barh(range(k), recall, color=colour, hatch=hatch, edgecolor="white", alpha=0.85,
                xerr=np.maximum(whiskers, 0), error_kw={"ecolor": "black", "capsize": 2})  # fmt: skip
        names = [f"{_short(evaluation.class_names[c], 22)} ({n})" for c, n in zip(classes, support)]
        ax.set_yticks(range(k), names, fontsize=8)
        ax.set(xlim=(0, 1), xlabel="recall (share recognised)", title=f"{k} {word} classes")
    figure.suptitle(f"{title}: accuracy by class (number of photographs), 95 % intervals")
    return figure


def plot_mistakes(
    evaluation: Evaluation, positions: Sequence[int], images: np.ndarray, *, title: str
) -> Figure:
    """The photographs at `positions` (from `most_confident_mistakes`) with claim and truth."""
    rows = max(1, -(-len(positions) // 5))
    figure, axes = _grid(rows, 5, f"{title}: the most confident mistakes", cell=2.4)
    for ax, i in zip(axes.flat, positions, strict=False):
        said, true = (
            evaluation.class_names[c[i]] for c in (evaluation.predictions, evaluation.labels)
        )
        caption = f"says {_short(said)}, {evaluation.confidences[i]:.0%}\nis {_short(true)}"
        _photo(ax, images[i], caption)
    return figure


def plot_reliability(
    before: Evaluation, after: Evaluation, *, temperature: float, title: str
) -> Figure:
    """Accuracy against confidence before and after temperature scaling, with bin counts below."""
    figure, axes = plt.subplots(
        2, 2, figsize=(WIDTH, 5.6), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    words = ("before", f"after, temperature {temperature:.2f}")
    for (top, bottom), word, scored in zip(axes.T, words, (before, after), strict=True):
        width = 1 / len(scored.bin_count)
        centres = (np.arange(len(scored.bin_count)) + 0.5) * width
        top.bar(
            centres, np.nan_to_num(scored.bin_accuracy), width * 0.9, color=BLUE, label="accuracy"
        )
        top.plot(scored.bin_confidence, scored.bin_confidence, "o", color=ORANGE, markeredgecolor="black",
                 markersize=5, label="mean confidence")  # fmt: skip
        top.plot([0, 1], [0, 1], "--", color="black", linewidth=1, label="perfectly calibrated")
        top.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title=f"{word}: ECE {scored.ece:.1%}")
        bottom.bar(centres, scored.bin_count, width * 0.9, color=GREY)
        bottom.set(xlabel="confidence", ylabel="photographs")
    axes[0, 0].legend(loc="upper left", fontsize=8)
    figure.suptitle(f"{title}: does 80 % sure mean right in 80 % of cases?")
    return figure


def plot_training_size(points: Sequence[tuple[int, Estimate]], *, title: str) -> Figure:
    """Accuracy on val against the number of training photographs, with 95 % intervals."""
    counts, estimates = zip(*points, strict=True)
    values = [e.value for e in estimates]
    whiskers = [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
    figure, ax = plt.subplots(figsize=(WIDTH, 4), layout="constrained")
    ax.errorbar(counts, values, whiskers, fmt="o-", color=BLUE, capsize=4)
    for count, value in zip(counts, values, strict=True):
        ax.annotate(f"{value:.0%}", (count, value), (8, -12), textcoords="offset points")
    ax.set_xscale("log")
    ax.set_xticks(counts, [f"{n:,}" for n in counts])
    ax.minorticks_off()
    ax.set(xlabel="training photographs (logarithmic)", ylabel="top-1 accuracy on val")
    ax.set_title(f"{title}: how much more data would help (linear head, frozen backbone)")
    ax.grid(alpha=0.3)
    return figure


def plot_filters(filters: Tensor, *, title: str) -> Figure:
    """First-layer filters (K, 3, h, w) in 0..1 as one mosaic; grey is weight 0."""
    figure, axes = _grid(
        -(-len(filters) // 16), 16, f"{title}: what the first layer looks for", cell=0.65
    )
    for ax, image in zip(axes.flat, filters, strict=False):
        ax.imshow(image.permute(1, 2, 0))
    return figure


def plot_feature_maps(maps: Mapping[str, Tensor], photo: np.ndarray, *, title: str) -> Figure:
    """For one photograph the seven liveliest maps of each stage, one row a stage."""
    figure, axes = _grid(len(maps), 8, f"{title}: the same photograph, stage by stage", cell=1.35)
    for row, (name, answers) in zip(axes, maps.items(), strict=True):
        _photo(row[0], photo, f"{name}\n{answers.shape[-1]} x {answers.shape[-1]}")
        liveliest = answers.flatten(1).std(dim=1).argsort(descending=True)[:7]
        for ax, channel in zip(row[1:], liveliest.tolist(), strict=False):
            ax.imshow(answers[channel], cmap="viridis")
            ax.set_title(f"map {channel}", fontsize=7)
    return figure


def _overlay(
    ax: Axes, photo: np.ndarray, seen: Explanation, names: Sequence[str], label: int
) -> None:
    said, sure = seen.predicted, seen.probabilities.max()
    verdict = "right" if said == label else f"wrong: {_short(names[label])}"
    _photo(ax, photo, f"says {_short(names[said])}, {sure:.0%}\n({verdict})")
    ax.imshow(seen.heat, cmap="inferno", alpha=0.25 + 0.5 * seen.heat.numpy(), vmin=0, vmax=1)


def plot_grad_cam(
    photos: Sequence[np.ndarray],
    explanations: Sequence[Explanation],
    labels: Sequence[int],
    class_names: Sequence[str],
    *,
    title: str,
) -> Figure:
    """Photographs (at most five) above, and where the network looked for its answer below."""
    count = max(2, len(photos))
    figure, axes = _grid(2, count, f"{title}: where the network looks (bright: more)", cell=2.5)
    for column, photo, seen, label in zip(axes.T, photos, explanations, labels, strict=False):
        _photo(column[0], photo, _short(class_names[int(label)]))
        _overlay(column[1], photo, seen, class_names, int(label))
    return figure


def plot_phase_change(
    photo: np.ndarray,
    phases: Sequence[Explanation],
    class_names: Sequence[str],
    *,
    label: int,
    title: str,
) -> Figure:
    """One photograph after Phase 1 and Phase 2: evidence for its true class, and the answers."""
    figure, axes = plt.subplots(
        2, 2, figsize=(WIDTH, 6), height_ratios=(2, 1), layout="constrained"
    )
    top = sum(seen.probabilities for seen in phases).argsort(descending=True)[:4].flip(0).tolist()
    for phase, (column, seen) in enumerate(zip(axes.T, phases, strict=True), start=1):
        _overlay(column[0], photo, seen, class_names, label)
        hatches = ["//" if c == label else "" for c in top]
        colours = [GREEN if c == label else GREY for c in top]
        column[1].barh(range(len(top)), seen.probabilities[top], color=colours, hatch=hatches)
        column[1].set_yticks(range(len(top)), [_short(class_names[c]) for c in top], fontsize=8)
        column[1].set(xlim=(0, 1), xlabel=f"probability after Phase {phase} (hatched: the truth)")
    figure.suptitle(f"{title}: what fine-tuning changed for one photograph")
    return figure


def plot_neighbours(
    queries: Sequence[np.ndarray],
    query_labels: Sequence[int],
    train_images: np.ndarray,
    train_labels: Tensor,
    found: tuple[Tensor, Tensor],
    class_names: Sequence[str],
    *,
    title: str,
) -> Figure:
    """Each photograph with its nearest training flowers (from `nearest_neighbours`), one row each."""
    positions, cosines = found
    heading = f"{title}: the nearest training flowers, in the network's eyes"
    figure, axes = _grid(len(queries), 1 + positions.shape[1], heading, cell=1.9)
    for row, photo, label, near, cosine in zip(axes, queries, query_labels, positions, cosines):
        _photo(row[0], photo, f"asked:\n{_short(class_names[int(label)])}", weight="bold")
        for ax, i, similarity in zip(row[1:], near.tolist(), cosine.tolist()):
            other = int(train_labels[i])
            same = "same class" if other == int(label) else _short(class_names[other])
            _photo(ax, train_images[i], f"{same}\ncosine {similarity:.2f}")
    return figure
