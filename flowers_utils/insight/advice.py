"""Is this result what one may expect, and if not, what is the likely cause? In plain words.

A difference that lies within the 95 % interval of a measurement is no finding: on few photographs
chance alone makes large differences.
"""

import math
from collections.abc import Mapping, Sequence

from flowers_utils.data import FlowerData
from flowers_utils.datasets.flowers102 import FULL_SIDE
from flowers_utils.errors import FlowersError
from flowers_utils.evaluation import Estimate, Metrics, wilson
from flowers_utils.storage.results import markdown_table

PHASE_TITLES = {"phase1": "Phase 1: feature extraction", "phase2": "Phase 2: fine-tuning"}
FINDINGS = {
    "nan": "The loss became nan or infinite: the learning rate is too high. Divide it by ten and "
    "start the phase again.",
    "rises": "The training loss rose or stays high ({losses}): the learning rate is too high. "
    "Divide it by ten.",
    "flat": "The training loss hardly falls ({losses}): the learning rate is too low, or everything "
    "is frozen. Multiply the rate by ten, and count the trainable parameters.",
    "one class": 'The model calls every photograph of val "{named}". It learned how often classes '
    "occur, not what they look like. Train longer, or make the classes more alike in size.",
    "few": "{accuracy} cannot be told from guessing ({guessing:.1%}) with {count} photographs in "
    "val. That is no sign of a fault: more photographs in val would show what is true.",
    "early": "{accuracy} is no better than guessing ({guessing:.1%}), which after a single epoch "
    "means nothing: train longer.",
    "labels": "{accuracy} is no better than guessing ({guessing:.1%}), while training accuracy is "
    "high, so the labels do not belong to the photographs. Show a batch of each with names.",
    "guesses": "{accuracy} is no better than guessing ({guessing:.1%}): either the labels do not "
    "belong to the photographs, or no pretrained weights are loaded. Show a batch with names.",
    "low": "{accuracy} is less than {low:.0%}. Check, in this order: are the photographs normalised "
    "with ImageNet's mean and standard deviation, in training and in evaluation? Were the "
    "pretrained weights loaded? Do the labels belong to the photographs?",
    "high": "{accuracy} is better than anyone's ({high:.0%}). Check that no photograph of val is "
    "also in train, and that the splits are the official ones.",
    "overfits": "Overfitting: training accuracy is {last[train_accuracy]:.1%}, while on val accuracy "
    "went from {best:.1%} to {last[val_accuracy]:.1%} and the loss from {lowest:.2f} to "
    "{last[val_loss]:.2f}. The best epoch is kept; for more, train shorter or augment more.",
    "worse": "This phase is worse than the one before on val ({best:.1%} against {before:.1%}), by "
    "more than chance explains: too high a backbone learning rate spoils the pretrained weights. "
    "Try a tenth of it, or keep the model of the phase before.",
}


def why_not_comparable(
    data: FlowerData, *, profile: str = "full", recipe: str = "lesson", backbone: str = "resnet18"
) -> str | None:
    """Why the lesson's promised and published accuracies do not apply to this run, else None."""
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
    return _measured(accuracy, len(data.val))


def _measured(accuracy: float, count: int) -> Estimate:
    return wilson(round(accuracy * count), count)


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
        published = ", ".join(f"{value:.1%}" for value in known["published"])
        yours = own.percent() if own else "not run", scored.percent() if scored else "not scored"
        verdict = "does not apply" if why_not else _verdict(known, own, scored)
        rows.append(
            [PHASE_TITLES[phase], f"about {known['promised']:.0%}", published, *yours, verdict]
        )
    table = markdown_table(headers, rows)
    return table + (f"\n\nPromised and published do not apply here: {why_not}." if why_not else "")


def _verdict(known: Mapping, val: Estimate | None, test: Estimate | None) -> str:
    if val is None:
        return "not run"
    (low, high), promised, measured = known["val_range"], known["promised"], test or val
    usual = f"the expected {low:.0%} to {high:.0%}: see the diagnosis"
    if val.high < low or val.low > high:
        return f"val {'below' if val.high < low else 'above'} {usual}"
    if measured.high < promised:
        return "below the promise, within the expected range"
    better = measured.low > promised
    return "better than promised" if better else "as promised (the interval holds it)"


def diagnose(
    history: Sequence[Mapping], phase: int, expected: Mapping[str, dict] | None, *, metrics: Metrics
) -> list[str]:
    """What looks wrong in a phase's history, its likely cause, and what to do; [] if nothing.

    `expected` is the config's EXPECTED, or None where it does not apply (`why_not_comparable`);
    `metrics` are the model's on val. Raises FlowersError if the phase has no epochs in the history.
    """
    rows = [row for row in history if row["phase"] == phase]
    if not rows:
        raise FlowersError(f"Phase {phase} has no epochs in this history; train it first.")
    low, high = expected[f"phase{phase}"]["val_range"] if expected else (0.0, 1.0)
    # An epoch in which the head was fitted says nothing of the training before it.
    trained = [row for row in rows if row.get("learning_rates") != {}] or rows
    losses, start = [row["train_loss"] for row in trained], math.log(len(metrics.class_names))
    facts = {
        "losses": f"{losses[0]:.2f} at first, {losses[-1]:.2f} at last; guessing has {start:.2f}",
        "named": metrics.class_names[metrics.predictions[0]],
        "count": len(metrics.labels),
        "guessing": metrics.guessing,
        "best": max(row["val_accuracy"] for row in rows),
        "before": max((row["val_accuracy"] for row in history if row["phase"] < phase), default=0),
        "lowest": min(row["val_loss"] for row in trained),
        "last": trained[-1],
        **{"low": low, "high": high},
    }
    measured = _measured(facts["best"], facts["count"])
    facts["accuracy"] = f"Validation accuracy, {measured.percent()},"
    if not all(math.isfinite(row["train_loss"] + row["val_loss"]) for row in rows):
        return [FINDINGS["nan"]]
    groups = (
        _loss(losses, facts, start),
        _accuracy(measured, facts, metrics, trained),
        _course(facts),
    )
    found = [next((name for name, applies in group.items() if applies), None) for group in groups]
    return [FINDINGS[name].format(**facts) for name in found if name]


def _loss(losses: Sequence[float], facts: Mapping, guessing: float) -> dict[str, bool]:
    # (A loss that rises with the rates of one cycle, and falls with them, has done no harm.)
    rose = max(losses) > 1.5 * max(losses[0], 0.1) and losses[-1] > losses[0] / 2
    rose = rose or losses[-1] > 4 * guessing
    flat = len(losses) > 1 and losses[-1] > 0.95 * losses[0]
    return {"rises": rose, "flat": flat and facts["last"]["train_accuracy"] <= 0.9}


def _accuracy(
    measured: Estimate, facts: Mapping, metrics: Metrics, rows: Sequence[Mapping]
) -> dict[str, bool]:
    guessing, unsure = metrics.guessing, measured.low <= metrics.guessing
    # accuracy alone hides the first where one class holds most of the photographs
    return {
        "one class": len(set(metrics.predictions)) == 1 and (metrics.support > 0).sum() > 1,
        "few": unsure and measured.value > guessing + 0.05,
        "early": unsure and len(rows) == 1,
        "labels": unsure and rows[-1]["train_accuracy"] > max(0.5, guessing + 0.2),
        "guesses": unsure,
        "low": measured.high < facts["low"],
        "high": measured.low > facts["high"],
    }


def _course(facts: Mapping) -> dict[str, bool]:
    train, val = facts["last"]["train_accuracy"], facts["last"]["val_accuracy"]
    falling = val < _measured(facts["best"], facts["count"]).low
    falling = falling or facts["last"]["val_loss"] > 1.15 * facts["lowest"] + 0.02
    return {
        "worse": facts["best"] < _measured(facts["before"], facts["count"]).low,
        "overfits": falling and train > 0.95 and train - val > 0.1,
    }
