"""Several backbones on the same splits, phases and metrics: accuracy against time and size.

Phase 1 here trains the head on features that are computed once, without augmentation: the backbone
is frozen, so an epoch over stored features takes a moment instead of minutes. Phase 2 is the
lesson's own. Everything is compared on val; comparing is choosing, so test stays untouched.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import transfer_learning_config as config
from flowers_utils.data import FlowerData
from flowers_utils.datasets.load import starting_weights
from flowers_utils.device import Device
from flowers_utils.errors import FlowersError
from flowers_utils.evaluation import Estimate, predict_features
from flowers_utils.insight.advice import interval_on_val
from flowers_utils.insight.experiments import train_head
from flowers_utils.machine.speed import count_flops, measure
from flowers_utils.models import build_model, classifier_of, count_parameters, eval_mode
from flowers_utils.progress import Progress
from flowers_utils.storage.results import markdown_table
from flowers_utils.training import Phase, train_phase

DASH = "–"


@dataclass(frozen=True)
class ComparisonSettings:
    """How long each backbone trains; `phase2_epochs=0` compares Phase 1 alone."""

    phase1_epochs: int
    phase2_epochs: int = 0
    seed: int = 0
    folder: str | Path = "models"


@dataclass(frozen=True)
class ComparisonRow:
    """One backbone. What was not measured is None; `note` then says why.

    `flops` and `latency_ms` are for one image of `image_size`; a multiply-add counts as two.
    Accuracies are on val, fractions with their 95 % interval; `seconds` are of the training.
    """

    name: str
    image_size: int
    parameters: int
    flops: int
    latency_ms: float
    phase1_top1: Estimate | None = None
    phase2_top1: Estimate | None = None
    seconds: float | None = None
    note: str = ""

    @property
    def best(self) -> Estimate | None:
        """Val accuracy after the last phase that was run."""
        return self.phase2_top1 or self.phase1_top1

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for `results.json`."""
        return asdict(self)


def compare_backbones(
    names: Sequence[str], data: FlowerData, device: Device, settings: ComparisonSettings
) -> list[ComparisonRow]:
    """A row for each backbone, in the order of `names`; an unknown name is a FlowersError.

    A backbone without pretrained weights keeps its place, with what can be measured. Phase 2 keeps
    its checkpoints in the settings' folder, under "comparison".
    """
    rows = []
    with Progress(len(names), "Timing backbones", unit="network") as bar:
        for name in names:
            bar.note(name)
            rows.append(_measure(name, data, device))
            bar.update()
    return [_train(row, data, device, settings) for row in rows]


def _measure(name: str, data: FlowerData, device: Device) -> ComparisonRow:
    """Size and speed (by torch's Timer), which do not depend on the weights."""
    model = device.place(build_model(name, num_classes=data.num_classes, weights=None))
    image = device.place_batch(torch.zeros(1, 3, data.image_size, data.image_size))
    with eval_mode(model), torch.inference_mode(), device.autocast():
        timed = measure(lambda: model(image), device, seconds=1.0)
    flops = count_flops(model, image_size=data.image_size)
    parameters, _ = count_parameters(model)
    return ComparisonRow(name, data.image_size, parameters, flops, latency_ms=1000 * timed.median)


def _train(
    row: ComparisonRow, data: FlowerData, device: Device, settings: ComparisonSettings
) -> ComparisonRow:
    """The row with its accuracies, or with a note on why it has none."""
    start, seed, classes = time.perf_counter(), settings.seed, data.num_classes
    try:
        if data.is_practice and row.name != "resnet18":
            raise FlowersError("practice flowers come with a ResNet18 only.")
        weights = starting_weights(data, device, backbone=row.name, seed=seed)
        model = build_model(row.name, num_classes=classes, weights=weights, seed=seed)
    except FlowersError as error:
        return replace(row, note=f"No pretrained weights: {error}")
    splits = tuple(
        predict_features(model, split, device, image_size=data.image_size)
        for split in (data.train, data.val)
    )
    # The head learns on the CPU: on features it is a matter of seconds on any device.
    head, rate = classifier_of(model).cpu(), config.PHASES["phase1"]["head_lr"]
    history = train_head(head, splits, rate=rate, epochs=settings.phase1_epochs, seed=seed)
    best = max(epoch["val_accuracy"] for epoch in history)
    row = replace(row, phase1_top1=interval_on_val(best, data))
    if settings.phase2_epochs:
        rates = {key: config.PHASES["phase2"][key] for key in ("backbone_lr", "head_lr")}
        phase = Phase(2, settings.phase2_epochs, **rates, seed=seed)
        result = train_phase(model, data, device, phase, folder=Path(settings.folder, "comparison"))
        accuracy = interval_on_val(result.best_val_accuracy, data)
        row = replace(row, phase2_top1=accuracy, note=result.note)
    return replace(row, seconds=time.perf_counter() - start)


def why_no_comparison(rows: Sequence[ComparisonRow]) -> str | None:
    """A sentence where there are too few accuracies to compare, else None."""
    trained = [row.name for row in rows if row.best]
    if len(trained) > 1:
        return None
    had = f"Only {trained[0]} has" if trained else "No backbone has"
    return f"{had} pretrained weights here, so there are no accuracies to compare."


def comparison_table(rows: Sequence[ComparisonRow]) -> str:
    """The rows as a Markdown table of what was measured; reasons for gaps stand below."""
    scores = {f"val, Phase {i}": [getattr(r, f"phase{i}_top1") for r in rows] for i in (1, 2)}
    columns = {
        "backbone": [row.name for row in rows],
        "parameters": [f"{row.parameters / 1e6:.1f} M" for row in rows],
        "GFLOPs": [f"{row.flops / 1e9:.2f}" for row in rows],
        "ms an image": [f"{row.latency_ms:.1f}" for row in rows],
        **{name: [e.percent() if e else DASH for e in each] for name, each in scores.items()},
        "minutes": [f"{row.seconds / 60:.1f}" if row.seconds else DASH for row in rows],
    }
    columns = {name: cells for name, cells in columns.items() if set(cells) != {DASH}}
    notes = [f"- **{row.name}**: {row.note}" for row in rows if row.note]
    cells = zip(*columns.values(), strict=True)
    return "\n".join([markdown_table(list(columns), cells), "", *notes])
