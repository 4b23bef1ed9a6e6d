"""How fast and how large a model is, and where the time of an epoch goes.

The stopwatch is `torch.utils.benchmark.Timer`: it warms up, repeats a call until the median can be
trusted, and waits for CUDA, whose calls return before the work is done.
"""

import copy
import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import transfer_learning_config as config
from flowers_utils import models
from flowers_utils.data import FlowerData, Split
from flowers_utils.device import PRECISION_NAMES, Device, peak_memory_bytes
from flowers_utils.training import evaluate, train_one_epoch
from flowers_utils.transforms import (
    augment_batch,
    draw_augmentation,
    eval_batch,
    eval_transform,
    train_transform,
)

if TYPE_CHECKING:
    from torch.utils.benchmark import Measurement

THROUGHPUT_BATCH = 32
JPEG_SIDE = 500  # pixels: the longer side of the JPEG files that the textbook loop decodes


def measure(call: Callable[[], object], device: Device, *, seconds: float) -> "Measurement":
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
    peak_memory_bytes: int
    peak_memory_of: str  # "device" (allocated on the GPU) or "process" (all of Python)
    disk_bytes: int

    def as_dict(self) -> dict[str, str | int | float]:
        """Plain values, ready for `results.json`."""
        return asdict(self)

    def table(self) -> str:
        """A text table with one line per quantity, for the notebook to print."""
        rows = {
            "measured on": f"{self.device}, {self.precision}, {self.image_size} x {self.image_size}",
            "parameters": f"{self.parameters / 1e6:.2f} million",
            "work per image": f"{self.flops / 1e9:.2f} GFLOPs",
            "latency, one image": f"{self.median_ms:.1f} ms (95 % within {self.p95_ms:.1f} ms)",
            f"throughput, batch {THROUGHPUT_BATCH}": f"{self.images_per_second:.0f} images/s",
            "size on disk": f"{self.disk_bytes / 1e6:.1f} MB",
            f"peak memory ({self.peak_memory_of})": f"{self.peak_memory_bytes / 1e6:.0f} MB",
        }
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def profile_model(
    model: nn.Module, device: Device, *, image_size: int, checkpoint: str | Path
) -> ModelProfile:
    """Measure a model at the device's precision; `checkpoint` is the file whose size is given.

    The images are black: a convolutional network does the same work for every image. On CUDA the
    counter of peak memory is reset, so read the peak of a training run before.
    """
    device.place(model)
    on_cuda = device.torch_device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device.torch_device)

    def timed(count: int) -> "Measurement":
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
        peak_memory_bytes=peak_memory_bytes(device),
        peak_memory_of="device" if on_cuda else "process",
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
    """How one batch of train or val gets from the disk to the network."""

    device: Device
    decode: Callable[[Split], Any]
    augment: Callable[[Any], torch.Tensor]
    prepare: Callable[[Any], torch.Tensor]


def where_time_goes(model: nn.Module, data: FlowerData, device: Device) -> dict[str, dict]:
    """Seconds that one epoch of Phase 2 spends in each part, for two ways of training.

    Name of the loop -> name of the part -> seconds, scaled up from one batch. The textbook loop
    decodes JPEG files (made here from the cached photographs, as large as real ones; practice
    flowers stay as they are), augments image by image and computes in float32.
    """
    count = images_a_batch(device, data.image_size)
    train, val = (split.subset(range(min(count, len(split)))) for split in (data.train, data.val))
    side, found = data.image_size if data.is_practice else JPEG_SIDE, {}
    for name, loop in {
        "textbook": textbook_loop((train, val), device, side=side),
        "this lesson": lesson_loop((train, val), device),
    }.items():
        found[name] = seconds_an_image(model, loop, train, val)
        for part in found[name]:
            found[name][part] *= len(data.val if part == "evaluation" else data.train)
    return found


def images_a_batch(device: Device, size: int) -> int:
    slow = device.torch_device.type == "cpu" and size > 64  # a whole batch would take seconds
    return 8 if slow else config.TRAINING_CONFIG["batch_size"]


def textbook_loop(splits: tuple[Split, Split], device: Device, *, side: int) -> Loop:
    """JPEG files of `side` pixels, opened and augmented one by one, as torchvision's data sets do."""
    resize, crop = (split.images.shape[-1] for split in splits)
    augment, prepare = train_transform(resize=resize, crop=crop), eval_transform(size=crop)

    def as_jpeg(image: np.ndarray) -> io.BytesIO:
        file, photo = io.BytesIO(), Image.fromarray(image.transpose(1, 2, 0))
        photo.resize((side, side)).save(file, "JPEG", quality=90)
        return file

    files = {split.name: [as_jpeg(image) for image in split.images] for split in splits}
    return Loop(
        Device(device.torch_device, device.name),  # float32, contiguous
        decode=lambda split: [Image.open(file).convert("RGB") for file in files[split.name]],
        augment=lambda photos: torch.stack([augment(photo) for photo in photos]),
        prepare=lambda photos: torch.stack([prepare(photo) for photo in photos]),
    )


def lesson_loop(splits: tuple[Split, Split], device: Device) -> Loop:
    """uint8 from the cache, augmented as a batch on the device."""
    resize, crop = (split.images.shape[-1] for split in splits)
    generator = torch.Generator().manual_seed(0)

    def augment(images: torch.Tensor) -> torch.Tensor:
        draws = draw_augmentation(len(images), generator, resize=resize, crop=crop)
        return augment_batch(images, draws, crop=crop)

    return Loop(
        device,
        decode=lambda split: torch.from_numpy(np.array(split.images)).to(device.torch_device),
        augment=augment,
        prepare=lambda images: eval_batch(images, crop),
    )


def seconds_an_image(model: nn.Module, loop: Loop, train: Split, val: Split) -> dict[str, float]:
    """Seconds for one image in each part of an epoch, in which the whole network learns.

    The network that learns is a copy; model and random state stay as they were.
    """
    device, network = loop.device, loop.device.place(copy.deepcopy(model))
    models.unfreeze(network)
    optimizer = models.make_optimizer([{"params": list(network.parameters()), "lr": 1e-4}], device)
    labels, val_labels = (split.labels.to(device.torch_device) for split in (train, val))
    raw = loop.decode(train)

    def evaluation() -> None:
        images = device.place_batch(loop.prepare(loop.decode(val)))
        evaluate(network, [(images, val_labels)], device)

    def forward() -> None:
        with device.autocast():
            network(images)

    parts = {
        "decode": lambda: loop.decode(train),
        "augmentation": lambda: device.place_batch(loop.augment(raw)),
        "forward": forward,
        "backward": lambda: train_one_epoch(network, [(images, labels)], optimizer, device),
        "evaluation": evaluation,
    }
    with torch.random.fork_rng():  # torchvision's transforms draw from the global generator
        images = parts["augmentation"]()
        models.train_mode(network)
        times = {name: measure(part, device, seconds=0.5).median for name, part in parts.items()}
    times["backward"] = max(times["backward"] - times["forward"], 0.0)  # timed with it
    counts = dict.fromkeys(times, len(train)) | {"evaluation": len(val)}
    return {name: times[name] / counts[name] for name in times}
