"""Figures of the evaluation: right and wrong, taken for which, how good for each class, how sure."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from flowers_utils.data import Split
from flowers_utils.evaluation import Metrics, wilson
from flowers_utils.insight.mistakes import ConfusedPair
from flowers_utils.plotting.colours import BLUE, GREY, VERMILION
from flowers_utils.plotting.gallery import empty_figure, gallery, in_rows, show_photo
from flowers_utils.plotting.style import figure_function, new_figure, percents, whiskers
from flowers_utils.plotting.text import labels

FEW_CLASSES = 20  # up to here a confusion matrix is a table that can be read
NO_MISTAKES = "Every photograph was recognised, so there is no mistake to show."


@figure_function
def predictions(
    split: Split, probabilities: Tensor, class_names: Sequence[str], *, title: str, seed: int = 0
) -> Figure:
    """A row of right and a row of wrong predictions; `probabilities` is `(N, classes)`."""
    confidence, guess = probabilities.max(dim=1)
    right = (guess == split.labels).numpy()
    rng, names, rows = np.random.default_rng(seed), labels(class_names, limit=15), []
    for mask, word, colour in ((right, "right", BLUE), (~right, "wrong", VERMILION)):
        chosen = rng.permutation(np.flatnonzero(mask))[:6]
        texts = [f"{word}, {confidence[i]:.0%}\n{names[guess[i]]}" for i in chosen]
        if word == "wrong":
            texts = [
                f"{t}\nis {names[split.labels[i]]}" for t, i in zip(texts, chosen, strict=True)
            ]
        if len(chosen):
            rows.append([(split.images[i], t, colour) for i, t in zip(chosen, texts, strict=True)])
    heading = "Predictions, right and wrong"
    if right.all() or not right.any():
        heading = f"All are {'right' if right.all() else 'wrong'}"
    return gallery(heading, title, rows, columns=6)


@figure_function
def confusion(metrics: Metrics, *, title: str, labelled: int = 24) -> Figure:
    """Which classes are taken for which: a table for few classes, for many the mistakes alone.

    Confused classes stand side by side; of many, the `labelled` with most mistakes are named.
    """
    order = _confused_side_by_side(metrics.confusion)
    matrix = metrics.confusion[np.ix_(order, order)]
    mistakes, side = matrix - np.diag(np.diag(matrix)), len(matrix)
    wrong = f"{mistakes.sum():,} of {matrix.sum():,} photographs"
    true, said = np.unravel_index(mistakes.argmax(), mistakes.shape)
    most = f"{metrics.class_names[order[true]]} called {metrics.class_names[order[said]]}"
    figure = new_figure(
        f"Which flowers are taken for which: {wrong}",
        title,
        height=7.6 if side > 8 else 4.2,
        facts={"most often": f"{most}, {mistakes.max()} times"} if mistakes.any() else {},
    )
    figure.set_layout_engine("compressed")  # keeps a square matrix in the middle
    ax, names, named = figure.subplots(), labels(metrics.class_names), range(side)
    if side <= FEW_CLASSES:
        _draw_table(figure, ax, matrix)
    else:
        _draw_mistakes(figure, ax, mistakes)
        named = _spaced(mistakes.sum(axis=1), labelled)
    ax.set_yticks(named, [names[order[i]] for i in named], fontsize=9)
    ax.set_xticks(named, [names[order[i]] for i in named], fontsize=9, rotation=90)
    ax.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5), aspect="equal")
    ax.set(xlabel="predicted class", ylabel="true class")
    return figure


def _confused_side_by_side(confusion: np.ndarray) -> np.ndarray:
    """An order of the classes, by clustering, in which those that are confused are neighbours."""
    if len(confusion) < 3:
        return np.arange(len(confusion))
    distance = 1 / (1.0 + confusion + confusion.T)
    np.fill_diagonal(distance, 0)
    return leaves_list(linkage(squareform(distance), "average", optimal_ordering=True))


def _draw_table(figure: Figure, ax: Axes, matrix: np.ndarray) -> None:
    """Every count, on the share that it is of its true class."""
    share = 100 * matrix / matrix.sum(axis=1, keepdims=True).clip(1)
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.argwhere(matrix):
        colour = "white" if share[row, column] > 55 else "black"
        count = matrix[row, column]
        ax.text(column, row, count, color=colour, ha="center", va="center", fontsize=10)
    figure.colorbar(image, ax=ax, label="% of the true class")


def _draw_mistakes(figure: Figure, ax: Axes, mistakes: np.ndarray) -> None:
    side = len(mistakes)
    ax.plot([-0.5, side - 0.5], [-0.5, side - 0.5], color=GREY, linewidth=1, zorder=0)
    ax.grid()
    if not mistakes.any():
        ax.text(0.5, 0.9, NO_MISTAKES, ha="center", transform=ax.transAxes)
        return
    rows, columns = np.nonzero(mistakes)
    counts = mistakes[rows, columns]
    width = min(440 / side, 16) * (0.7 + 0.35 * np.log2(counts)).clip(max=2.2)
    # without its palest quarter, in which a single mistake could not be seen
    colours = ListedColormap(mpl.colormaps["inferno_r"](np.linspace(0.25, 1, 256)))
    style = {"cmap": colours, "norm": LogNorm(1, max(counts.max(), 2)), "marker": "s"}
    dots = ax.scatter(columns, rows, width**2, counts, **style)
    bar = figure.colorbar(dots, ax=ax, shrink=0.6, label="photographs (larger square: more)")
    bar.minorticks_off()
    ticks = [n for n in (1, 2, 3, 5, 10, 20, 50, 100, 1000) if n <= max(counts.max(), 2)]
    bar.set_ticks(ticks, labels=map(str, ticks))


def _spaced(importance: np.ndarray, count: int) -> list[int]:
    """Up to `count` positions, most important first, none so close that labels would overlap."""
    gap, chosen = max(1, round(len(importance) / 30)), []
    for position in np.argsort(-importance, kind="stable"):
        if len(chosen) < count and all(abs(position - other) >= gap for other in chosen):
            chosen.append(int(position))
    return sorted(chosen)


@figure_function
def confused_pairs(
    pairs: Sequence[ConfusedPair], images: np.ndarray, class_names: Sequence[str], *, title: str
) -> Figure:
    """Up to ten pairs, each two photographs on one card, with the mistakes counted."""
    pairs, names, heading = pairs[:10], labels(class_names, limit=21), "The most confused pairs"
    if not pairs:
        return empty_figure(heading, title, NO_MISTAKES)
    rows = -(-len(pairs) // 5)
    figure = new_figure(f"{heading}, each on a card", title, height=0.5 + 3.7 * rows)
    cards = figure.subfigures(rows, 5, squeeze=False, wspace=0.05, hspace=0.04)
    for card, pair in zip(cards.ravel(), pairs, strict=False):
        card.set_facecolor("#EFEFEF")
        upper, lower = card.subplots(2, 1)
        for ax, label, example, times in (
            (upper, pair.first, pair.first_example, pair.first_as_second),
            (lower, pair.second, pair.second_example, pair.second_as_first),
        ):
            photo = None if example is None else images[example]
            show_photo(ax, photo, f"{names[label]}\n{times} taken for the other")
    return figure


@figure_function
def class_bars(metrics: Metrics, *, title: str, k: int = 10) -> Figure:
    """Recall of the k weakest and the k strongest classes (all, if they are few), with intervals."""
    ranked = np.argsort(metrics.recall, kind="stable")  # nan, for want of photographs, last
    ranked = ranked[: np.count_nonzero(metrics.support)]
    groups = [(f"all {len(ranked)} classes", ranked[::-1], BLUE, "")]
    if len(ranked) > 2 * k:
        groups = [(f"the {k} weakest", ranked[:k][::-1], VERMILION, "//")]
        groups += [(f"the {k} strongest", ranked[-k:], BLUE, "")]
    figure = new_figure(
        "Classes (number of photographs), with 95 % intervals",
        title,
        height=1.3 + 0.3 * len(groups[0][1]),
        facts={metrics.class_names[c]: f"{metrics.recall[c]:.0%}" for c in ranked[:3]},
    )
    names = labels(metrics.class_names, limit=18)
    axes = figure.subplots(1, len(groups), squeeze=False)[0]
    for ax, (heading, classes, colour, hatch) in zip(axes, groups, strict=True):
        bounds = [wilson(metrics.confusion[c, c], metrics.support[c]) for c in classes]
        bars = {"color": colour, "hatch": hatch, "edgecolor": "white", "alpha": 0.85}
        rows, error = range(len(classes)), {"capsize": 3}
        ax.barh(rows, percents(bounds), **bars, xerr=whiskers(bounds), error_kw=error)
        ax.set_yticks(rows, [f"{names[c]} ({metrics.support[c]})" for c in classes], fontsize=9)
        ax.set(xlim=(0, 100), xlabel="recall (% recognised)", title=heading)
    return figure


@figure_function
def mistakes(
    metrics: Metrics, positions: Sequence[int], images: np.ndarray, *, title: str
) -> Figure:
    """The photographs at `positions` (from `most_confident_mistakes`) with claim and truth."""
    heading, names = "The most confident mistakes", labels(metrics.class_names, limit=18)
    if len(positions) == 0:
        return empty_figure(heading, title, NO_MISTAKES)
    tiles = []
    for i in positions:
        says, true = names[metrics.predictions[i]], names[metrics.labels[i]]
        text = f"says {says}\n({metrics.confidences[i]:.0%} sure)\nis {true}"
        tiles.append((images[i], text))
    return gallery(heading, title, in_rows(tiles, 5), columns=5)
