"""The page that travels with a model: what it was made from, how good it is, where it fails.

After Mitchell et al. 2019, "Model Cards for Model Reporting". Every number comes from the
checkpoint, the metrics or the run; none is typed here.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from torchvision.models import get_model_weights

from flowers_utils.storage.files import atomic_write
from flowers_utils.storage.results import markdown_table, plain

IMAGENET = (
    "The backbone started from torchvision's `{}` (BSD-3-Clause), trained on ImageNet, whose terms "
    "are for non-commercial research and education."
)
# By the data's source: what may be done with the data, what the model cannot do, its first weights.
SOURCES = {
    "flowers102": (
        "Flowers102 (Nilsback and Zisserman 2008): its authors state no licence and offer it for "
        "research; the photographs belong to those who took them.",
        "It was trained on British flowers, mostly photographed alone and in close-up.",
        IMAGENET,
    ),
    "practice": (
        "Drawn by this project's own program; there are no photographs of others in it.",
        "It was trained on drawings: its predictions for real photographs mean nothing.",
        "The backbone was pretrained by this project on other drawn flowers.",
    ),
    "folder": (
        "The photographs of whoever trained this model; ask them before you pass it on.",
        "It was trained on these photographs alone; on others its accuracy may be lower.",
        IMAGENET,
    ),
}
SCORES = {"top1": "top-1 accuracy", "top5": "top-5 accuracy", "mean_per_class": "mean of classes"}
UNUSED = ("total_epochs", "learning_rate")  # a phase has its own epochs and rates


def write_model_card(
    path: str | os.PathLike,
    *,
    checkpoint: Mapping[str, Any],
    metrics: Mapping[str, Any],
    run: Mapping[str, Any],
) -> str:
    """Write the model card as Markdown; returns its text to be displayed in a notebook.

    In that text each heading is a bold line, so that it does not enter the notebook's outline.
    `checkpoint` is what `load_checkpoint` returns, `metrics` is `metrics_as_dict()` of the
    calibrated probabilities on test, `run` is what `describe_run` returns, with the dicts of
    `export_model` under "exports".
    """
    text = "\n\n".join([*_made_from(checkpoint, run), *_good_for(checkpoint, metrics, run)]) + "\n"
    atomic_write(path, lambda part: part.write_text(text, encoding="utf-8"))
    return re.sub(r"^#+ (.*)$", r"**\1**", text, flags=re.MULTILINE)


def _made_from(checkpoint: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    data, size = checkpoint["data"], checkpoint["image_size"]
    title = plain(data["title"])
    versions = ", ".join(f"{key} {value}" for key, value in checkpoint["versions"].items())
    settings = {**checkpoint["config"], **checkpoint.get("phase", {})}.items()
    settings = [f"{key.replace('_', ' ')} {value}" for key, value in settings if key not in UNUSED]
    phases = [
        [p["name"], len(p["history"]), p["best_epoch"], f"{p['best_val_accuracy']:.1%}"]
        for p in run["phases"].values()
    ]
    return [
        f"# {checkpoint['architecture']}, trained on {title}",
        f"Predicts which of {checkpoint['num_classes']} classes a photograph shows; its input is the "
        f"photograph squashed to {size} x {size} pixels. Made with {versions}.",
        f"## Data\n\n{title}, fingerprint `{data['fingerprint']}`. The weights were chosen by their "
        "accuracy on val.",
        markdown_table(["split", "photographs"], list(run["data"]["images"].items())),
        f"## Recipe\n\nWeights of epoch {checkpoint['epoch']} of their phase. Recipe "
        f"{run['recipe']}, profile {run['profile']}, seed {run['seed']}, on {plain(run['device'])}. "
        f"Settings: {', '.join(settings)}.",
        markdown_table(["phase", "epochs", "best epoch", "best val accuracy"], phases),
    ]


def _good_for(
    checkpoint: Mapping[str, Any], metrics: Mapping[str, Any], run: Mapping[str, Any]
) -> list[str]:
    terms, limits, weights = SOURCES[checkpoint["data"]["source"]]
    source = get_model_weights(checkpoint["architecture"]).IMAGENET1K_V1
    scores = [
        [words, f"{m['value']:.1%}", f"{m['low']:.1%} to {m['high']:.1%} (Wilson)"]
        for key, words in SCORES.items()
        if (m := metrics[key]) is not None  # top-5 says nothing about five classes or fewer
    ]
    weakest = [row for row in metrics["per_class"] if row["recall"] is not None]
    weakest = sorted(weakest, key=lambda row: row["recall"])[:5]
    weakest = [f"{plain(r['name'])} ({r['recall']:.0%} of {r['support']})" for r in weakest]
    exports = [f"- {plain(export['sentence'])}" for export in run.get("exports", ())]
    return [
        f"## Metrics\n\nOn the {metrics['count']} photographs of test:",
        markdown_table(["on test", "value", "95 % interval"], scores),
        f"Probabilities are softmax(logits / {checkpoint.get('temperature', 1.0):.3f}); their "
        f"expected calibration error is {metrics['ece']:.3f}.",
        f"## Limits\n\n- {limits}\n- It always answers with one of its {checkpoint['num_classes']} "
        "classes, also when the photograph shows something else.\n- Found least often: "
        f"{', '.join(weakest)}.\n- Do not use it to decide what can be eaten or touched.",
        f"## Licences\n\n- Data: {terms}\n- Weights: {weights.format(source)}",
        "\n".join(["## Exports\n", *(exports or ["None yet."])]),
    ]
