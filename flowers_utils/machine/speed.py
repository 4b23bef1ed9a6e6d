"""How fast and how large a model is, and about how long the lesson takes here."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import transfer_learning_config as config
from flowers_utils import models
from flowers_utils.config_check import phase_settings
from flowers_utils.datasets import practice
from flowers_utils.device import PRECISION_NAMES, Device
from flowers_utils.training import evaluate, make_optimizer, train_one_epoch
from flowers_utils.transforms import augment_batch

THROUGHPUT_BATCH = 32
PASSES, COMPARISON_PASSES = 8, 17  # over train beside the epochs: in part one, in part two
OTHER_SECONDS = 60.0  # of each part, for figures and export


def measure(call: Callable[[], object], *, repeats: int) -> list[float]:
    """Seconds of `call`, once for each repeat, after a first call that warms up."""
    times = []
    for _ in range(repeats + 1):
        wait_for_gpu()  # it may still be busy with earlier work
        start = time.perf_counter()
        call()
        wait_for_gpu()  # its calls return before the work is done
        times.append(time.perf_counter() - start)
    return times[1:]


def wait_for_gpu() -> None:
    """Wait until CUDA or MPS has done all that it was asked for; nothing to wait for on a CPU."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def latency_in_turn(
    calls: Mapping[str, Callable[[], object]], *, rounds: int = 15
) -> dict[str, float]:
    """Median milliseconds of each call, timed in turn: a busy minute slows all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name] += measure(call, repeats=3)
    return {name: 1000 * median(found) for name, found in times.items()}


@dataclass(frozen=True)
class ModelProfile:
    """Speed and size of one model on one device; `flops` is for one image, a multiply-add is two."""

    device: str
    precision: str
    image_size: int
    parameters: int
    flops: int
    median_ms: float
    p95_ms: float
    images_per_second: float
    disk_bytes: int

    def table(self) -> str:
        """A text table with one line for each quantity, for the notebook to print."""
        rows = {
            "measured on": f"{self.device}, {self.precision}, {self.image_size} x {self.image_size}",
            "parameters": f"{self.parameters / 1e6:.2f} million",
            "work per image": f"{self.flops / 1e9:.2f} GFLOPs",
            "latency, one image": f"{self.median_ms:.1f} ms (95 % within {self.p95_ms:.1f} ms)",
            f"throughput, batch {THROUGHPUT_BATCH}": f"{self.images_per_second:.0f} images/s",
            "size on disk": f"{self.disk_bytes / 1e6:.1f} MB",
        }
        return "\n".join(f"{name:<22}{value}" for name, value in rows.items())


def profile_model(
    model: nn.Module, device: Device, *, image_size: int, checkpoint: str | Path
) -> ModelProfile:
    """Measure a model at the device's precision; `checkpoint` is the file whose size is given.

    The images are black: a convolutional network does the same work for every image.
    """
    device.place(model)

    def timed(count: int, repeats: int) -> list[float]:
        images = device.place_batch(torch.zeros(count, 3, image_size, image_size))
        with models.eval_mode(model), torch.inference_mode(), device.autocast():
            return measure(lambda: model(images), repeats=repeats)

    single, batch = timed(1, repeats=50), timed(THROUGHPUT_BATCH, repeats=8)
    return ModelProfile(
        device=device.name,
        precision=PRECISION_NAMES[device.precision],
        image_size=image_size,
        parameters=models.count_parameters(model)[0],
        flops=count_flops(model, image_size=image_size),
        median_ms=1000 * median(single),
        p95_ms=1000 * float(np.percentile(single, 95)),
        images_per_second=THROUGHPUT_BATCH / median(batch),
        disk_bytes=Path(checkpoint).stat().st_size,
    )


def count_flops(model: nn.Module, *, image_size: int) -> int:
    """Floating-point operations for one image; a multiply-add counts as two."""
    like = next(model.parameters())
    image = torch.zeros(1, 3, image_size, image_size, device=like.device, dtype=like.dtype)
    # Not `inference_mode`: in it the counter does not see linear layers.
    with models.eval_mode(model), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops()


def lesson_seconds(
    device: Device, *, on_practice: bool, profile: str, recipe: str = "lesson"
) -> tuple[float, float]:
    """About how long parts one and two take here, in seconds, from three real steps."""
    step, forward = seconds_an_image(device, on_practice=on_practice)
    counts = practice.SPLIT_SIZES if on_practice else config.DATASET["splits"]
    limit = config.PROFILES[profile]["images"]
    train, val, test = (min(count, limit or count) for count in counts.values())
    first, second = (phase_settings(name, profile, recipe) for name in config.PHASES)
    pixels = second.get("train_size", 1.0) ** 2  # a step takes about as long as it has pixels
    part_one = second["epochs"] * (step * pixels * train + forward * val) + OTHER_SECONDS
    part_one += forward * ((first["epochs"] + PASSES) * train + test)
    scratch = phase_settings("phase2", profile)["epochs"]
    part_two = scratch * (step * train + forward * val) + OTHER_SECONDS
    if not on_practice:
        part_two += COMPARISON_PASSES * forward * train
    elif not (Path(config.PATHS["models"]) / "practice_backbone.pth").is_file():
        sizes, images = (practice.PRETRAINING[key] for key in ("sizes", "images"))
        pixels = sum(part * (size / practice.PRACTICE_CROP) ** 2 for size, part in sizes)
        part_one += step * pixels * images
    return part_one, part_two


def seconds_an_image(device: Device, *, on_practice: bool) -> tuple[float, float]:
    """Seconds for one photograph: (a step that trains everything, the forward pass alone)."""
    photos = (config.AUGMENTATION["resize"], config.AUGMENTATION["crop"])
    drawings = (practice.PRACTICE_RESIZE, practice.PRACTICE_CROP)
    resize, crop = drawings if on_practice else photos
    slow = device.torch_device.type == "cpu" and crop > 64  # a whole batch would take seconds
    count = 8 if slow else config.TRAINING_CONFIG["batch_size"]
    black = torch.zeros(count, 3, resize, resize, dtype=torch.uint8, device=device.torch_device)
    labels = torch.zeros(count, dtype=torch.int64, device=device.torch_device)
    classes, generator = config.DATASET["num_classes"], torch.Generator().manual_seed(0)
    model = device.place(models.build_model(config.BACKBONE, num_classes=classes, weights=None))
    groups = models.parameter_groups(model, backbone_lr=1e-4, head_lr=1e-3)
    optimizer = make_optimizer(groups, device)

    def batch() -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(device.place_batch(augment_batch(black, generator, crop=crop)), labels)]

    steps = measure(lambda: train_one_epoch(model, batch(), optimizer, device), repeats=3)
    ready = batch()
    passes = measure(lambda: evaluate(model, ready, device), repeats=3)
    return median(steps) / count, median(passes) / count
