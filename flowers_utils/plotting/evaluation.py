"""Figures of the evaluation: predictions, confused classes, each class, calibration, heat maps."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from flowers_utils.data import Split
from flowers_utils.evaluation import Metrics, wilson
from flowers_utils.insight.inside import Heat, auroc, most_confused_pairs
from flowers_utils.plotting import style

LARGEST_TABLE = 20  # classes in a confusion matrix whose numbers can be read
FEW = 10  # photographs in a bin of confidence: its accuracy is hardly known, its bar is hollow
NO_MISTAKES = "Every photograph was predicted correctly, so there is no mistake to show."


@style.figure_function
def predictions(
    metrics: Metrics, images: np.ndarray, positions: Sequence[int], heading: str, *, title: str
) -> Figure:
    """The photographs at `positions`, each with predicted class, confidence and true class."""
    names, tiles = style.labels(metrics.class_names, limit=19), []
    for i in positions:
        correct = metrics.predictions[i] == metrics.labels[i]
        text = f"{names[metrics.predictions[i]]}\n{metrics.confidences[i]:.0%}, "
        text += "correct" if correct else f"wrong:\nis {names[metrics.labels[i]]}"
        tiles.append((images[i], text, style.BLUE if correct else style.VERMILION))
    return style.gallery(heading, title, tiles, if_none=NO_MISTAKES)


@style.figure_function
def confused_pairs(metrics: Metrics, images: np.ndarray, *, title: str) -> Figure:
    """The four most confused pairs, a row each: photographs that were taken for the other class.

    Where there is none, photographs of the class stand for comparison, with grey captions.
    """
    names, tiles = style.labels(metrics.class_names, limit=19), []
    for first, second, *taken in most_confused_pairs(metrics, 4):
        for true, other, mistaken in zip((first, second), (second, first), taken, strict=True):
            own = np.flatnonzero(metrics.labels == true)
            text = f"{names[true]}\n{len(mistaken)} of {len(own)} as\n{names[other]}"
            colour, shown = style.VERMILION if mistaken else style.GREY, (mistaken or own)[:3]
            tiles += [(images[i], text, colour) for i in shown]
            tiles += [style.EMPTY] * (3 - len(shown))
    return style.gallery("The most confused pairs", title, tiles, if_none=NO_MISTAKES)


@style.figure_function
def confusion(metrics: Metrics, *, title: str) -> Figure:
    """Photographs of each class (row) by predicted class (column); the 20 with the most mistakes."""
    mistakes = metrics.confusion - np.diag(np.diag(metrics.confusion))
    worst = np.argsort(-mistakes.sum(axis=1), kind="stable")
    shown = np.sort(worst[:LARGEST_TABLE])
    matrix, side = metrics.confusion[np.ix_(shown, shown)], len(shown)
    heading = f"{mistakes.sum():,} of {len(metrics.labels):,} photographs were confused"
    if side < len(mistakes):
        heading += f": the {side} classes with the most mistakes"
    true, predicted = np.unravel_index(mistakes.argmax(), mistakes.shape)
    most = f"{metrics.class_names[true]} as {metrics.class_names[predicted]}"
    facts = {"most often": f"{most}, {mistakes.max()} times"} if mistakes.any() else {}
    figure = style.new_figure(heading, title, height=7.6 if side > 8 else 4.2, facts=facts)
    figure.set_layout_engine("compressed")  # keeps a square matrix in the middle
    ax, all_names = figure.subplots(), style.labels(metrics.class_names)
    share = 100 * matrix / metrics.support[shown, None].clip(1)
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.argwhere(matrix):
        colour = "white" if share[row, column] > 55 else "black"
        ax.text(column, row, matrix[row, column], color=colour, ha="center", va="center")
    names = [all_names[c] for c in shown]
    ax.set_yticks(range(side), names, fontsize=9)
    ax.set_xticks(range(side), names, fontsize=9, rotation=90)
    ax.set(xlabel="predicted class", ylabel="true class")
    figure.colorbar(image, ax=ax, label="% of the true class")
    return figure


@style.figure_function
def class_bars(metrics: Metrics, *, title: str) -> Figure:
    """Recall of the ten weakest and ten strongest classes (all, if there are few), and intervals."""
    ranked = np.argsort(metrics.recall, kind="stable")  # nan, for want of photographs, last
    ranked = ranked[: np.count_nonzero(metrics.support)]
    groups = [(f"all {len(ranked)} classes", ranked[::-1], style.BLUE, "")]
    if len(ranked) > 20:
        groups = [("the 10 weakest", ranked[:10][::-1], style.VERMILION, "//")]
        groups += [("the 10 strongest", ranked[-10:], style.BLUE, "")]
    heading, height = "Classes (number of photographs), with 95 % intervals", len(groups[0][1])
    facts = {metrics.class_names[c]: f"{metrics.recall[c]:.0%}" for c in ranked[:3]}
    figure = style.new_figure(heading, title, height=1.3 + 0.3 * height, facts=facts)
    names = style.labels(metrics.class_names, limit=22)
    axes = figure.subplots(1, len(groups), squeeze=False)[0]
    for ax, (group, classes, colour, hatch) in zip(axes, groups, strict=True):
        bounds = [wilson(metrics.confusion[c, c], metrics.support[c]) for c in classes]
        look = {"color": colour, "hatch": hatch, "edgecolor": "white", "capsize": 3}
        values, intervals = style.percents(bounds)
        ax.barh(range(len(classes)), values, xerr=intervals, alpha=0.85, **look)
        texts = [f"{names[c]} ({metrics.support[c]})" for c in classes]
        ax.set_yticks(range(len(classes)), texts, fontsize=9)
        ax.set(xlim=(0, 100), xlabel="recall (% predicted correctly)", title=group)
    return figure


@style.figure_function
def reliability(before: Metrics, after: Metrics, *, temperature: float, title: str) -> Figure:
    """Accuracy against confidence before and after temperature scaling, with bin counts below."""
    heading = "Are 80 % of the predictions with 80 % confidence correct?"
    figure = style.new_figure(heading, title, height=5.4)
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    words = ("before", f"after, temperature {temperature:.2f}")
    for (top, bottom), word, scored in zip(axes.T, words, (before, after), strict=True):
        width = 100 / len(scored.bin_count)
        centres = (np.arange(len(scored.bin_count)) + 0.5) * width
        heights, many = 100 * np.nan_to_num(scored.bin_accuracy), scored.bin_count >= FEW
        rare = f"on fewer than {FEW} photographs"
        for chosen, fill, name in ((many, style.BLUE, "measured"), (~many, "none", rare)):
            look = {"color": fill, "edgecolor": style.BLUE, "label": name}
            top.bar(centres[chosen], heights[chosen], width * 0.9, **look)
        top.plot([0, 100], [0, 100], "--", color="black", label="perfectly calibrated")
        top.set(xlim=(0, 100), ylim=(0, 100), title=f"{word}: calibration error {scored.ece:.1%}")
        bottom.bar(centres, scored.bin_count, width * 0.9, color=style.GREY)
        bottom.set(xlabel="confidence (%)")
    axes[0, 0].set(ylabel="accuracy (%)")
    axes[1, 0].set(ylabel="photographs")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


@style.figure_function
def unknown_classes(known: Tensor, unknown: Tensor, *, title: str) -> Figure:
    """Confidence (0..1) on photographs of known classes and of classes that were never trained."""
    area = auroc(known, unknown)
    words = f"{area.value:.3f} (95 % interval {area.low:.3f} to {area.high:.3f})"
    figure = style.new_figure(f"Known or unknown class? AUROC {words}", title, height=3.2)
    ax = figure.subplots()
    cases = ((known, "known", style.BLUE, ""), (unknown, "unknown", style.ORANGE, "//"))
    for values, name, colour, hatch in cases:
        percent = 100 * np.asarray(values, dtype=float)
        look = {"color": colour, "hatch": hatch, "edgecolor": "white", "alpha": 0.6}
        weights = np.full(len(percent), 100 / len(percent))  # so that both add up to 100 %
        text = f"{name} classes ({len(percent):,} photographs)"
        ax.hist(percent, np.linspace(0, 100, 21), weights=weights, label=text, **look)
    ax.set(xlabel="confidence in the predicted class (%)", ylabel="% of these photographs")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@style.figure_function
def heat(photos: Split, heats: Sequence[Heat], class_names: Sequence[str], *, title: str) -> Figure:
    """Photographs above, and below the places that the class in the caption depends on."""
    names, upper, lower = style.labels(class_names, limit=19), [], []
    for photo, true, one in zip(photos.images, photos.labels, heats, strict=True):
        upper.append((photo, f"is {names[true]}", "black"))
        caption = names[one.target] if one.values.any() else "no place speaks\nfor the class"
        colour = style.BLUE if one.target == true else style.VERMILION
        lower.append((_overlay(photo, one.values.numpy()), caption, colour))
    columns, methods = max(4, len(photos)), ", ".join(sorted({h.method for h in heats}))
    upper += [style.EMPTY] * (columns - len(photos))
    heading = f"Bright: places on which the predicted class depends, estimated by {methods}"
    return style.gallery(heading, title, upper + lower, columns)


def _overlay(photo: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The photograph in grey below the heat, so that colours are heat alone: `(3, H, W)`, 0..1."""
    colours = mpl.colormaps["inferno"](heat)[..., :3].transpose(2, 0, 1)
    opaque = 0.15 + 0.6 * heat
    return opaque * colours + (1 - opaque) * np.mean(photo, axis=0) / 255
