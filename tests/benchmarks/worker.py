"""One side of `speed.py` in a process of its own: it prints its seconds by name, as JSON.

The lesson changes how its process keeps freed memory, and the textbook loop must not profit from it.
Of two epochs the second is timed, since the first one warms up.
"""

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch

import transfer_learning_config as config
from flowers_utils import models
from flowers_utils.data import FlowerData
from flowers_utils.datasets.load import load_data
from flowers_utils.device import Device, choose_device, peak_memory_bytes
from flowers_utils.evaluation import predict_logits
from flowers_utils.machine.speed import measure
from flowers_utils.phases import Phase
from flowers_utils.training import make_optimizer, train_one_epoch, train_phase
from flowers_utils.transforms import augment_batch, training_batches
from tests.benchmarks import textbook

STEPS = 8  # of Phase 1, for the proportion that the network takes


def textbook_side(folder: Path) -> dict[str, float]:
    """Seconds of an epoch of each phase, and of a pass over test, in float32."""
    device = choose_device(fast=False).torch_device
    loaders = textbook.make_loaders(folder)
    classes = len(loaders["train"].dataset.classes)
    model = models.build_model(num_classes=classes, weights=None).to(device)
    times = {
        name: textbook.train_phase(model, loaders, name, epochs=2)[1]["seconds"]
        for name in config.PHASES
    }
    test = measure(lambda: textbook.accuracy(model, loaders["test"]), repeats=1)
    return times | {"test": test[0], "memory": peak_memory_bytes(device)}


def lesson_side(folder: Path) -> dict[str, float]:
    """The same by the lesson's functions; decoding, and all that stands around the epochs, too."""
    device = choose_device()
    with tempfile.TemporaryDirectory() as made:
        config.PATHS["cache"] = made
        start = time.perf_counter()
        data = load_data(str(folder))
        times = {"decoding": time.perf_counter() - start}
        model = models.build_model(num_classes=data.num_classes, weights=None)
        for number, name in enumerate(config.PHASES, start=1):
            phase = Phase(number, **{**config.PHASES[name], "epochs": 2})
            start = time.perf_counter()
            result = train_phase(model, data, device, phase, made)
            times[f"{name} around"] = time.perf_counter() - start - result.seconds
            times[name] = result.history[1]["seconds"]
        test = measure(lambda: predict_logits(model, data.test, device), repeats=1)
        times |= step_times(model, data, device)
    return times | {"test": test[0], "memory": peak_memory_bytes(device.torch_device)}


def step_times(model: torch.nn.Module, data: FlowerData, device: Device) -> dict[str, float]:
    """The proportion of a Phase 1 step in the network, and seconds to augment a batch."""
    model, generator = device.place(model), torch.Generator().manual_seed(0)
    models.freeze_backbone(model)
    groups = models.parameter_groups(model, backbone_lr=0.0, head_lr=1e-3)
    optimizer = make_optimizer(groups, device)

    def augmented() -> Iterable:
        return islice(training_batches(data, device, generator), STEPS)

    def seconds(batches: Callable[[], Iterable]) -> float:
        return measure(lambda: train_one_epoch(model, batches(), optimizer, device), repeats=1)[0]

    ready = list(augmented())
    photos = np.array(data.train.images[: config.TRAINING_CONFIG["batch_size"]])
    photos, crop = torch.from_numpy(photos).to(device.torch_device), data.image_size
    augmenting = measure(lambda: augment_batch(photos, generator, crop=crop), repeats=9)
    proportion = seconds(lambda: ready) / seconds(augmented)
    return {"in the network": proportion, "augmenting": median(augmenting)}


if __name__ == "__main__":
    side = {"textbook": textbook_side, "lesson": lesson_side}[sys.argv[1]]
    with contextlib.redirect_stdout(sys.stderr):  # what the lesson prints
        found = side(Path(sys.argv[2]))
    print(json.dumps(found))
