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
from torch import nn

import transfer_learning_config as config
from flowers_utils.data import FlowerData
from flowers_utils.datasets.load import starting_weights
from flowers_utils.device import Device
from flowers_utils.errors import FlowersError
from flowers_utils.evaluation import (
    Estimate,
    compute_metrics,
    predict_features,
    predict_logits,
    wilson,
)
from flowers_utils.insight.experiments import train_head
from flowers_utils.machine.speed import count_flops, measure
from flowers_utils.models import build_model, classifier_of, count_parameters, eval_mode
from flowers_utils.progress import Progress
from flowers_utils.storage.results import markdown_table
from flowers_utils.training import Phase, train_phase

DASH = "–"
SECONDS_OF_TIMING = 1.0  # for each backbone


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
    Accuracies are on val, fractions with their 95 % interval; seconds are of the whole phase.
    """

    name: str
    image_size: int
    parameters: int
    flops: int
    latency_ms: float
    phase1_top1: Estimate | None = None
    phase1_seconds: float | None = None
    phase2_top1: Estimate | None = None
    phase2_seconds: float | None = None
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
    """A row for each backbone, in the order of `names`.

    A backbone whose pretrained weights cannot be had keeps its place, with what can be measured
    without them. Phase 2 keeps its checkpoints in the settings' folder, under "comparison", and
    goes on there after an interruption. Raises FlowersError for an unknown name.
    """
    rows = []
    with Progress(len(names), "Timing backbones", unit="network") as bar:
        for name in names:
            bar.note(name)
            rows.append(_measure(name, data, device))
            bar.update()
    return [_trained(row, data, device, settings) for row in rows]


def _measure(name: str, data: FlowerData, device: Device) -> ComparisonRow:
    """Size and speed (by torch's Timer), which do not depend on the weights."""
    model = device.place(build_model(name, num_classes=data.num_classes, weights=None))
    image = device.place_batch(torch.zeros(1, 3, data.image_size, data.image_size))
    with eval_mode(model), torch.inference_mode(), device.autocast():
        timed = measure(lambda: model(image), device, seconds=SECONDS_OF_TIMING)
    return ComparisonRow(
        name=name,
        image_size=data.image_size,
        parameters=count_parameters(model)[0],
        flops=count_flops(model, image_size=data.image_size),
        latency_ms=1000 * timed.median,
    )


def _trained(
    row: ComparisonRow, data: FlowerData, device: Device, settings: ComparisonSettings
) -> ComparisonRow:
    """The row with its accuracies, or with a note on why it has none."""
    try:
        if data.is_practice and row.name != "resnet18":
            raise FlowersError("practice flowers come with a ResNet18 only.")
        weights = starting_weights(data, device, backbone=row.name, seed=settings.seed)
        model = build_model(
            row.name, num_classes=data.num_classes, weights=weights, seed=settings.seed
        )
    except FlowersError as error:
        return replace(row, note=f"No pretrained weights: {error}")
    row = _phase1(row, model, data, device, settings)
    return _phase2(row, model, data, device, settings) if settings.phase2_epochs else row


def _phase1(
    row: ComparisonRow,
    model: nn.Module,
    data: FlowerData,
    device: Device,
    settings: ComparisonSettings,
) -> ComparisonRow:
    """Train the head of `model`, in place, on features computed once."""
    start = time.perf_counter()
    splits = tuple(
        predict_features(model, split, device, image_size=data.image_size)
        for split in (data.train, data.val)
    )
    # The head learns on the CPU: on features it is a matter of seconds on any device.
    head, rate = classifier_of(model).cpu(), config.PHASES["phase1"]["head_lr"]
    history = train_head(head, splits, rate=rate, epochs=settings.phase1_epochs, seed=settings.seed)
    device.place(model)
    best = max(epoch["val_accuracy"] for epoch in history)
    return replace(
        row,
        phase1_top1=wilson(round(best * len(data.val)), len(data.val)),
        phase1_seconds=time.perf_counter() - start,
    )


def _phase2(
    row: ComparisonRow,
    model: nn.Module,
    data: FlowerData,
    device: Device,
    settings: ComparisonSettings,
) -> ComparisonRow:
    """Train all of a copy of `model` from its best Phase 1 head, as the lesson does."""
    rates = {key: config.PHASES["phase2"][key] for key in ("backbone_lr", "head_lr")}
    phase = Phase(2, settings.phase2_epochs, **rates, seed=settings.seed)
    folder = Path(settings.folder) / "comparison"
    result = train_phase(model, data, device, phase, folder=folder)
    logits, labels = predict_logits(result.model, data.val, device)
    scores = compute_metrics(logits, labels, class_names=data.class_names)
    return replace(row, phase2_top1=scores.top1, phase2_seconds=result.seconds, note=result.note)


def why_no_comparison(rows: Sequence[ComparisonRow]) -> str | None:
    """A sentence where there are too few accuracies to compare, else None."""
    trained = [row.name for row in rows if row.best is not None]
    if len(trained) > 1:
        return None
    had = f"Only {trained[0]} has" if trained else "No backbone has"
    return f"{had} pretrained weights here, so there are no accuracies to compare."


def comparison_table(rows: Sequence[ComparisonRow]) -> str:
    """The rows as a Markdown table of what was measured; reasons for gaps stand below."""
    columns = {
        "backbone": [row.name for row in rows],
        "parameters": [f"{row.parameters / 1e6:.1f} M" for row in rows],
        "GFLOPs": [f"{row.flops / 1e9:.2f}" for row in rows],
        "ms an image": [f"{row.latency_ms:.1f}" for row in rows],
        "val, Phase 1": [_percent(row.phase1_top1) for row in rows],
        "val, Phase 2": [_percent(row.phase2_top1) for row in rows],
        "minutes": [_minutes(row) for row in rows],
    }
    columns = {name: cells for name, cells in columns.items() if set(cells) != {DASH}}
    cells = list(zip(*columns.values(), strict=True))
    notes = [f"- **{row.name}**: {row.note}" for row in rows if row.note]
    return "\n".join([markdown_table(list(columns), [list(row) for row in cells]), "", *notes])


def _percent(estimate: Estimate | None) -> str:
    return DASH if estimate is None else estimate.percent()


def _minutes(row: ComparisonRow) -> str:
    seconds = [s for s in (row.phase1_seconds, row.phase2_seconds) if s is not None]
    return f"{sum(seconds) / 60:.1f}" if seconds else DASH
