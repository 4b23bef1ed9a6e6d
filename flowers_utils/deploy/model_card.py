"""The page that travels with a model (Mitchell et al. 2019, "Model Cards for Model Reporting")."""

import os
import re

from torchvision.models import get_model_weights

from flowers_utils.storage.files import atomic_write
from flowers_utils.storage.results import markdown_table, plain

CARD = """\
# {checkpoint[architecture]}, trained on {title}

Predicts which of {checkpoint[num_classes]} classes a photograph shows. Its input is the photograph
squashed to {checkpoint[image_size]} x {checkpoint[image_size]} pixels.

Trained on {run[data][images][train]} photographs, chosen on {run[data][images][val]} others{head}: epoch
{checkpoint[epoch]}, recipe {run[recipe]}, profile {run[profile]}, seed {run[seed]}, {device}.

## Metrics on the {metrics[count]} photographs of test

{scores}

Probabilities are softmax(logits / {temperature:.3f}). Their calibration error is {metrics[ece]:.3f}.

## Limits and licences

- It always predicts one of its classes, also when the photograph shows something else.
- Lowest recall: {weakest}. Do not use it to decide what can be eaten or touched.
- Data: {data}
- First weights: {weights}

## Files

{exports}
"""
SOURCES = {  # what may be done with the data, and what they are not good for
    "flowers102": "Flowers102 (Nilsback and Zisserman 2008), for research: British flowers, close-up.",
    "practice": "drawn by a program, so that predictions for real photographs mean nothing.",
    "folder": "of whoever trained this model; ask them before you pass it on.",
}
IMAGENET = "torchvision's `{}` (BSD-3-Clause), trained on ImageNet (non-commercial research)."


def write_model_card(path: str | os.PathLike, *, checkpoint: dict, metrics: dict, run: dict) -> str:
    """Write the model card as Markdown; returns its text, headings as bold lines, for a notebook.

    `metrics`: `metrics_as_dict()` on test; `run`: `describe_run()` and as "exports" `export_model()`.
    """
    source = checkpoint["data"]["source"]
    imagenet = IMAGENET.format(get_model_weights(checkpoint["architecture"]).IMAGENET1K_V1)
    scores = []
    for name in ("top1", "top5", "mean_per_class"):
        if each := metrics[name]:  # top-5 is None with five classes or fewer
            interval = f"{each['low']:.1%} to {each['high']:.1%}"
            scores.append([name, f"{each['value']:.1%}", interval])
    recall = {name: value for name, value in metrics["recall"].items() if value is not None}
    weakest = [f"{plain(name)} ({recall[name]:.0%})" for name in sorted(recall, key=recall.get)[:5]]
    text = CARD.format(
        checkpoint=checkpoint,
        metrics=metrics,
        run=run,
        head=" (then the head learned from these, too)" if checkpoint.get("head_saw_val") else "",
        title=plain(checkpoint["data"]["title"]),
        device=plain(run["device"]),
        scores=markdown_table(["accuracy", "value", "95 % interval"], scores),
        temperature=checkpoint.get("temperature", 1.0),
        weakest=", ".join(weakest),
        data=SOURCES[source],
        weights="other drawn flowers." if source == "practice" else imagenet,
        exports="\n".join(f"- {plain(each['sentence'])}" for each in run.get("exports", ())),
    )
    atomic_write(path, lambda part: part.write_text(text, encoding="utf-8"))
    return re.sub(r"^#+ (.*)$", r"**\1**", text, flags=re.MULTILINE)
