"""Short experiments with the head alone, on features computed once: an epoch takes milliseconds."""

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # comes with scikit-learn
from torch import Tensor, nn

import transfer_learning_config as config
from flowers_utils.data import FlowerData
from flowers_utils.datasets.load import starting_weights
from flowers_utils.device import Device
from flowers_utils.errors import FlowersError
from flowers_utils.fitted_head import fit_head
from flowers_utils.insight.advice import interval_on_val
from flowers_utils.machine.speed import count_flops, measure
from flowers_utils.models import build_model
from flowers_utils.progress import Progress
from flowers_utils.storage.results import markdown_table, plain
from flowers_utils.training import evaluate, make_optimizer, train_one_epoch
from flowers_utils.transforms import evaluation_batches

Features = tuple[Tensor, Tensor]  # (N, F) float32 and labels (N,), as `features_of` gives them
CPU = Device(torch.device("cpu"), "CPU")  # quick enough for a head, and the same everywhere


def train_head(
    train: Features, val: Features, *, rate: float = 1e-3, epochs: int = 20, seed: int = 0
) -> list[dict[str, float]]:
    """Train a new linear head by the recipe of Phase 1; a row an epoch.

    A row has epoch, train_loss, val_loss and val_accuracy. The same seed gives the same start.
    """
    recipe, history = config.TRAINING_CONFIG, []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(train[0].shape[1], 1 + int(max(train[1].max(), val[1].max())))
    optimizer = make_optimizer([{"params": list(head.parameters()), "lr": rate}], CPU)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, recipe["step_size"], recipe["gamma"])
    generator = torch.Generator().manual_seed(seed)
    with threadpool_limits(1):  # on matrices this small, threads mostly wait for one another
        for epoch in range(1, epochs + 1):
            order = torch.randperm(len(train[1]), generator=generator).split(recipe["batch_size"])
            batches = ((train[0][chosen], train[1][chosen]) for chosen in order)
            learned = train_one_epoch(head, batches, optimizer, CPU)
            schedule.step()
            scored = evaluate(head, [val], CPU)
            row = {"epoch": epoch, "train_loss": learned.loss, "val_loss": scored.loss}
            history.append({**row, "val_accuracy": scored.top1})
    return history


def accuracy_by_training_size(train: Features, val: Features, *, seed: int = 0) -> list[dict]:
    """Accuracy on val of a linear head on 20, 40, 70 and 100 % of the features: name, seed, val.

    Every class keeps its proportion, at least two photographs; a smaller part lies within a larger.
    """
    features, labels = (part.numpy() for part in train)
    rng, results = np.random.default_rng(seed), []
    classes = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    for fraction in (0.2, 0.4, 0.7, 1.0):
        rows = np.concatenate([own[: max(2, round(fraction * len(own)))] for own in classes])
        # scikit-learn's C weighs the sum of the losses: 100 / N on the sum is 0.01 on the mean
        head = make_pipeline(StandardScaler(), LogisticRegression(C=100 / len(rows), max_iter=200))
        with threadpool_limits(1):
            accuracy = head.fit(features[rows], labels[rows]).score(*(x.numpy() for x in val))
        results.append({"name": f"{len(rows):,} photographs", "seed": seed, "val": accuracy})
    return results


def compare_backbones(
    names: Sequence[str], data: FlowerData, device: Device, *, seed: int = 0
) -> list[dict[str, Any]]:
    """Size and speed of each backbone, and the accuracy on val of a head on its frozen features.

    A row has name, parameters, GFLOPs (a multiply-add is two) and ms for one image, minutes that
    features and head took, val (0..1), and a note: why val and minutes are None, if they are.
    """
    rows = []
    with Progress(len(names), "Comparing backbones", unit="network") as bar:
        for name in names:
            bar.note(name)
            size = _measure(name, data, device)
            rows.append({"name": name, **size, **_fit(name, data, device, seed)})
            bar.update()
    return rows


def _measure(name: str, data: FlowerData, device: Device) -> dict[str, float]:
    """Size and speed, which do not depend on the weights."""
    model = device.place(build_model(name, num_classes=data.num_classes, weights=None)).eval()
    image = device.place_batch(torch.zeros(1, 3, data.image_size, data.image_size))
    with torch.inference_mode(), device.autocast():
        seconds = median(measure(lambda: model(image), repeats=20))
    flops = count_flops(model, image_size=data.image_size)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "GFLOPs": flops / 1e9, "ms": 1000 * seconds}


def _fit(name: str, data: FlowerData, device: Device, seed: int) -> dict[str, Any]:
    """What a head fitted on the frozen features reaches, or why there is none."""
    start = time.perf_counter()
    try:
        weights = starting_weights(data, device, backbone=name, seed=seed)
        model = build_model(name, num_classes=data.num_classes, weights=weights, seed=seed)
    except FlowersError as error:
        return {"val": None, "minutes": None, "note": f"No pretrained weights: {error}"}
    fit_head(device.place(model), data, device)
    val = evaluate(model, evaluation_batches(data.val, device), device).top1
    return {"val": val, "minutes": (time.perf_counter() - start) / 60, "note": ""}


def comparison_table(rows: Sequence[Mapping[str, Any]], data: FlowerData) -> str:
    """The rows of `compare_backbones` in Markdown; accuracies where there are two to compare."""
    headers = ["backbone", "parameters", "GFLOPs", "ms an image", "fitted head on val", "minutes"]
    cells, notes = [], []
    for row in rows:
        size = [f"{row['parameters'] / 1e6:.1f} M", f"{row['GFLOPs']:.2f}", f"{row['ms']:.1f}"]
        fitted = ["", ""]
        if row["val"] is not None:
            fitted = [interval_on_val(row["val"], data).percent(), f"{row['minutes']:.1f}"]
        cells.append([row["name"], *size, *fitted])
    if sum(row["val"] is not None for row in rows) < 2:
        headers, cells = headers[:4], [line[:4] for line in cells]
        why = "because that takes two backbones with pretrained weights"
        notes = [f"Accuracies are not compared, {why}.\n"]
    for note in dict.fromkeys(row["note"] for row in rows if row["note"]):  # each of them once
        names = ", ".join(f"**{row['name']}**" for row in rows if row["note"] == note)
        notes.append(f"- {names}: {plain(note)}")
    return "\n".join([markdown_table(headers, cells), "", *notes]).strip()
