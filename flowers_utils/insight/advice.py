"""Is this result what one may expect, and if not, what is the likely cause?

A difference within the 95 % interval of a measurement is no finding, because chance alone makes
large differences on few photographs.
"""

import math
from collections.abc import Mapping, Sequence

from flowers_utils.data import FlowerData
from flowers_utils.evaluation import Estimate, wilson

FULL_SIDE = 500  # pixels of the shorter side of Oxford's photographs
FINDINGS = {
    "nan": "The loss became nan or infinite, because the learning rate is too high. Divide it by "
    "ten and start the phase again.",
    "rises": "The training loss rose or stayed high ({losses}), because the learning rate is too "
    "high. Divide it by ten.",
    "flat": "The training loss hardly fell ({losses}): the learning rate is too low, or every layer "
    "is frozen. Multiply the rate by ten, and count the trainable parameters.",
    "guesses": "Validation accuracy, {best}, cannot be told from guessing ({guessing:.1%}). Check in "
    "this order: were there more than a few epochs and photographs? Do the labels belong to the "
    "photographs (show a batch with its class names)? Were the pretrained weights loaded?",
    "overfits": "Overfitting: training accuracy is {last[train_accuracy]:.1%}, while validation "
    "accuracy is {last[val_accuracy]:.1%} after a best of {best}. The weights of the best epoch are "
    "kept. For a better result train fewer epochs or augment more.",
}


def why_not_comparable(
    data: FlowerData, *, profile: str = "full", recipe: str = "lesson", backbone: str = "resnet18"
) -> str | None:
    """Why the promised and published accuracies do not apply to this run, else None."""
    if data.is_practice:
        return "these are practice flowers, drawn by a formula, not photographs"
    if data.source != "flowers102":
        return "these are your own photographs, not Oxford Flowers102"
    if (data.photo_side or FULL_SIDE) < FULL_SIDE:
        size = f"{data.photo_side} pixels wide"
        return f"these are small copies of the photographs ({size}); full-size ones score higher"
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
    if not all(math.isfinite(row["train_loss"] + row["val_loss"]) for row in rows):
        return [FINDINGS["nan"]]
    # An epoch in which the head was fitted says nothing about the training before it.
    trained = [row for row in rows if row.get("learning_rates") != {}] or rows
    losses, last = [row["train_loss"] for row in trained], trained[-1]
    start = math.log(data.num_classes)  # the loss of guessing
    best = interval_on_val(max(row["val_accuracy"] for row in rows), data)
    guessing = float(data.val.labels.bincount().max() / len(data.val))
    # (A loss that rises with the rates of one cycle, and falls with them, has done no harm.)
    rose = max(losses) > 1.5 * max(losses[0], 0.1) and losses[-1] > losses[0] / 2
    flat = len(losses) > 1 and losses[-1] > 0.95 * losses[0] and last["train_accuracy"] <= 0.9
    gap = last["train_accuracy"] - last["val_accuracy"]
    lowest = min(row["val_loss"] for row in trained)
    falling = last["val_accuracy"] < best.low or last["val_loss"] > 1.15 * lowest + 0.02
    applies = {
        "rises": rose or losses[-1] > 4 * start,
        "flat": flat and not rose,
        "guesses": best.low <= guessing,
        "overfits": falling and last["train_accuracy"] > 0.95 and gap > 0.1,
    }
    facts = {
        "losses": f"first {losses[0]:.2f}, last {losses[-1]:.2f}; guessing has {start:.2f}",
        **{"best": best.percent(), "guessing": guessing, "last": last},
    }
    return [FINDINGS[name].format(**facts) for name, applied in applies.items() if applied]
