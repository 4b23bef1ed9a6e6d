"""The page that travels with a model: what it was made from, how good it is, where it fails.

After Mitchell et al. 2019, "Model Cards for Model Reporting". Every number comes from the
checkpoint, the metrics or the run; none is typed here.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flowers_utils.models import BACKBONES
from flowers_utils.storage.files import atomic_write
from flowers_utils.storage.results import markdown_table

HEADLINES = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "mean_per_class": "mean per-class accuracy",
}
WEAKEST = 5

# What may be done with the data and the starting weights, and what the model cannot know; by the
# data's source.
DATA_TERMS = {
    "flowers102": (
        "Oxford Flowers102 (Nilsback and Zisserman, *Automated flower classification over a large "
        "number of classes*, 2008). Its authors state no licence and offer it for research; the "
        "photographs belong to those who took them."
    ),
    "practice": "Drawn by this project's own program; there are no photographs of others in it.",
    "folder": "The photographs of whoever trained this model; ask them before you pass it on.",
}
WEIGHT_TERMS = {
    "imagenet": (
        "The backbone started from torchvision's `{}`. torchvision is under the BSD-3-Clause "
        "licence; the weights were trained on ImageNet, whose terms are for non-commercial research "
        "and education."
    ),
    "practice": "The backbone was pretrained by this project on other drawn flowers.",
}
LIMITS = {
    "flowers102": "It knows British flowers as photographed for Flowers102, mostly one in close-up.",
    "practice": "It was trained on drawings: what it says about real photographs means nothing.",
    "folder": "It knows flowers as they look in its own training photographs.",
}
CARD = """\
### {checkpoint[architecture]}, trained on {title}

Finds which of {checkpoint[num_classes]} classes a photograph shows. It sees the photograph squashed to
{checkpoint[image_size]} x {checkpoint[image_size]} pixels. Made with {versions}.

#### Data

{title}, fingerprint `{checkpoint[data][fingerprint]}`.

{splits}

The weights were chosen by their accuracy on val.

#### Recipe

The weights are those of epoch {checkpoint[epoch]} of their phase. Settings: {settings}.

{phases}

Profile {run[profile]}, seed {run[seed]}, on {run[device]}.

#### Metrics

On the {metrics[count]} photographs of test:

{scores}

Probabilities are softmax(logits / {temperature:.3f}); their expected calibration error is
{metrics[ece]:.3f}.

#### Limits

- {limits}
- It always answers with one of its {checkpoint[num_classes]} classes, also when the photograph shows
  something else.
- Found least often: {weakest}.
- Do not use it to decide what can be eaten or touched.

#### Licences

- Data: {terms}
- Weights: {start}

#### Exports

{exports}
"""


def write_model_card(
    path: str | os.PathLike,
    *,
    checkpoint: Mapping[str, Any],
    metrics: Mapping[str, Any],
    run: Mapping[str, Any],
) -> str:
    """Write the model card as Markdown, atomically; returns its text.

    `checkpoint` is what `load_checkpoint` returns, `metrics` is `Metrics.to_dict()` of the
    calibrated probabilities on test, `run` is what `describe_run` returns, with the dicts of the
    exported files under "exports". Headings start at level 3: the lesson shows the card in its page.
    """
    source, weights = checkpoint["data"]["source"], BACKBONES[checkpoint["architecture"]].weights
    settings = [f"{key.replace('_', ' ')} {value}" for key, value in checkpoint["config"].items()]
    text = CARD.format(
        checkpoint=checkpoint,
        metrics=metrics,
        run=run,
        title=_plain(checkpoint["data"]["title"]),
        versions=", ".join(f"{key} {value}" for key, value in checkpoint["versions"].items()),
        splits=markdown_table(["split", "photographs"], list(run["data"]["images"].items())),
        settings=", ".join(settings),
        phases=_phases(run["phases"].values()),
        scores=_scores(metrics),
        temperature=checkpoint.get("temperature", 1.0),
        limits=LIMITS[source],
        weakest=_weakest(metrics["per_class"]),
        terms=DATA_TERMS[source],
        start=WEIGHT_TERMS["practice" if source == "practice" else "imagenet"].format(weights),
        exports="\n".join(f"- {e['sentence']}" for e in run.get("exports", ())) or "None yet.",
    )
    atomic_write(path, lambda part: part.write_text(text, encoding="utf-8"))
    return text


def _plain(text: str) -> str:
    """A student's own words, which Markdown must show and not obey: a class may be called `$Rosa$`."""
    return re.sub(r"([\\`*_\[\]<>$|#~])", r"\\\1", " ".join(text.split()))


def _phases(phases: Iterable[Mapping[str, Any]]) -> str:
    """A row for each phase; groups of layers with the same learning rate stand together."""
    rows = []
    for phase in phases:
        groups: dict[float, list[str]] = {}
        for group, rate in phase["history"][0]["learning_rates"].items():
            groups.setdefault(rate, []).append(group)
        rates = "; ".join(f"{rate:g} for {', '.join(names)}" for rate, names in groups.items())
        best = [phase["best_epoch"], f"{phase['best_val_accuracy']:.1%}"]
        minutes = f"{phase['seconds'] / 60:.1f}"
        rows.append([phase["name"], len(phase["history"]), rates, *best, minutes])
    headers = ["phase", "epochs", "learning rates", "best epoch", "best val accuracy", "minutes"]
    return markdown_table(headers, rows)


def _scores(metrics: Mapping[str, Any]) -> str:
    rows = [
        [words, f"{m['value']:.1%}", f"{m['low']:.1%} to {m['high']:.1%} ({m['method']})"]
        for key, words in HEADLINES.items()
        if (m := metrics[key]) is not None  # top-5 says nothing about five classes or fewer
    ]
    return markdown_table(["on test", "value", "95 % interval"], rows)


def _weakest(per_class: Sequence[Mapping[str, Any]]) -> str:
    known = [row for row in per_class if row["recall"] is not None]
    weakest = sorted(known, key=lambda row: row["recall"])[:WEAKEST]
    return ", ".join(f"{_plain(r['name'])} ({r['recall']:.0%} of {r['support']})" for r in weakest)
