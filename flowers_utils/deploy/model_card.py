"""The page that travels with a model: what it was made from, how good it is, where it fails.

After Mitchell et al. 2019, "Model Cards for Model Reporting". Every number comes from the
checkpoint, the evaluation or the run; none is typed here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from flowers_utils.models import BACKBONES
from flowers_utils.storage.files import atomic_write
from flowers_utils.storage.results import markdown_table

HEADLINES = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "mean_per_class": "mean per-class accuracy",
}
WEAKEST = 5

# What may be done with the data and the starting weights; by the data's source.
DATA_TERMS = {
    "flowers102": (
        "Oxford Flowers102 (Nilsback and Zisserman, *Automated flower classification over a large "
        "number of classes*, 2008). Its authors state no licence and offer it for research; the "
        "photographs belong to those who took them."
    ),
    "practice": "Drawn by this project's own program; there are no photographs of others in it.",
    "folder": "The photographs of whoever trained this model; ask them before you pass it on.",
}
IMAGENET_TERMS = (
    "The backbone started from torchvision's `{weights}`. torchvision is under the BSD-3-Clause "
    "licence; the weights were trained on ImageNet, whose terms are for non-commercial research "
    "and education."
)
PRACTICE_WEIGHTS = "The backbone was pretrained by this project on other drawn flowers."
LIMITS = {
    "flowers102": "It knows British flowers as photographed for Flowers102, mostly one in close-up.",
    "practice": "It was trained on drawings: what it says about real photographs means nothing.",
    "folder": "It knows flowers as they look in its own training photographs.",
}


class Export(Protocol):
    """An `ExportReport` or `Int8Report`."""

    def sentence(self) -> str: ...


def write_model_card(
    path: str | os.PathLike,
    *,
    checkpoint: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    run: Mapping[str, Any] | None = None,
    split: str = "test",
    exports: Sequence[Export] = (),
) -> str:
    """Write the model card as Markdown, atomically; returns its text.

    `checkpoint` is what `load_checkpoint` returns, `evaluation` is `Evaluation.to_dict()` of
    the calibrated probabilities on `split`, `run` is what `describe_run` returns (splits, phases, device).
    """
    sections = [
        _model(checkpoint),
        _data(checkpoint, run),
        _recipe(checkpoint, run),
        _metrics(checkpoint, evaluation, split),
        _limits(checkpoint, evaluation),
        _licences(checkpoint),
    ]
    if exports:
        sections.append("## Exports\n\n" + "\n".join(f"- {e.sentence()}" for e in exports))
    text = "\n\n".join(sections) + "\n"
    atomic_write(path, lambda part: part.write_text(text, encoding="utf-8"))
    return text


def _model(checkpoint: Mapping[str, Any]) -> str:
    size, versions = checkpoint["image_size"], checkpoint["versions"]
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"# {checkpoint['architecture']}, trained on {checkpoint['data']['title']}\n\n"
        f"Names {checkpoint['num_classes']} kinds of flowers on a photograph, which it sees squashed "
        f"to {size} x {size} pixels. Made with {made}."
    )


def _data(checkpoint: Mapping[str, Any], run: Mapping[str, Any] | None) -> str:
    data = checkpoint["data"]
    lines = [f"## Data\n\n{data['title']} (source `{data['source']}`, `{data['fingerprint']}`)."]
    if run is not None:
        rows = [[name, count] for name, count in run["data"]["images"].items()]
        lines.append(markdown_table(["split", "images"], rows))
    lines.append("The model was chosen on val.")
    return "\n\n".join(lines)


def _recipe(checkpoint: Mapping[str, Any], run: Mapping[str, Any] | None) -> str:
    settings = ", ".join(f"`{key}` {value}" for key, value in checkpoint["config"].items())
    lines = [f"## Recipe\n\nThe weights are those of epoch {checkpoint['epoch']} of their phase. "
             f"Settings: {settings}."]  # fmt: skip
    if run is not None:
        rows = [_phase_row(name, phase) for name, phase in run["phases"].items()]
        headers = [
            "phase",
            "epochs",
            "learning rates",
            "best epoch",
            "best val accuracy",
            "minutes",
        ]
        lines.append(markdown_table(headers, rows))
        lines.append(f"Profile `{run['profile']}`, seed {run['seed']}, on {run['device']}.")
    return "\n\n".join(lines)


def _phase_row(name: str, phase: Mapping[str, Any]) -> list[Any]:
    rates = phase["history"][0]["learning_rates"] if phase["history"] else {}
    return [
        name,
        len(phase["history"]),
        ", ".join(f"{group} {rate:g}" for group, rate in rates.items()),
        phase["best_epoch"],
        f"{phase['best_val_accuracy']:.1%}",
        f"{phase['seconds'] / 60:.1f}",
    ]


def _metrics(checkpoint: Mapping[str, Any], evaluation: Mapping[str, Any], split: str) -> str:
    rows = []
    for key, words in HEADLINES.items():
        estimate = evaluation[key]
        interval = f"{estimate['low']:.1%} to {estimate['high']:.1%} ({estimate['method']})"
        rows.append([words, f"{estimate['value']:.1%}", interval])
    table = markdown_table([split, "value", "95 % interval"], rows)
    temperature = checkpoint.get("temperature", 1.0)
    return (
        f"## Metrics\n\nOn the {evaluation['count']} images of {split}, {checkpoint['data']['title']}:"
        f"\n\n{table}\n\nProbabilities are softmax(logits / {temperature:.3f}); their expected "
        f"calibration error is {evaluation['ece']:.3f}."
    )


def _limits(checkpoint: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    known = [row for row in evaluation["per_class"] if row["recall"] is not None]
    weakest = sorted(known, key=lambda row: row["recall"])[:WEAKEST]
    named = ", ".join(f"{r['name']} ({r['recall']:.0%} of {r['support']})" for r in weakest)
    return (
        "## Limits\n\n"
        f"- {LIMITS[checkpoint['data']['source']]}\n"
        f"- It always names one of its {checkpoint['num_classes']} kinds, also for what is none "
        "of them.\n"
        f"- Found least often: {named}.\n"
        "- Do not use it to decide what can be eaten or touched."
    )


def _licences(checkpoint: Mapping[str, Any]) -> str:
    source = checkpoint["data"]["source"]
    weights = BACKBONES[checkpoint["architecture"]].weights
    start = PRACTICE_WEIGHTS if source == "practice" else IMAGENET_TERMS.format(weights=weights)
    return f"## Licences\n\n- Data: {DATA_TERMS[source]}\n- Weights: {start}"
