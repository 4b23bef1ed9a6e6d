"""Is this result what one may expect, and if not, what is the likely cause? In plain words."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flowers_utils.data import FlowerData
from flowers_utils.errors import FlowersError
from flowers_utils.evaluation import Estimate, wilson

PHASE_TITLES = {"phase1": "Phase 1: feature extraction", "phase2": "Phase 2: fine-tuning"}


def why_not_comparable(
    data: FlowerData, *, profile: str = "full", backbone: str = "resnet18"
) -> str | None:
    """Why the lesson's promised and published accuracies do not apply to this run, else None."""
    if data.is_practice:
        return "these are practice flowers, drawn by a formula, not photographs"
    if data.source != "flowers102":
        return "these are your own photographs, not Oxford Flowers102"
    if looks_enlarged(data.val.images):
        return (
            "these are small copies of the photographs (64x64 or so); full-size ones score higher"
        )
    if profile != "full":
        return f'they belong to the full 20 + 30 epochs, and this is the profile "{profile}"'
    if backbone != "resnet18":
        return f"they belong to ResNet18, and this run used {backbone}"
    return None


def looks_enlarged(images: np.ndarray) -> bool:
    """Whether uint8 images (N, 3, S, S) lack the detail that a full-size photograph has.

    Compares the energy of fine structure (40 to 80 waves across the picture) with that of coarser
    structure (16 to 32), median of some 16 images. Enlarged 64x64 copies have 0.04 to 0.06,
    full-size photographs 0.2 to 0.7.
    """
    side = images.shape[-1]
    if side < 160:
        return True
    some = images[:: max(1, len(images) // 16)].astype(np.float64).mean(axis=1)
    window = np.hanning(side)[:, None] * np.hanning(side)
    grey = (some - some.mean(axis=(1, 2), keepdims=True)) * window
    energy = np.abs(np.fft.fft2(grey)) ** 2
    waves = np.hypot(*np.meshgrid(*[np.fft.fftfreq(side, 1 / side)] * 2))
    fine = energy[:, (waves >= 40) & (waves < 80)].sum(axis=1)
    coarse = energy[:, (waves >= 16) & (waves < 32)].sum(axis=1)
    return bool(np.median(fine / np.maximum(coarse, 1e-9)) < 0.1)


def performance_table(
    expected: Mapping[str, dict],
    *,
    val: Mapping[str, float],
    test: Mapping[str, Estimate | None],
    why_not: str | None = None,
) -> str:
    """Markdown table "promised / published / yours"; `val` and `test` map phases to top-1 (0..1).

    `why_not` (from `why_not_comparable`): then the table says that its first columns do not apply.
    """
    columns = ("phase", "promised", "published (test)", "yours (val)", "yours (test)", "verdict")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for phase, known in expected.items():
        published = ", ".join(f"{value:.1%}" for value in known["published"])
        own_val = f"{val[phase]:.1%}" if phase in val else "not run"
        scored = test.get(phase)
        own_test = scored.percent() if scored else "not scored"
        verdict = "does not apply" if why_not else _verdict(known, val.get(phase), scored)
        cells = (PHASE_TITLES[phase], f"about {known['promised']:.0%}", published)
        lines.append(f"| {' | '.join((*cells, own_val, own_test, verdict))} |")
    if why_not:
        lines.append(f"\nPromised and published do not apply here: {why_not}.")
    return "\n".join(lines)


def _verdict(known: Mapping, val: float | None, test: Estimate | None) -> str:
    if val is None:
        return "not run"
    low, high = known["val_range"]
    if not low <= val <= high:
        side = "below" if val < low else "above"
        return f"val {side} the expected {low:.0%} to {high:.0%}: see the diagnosis"
    measured = test.value if test else val
    return "as promised" if measured >= known["promised"] else "below the promise, within range"


def diagnose(
    history: Sequence[Mapping],
    phase: int,
    expected: Mapping[str, dict] | None,
    *,
    num_classes: int = 102,
) -> list[str]:
    """What looks wrong in a phase's history, its likely cause, and what to do; [] if nothing.

    `expected` is the config's EXPECTED, or None where it does not apply (`why_not_comparable`).
    Raises FlowersError if the phase has no epochs in the history.
    """
    rows = [row for row in history if row["phase"] == phase]
    if not rows:
        raise FlowersError(f"Phase {phase} has no epochs in this history; train it first.")
    if not all(math.isfinite(row["train_loss"] + row["val_loss"]) for row in rows):
        return [
            "The loss became nan or infinite: the learning rate is too high. Divide it by ten and "
            "start the phase again."
        ]
    findings = [
        _loss_not_falling(rows, num_classes),
        _near_chance(rows, num_classes) or _outside_range(rows, phase, expected),
        _overfitting(rows),
        _no_better_than_before(history, phase),
    ]
    return [finding for finding in findings if finding]


def _best(rows: Sequence[Mapping]) -> float:
    return max(row["val_accuracy"] for row in rows)


def _loss_not_falling(rows: Sequence[Mapping], num_classes: int) -> str | None:
    losses = [row["train_loss"] for row in rows]
    guessing = math.log(num_classes)  # the loss of equal probabilities
    if max(losses) > 1.5 * max(losses[0], 0.1) or losses[-1] > 4 * guessing:
        return (
            f"The training loss rose or stays high ({losses[0]:.2f} at first, {max(losses):.2f} at "
            f"most; guessing has {guessing:.2f}): the learning rate is too high. Divide it by ten."
        )
    learned = rows[-1]["train_accuracy"] > 0.9
    if len(rows) > 1 and losses[-1] > 0.95 * losses[0] and not learned:
        return (
            f"The training loss hardly falls ({losses[0]:.2f} to {losses[-1]:.2f}): the learning "
            "rate is too low, or everything is frozen. Multiply the rate by ten, and count the "
            "trainable parameters."
        )
    return None


def _near_chance(rows: Sequence[Mapping], num_classes: int) -> str | None:
    chance = 1 / num_classes
    if _best(rows) > chance + 0.05 * (1 - chance):
        return None
    if len(rows) == 1:
        return (
            f"Validation accuracy ({_best(rows):.1%}) is no better than guessing ({chance:.1%}), "
            "which after a single epoch means nothing: train longer."
        )
    cause = (
        "either the labels do not belong to the photographs, or no pretrained weights are loaded"
    )
    if rows[-1]["train_accuracy"] > 0.5:
        cause = "training accuracy is high, so the labels do not belong to the photographs"
    return (
        f"Validation accuracy ({_best(rows):.1%}) is no better than guessing ({chance:.1%}): {cause}"
        ". Show a batch of train and one of val with their names, and check the weights."
    )


def _outside_range(
    rows: Sequence[Mapping], phase: int, expected: Mapping[str, dict] | None
) -> str | None:
    if expected is None:
        return None
    low, high = expected[f"phase{phase}"]["val_range"]
    if _best(rows) < low:
        return (
            f"Validation accuracy reached only {_best(rows):.1%} after Phase {phase}, less than "
            f"{low:.0%}. Check, in this order: are the photographs normalised with ImageNet's mean "
            "and standard deviation, in training and in evaluation? Were the pretrained weights "
            "loaded? Do the labels belong to the photographs?"
        )
    if _best(rows) > high:
        return (
            f"Validation accuracy of {_best(rows):.1%} is better than anyone's ({high:.0%}). Check "
            "that no photograph of val is also in train, and that the splits are the official ones."
        )
    return None


def _overfitting(rows: Sequence[Mapping]) -> str | None:
    last = rows[-1]
    lost = _best(rows) - last["val_accuracy"]
    lowest = min(row["val_loss"] for row in rows)
    falling = lost > 0.03 or last["val_loss"] > 1.15 * lowest + 0.02
    gap = last["train_accuracy"] - last["val_accuracy"]
    if last["train_accuracy"] < 0.95 or gap < 0.1 or not falling:
        return None
    return (
        f"Overfitting: training accuracy is {last['train_accuracy']:.1%}, while on val accuracy "
        f"went from {_best(rows):.1%} to {last['val_accuracy']:.1%} and the loss from {lowest:.2f} "
        f"to {last['val_loss']:.2f}. The best epoch is kept; for more, train shorter, augment more "
        "strongly, or raise the weight decay."
    )


def _no_better_than_before(history: Sequence[Mapping], phase: int) -> str | None:
    before = [row for row in history if row["phase"] < phase]
    now = [row for row in history if row["phase"] == phase]
    if not before or _best(now) > _best(before):
        return None
    return (
        f"Phase {phase} is no better than Phase {phase - 1} on val ({_best(now):.1%} against "
        f"{_best(before):.1%}). Fine-tuning with too high a backbone learning rate spoils the "
        "pretrained weights, and a few epochs may be too short to gain. Try a tenth of the rate, "
        "check that Phase 2 started from the best Phase 1 weights, or keep the Phase 1 model."
    )


def accuracy_by_training_size(
    features: Tensor,
    labels: Tensor,
    val_features: Tensor,
    val_labels: Tensor,
    fractions: Sequence[float] = (0.1, 0.25, 0.5, 1.0),
    seed: int = 0,
) -> list[tuple[int, Estimate]]:
    """(training photographs, top-1 on val) of a linear head on part of the cached features (N, F).

    Every class keeps its share, at least one photograph; a smaller part lies within a larger one.
    """
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise FlowersError("A part of the training set is a fraction above 0 and at most 1.")
    rng, results = np.random.default_rng(seed), []
    classes = [rng.permutation(np.flatnonzero(labels == c)) for c in labels.unique()]
    for fraction in fractions:
        chosen = [own[: max(1, round(fraction * len(own)))] for own in classes]
        rows = torch.from_numpy(np.sort(np.concatenate(chosen)))
        head = _linear_head(features[rows], labels[rows])
        correct = (head(val_features).argmax(dim=1) == val_labels).sum().item()
        results.append((len(rows), wilson(correct, len(val_labels))))
    return results


def _linear_head(features: Tensor, labels: Tensor, *, l2: float = 1e-3) -> Callable:
    """Multinomial logistic regression from zero weights: the same answer on every run."""
    mean, std = features.mean(dim=0), features.std(dim=0, correction=0).clamp_min(1e-6)
    weight = torch.zeros(features.shape[1], int(labels.max()) + 1, requires_grad=True)
    x = (features - mean) / std
    optimizer = torch.optim.LBFGS([weight], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight, labels) + l2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return lambda new: (new - mean) / std @ weight.detach()
