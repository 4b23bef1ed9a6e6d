"""Several backbones on the same splits, phases and metrics: accuracy against time and size.

Phase 1 here trains the head on features that are computed once, without augmentation: the backbone
is frozen, so an epoch over stored features takes a moment instead of minutes. Phase 2 is the
lesson's own. Everything is compared on val; comparing is choosing, so test stays untouched.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import transfer_learning_config as config
from flowers_utils.data import FlowerData, Split, batches
from flowers_utils.datasets.download import reachable
from flowers_utils.datasets.load import starting_weights
from flowers_utils.device import Device, seed_everything
from flowers_utils.errors import FlowersError
from flowers_utils.evaluation import Estimate, Evaluation, evaluate
from flowers_utils.machine.profiling import count_flops, measure_latency
from flowers_utils.models import (
    BACKBONES,
    build_model,
    classifier_of,
    count_parameters,
    frozen_trunk,
)
from flowers_utils.phases import train_phase
from flowers_utils.predictions import predict_logits
from flowers_utils.progress import Progress
from flowers_utils.storage.results import markdown_table
from flowers_utils.training import run_epoch
from flowers_utils.transforms import eval_batch
from flowers_utils.weights import weights_status

Features = tuple[torch.Tensor, torch.Tensor]  # (N, F) float32 and labels (N,), on the device
DASH = "–"


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
    images_per_second: float
    phase1_top1: Estimate | None = None
    phase1_mean_per_class: Estimate | None = None
    phase1_seconds: float | None = None
    phase2_top1: Estimate | None = None
    phase2_mean_per_class: Estimate | None = None
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
    names: Sequence[str],
    data: FlowerData,
    device: Device,
    *,
    phase1_epochs: int,
    phase2_epochs: int,
    seed: int = 0,
    folder: str | Path = "models",
) -> list[ComparisonRow]:
    """A row for each backbone, in the order of `names`; `phase2_epochs=0` compares Phase 1 alone.

    A backbone whose pretrained weights cannot be had keeps its place, with what can be measured
    without them. Phase 2 keeps its checkpoints in `folder`, under "comparison", and goes on there
    after an interruption. Raises FlowersError for an unknown name.
    """
    rows = [_measure(name, data, device) for name in names]
    for i, row in enumerate(rows):
        try:
            check_weights_at_hand(row.name, data)
            weights = starting_weights(data, device, backbone=row.name, seed=seed)
            seed_everything(seed)
            model = build_model(row.name, num_classes=data.num_classes, weights=weights)
        except FlowersError as error:
            rows[i] = replace(row, note=f"No pretrained weights: {error}")
            continue
        row = _phase1(row, model, data, device, epochs=phase1_epochs, seed=seed)
        if phase2_epochs:
            row = _phase2(row, model, data, device, epochs=phase2_epochs, seed=seed, folder=folder)
        rows[i] = row
    return rows


def check_weights_at_hand(name: str, data: FlowerData) -> None:
    """Raise FlowersError at once where the full try, with its pauses, would fail after minutes."""
    if data.is_practice and name != "resnet18":
        raise FlowersError("practice flowers come with a ResNet18 only.")
    weights = BACKBONES[name].weights
    if not data.is_practice and weights_status(weights) != "on disk" and not reachable(weights.url):
        raise FlowersError(f"{weights.url} is neither on this machine nor reachable.")


def _measure(name: str, data: FlowerData, device: Device) -> ComparisonRow:
    """Speed and size, which do not depend on the weights."""
    model = build_model(name, num_classes=data.num_classes, weights=None)
    latency = measure_latency(model, device, image_size=data.image_size, seconds=1.0)
    return ComparisonRow(
        name=name,
        image_size=data.image_size,
        parameters=count_parameters(model)[0],
        flops=count_flops(model, image_size=data.image_size),
        latency_ms=latency.median_ms,
        images_per_second=latency.images_per_second,
    )


def _phase1(row: ComparisonRow, model: nn.Module, data: FlowerData, device: Device, *,
            epochs: int, seed: int) -> ComparisonRow:  # fmt: skip
    """Train the head of `model`, in place, on features computed once."""
    start = time.perf_counter()
    trunk = device.place(frozen_trunk(model))
    device.place(model)
    count = len(data.train) + len(data.val)
    with Progress(count, f"Features of {row.name}", unit="image") as bar:
        train, val = (
            stored_features(trunk, split, device, size=data.image_size, progress=bar)
            for split in (data.train, data.val)
        )
    train_head(classifier_of(model), train, val, device, epochs=epochs, seed=seed)
    seconds = time.perf_counter() - start
    scores = _score(model, data, device)
    return replace(row, phase1_top1=scores.top1, phase1_mean_per_class=scores.mean_per_class,
                   phase1_seconds=seconds)  # fmt: skip


def _phase2(row: ComparisonRow, model: nn.Module, data: FlowerData, device: Device, *,
            epochs: int, seed: int, folder: str | Path) -> ComparisonRow:  # fmt: skip
    """Train all of a copy of `model` from its best Phase 1 head, as the lesson does."""
    rates = {key: config.PHASES["phase2"][key] for key in ("backbone_lr", "head_lr")}
    result = train_phase(model, data, device, phase=2, epochs=epochs, seed=seed, **rates,
                         folder=Path(folder) / "comparison")  # fmt: skip
    scores = _score(result.model, data, device)
    return replace(row, phase2_top1=scores.top1, phase2_mean_per_class=scores.mean_per_class,
                   phase2_seconds=result.seconds, note=result.note)  # fmt: skip


def _score(model: nn.Module, data: FlowerData, device: Device) -> Evaluation:
    logits, labels = predict_logits(model, data.val, device)
    return evaluate(logits, labels, class_names=data.class_names)


def stored_features(
    trunk: nn.Module, split: Split, device: Device, *, size: int, progress: Progress
) -> Features:
    """Features `(N, F)` of every photograph of a split, squashed to `size`, without augmentation."""
    features, labels = [], []
    with torch.no_grad(), device.autocast():
        for images, targets in batches(split, batch_size=32, device=device):
            features.append(trunk(device.place_batch(eval_batch(images, size))).float())
            labels.append(targets)
            progress.update(len(targets))
    return torch.cat(features), torch.cat(labels)


def train_head(
    classifier: nn.Module, train: Features, val: Features, device: Device, *, epochs: int, seed: int
) -> None:
    """Train the classifier, in place, on stored features with the recipe of Phase 1; best on val."""
    recipe = config.TRAINING_CONFIG
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        classifier.parameters(),
        lr=config.PHASES["phase1"]["head_lr"],
        weight_decay=recipe["weight_decay"],
    )
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, recipe["step_size"], recipe["gamma"])
    best, best_state, scaler = -1.0, classifier.state_dict(), device.scaler()
    for _ in range(epochs):
        shuffled = _shuffled(train, recipe["batch_size"], generator)
        run_epoch(classifier, shuffled, device, optimizer=optimizer, scaler=scaler)
        schedule.step()
        top1 = run_epoch(classifier, [val], device).top1
        if top1 > best:
            best, best_state = top1, copy.deepcopy(classifier.state_dict())
    classifier.load_state_dict(best_state)


def _shuffled(data: Features, batch_size: int, generator: torch.Generator) -> Iterator[Features]:
    order = torch.randperm(len(data[1]), generator=generator).to(data[1].device)
    for chosen in order.split(batch_size):
        yield data[0][chosen], data[1][chosen]


def comparison_table(rows: Sequence[ComparisonRow]) -> str:
    """The rows as a Markdown table; what was not measured is a dash, the reasons stand below."""
    headers = ["backbone", "parameters", "GFLOPs", "ms an image", "val, Phase 1", "val, Phase 2",
               "val per class", "minutes"]  # fmt: skip
    table = markdown_table(headers, [_cells(row) for row in rows])
    notes = [f"- **{row.name}**: {row.note}" for row in rows if row.note]
    return "\n".join([table, "", *notes]) if notes else table


def _cells(row: ComparisonRow) -> list[str]:
    def percent(estimate: Estimate | None) -> str:
        if estimate is None:
            return DASH
        return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"

    seconds = [s for s in (row.phase1_seconds, row.phase2_seconds) if s is not None]
    return [
        row.name,
        f"{row.parameters / 1e6:.1f} M",
        f"{row.flops / 1e9:.2f}",
        f"{row.latency_ms:.1f}",
        percent(row.phase1_top1),
        percent(row.phase2_top1),
        percent(row.phase2_mean_per_class or row.phase1_mean_per_class),
        f"{sum(seconds) / 60:.1f}" if seconds else DASH,
    ]
