"""How much faster than the textbook loop is the lesson, on the same photographs and machine?

    python -m tests.benchmarks.speed --jpeg-size 500              # the whole comparison
    python -m tests.benchmarks.speed --images 64 --epochs 1       # a quick look

Each side runs in a process of its own, since the lesson changes how its process keeps freed memory
(`memory.keep_freed_memory`) and the textbook must not profit from it. The two take turns, and who
begins changes from round to round; medians are shown. Weights are random: the speed is the same.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import Flowers102
from torchvision.models import resnet18

from tests.benchmarks.report import EPOCHS, FULL, SIDES, at_least, table

PROJECT = Path(__file__).resolve().parents[2]
STAGES = ("data", "phase1", "phase2", "evaluation", "compute", "cache")


def clock_of(args: argparse.Namespace) -> Callable[[], float]:
    """What tells the seconds: the wall clock, or the processor time that this process used."""
    return time.process_time if args.processor_time else time.perf_counter


class Textbook:
    """The usual notebook, plainly: PIL image by image, float32, contiguous, `.item()` each step."""

    def __init__(self, folder: Path, device: torch.device, args: argparse.Namespace):
        crop, resize = args.size, args.size * 256 // 224
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        to_tensor = [transforms.ToTensor(), transforms.Normalize(mean, std)]
        train = transforms.Compose(
            [
                transforms.Resize((resize, resize)),
                transforms.RandomCrop(crop),
                transforms.RandomHorizontalFlip(),
                transforms.RandomRotation(15),
                transforms.ColorJitter(0.2, 0.2, 0.2, 0.1),
                *to_tensor,
            ]
        )
        evaluate = transforms.Compose([transforms.Resize((crop, crop)), *to_tensor])
        self.device, self.name = device, f"{device.type}, float32, contiguous"
        self.loaders = {
            split: DataLoader(
                Flowers102(folder, split, transform=train if split == "train" else evaluate),
                batch_size=32,
                shuffle=split == "train",
                num_workers=args.textbook_workers,
            )
            for split in FULL
        }
        self.clock = clock_of(args)
        self.start()

    def start(self) -> None:
        """A new network with a new head."""
        self.model = resnet18()
        self.model.fc = nn.Linear(self.model.fc.in_features, 102)
        self.model.to(self.device)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(images), labels)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def test(self, split: str) -> float:
        """Seconds an image to evaluate a whole split."""
        self.model.eval()
        right, start = 0, self.clock()
        with torch.no_grad():
            for images, labels in self.loaders[split]:
                guess = self.model(images.to(self.device)).argmax(dim=1)
                right += (guess == labels.to(self.device)).sum().item()
        return (self.clock() - start) / len(self.loaders[split].dataset)

    def begin_phase(self, phase: str) -> None:
        self.start()
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad = phase == "phase2" or name.startswith("fc.")
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trainable, lr=1e-4, weight_decay=0.01)
        self.model.train()

    def epoch(self, phase: str) -> dict[str, float]:
        """Seconds an image for training and for the validation that follows."""
        self.begin_phase(phase)
        loss, start = 0.0, self.clock()
        for images, labels in self.loaders["train"]:
            loss += self.step(images.to(self.device), labels.to(self.device))
        seconds = (self.clock() - start) / len(self.loaders["train"].dataset)
        return {f"{phase} train": seconds, f"{phase} val": self.test("val")}

    def data(self) -> dict[str, float]:
        start = self.clock()
        for images, labels in self.loaders["train"]:
            images.to(self.device), labels.to(self.device)
        return {"data": (self.clock() - start) / len(self.loaders["train"].dataset)}

    def evaluation(self) -> dict[str, float]:
        return {"evaluation": self.test("test")}

    def compute(self) -> dict[str, float]:
        """Seconds an image of the network alone, on one batch that is already there."""
        images, labels = (part.to(self.device) for part in next(iter(self.loaders["train"])))
        seconds = {}
        for phase in EPOCHS:
            self.begin_phase(phase)
            times = []
            for _ in range(4):
                start = self.clock()
                self.step(images, labels)
                times.append(self.clock() - start)
            seconds[f"{phase} compute"] = statistics.median(times[1:]) / len(labels)
        return seconds


class Worker:
    """One side in its own process; it measures a stage when asked, and sleeps otherwise."""

    def __init__(self, side: str, folder: Path, args: list[str]):
        command = [sys.executable, "-m", "tests.benchmarks.worker"]
        self.process = subprocess.Popen(
            [*command, "--worker", side, "--folder", str(folder), *args],
            cwd=PROJECT,  # where it finds flowers_utils
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.about = self.answer()

    def ask(self, stage: str) -> dict:
        self.process.stdin.write(f"{stage}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            sys.exit("The benchmark stopped: a process of it failed; its message stands above.")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(folder: Path, args: argparse.Namespace, passed_on: list[str]) -> dict:
    """Medians of every stage for both sides, in seconds an image (saving files: seconds)."""
    workers = {side: Worker(side, folder, passed_on) for side in SIDES}
    samples: dict[str, dict[str, list[float]]] = {side: {} for side in SIDES}
    for turn in range(args.epochs):
        for stage in STAGES:
            for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
                if stage == "cache" and side == "textbook":
                    continue
                start = time.perf_counter()
                for key, value in workers[side].ask(stage).items():
                    samples[side].setdefault(key, []).append(value)
                tell(
                    f"round {turn + 1}/{args.epochs}  {stage:10s}  {side:8s}  "
                    f"{time.perf_counter() - start:6.1f} s"
                )
    report = {"about": {side: worker.about for side, worker in workers.items()}}
    for side, worker in workers.items():
        medians = {key: statistics.median(values) for key, values in samples[side].items()}
        report[side] = {**medians, **worker.ask("memory")}
        worker.close()
    return report


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--images",
        type=at_least(0),
        default=256,
        help="photographs of each split; 0: all (default 256)",
    )
    add("--epochs", type=at_least(1), default=3, help="rounds of measurement (default 3)")
    add(
        "--jpeg-size",
        type=at_least(32),
        help="resize the JPEGs so that their shorter side has this length",
    )
    add("--device", choices=("cuda", "mps", "cpu"), help="where to compute (default: the best)")
    add("--no-reduced-precision", action="store_true", help="the lesson, too, in float32")
    add("--size", type=at_least(32), default=224, help="pixels that the network sees (default 224)")
    add(
        "--textbook-workers",
        type=at_least(0),
        default=0,
        help="processes of its DataLoader (default 0)",
    )
    add(
        "--processor-time",
        action="store_true",
        help="for a busy CPU: one thread, and processor time instead of the wall clock",
    )
    for hidden in ("--worker", "--folder"):
        add(hidden, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args, passed_on = parse(), sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        photographs = Worker("photographs", Path(folder), passed_on)
        photographs.close()
        report = measure(Path(folder), args, passed_on)
    print(f"Photographs: {photographs.about['text']}")
    for side, about in report["about"].items():
        print(f"{side:9s} {about['text']}")
    print(table(report))


if __name__ == "__main__":
    main()
