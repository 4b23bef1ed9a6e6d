"""The processes that `speed.py` starts, and the lesson's side of the comparison."""

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import Flowers102

import transfer_learning_config as config
from flowers_utils.data import FlowerData, Split
from flowers_utils.datasets.cache import decoded
from flowers_utils.device import Device, choose_device
from flowers_utils.errors import FlowersError
from flowers_utils.evaluation import predict_logits
from flowers_utils.memory import peak_memory_bytes
from flowers_utils.models import build_model
from flowers_utils.progress import Progress
from flowers_utils.storage.files import save_tensors
from flowers_utils.training import Phase, PhaseInProgress, train_one_epoch
from flowers_utils.transforms import training_batches
from tests.benchmarks.photos import SPLITS, accept, write_flowers102
from tests.benchmarks.speed import Textbook, clock_of, parse


class Lesson:
    """The lesson's own loop, stage by stage."""

    def __init__(self, folder: Path, device: Device, args: argparse.Namespace):
        self.clock = clock_of(args)
        self.device, self.folder, self.name = device, folder, device.describe()
        self.size, self.resize = args.size, args.size * 256 // 224
        self.files, self.labels = {}, {}
        for split in SPLITS:
            data = Flowers102(folder, split)
            self.files[split] = data._image_files
            self.labels[split] = torch.tensor(data._labels)
        splits = {split: self.decode(split, folder / "cache") for split in SPLITS}
        names = tuple(str(i) for i in range(102))
        self.flowers = FlowerData(
            "folder", "benchmark", names, **splits, resize_size=self.resize, image_size=self.size
        )
        self.network = build_model(num_classes=102, weights=None)

    def decode(self, split: str, cache: Path) -> Split:
        size = self.resize if split == "train" else self.size
        images = decoded(self.files[split], size=size, cache=cache, name=split)
        return Split(split, images, self.labels[split])

    def cache(self) -> dict[str, float]:
        """Seconds an image to decode everything into a new cache."""
        with tempfile.TemporaryDirectory(dir=self.folder) as empty:
            start = self.clock()
            for split in SPLITS:
                self.decode(split, Path(empty))
            seconds = self.clock() - start
        return {"cache": seconds / sum(map(len, self.files.values()))}

    def data(self) -> dict[str, float]:
        start = self.clock()
        for _ in training_batches(self.flowers, self.device, torch.Generator().manual_seed(0)):
            pass
        self.device.synchronize()
        return {"data": (self.clock() - start) / len(self.flowers.train)}

    def training(self, phase: str) -> PhaseInProgress:
        rates = config.PHASES[phase]
        wanted = Phase(int(phase[-1]), 1, rates["head_lr"], rates.get("backbone_lr"))
        return PhaseInProgress(self.network, self.flowers, self.device, wanted)

    def epoch(self, phase: str) -> dict[str, float]:
        """Seconds an image for set-up (once a phase), training, val; seconds for saving."""
        times = [self.clock()]

        def lap() -> None:
            self.device.synchronize()
            times.append(self.clock())

        training, generator = self.training(phase), torch.Generator().manual_seed(0)
        with Progress(0, phase, style="lines") as bar:
            if training.frozen:
                training.validate(bar)  # computes the features of val, once a phase
            lap()
            batches = training_batches(self.flowers, self.device, generator)
            train_one_epoch(
                training.model, batches, training.optimizer, self.device, training.scaler
            )
            lap()
            training.validate(bar)
            lap()
        save_tensors(self.folder / f"{phase}.pth", training.state_dict())
        lap()
        setup, train, val, save = np.diff(times).tolist()
        return {
            f"{phase} setup": setup / len(self.flowers.val),
            f"{phase} train": train / len(self.flowers.train),
            f"{phase} val": val / len(self.flowers.val),
            f"{phase} save": save,
        }

    def evaluation(self) -> dict[str, float]:
        start = self.clock()
        predict_logits(self.network, self.flowers.test, self.device)
        return {"evaluation": (self.clock() - start) / len(self.flowers.test)}

    def compute(self) -> dict[str, float]:
        """Seconds an image of the network alone, on one augmented batch that is already there."""
        generator, seconds = torch.Generator().manual_seed(0), {}
        batch = next(iter(training_batches(self.flowers, self.device, generator)))
        for phase in config.PHASES:
            training, times = self.training(phase), []
            for repeats in (1, 3):  # the first warms up
                start = self.clock()
                train_one_epoch(
                    training.model,
                    [batch] * repeats,
                    training.optimizer,
                    self.device,
                    training.scaler,
                )
                times.append((self.clock() - start) / repeats)
            seconds[f"{phase} compute"] = times[-1] / len(batch[1])
        return seconds


def warm_up(side: object) -> None:
    """The first steps of a process are slower; nobody should pay for them."""
    side.compute()


def device_of(args: argparse.Namespace) -> Device:
    device = choose_device(args.device, fast=args.worker == "lesson")
    if args.no_reduced_precision:
        device = dataclasses.replace(device, precision=torch.float32)
    return device


def work(args: argparse.Namespace) -> None:
    """Answer what is asked on stdin, one line of JSON each; everything else goes to stderr."""
    answers, folder = sys.stdout, Path(args.folder)

    def answer(content: dict) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    with contextlib.redirect_stdout(sys.stderr):
        torch.manual_seed(0)
        if args.processor_time:
            torch.set_num_threads(1)
        if args.worker == "photographs":
            return answer({"text": write_flowers102(folder, args.images or None, args.jpeg_size)})
        accept(folder)
        device = device_of(args)
        side = (
            Lesson(folder, device, args)
            if args.worker == "lesson"
            else Textbook(folder, device.torch_device, args)
        )
        warm_up(side)
        answer(
            {"text": f"{side.name}, torch {torch.__version__}, {torch.get_num_threads()} threads"}
        )
        for line in sys.stdin:
            stage = line.strip()
            if stage == "memory":
                answer({"peak": peak_memory_bytes(device.torch_device)})
            else:
                answer(side.epoch(stage) if stage in config.PHASES else getattr(side, stage)())


if __name__ == "__main__":
    try:
        work(parse())
    except FlowersError as error:
        sys.exit(str(error))
