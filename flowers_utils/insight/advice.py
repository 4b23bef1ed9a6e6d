"""What looks wrong in a result, and why. A difference within its 95 % interval is no finding."""

import math
from collections.abc import Mapping, Sequence

from flowers_utils.data import FlowerData
from flowers_utils.datasets.flowers102 import FULL_SIDE
from flowers_utils.evaluation import Estimate, wilson


def why_not_comparable(
    data: FlowerData, *, profile: str = "full", recipe: str = "lesson", backbone: str = "resnet18"
) -> str | None:
    """Why the promised and published accuracies do not apply to this run, else None."""
    if data.is_practice:
        return "these are practice flowers, drawn by a formula, not photographs"
    if data.source != "flowers102":
        return "these are your own photographs, not Oxford Flowers102"
    if (data.photo_side or FULL_SIDE) < FULL_SIDE:
        return f"these are copies of {data.photo_side} pixels; full-size photographs score higher"
    if profile != "full":
        return f'they belong to the full 20 + 30 epochs, and this is the profile "{profile}"'
    if recipe != "lesson":
        return f'they belong to the recipe of the lesson, and this is the recipe "{recipe}"'
    return None if backbone == "resnet18" else f"they belong to ResNet18, not to {backbone}"


def interval_on_val(accuracy: float, data: FlowerData) -> Estimate:
    """A phase's accuracy on val (0..1), with the 95 % interval that the size of val gives it."""
    return wilson(round(accuracy * len(data.val)), len(data.val))


def diagnose(history: Sequence[Mapping], phase: int, data: FlowerData) -> list[str]:
    """What looks wrong in a phase's history, its likely cause, and what to do; [] if nothing."""
    rows = [row for row in history if row["phase"] == phase]
    # An epoch in which the head was fitted says nothing about the training before it.
    trained = [row for row in rows if row.get("learning_rates") != {}] or rows
    losses, last = [row["train_loss"] for row in trained], trained[-1]
    start = math.log(data.num_classes)  # the loss of guessing
    best = interval_on_val(max(row["val_accuracy"] for row in trained), data)
    guessing = float(data.val.labels.bincount().max() / len(data.val))
    # (A loss that rises with the rates of one cycle, and falls with them, has done no harm.)
    rose = max(losses) > 1.5 * max(losses[0], 0.1) and losses[-1] > losses[0] / 2
    flat = len(losses) > 1 and losses[-1] > 0.95 * losses[0] and last["train_accuracy"] <= 0.9
    lowest = min(row["val_loss"] for row in trained)
    falling = last["val_accuracy"] < best.low or last["val_loss"] > 1.15 * lowest + 0.02
    overfits = falling and last["train_accuracy"] > max(0.95, last["val_accuracy"] + 0.1)
    course = f"first {losses[0]:.2f}, last {losses[-1]:.2f}; guessing has {start:.2f}"
    findings = {
        f"The training loss rose or stayed high ({course}), because the learning rate is too high. "
        "Divide it by ten.": rose or losses[-1] > 4 * start,
        f"The training loss hardly fell ({course}): the learning rate is too low, or every layer is "
        "frozen. Multiply the rate by ten, and count the trainable parameters.": flat and not rose,
        f"Validation accuracy, {best.percent()}, cannot be told from guessing ({guessing:.1%}). Do "
        "the labels belong to the photographs (show a batch with its class names)? Were the "
        "pretrained weights loaded?": best.low <= guessing,
        f"Overfitting: training accuracy is {last['train_accuracy']:.1%}, while validation accuracy "
        f"is {last['val_accuracy']:.1%} after a best of {best.percent()}. The weights of the best "
        "epoch are kept. For a better result train fewer epochs or augment more.": overfits,
    }
    return [sentence for sentence, applies in findings.items() if applies]
