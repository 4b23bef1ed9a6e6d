"""Figures of the look inside: filters, feature maps, Grad-CAM, neighbours, one's own photograph."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from flowers_utils.data import Split
from flowers_utils.insight.inside import Explanation
from flowers_utils.plotting.colours import BLUE, GREEN, GREY
from flowers_utils.plotting.gallery import gallery, in_rows, show_photo
from flowers_utils.plotting.style import figure_function, new_figure
from flowers_utils.plotting.text import can_be_drawn, label, labels

MAPS_A_ROW = 7


@figure_function
def filters(filters: Tensor, *, title: str) -> Figure:
    """First-layer filters (K, 3, h, w) in 0..1; grey is weight 0."""
    size = f"{filters.shape[-2]} x {filters.shape[-1]}"
    heading = f"What the first layer looks for: {len(filters)} filters of {size}"
    return gallery(heading, title, in_rows([(image, "") for image in filters], 16))


@figure_function
def feature_maps(maps: Mapping[str, Tensor], photo: np.ndarray, *, title: str) -> Figure:
    """For one photograph the liveliest maps of each stage, one row a stage.

    A map that has the same value everywhere shows nothing, so it is not drawn.
    """
    rows = []
    for name, answers in maps.items():
        spread = answers.flatten(1).std(dim=1, correction=0)
        lively = [c for c in spread.argsort(descending=True).tolist() if spread[c] > 1e-6]
        row = [(answers[c], f"map {c}") for c in lively[:MAPS_A_ROW]]
        size = f"{answers.shape[-2]} x {answers.shape[-1]}"
        rows.append([(photo, f"{name}: {size}"), *(row or [(None, "no pattern")])])
    heading = "One photograph, stage by stage: from edges to parts"
    return gallery(heading, title, rows, columns=1 + MAPS_A_ROW)


def _show_heat(ax: Axes, photo: np.ndarray, seen: Explanation, caption: str) -> None:
    """Grey photograph below the heat, so that colours are heat alone."""
    show_photo(ax, None, caption)
    ax.imshow(np.asarray(photo).mean(axis=0), cmap="gray", vmin=0, vmax=255)
    if not seen.heat.any():
        box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none"}
        place = {"ha": "center", "va": "center", "transform": ax.transAxes}
        ax.text(0.5, 0.5, "no place\nspeaks for it", fontsize=9, bbox=box, **place)
    else:
        heat = seen.heat.numpy()
        ax.imshow(heat, cmap="inferno", alpha=0.15 + 0.6 * heat, vmin=0, vmax=1)


@figure_function
def grad_cam(
    photos: Split, explanations: Sequence[Explanation], class_names: Sequence[str], *, title: str
) -> Figure:
    """Photographs above, and where the network looked below."""
    names, heats = labels(class_names, limit=15), []
    upper = [(x, f"is {names[y]}") for x, y in zip(photos.images, photos.labels, strict=True)]
    for truth, seen in zip(photos.labels, explanations, strict=True):
        verdict = "right" if seen.predicted == truth else "wrong"
        caption = f"says {names[seen.predicted]}\n{seen.probabilities.max():.0%}, {verdict}"
        heats.append((None, caption))
    stages = ", ".join(sorted({seen.stage for seen in explanations}))
    heading = f"Where the network looks (Grad-CAM on {stages}): bright places speak for its answer"
    columns = max(4, len(photos))
    figure = gallery(heading, title, [upper, heats], columns=columns)
    for ax, photo, seen in zip(figure.axes[columns:], photos.images, explanations, strict=False):
        _show_heat(ax, photo, seen, ax.get_title())
    return figure


@figure_function
def phase_change(
    photo: np.ndarray, phases: Sequence[Explanation], class_names: Sequence[str], *, title: str
) -> Figure:
    """One photograph after both phases: evidence for its true class, and the answers."""
    truth, names = phases[0].target, labels(class_names)
    heading = f"What fine-tuning changed for one photograph of {names[truth]}"
    figure = new_figure(heading, title, height=5.2)
    axes = figure.subplots(2, 2, height_ratios=(2, 1))
    scores = sum(seen.probabilities for seen in phases)
    scores[truth] += 2  # the truth is always among the four
    top = scores.argsort(descending=True)[:4].flip(0).tolist()
    style = {
        "color": [GREEN if c == truth else GREY for c in top],
        "hatch": ["//" * (c == truth) for c in top],
        "edgecolor": "white",
    }
    for phase, (column, seen) in enumerate(zip(axes.T, phases, strict=True), start=1):
        verdict = "right" if seen.predicted == truth else "wrong"
        _show_heat(column[0], photo, seen, f"Phase {phase} says {names[seen.predicted]}, {verdict}")
        column[1].barh(range(len(top)), 100 * seen.probabilities[top].numpy(), **style)
        column[1].set_yticks(range(len(top)), [names[c] for c in top], fontsize=9)
        column[1].set(xlim=(0, 100), xlabel=f"% after Phase {phase} (hatched: truth)")
    return figure


@figure_function
def neighbours(
    asked: Split,
    train: Split,
    found: tuple[Tensor, Tensor],
    class_names: Sequence[str],
    *,
    title: str,
) -> Figure:
    """Each photograph with its nearest training flowers (from `nearest_neighbours`), a row each."""
    names, rows = labels(class_names, limit=15), []
    for image, truth, places, cosines in zip(asked.images, asked.labels, *found, strict=True):
        row = [(image, f"asked:\n{names[truth]}", BLUE)]
        for place, cosine in zip(places, cosines, strict=True):
            other = train.labels[place]
            name = "same class" if other == truth else names[other]
            row.append((train.images[place], f"{name}\ncosine {cosine:.2f}"))
        rows.append(row)
    return gallery("The nearest training flowers, in the network's eyes", title, rows)


@figure_function
def own_photo(
    picture: np.ndarray,
    explanation: Explanation,
    guesses: Sequence[tuple[str, float, int]],
    *,
    title: str,
) -> Figure:
    """A photograph `(3, S, S)`, where the network looked, and its best guesses as bars.

    `guesses` are (class name, probability 0..1, class number), the best first, as a `Predictor`
    returns them.
    """
    names, shares, _ = zip(*guesses, strict=True)
    facts = {name: f"{share:.0%}" for name, share, _ in guesses}
    figure = new_figure("One photograph", title, height=3.0, facts=facts)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    show_photo(left, picture, "as the network gets it")
    _show_heat(middle, picture, explanation, "where it looked (Grad-CAM)")
    bars = right.barh(range(len(names)), [100 * share for share in shares], color=BLUE)
    right.bar_label(bars, fmt="%.0f %%", padding=3)
    shown = [name if can_be_drawn(name) else f"class {number}" for name, _, number in guesses]
    ranked = [f"{i}. {label(name, limit=19)}" for i, name in enumerate(shown, start=1)]
    right.set_yticks(range(len(names)), ranked, fontsize=9)
    right.set(xlabel="probability (%)", xlim=(0, 118), title="its best guesses")
    right.invert_yaxis()
    return figure
