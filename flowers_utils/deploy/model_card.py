"""The page that travels with a model: what it was made from, how good it is, where it fails.

After Mitchell et al. 2019, "Model Cards for Model Reporting". Every number comes from the
checkpoint, the metrics or the run; none is typed here.
"""

import os
from collections.abc import Mapping
from typing import Any

from flowers_utils.models import BACKBONES
from flowers_utils.storage.files import atomic_write
from flowers_utils.storage.results import markdown_table, plain
from flowers_utils.storage.resume import NOT_OF_A_PHASE

# By the data's source: what may be done with the data, and what the model cannot know.
SOURCES = {
    "flowers102": (
        "Oxford Flowers102 (Nilsback and Zisserman 2008). Its authors state no licence and offer it "
        "for research; the photographs belong to those who took them.",
        "It knows British flowers as photographed for Flowers102, mostly one in close-up.",
    ),
    "practice": (
        "Drawn by this project's own program; there are no photographs of others in it.",
        "It was trained on drawings: what it says about real photographs means nothing.",
    ),
    "folder": (
        "The photographs of whoever trained this model; ask them before you pass it on.",
        "It knows flowers as they look in its own training photographs.",
    ),
}
STEP_LR = ("scheduler", "step_size", "gamma")  # settings that one cycle does not use
PRACTICE_WEIGHTS = "The backbone was pretrained by this project on other drawn flowers."
IMAGENET_WEIGHTS = (
    "The backbone started from torchvision's `{}` (BSD-3-Clause), trained on ImageNet, whose terms "
    "are for non-commercial research and education."
)


def write_model_card(
    path: str | os.PathLike,
    *,
    checkpoint: Mapping[str, Any],
    metrics: Mapping[str, Any],
    run: Mapping[str, Any],
) -> str:
    """Write the model card as Markdown, atomically; returns its text.

    `checkpoint` is what `load_checkpoint` returns, `metrics` is `metrics_as_dict()` of the
    calibrated probabilities on test, `run` is what `describe_run` returns, with the dicts of the
    exported files under "exports". Headings start at level 3: the lesson shows the card in its page.
    """
    text = "\n\n".join(_parts(checkpoint, metrics, run)) + "\n"
    atomic_write(path, lambda part: part.write_text(text, encoding="utf-8"))
    return text


def _parts(
    checkpoint: Mapping[str, Any], metrics: Mapping[str, Any], run: Mapping[str, Any]
) -> list[str]:
    data, classes = checkpoint["data"], checkpoint["num_classes"]
    terms, limits = SOURCES[data["source"]]
    weights = IMAGENET_WEIGHTS.format(BACKBONES[checkpoint["architecture"]].weights)
    versions = ", ".join(f"{key} {value}" for key, value in checkpoint["versions"].items())
    settings = {**checkpoint["config"], **checkpoint.get("phase", {})}
    unused = (*NOT_OF_A_PHASE, *(STEP_LR if settings.get("one_cycle") else ()))
    settings = {k: v for k, v in settings.items() if k not in unused}
    settings = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in settings.items())
    weakest = [row for row in metrics["per_class"] if row["recall"] is not None]
    weakest = sorted(weakest, key=lambda row: row["recall"])[:5]
    weakest = [f"{plain(r['name'])} ({r['recall']:.0%} of {r['support']})" for r in weakest]
    return [
        f"### {checkpoint['architecture']}, trained on {plain(data['title'])}",
        f"Finds which of {classes} classes a photograph shows. It sees the photograph squashed to "
        f"{checkpoint['image_size']} x {checkpoint['image_size']} pixels. Made with {versions}.",
        f"#### Data\n\n{plain(data['title'])}, fingerprint `{data['fingerprint']}`. The weights were "
        "chosen by their accuracy on val.",
        markdown_table(["split", "photographs"], list(run["data"]["images"].items())),
        f"#### Recipe\n\nWeights of epoch {checkpoint['epoch']} of their phase. Recipe "
        f"{run['recipe']}, profile {run['profile']}, seed {run['seed']}, on {run['device']}. "
        f"Settings: {settings}.",
        _phases(run["phases"]),
        f"#### Metrics\n\nOn the {metrics['count']} photographs of test:",
        _scores(metrics),
        f"Probabilities are softmax(logits / {checkpoint.get('temperature', 1.0):.3f}); their "
        f"expected calibration error is {metrics['ece']:.3f}.",
        f"#### Limits\n\n- {limits}\n- It always answers with one of its {classes} classes, also when "
        f"the photograph shows something else.\n- Found least often: {', '.join(weakest)}.\n"
        "- Do not use it to decide what can be eaten or touched.",
        f"#### Licences\n\n- Data: {terms}",
        f"- Weights: {PRACTICE_WEIGHTS if data['source'] == 'practice' else weights}",
        "#### Exports",
        "\n".join(f"- {export['sentence']}" for export in run.get("exports", ())) or "None yet.",
    ]


def _phases(phases: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each phase; groups of layers with the same highest learning rate stand together."""
    rows = []
    for phase in phases.values():
        groups: dict[float, list[str]] = {}
        trained = [row["learning_rates"] for row in phase["history"] if row["learning_rates"]]
        for group in trained[0] if trained else ():
            groups.setdefault(max(rates[group] for rates in trained), []).append(group)
        rates = "; ".join(f"{rate:.3g} for {', '.join(names)}" for rate, names in groups.items())
        rates = rates or "none: the head was fitted at once"
        best = [phase["best_epoch"], f"{phase['best_val_accuracy']:.1%}"]
        minutes = f"{phase['seconds'] / 60:.1f}"
        rows.append([phase["name"], len(phase["history"]), rates, *best, minutes])
    headers = ["phase", "epochs", "learning rates", "best epoch", "best val accuracy", "minutes"]
    return markdown_table(headers, rows)


def _scores(metrics: Mapping[str, Any]) -> str:
    names = {"top1": "top-1 accuracy", "top5": "top-5 accuracy"}
    rows = [
        [words, f"{m['value']:.1%}", f"{m['low']:.1%} to {m['high']:.1%} (Wilson)"]
        for key, words in (names | {"mean_per_class": "mean per-class accuracy"}).items()
        if (m := metrics[key]) is not None  # top-5 says nothing about five classes or fewer
    ]
    return markdown_table(["on test", "value", "95 % interval"], rows)
