"""The processes that `speed.py` starts, and the lesson's side of the comparison."""

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil
import torch
from flowers_utils.predictions import predict_logits
from flowers_utils.trainer import SAVING_SHARE, PhaseTrainer
from torchvision.datasets import Flowers102

import transfer_learning_config as config
from flowers_utils.data import FlowerData, Split, batches
from flowers_utils.datasets.cache import decoded
from flowers_utils.device import Device, choose_device, peak_memory_bytes
from flowers_utils.errors import FlowersError
from flowers_utils.models import build_model
from flowers_utils.storage.resume import save_state, state_of
from flowers_utils.training import run_epoch
from flowers_utils.transforms import augment_batch, draw_augmentation
from tests.benchmarks.photos import SPLITS, accept, write_flowers102
from tests.benchmarks.report import FULL
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
            self.files[split] = data._image_files * int(args.times or 1)
            self.labels[split] = torch.tensor(data._labels * int(args.times or 1))
        self.cache_folder = folder / f"cache{args.times or ''}"
        splits = {split: self.decode(split, self.cache_folder) for split in SPLITS}
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

    def prepare(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        draws = draw_augmentation(len(images), generator, resize=self.resize, crop=self.size)
        return self.device.place_batch(augment_batch(images, draws, crop=self.size))

    def train_batches(self, generator: torch.Generator) -> object:
        return batches(
            self.flowers.train, batch_size=32, device=self.device, shuffle=True, generator=generator
        )

    def data(self) -> dict[str, float]:
        generator, start = torch.Generator().manual_seed(0), self.clock()
        for images, _ in self.train_batches(generator):
            self.prepare(images, generator)
        self.device.synchronize()
        return {"data": (self.clock() - start) / len(self.flowers.train)}

    def trainer(self, phase: str) -> PhaseTrainer:
        rates = config.PHASES[phase]
        return PhaseTrainer(
            self.network,
            self.flowers,
            self.device,
            phase=int(phase[-1]),
            title=phase,
            epochs=1,
            backbone_lr=rates.get("backbone_lr"),
            head_lr=rates["head_lr"],
            seed=0,
            checkpoint=self.folder / f"{phase}.pth",
        )

    def epoch(self, phase: str) -> dict[str, float]:
        """Seconds an image for set-up (once a phase), training, val; seconds for saving (of short
        epochs not each one is saved)."""
        times = [self.clock()]

        def lap() -> None:
            self.device.synchronize()
            times.append(self.clock())

        trainer = self.trainer(phase)
        network = trainer.network()
        validate = trainer.validation(network)
        lap()
        train = trainer.train_epoch(network, 1, lambda count: None)
        lap()
        val = validate(lambda count: None)
        lap()
        trainer.record(1, train, val, {}, 0.0)
        trainer.save_all(
            lambda now: save_state(self.folder / f"{phase}_resume.pth", {}, state_of(now))
        )
        lap()
        setup, training, validation, save = np.diff(times).tolist()
        whole = FULL["train"] / len(self.flowers.train) * training
        whole += FULL["val"] / len(self.flowers.val) * validation
        return {
            f"{phase} setup": setup / len(self.flowers.val),
            f"{phase} train": training / len(self.flowers.train),
            f"{phase} val": validation / len(self.flowers.val),
            f"{phase} save": min(save, SAVING_SHARE * whole),
        }

    def evaluation(self) -> dict[str, float]:
        start = self.clock()
        predict_logits(self.network, self.flowers.test, self.device)
        return {"evaluation": (self.clock() - start) / len(self.flowers.test)}

    def compute(self) -> dict[str, float]:
        """Seconds an image of the network alone, on one augmented batch that is already there."""
        generator, seconds = torch.Generator().manual_seed(0), {}
        images, labels = next(iter(self.train_batches(generator)))
        batch = (self.prepare(images, generator), labels)
        for phase in config.PHASES:
            trainer = self.trainer(phase)
            network, times = trainer.network(), []
            for repeats in (1, 3):  # the first warms up
                start = self.clock()
                run_epoch(
                    network,
                    [batch] * repeats,
                    self.device,
                    optimizer=trainer.optimizer,
                    scaler=trainer.scaler,
                )
                times.append((self.clock() - start) / repeats)
            seconds[f"{phase} compute"] = times[-1] / len(labels)
        return seconds

    def scale(self) -> dict[str, float]:
        """Seconds for a pass over the data and for training in Phase 1; bytes on disk and in memory."""
        count, before = len(self.flowers.train), own_memory()
        data = self.data()["data"] * count
        phase1 = self.epoch("phase1")["phase1 train"] * count
        disk = sum(file.stat().st_size for file in self.cache_folder.glob("*.npy"))
        return {
            "count": count,
            "data": data,
            "phase1": phase1,
            "disk": disk,
            "own": own_memory(),
            "own before": before,
        }


def own_memory() -> int:
    """Resident bytes of this process that no file backs (elsewhere than on Linux: all resident)."""
    memory = psutil.Process().memory_info()
    return memory.rss - getattr(memory, "shared", 0)


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
                answer({"peak": peak_memory_bytes(device)})
            else:
                answer(side.epoch(stage) if stage in config.PHASES else getattr(side, stage)())


if __name__ == "__main__":
    try:
        work(parse())
    except FlowersError as error:
        sys.exit(str(error))
