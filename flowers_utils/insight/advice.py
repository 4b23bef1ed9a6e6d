"""Is this result what one may expect, and if not, what is the likely cause? In plain words.

A difference that lies within the 95 % interval of a measurement is no finding: on few photographs
chance alone makes large differences.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from flowers_utils.data import FlowerData
from flowers_utils.datasets.flowers102 import FULL_SIDE
from flowers_utils.errors import FlowersError
from flowers_utils.evaluation import Estimate, Metrics, wilson
from flowers_utils.storage.results import markdown_table

PHASE_TITLES = {"phase1": "Phase 1: feature extraction", "phase2": "Phase 2: fine-tuning"}


def why_not_comparable(
    data: FlowerData, *, profile: str = "full", backbone: str = "resnet18"
) -> str | None:
    """Why the lesson's promised and published accuracies do not apply to this run, else None."""
    if data.is_practice:
        return "these are practice flowers, drawn by a formula, not photographs"
    if data.source != "flowers102":
        return "these are your own photographs, not Oxford Flowers102"
    if data.photo_side is not None and data.photo_side < FULL_SIDE:
        return (
            f"these are small copies of the photographs ({data.photo_side} pixels wide); "
            "full-size ones score higher"
        )
    if profile != "full":
        return f'they belong to the full 20 + 30 epochs, and this is the profile "{profile}"'
    if backbone != "resnet18":
        return f"they belong to ResNet18, and this run used {backbone}"
    return None


def interval_on_val(accuracy: float, data: FlowerData) -> Estimate:
    """A phase's accuracy on val (0..1), with the 95 % interval that the size of val gives it."""
    return wilson(round(accuracy * len(data.val)), len(data.val))


def performance_table(
    expected: Mapping[str, dict],
    *,
    val: Mapping[str, Estimate],
    test: Mapping[str, Estimate | None],
    why_not: str | None = None,
) -> str:
    """Markdown table "promised / published / yours"; `val` and `test` map phases to top-1.

    `why_not` (from `why_not_comparable`): then the table says that its first columns do not apply.
    """
    headers = ["phase", "promised", "published (test)", "yours (val)", "yours (test)", "verdict"]
    rows = []
    for phase, known in expected.items():
        own, scored = val.get(phase), test.get(phase)
        rows.append(
            [
                PHASE_TITLES[phase],
                f"about {known['promised']:.0%}",
                ", ".join(f"{value:.1%}" for value in known["published"]),
                own.percent() if own else "not run",
                scored.percent() if scored else "not scored",
                "does not apply" if why_not else _verdict(known, own, scored),
            ]
        )
    table = markdown_table(headers, rows)
    return table + (f"\n\nPromised and published do not apply here: {why_not}." if why_not else "")


def _verdict(known: Mapping, val: Estimate | None, test: Estimate | None) -> str:
    if val is None:
        return "not run"
    low, high = known["val_range"]
    if val.high < low or val.low > high:
        side = "below" if val.high < low else "above"
        return f"val {side} the expected {low:.0%} to {high:.0%}: see the diagnosis"
    measured = test or val
    if measured.low > known["promised"]:
        return "better than promised"
    if measured.high < known["promised"]:
        return "below the promise, within the expected range"
    return "as promised (the interval holds it)"


def diagnose(
    history: Sequence[Mapping],
    phase: int,
    expected: Mapping[str, dict] | None,
    *,
    metrics: Metrics,
) -> list[str]:
    """What looks wrong in a phase's history, its likely cause, and what to do; [] if nothing.

    `expected` is the config's EXPECTED, or None where it does not apply (`why_not_comparable`);
    `metrics` are the model's on val. Raises FlowersError if the phase has no epochs in the history.
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
        _loss_not_falling(rows, len(metrics.class_names)),
        _one_class_only(metrics)
        or _near_guessing(rows, metrics)
        or _outside_range(rows, phase, expected, len(metrics.labels)),
        _overfitting(rows, len(metrics.labels)),
        _worse_than_before(history, phase, len(metrics.labels)),
    ]
    return [finding for finding in findings if finding]


def _best(rows: Sequence[Mapping]) -> float:
    return max(row["val_accuracy"] for row in rows)


def _measured(accuracy: float, count: int) -> Estimate:
    return wilson(round(accuracy * count), count)


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


def _one_class_only(metrics: Metrics) -> str | None:
    """Accuracy alone hides this where one class holds most of the photographs."""
    named = np.unique(metrics.predictions)
    if len(named) > 1 or np.count_nonzero(metrics.support) < 2:
        return None
    return (
        f'The model calls every photograph of val "{metrics.class_names[named[0]]}". It learned '
        "how often classes occur, not what they look like. Train longer; if one class is much "
        "larger than the others, add photographs of the small ones or leave some of it out."
    )


def _near_guessing(rows: Sequence[Mapping], metrics: Metrics) -> str | None:
    count, guessing = len(metrics.labels), metrics.guessing
    measured = _measured(_best(rows), count)
    if measured.low > guessing:
        return None
    claim = f"Validation accuracy, {measured.percent()}, "
    if measured.value > guessing + 0.05:
        return (
            f"{claim}cannot be told from guessing ({guessing:.1%}) with {count} photographs in "
            "val. That is no sign of a fault: more photographs in val would show what is true."
        )
    claim += f"is no better than guessing ({guessing:.1%})"
    if len(rows) == 1:
        return f"{claim}, which after a single epoch means nothing: train longer."
    cause = (
        "either the labels do not belong to the photographs, or no pretrained weights are loaded"
    )
    if rows[-1]["train_accuracy"] > max(0.5, guessing + 0.2):
        cause = "training accuracy is high, so the labels do not belong to the photographs"
    return f"{claim}: {cause}. Show a batch of train and one of val with names; check the weights."


def _outside_range(
    rows: Sequence[Mapping], phase: int, expected: Mapping[str, dict] | None, count: int
) -> str | None:
    if expected is None:
        return None
    low, high = expected[f"phase{phase}"]["val_range"]
    measured = _measured(_best(rows), count)
    if measured.high < low:
        return (
            f"Validation accuracy reached only {_best(rows):.1%} after Phase {phase}, less than "
            f"{low:.0%}. Check, in this order: are the photographs normalised with ImageNet's mean "
            "and standard deviation, in training and in evaluation? Were the pretrained weights "
            "loaded? Do the labels belong to the photographs?"
        )
    if measured.low > high:
        return (
            f"Validation accuracy of {_best(rows):.1%} is better than anyone's ({high:.0%}). Check "
            "that no photograph of val is also in train, and that the splits are the official ones."
        )
    return None


def _overfitting(rows: Sequence[Mapping], count: int) -> str | None:
    last, best = rows[-1], _best(rows)
    lowest = min(row["val_loss"] for row in rows)
    falling = last["val_accuracy"] < _measured(best, count).low
    falling = falling or last["val_loss"] > 1.15 * lowest + 0.02
    learned_by_heart = last["train_accuracy"] > 0.95
    if not (learned_by_heart and falling and last["train_accuracy"] - last["val_accuracy"] > 0.1):
        return None
    return (
        f"Overfitting: training accuracy is {last['train_accuracy']:.1%}, while on val accuracy "
        f"went from {best:.1%} to {last['val_accuracy']:.1%} and the loss from {lowest:.2f} "
        f"to {last['val_loss']:.2f}. The best epoch is kept; for more, train shorter, augment more "
        "strongly, or raise the weight decay."
    )


def _worse_than_before(history: Sequence[Mapping], phase: int, count: int) -> str | None:
    before = [row for row in history if row["phase"] < phase]
    now = [row for row in history if row["phase"] == phase]
    if not before or _best(now) >= _measured(_best(before), count).low:
        return None  # within the interval there is nothing to say
    return (
        f"Phase {phase} is worse than Phase {phase - 1} on val ({_best(now):.1%} against "
        f"{_best(before):.1%}), by more than chance explains. Fine-tuning with too high a backbone "
        "learning rate spoils the pretrained weights. Try a tenth of the rate, check that Phase 2 "
        "started from the best Phase 1 weights, or keep the Phase 1 model."
    )
