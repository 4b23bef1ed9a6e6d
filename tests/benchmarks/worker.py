"""The two sides of `speed.py`. Each is measured in a process of its own.

The lesson changes how its process keeps freed memory, and the textbook loop must not profit from it.
"""

import argparse
import contextlib
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import torch

import transfer_learning_config as config
from flowers_utils import models
from flowers_utils.datasets.load import load_data
from flowers_utils.device import choose_device, peak_memory_bytes
from flowers_utils.evaluation import predict_logits
from flowers_utils.machine.speed import measure, wait_for_gpu
from flowers_utils.phases import Phase
from flowers_utils.training import make_optimizer, train_one_epoch, train_phase
from flowers_utils.transforms import augment_batch, training_batches
from tests.benchmarks import textbook

STEPS = 8  # of Phase 1, for the proportion that the network takes


class Textbook:
    """The textbook loop in float32; every method returns seconds by name."""

    def __init__(self, folder: Path, args: argparse.Namespace):
        self.device = choose_device(args.device, fast=False)
        sizes = {"resize": args.size * 256 // 224, "crop": args.size}
        photographs = folder / "photographs"
        self.loaders = textbook.make_loaders(photographs, **sizes, workers=args.workers)
        classes = len(self.loaders["train"].dataset.classes)
        self.model = textbook.make_network(classes, None, self.device.torch_device)

    def phase(self, name: str) -> dict[str, float]:
        return {name: textbook.train_phase(self.model, self.loaders, name, epochs=1)[0]["seconds"]}

    def test(self) -> dict[str, float]:
        start = time.perf_counter()
        textbook.accuracy(self.model, self.loaders["test"])
        return {"test": time.perf_counter() - start}


class Lesson:
    """The lesson's own functions, on the same photographs."""

    def __init__(self, folder: Path, args: argparse.Namespace):
        config.PATHS.update(cache=str(folder / "cache"), models=str(folder / "models"))
        config.AUGMENTATION.update(resize=args.size * 256 // 224, crop=args.size)
        self.device = choose_device(args.device)
        if args.float32:
            self.device = dataclasses.replace(self.device, precision=torch.float32)
        start = time.perf_counter()
        self.data = load_data(str(folder / "photographs"))
        self.decoding = time.perf_counter() - start
        self.model = models.build_model(num_classes=self.data.num_classes, weights=None)

    def phase(self, name: str) -> dict[str, float]:
        """The second epoch, and all around the epochs: features of val, saving."""
        phase = Phase(int(name[-1]), epochs=2, **without_epochs(name))
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            result = train_phase(self.model, self.data, self.device, phase, folder)
            around = time.perf_counter() - start - result.seconds
        return {name: result.history[1]["seconds"], f"{name} around": around}

    def test(self) -> dict[str, float]:
        start = time.perf_counter()
        predict_logits(self.model, self.data.test, self.device)
        return {"test": time.perf_counter() - start, "decoding": self.decoding}

    def step(self) -> dict[str, float]:
        """The proportion of a Phase 1 step in the network, and milliseconds to augment a batch."""
        model, generator = self.device.place(self.model), torch.Generator().manual_seed(0)
        models.freeze_backbone(model)
        groups = models.parameter_groups(model, backbone_lr=0.0, head_lr=1e-3)
        optimizer = make_optimizer(groups, self.device)

        def some() -> islice:
            return islice(training_batches(self.data, self.device, generator), STEPS)

        def seconds(batches: Iterable) -> float:
            start = time.perf_counter()
            train_one_epoch(model, batches, optimizer, self.device)
            wait_for_gpu()
            return time.perf_counter() - start

        ready = list(some())
        seconds(ready)  # warms up
        proportion = seconds(ready) / seconds(some())
        models.unfreeze(model)
        photos = np.array(self.data.train.images[: config.TRAINING_CONFIG["batch_size"]])
        photos, crop = torch.from_numpy(photos).to(self.device.torch_device), self.data.image_size
        times = measure(lambda: augment_batch(photos, generator, crop=crop), repeats=9)
        return {"in the network": proportion, "augmenting": statistics.median(times)}


def without_epochs(name: str) -> dict[str, float]:
    """The learning rates of a phase of the config."""
    return {key: value for key, value in config.PHASES[name].items() if key != "epochs"}


def begin(side: str, folder: Path, args: argparse.Namespace) -> None:
    """Set up one of the two sides in its process."""
    global current
    torch.manual_seed(0)
    with contextlib.redirect_stdout(sys.stderr):
        current = {"textbook": Textbook, "lesson": Lesson}[side](folder, args)


def measured(stage: str, *given: str) -> dict[str, float]:
    """Seconds of a stage of this process, by name; peak memory (bytes) beside them."""
    with contextlib.redirect_stdout(sys.stderr):
        found = getattr(current, stage)(*given)
    return found | {"memory": peak_memory_bytes(current.device.torch_device)}
