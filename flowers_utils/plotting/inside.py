"""Figures of the look inside: filters, feature maps, Grad-CAM, neighbours, one's own photograph."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from flowers_utils.data import Split
from flowers_utils.insight.inside import Explanation
from flowers_utils.plotting.style import (
    BLUE,
    GREEN,
    GREY,
    figure_function,
    new_figure,
    picture_grid,
    show_photo,
)
from flowers_utils.plotting.text import labels

MAPS_A_ROW = 7
NO_HEAT = "no place speaks for it"


@figure_function
def filters(filters: Tensor, *, title: str) -> Figure:
    """First-layer filters (K, 3, h, w) in 0..1; grey is weight 0."""
    rows = -(-len(filters) // 16)
    size = f"{filters.shape[-2]} x {filters.shape[-1]}"
    figure = new_figure(
        f"What the first layer looks for: {len(filters)} filters of {size}",
        title,
        height=0.5 + 0.56 * rows,
        alt="A square for each filter; grey is weight 0, colours are what the filter answers to.",
    )
    for ax, image in zip(picture_grid(figure, rows, 16), filters, strict=False):
        ax.imshow(image.permute(1, 2, 0).numpy())
    return figure


@figure_function
def feature_maps(maps: Mapping[str, Tensor], photo: np.ndarray, *, title: str) -> Figure:
    """For one photograph the liveliest maps of each stage, one row a stage.

    A map that has the same value everywhere shows nothing, so it is not drawn.
    """
    sizes = ", ".join(f"{name} {m.shape[-2]} x {m.shape[-1]}" for name, m in maps.items())
    figure = new_figure(
        "One photograph, stage by stage: from edges to parts",
        title,
        height=0.4 + 1.3 * len(maps),
        alt=f"The maps become coarser: {sizes}. Bright places answer most.",
    )
    axes = picture_grid(figure, len(maps), 1 + MAPS_A_ROW).reshape(len(maps), -1)
    for row, (name, answers) in zip(axes, maps.items(), strict=True):
        show_photo(row[0], photo, f"{name}: {answers.shape[-2]} x {answers.shape[-1]}")
        spread = answers.flatten(1).std(dim=1, correction=0)
        lively = [c for c in spread.argsort(descending=True).tolist() if spread[c] > 1e-6]
        for ax, channel in zip(row[1:], lively, strict=False):
            ax.imshow(answers[channel].numpy(), cmap="viridis")
            ax.set_title(f"map {channel}", fontsize=9)
        if not lively:
            single = answers[0].numel() == 1
            why = "one place has no pattern" if single else "no map differs from place to place"
            row[1].text(0, 0.5, f"Nothing to show here: {why}.", va="center")
    return figure


def _show_heat(ax: Axes, photo: np.ndarray, seen: Explanation, caption: str) -> None:
    """Grey photograph below the heat, so that colours are heat alone."""
    show_photo(ax, None, caption)
    ax.imshow(np.asarray(photo).mean(axis=0), cmap="gray", vmin=0, vmax=255)
    if seen.blank:
        box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none"}
        place = {"ha": "center", "va": "center", "transform": ax.transAxes}
        ax.text(0.5, 0.5, NO_HEAT.replace(" speaks", "\nspeaks"), fontsize=9, bbox=box, **place)
    else:
        heat = seen.heat.numpy()
        ax.imshow(heat, cmap="inferno", alpha=0.15 + 0.6 * heat, vmin=0, vmax=1)


@figure_function
def grad_cam(
    photos: Split, explanations: Sequence[Explanation], class_names: Sequence[str], *, title: str
) -> Figure:
    """Photographs above, and where the network looked below."""
    names, count = labels(class_names, limit=15), len(photos)
    stages = ", ".join(sorted({seen.stage for seen in explanations}))
    right = [
        seen.predicted == int(label)
        for seen, label in zip(explanations, photos.labels, strict=True)
    ]
    figure = new_figure(
        f"Where the network looks (Grad-CAM on {stages}): bright places speak for its answer",
        title,
        height=0.9 + 2 * min(2.1, 8.6 / count) + 0.4,
        alt=f"{count} photographs, {sum(right)} named rightly, each with its heat map.",
    )
    axes = picture_grid(figure, 2, max(4, count)).reshape(2, -1)
    for column, photo, label, seen in zip(
        axes.T, photos.images, photos.labels, explanations, strict=False
    ):
        verdict = "right" if seen.predicted == label else "wrong"
        caption = f"says {names[seen.predicted]}\n{seen.probabilities.max():.0%}, {verdict}"
        if seen.target != seen.predicted:
            caption += f"\nheat: {names[seen.target]}"
        show_photo(column[0], photo, f"is {names[label]}")
        _show_heat(column[1], photo, seen, caption)
    return figure


@figure_function
def phase_change(
    photo: np.ndarray, phases: Sequence[Explanation], class_names: Sequence[str], *, title: str
) -> Figure:
    """One photograph (see `compare_phases`): evidence for its true class, and the answers."""
    label, names = phases[0].target, labels(class_names)
    answers = [
        f"after Phase {i} the answer is {class_names[seen.predicted]}, "
        f"{seen.probabilities.max():.0%}"
        for i, seen in enumerate(phases, start=1)
    ]
    figure = new_figure(
        f"What fine-tuning changed for one photograph of {names[label]}",
        title,
        height=5.2,
        alt=f"{'; '.join(answers)}.",
    )
    axes = figure.subplots(2, 2, height_ratios=(2, 1))
    scores = sum(seen.probabilities for seen in phases)
    scores[label] += 2  # the truth is always among the four
    top = scores.argsort(descending=True)[:4].flip(0).tolist()
    style = {
        "color": [GREEN if c == label else GREY for c in top],
        "hatch": ["//" * (c == label) for c in top],
        "edgecolor": "white",
    }
    for phase, (column, seen) in enumerate(zip(axes.T, phases, strict=True), start=1):
        verdict = "right" if seen.predicted == label else "wrong"
        _show_heat(column[0], photo, seen, f"Phase {phase} says {names[seen.predicted]}, {verdict}")
        column[0].set_axis_off()
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
    columns, names = 1 + found[0].shape[1], labels(class_names, limit=15)
    same = (train.labels[found[0]] == asked.labels[:, None]).float().mean().item()
    figure = new_figure(
        "The nearest training flowers, in the network's eyes",
        title,
        height=0.4 + len(asked) * (0.45 + min(1.6, 8.6 / columns)),
        alt=f"{same:.0%} of the neighbours are of the same class.",
    )
    axes = picture_grid(figure, len(asked), columns).reshape(len(asked), -1)
    for i, (row, label) in enumerate(zip(axes, asked.labels, strict=True)):
        show_photo(row[0], asked.images[i], f"asked:\n{names[label]}", weight="bold")
        for ax, place, cosine in zip(row[1:], found[0][i], found[1][i], strict=True):
            other = train.labels[place]
            name = "same class" if other == label else names[other]
            show_photo(ax, train.images[place], f"{name}\ncosine {cosine:.2f}")
    return figure


@figure_function
def own_photo(
    picture: np.ndarray,
    explanation: Explanation,
    guesses: Sequence[tuple[str, float]],
    class_names: Sequence[str],
    *,
    title: str,
) -> Figure:
    """A photograph `(3, S, S)`, where the network looked, and its best guesses as bars.

    `guesses` are (class name, probability 0..1), the best first, as a `Predictor` returns them.
    """
    drawn = dict(zip(class_names, labels(class_names, limit=17), strict=True))
    names, shares = zip(*guesses, strict=True)
    words = ", ".join(f"{name} {share:.0%}" for name, share in guesses)
    figure = new_figure("One photograph", title, height=3.0, alt=f"Best guesses: {words}.")
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    for ax in axes[:2]:
        ax.set_axis_off()
    show_photo(axes[0], picture, "as the network gets it")
    _show_heat(axes[1], picture, explanation, "where it looked (Grad-CAM)")
    bars = axes[2].barh(range(len(names)), [100 * share for share in shares], color=BLUE)
    axes[2].bar_label(bars, fmt="%.0f %%", padding=3)
    axes[2].set_yticks(range(len(names)), [drawn[n] for n in names], fontsize=9)
    axes[2].set(xlabel="probability (%)", xlim=(0, 118), title="its best guesses")
    axes[2].invert_yaxis()
    return figure
