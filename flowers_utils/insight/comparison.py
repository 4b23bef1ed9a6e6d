"""Several backbones on the same photographs: accuracy of a new head against time and size.

The head learns on features that are computed once, without augmentation: the backbone is frozen,
so an epoch takes a moment instead of minutes. All is compared on val: test is not for choosing.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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

DASH = "–"


@dataclass(frozen=True)
class ComparisonRow:
    """One backbone. What was not measured is None; `note` then says why.

    `flops` and `latency_ms` are for one image of `image_size`; a multiply-add counts as two.
    `val` is the accuracy of the head; `seconds` are those of its features and its training.
    """

    name: str
    image_size: int
    parameters: int
    flops: int
    latency_ms: float
    val: Estimate | None = None
    seconds: float | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for `results.json`."""
        return asdict(self)


def compare_backbones(
    names: Sequence[str], data: FlowerData, device: Device, *, epochs: int, seed: int = 0
) -> list[ComparisonRow]:
    """A row for each backbone, in the order of `names`; an unknown name is a FlowersError.

    A backbone without pretrained weights keeps its place, with what can be measured.
    """
    rows = []
    with Progress(len(names), "Timing backbones", unit="network") as bar:
        for name in names:
            bar.note(name)
            rows.append(_measure(name, data, device))
            bar.update()
    return [_train(row, data, device, epochs, seed) for row in rows]


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
    row: ComparisonRow, data: FlowerData, device: Device, epochs: int, seed: int
) -> ComparisonRow:
    """The row with its accuracy, or with a note on why it has none."""
    start = time.perf_counter()
    try:
        if data.is_practice and row.name != "resnet18":
            raise FlowersError("practice flowers come with a ResNet18 only.")
        weights = starting_weights(data, device, backbone=row.name, seed=seed)
        model = build_model(row.name, num_classes=data.num_classes, weights=weights, seed=seed)
    except FlowersError as error:
        return replace(row, note=f"No pretrained weights: {error}")
    splits = tuple(
        predict_features(model, split, device, image_size=data.image_size)
        for split in (data.train, data.val)
    )
    # The head learns on the CPU: on features it is a matter of seconds on any device.
    head, rate = classifier_of(model).cpu(), config.PHASES["phase1"]["head_lr"]
    history = train_head(head, splits, rate=rate, epochs=epochs, seed=seed)
    best = max(epoch["val_accuracy"] for epoch in history)
    seconds = time.perf_counter() - start
    return replace(row, val=interval_on_val(best, data), seconds=seconds)


def why_no_comparison(rows: Sequence[ComparisonRow]) -> str | None:
    """A sentence where there are too few accuracies to compare, else None."""
    trained = [row.name for row in rows if row.val]
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
        "head on val": [row.val.percent() if row.val else DASH for row in rows],
        "minutes": [f"{row.seconds / 60:.1f}" if row.seconds else DASH for row in rows],
    }
    columns = {name: cells for name, cells in columns.items() if set(cells) != {DASH}}
    notes = [f"- **{row.name}**: {row.note}" for row in rows if row.note]
    cells = zip(*columns.values(), strict=True)
    return "\n".join([markdown_table(list(columns), cells), "", *notes])
