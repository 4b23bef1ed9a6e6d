"""How fast and how large a model is, and where the time of an epoch goes.

The stopwatch is `torch.utils.benchmark.Timer`: it warms up, repeats a call until the median can be
trusted, and waits for CUDA, whose calls return before the work is done.
"""

import copy
import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import transfer_learning_config as config
from flowers_utils import models
from flowers_utils.data import FlowerData, Split
from flowers_utils.device import PRECISION_NAMES, Device
from flowers_utils.training import train_one_epoch
from flowers_utils.transforms import augment_batch, draw_augmentation, train_transform

THROUGHPUT_BATCH = 32
JPEG_SIDE = 500  # pixels: the side of the JPEG files that the textbook loop decodes


def measure(call: Callable[[], object], device: Device, *, seconds: float) -> Any:
    """Time `call` for at least about `seconds`; the result has `.median` and `.times` in seconds."""
    # Importing the Timer loads torch's tools for compiling extensions, which warn (with a path) of a
    # CUDA toolkit without a card. Nothing is compiled here.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer

    def and_wait() -> None:
        call()
        device.synchronize()  # the Timer waits for CUDA, but not for MPS

    threads = torch.get_num_threads()  # else the Timer measures on one
    timer = Timer("call()", globals={"call": and_wait}, num_threads=threads)
    return timer.blocked_autorange(min_run_time=seconds)


def latency_in_turn(
    calls: Mapping[str, Callable[[], object]], device: Device, *, rounds: int = 15
) -> dict[str, float]:
    """Median milliseconds of each call, timed in turn: a busy minute falls on all of them alike."""
    times = [
        [measure(call, device, seconds=0.02).median for call in calls.values()]
        for _ in range(rounds)
    ]
    return dict(zip(calls, (1000 * np.median(times, axis=0)).tolist(), strict=True))


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
        """A text table with one line per quantity, for the notebook to print."""
        rows = {
            "measured on": f"{self.device}, {self.precision}, {self.image_size} x {self.image_size}",
            "parameters": f"{self.parameters / 1e6:.2f} million",
            "work per image": f"{self.flops / 1e9:.2f} GFLOPs",
            "latency, one image": f"{self.median_ms:.1f} ms (95 % within {self.p95_ms:.1f} ms)",
            f"throughput, batch {THROUGHPUT_BATCH}": f"{self.images_per_second:.0f} images/s",
            "size on disk": f"{self.disk_bytes / 1e6:.1f} MB",
        }
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def profile_model(
    model: nn.Module, device: Device, *, image_size: int, checkpoint: str | Path
) -> ModelProfile:
    """Measure a model at the device's precision; `checkpoint` is the file whose size is given.

    The images are black: a convolutional network does the same work for every image.
    """
    device.place(model)

    def timed(count: int) -> Any:
        images = device.place_batch(torch.zeros(count, 3, image_size, image_size))
        with models.eval_mode(model), torch.inference_mode(), device.autocast():
            return measure(lambda: model(images), device, seconds=3.0)

    single, batch = timed(1), timed(THROUGHPUT_BATCH)
    return ModelProfile(
        device=device.name,
        precision=PRECISION_NAMES[device.precision],
        image_size=image_size,
        parameters=models.count_parameters(model)[0],
        flops=count_flops(model, image_size=image_size),
        median_ms=1000 * single.median,
        p95_ms=1000 * float(np.percentile(single.times, 95)),
        images_per_second=THROUGHPUT_BATCH / batch.median,
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


@dataclass(frozen=True)
class Loop:
    """How one batch of training photographs gets from the disk to the network."""

    device: Device
    decode: Callable[[], Any]
    augment: Callable[[Any], torch.Tensor]


def where_time_goes(model: nn.Module, data: FlowerData, device: Device) -> dict[str, dict]:
    """Seconds that one epoch of training in Phase 2 spends in each part, for two ways of training.

    Name of the loop -> name of the part -> seconds, scaled up from one batch. The textbook loop
    decodes JPEG files (made here from the cached photographs, as large as real ones; practice
    flowers stay as they are), augments image by image and computes in float32.
    """
    count, crop = images_a_batch(device, data.image_size), data.image_size
    train = data.train.subset(range(min(count, len(data.train))))
    loops = {
        "textbook": textbook_loop(
            train, device, crop, side=crop if data.is_practice else JPEG_SIDE
        ),
        "this lesson": lesson_loop(train, device, crop),
    }
    found = {name: seconds_an_image(model, loop, train.labels) for name, loop in loops.items()}
    return {
        name: {part: seconds * len(data.train) for part, seconds in parts.items()}
        for name, parts in found.items()
    }


def images_a_batch(device: Device, size: int) -> int:
    slow = device.torch_device.type == "cpu" and size > 64  # a whole batch would take seconds
    return 8 if slow else config.TRAINING_CONFIG["batch_size"]


def textbook_loop(train: Split, device: Device, crop: int, *, side: int) -> Loop:
    """JPEG files of `side` pixels, opened and augmented one by one, as torchvision's data sets do."""
    augment, files = train_transform(resize=train.images.shape[-1], crop=crop), []
    for image in train.images:
        photo, file = Image.fromarray(image.transpose(1, 2, 0)), io.BytesIO()
        photo.resize((side, side)).save(file, "JPEG", quality=90)
        files.append(file)
    return Loop(
        Device(device.torch_device, device.name),  # float32, contiguous
        decode=lambda: [Image.open(file).convert("RGB") for file in files],
        augment=lambda photos: torch.stack([augment(photo) for photo in photos]),
    )


def lesson_loop(train: Split, device: Device, crop: int) -> Loop:
    """uint8 from the cache, augmented as a batch on the device."""
    generator, resize = torch.Generator().manual_seed(0), train.images.shape[-1]

    def augment(images: torch.Tensor) -> torch.Tensor:
        draws = draw_augmentation(len(images), generator, resize=resize, crop=crop)
        return augment_batch(images, draws, crop=crop)

    def decode() -> torch.Tensor:
        return torch.from_numpy(np.array(train.images)).to(device.torch_device)

    return Loop(device, decode, augment)


def seconds_an_image(model: nn.Module, loop: Loop, labels: torch.Tensor) -> dict[str, float]:
    """Seconds for one image in each part of a training step, in which the whole network learns.

    The network that learns is a copy; model and random state stay as they were.
    """
    device, network = loop.device, loop.device.place(copy.deepcopy(model))
    models.unfreeze(network)
    models.train_mode(network)
    optimizer = models.make_optimizer([{"params": list(network.parameters()), "lr": 1e-4}], device)

    def forward() -> None:
        with device.autocast():
            network(images)

    with torch.random.fork_rng():  # torchvision's transforms draw from the global generator
        raw = loop.decode()
        images = device.place_batch(loop.augment(raw))
        batch = (images, labels.to(device.torch_device))
        parts = {
            "decode": loop.decode,
            "augmentation": lambda: device.place_batch(loop.augment(raw)),
            "forward": forward,
            "backward": lambda: train_one_epoch(network, [batch], optimizer, device),
        }
        times = {name: measure(part, device, seconds=0.5).median for name, part in parts.items()}
    times["backward"] = max(times["backward"] - times["forward"], 0.0)  # timed with it
    return {name: seconds / len(labels) for name, seconds in times.items()}
