"""Where the time of an epoch goes, in the textbook loop and in this lesson's."""

import copy
import io
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import transfer_learning_config as config
from flowers_utils.data import FlowerData, Split, batches, on_card
from flowers_utils.device import Device
from flowers_utils.models import train_mode, unfreeze
from flowers_utils.transforms import (
    augment_batch,
    draw_augmentation,
    eval_batch,
    eval_transform,
    train_transform,
)

PARTS = ("decode", "augmentation", "forward", "backward", "evaluation")
JPEG_SIDE = 500  # longer side, in pixels, of the JPEG files that the textbook loop decodes
REPEATS = 2


def where_time_goes(
    model: nn.Module, data: FlowerData, device: Device
) -> dict[str, dict[str, float]]:
    """Seconds that one epoch of Phase 2 spends in each part, for the two ways of training.

    Name of the loop -> name of the part -> seconds, scaled up from a few batches. The textbook loop
    decodes a JPEG file (made here from the cached photographs, as large as real ones; practice
    flowers stay as they are) and augments it image by image, and trains in float32. Both loops are
    timed in this process, so the textbook profits from `keep_freed_memory` too. The model, its mode
    and the random state stay as they were; on a CPU it takes some seconds.
    """
    plain = Device(device.torch_device, device.name)
    slow = device.torch_device.type == "cpu" and data.image_size > 64  # a whole batch takes seconds
    count = 8 if slow else config.TRAINING_CONFIG["batch_size"]
    train = data.train.subset(range(min(count, len(data.train))))
    val = data.val.subset(range(min(count, len(data.val))))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        seconds = {
            "textbook": _textbook(model, data, plain, train, val),
            "this lesson": _lesson(model, data, device, train, val),
        }
    sizes = {part: len(data.val) if part == "evaluation" else len(data.train) for part in PARTS}
    return {
        loop: {part: each[part] * sizes[part] for part in PARTS} for loop, each in seconds.items()
    }


def _textbook(
    model: nn.Module, data: FlowerData, device: Device, train: Split, val: Split
) -> dict[str, float]:
    """Seconds an image: JPEG files, one by one through PIL, then the network in float32."""
    augment = train_transform(resize=data.resize_size, crop=data.image_size)
    for_eval = eval_transform(size=data.image_size)
    side = data.image_size if data.is_practice else JPEG_SIDE
    files, val_files = ([as_jpeg(i, side) for i in split.images] for split in (train, val))
    photos = [open_jpeg(file) for file in files]

    def evaluate(network: nn.Module) -> None:
        images = torch.stack([for_eval(open_jpeg(file)) for file in val_files])
        network(device.place_batch(images))

    batch = device.place_batch(torch.stack([augment(photo) for photo in photos]))
    return {
        "decode": _seconds(device, lambda: [open_jpeg(file) for file in files]) / len(files),
        "augmentation": _seconds(device, lambda: [augment(photo) for photo in photos]) / len(files),
        **_network_seconds(model, device, batch, train.labels, evaluate, len(val)),
    }


def _lesson(
    model: nn.Module, data: FlowerData, device: Device, train: Split, val: Split
) -> dict[str, float]:
    """Seconds an image: uint8 from the cache, augmented as a batch, network in chosen precision."""
    generator = torch.Generator().manual_seed(0)
    loader = batches(on_card(data.train, device), batch_size=len(train), device=device,
                     shuffle=True, generator=generator)  # fmt: skip

    def fetch() -> torch.Tensor:
        return next(iter(loader))[0]

    def prepare(images: torch.Tensor) -> torch.Tensor:
        draws = draw_augmentation(
            len(images), generator, resize=data.resize_size, crop=data.image_size
        )
        return device.place_batch(augment_batch(images, draws, crop=data.image_size))

    def evaluate(network: nn.Module) -> None:
        images = torch.as_tensor(val.images).to(device.torch_device)
        network(device.place_batch(eval_batch(images, data.image_size)))

    images = fetch()
    return {
        "decode": _seconds(device, fetch) / len(train),
        "augmentation": _seconds(device, lambda: prepare(images)) / len(train),
        **_network_seconds(
            model,
            device,
            prepare(images),
            train.labels,
            evaluate,
            len(val),
            fused=device.torch_device.type != "mps",
        ),
    }


def _network_seconds(
    model: nn.Module,
    device: Device,
    batch: torch.Tensor,
    labels: torch.Tensor,
    evaluate: Callable[[nn.Module], None],
    val_count: int,
    *,
    fused: bool = False,
) -> dict[str, float]:
    """Seconds an image of forward pass, backward pass with update, and evaluation, on a copy."""
    network = device.place(copy.deepcopy(model))
    unfreeze(network)
    optimizer = torch.optim.AdamW(network.parameters(), fused=fused)
    scaler, labels = device.scaler(), labels.to(device.torch_device)

    def forward() -> torch.Tensor:
        with device.autocast():
            return F.cross_entropy(network(batch).float(), labels)

    def step() -> None:
        optimizer.zero_grad()
        scaler.scale(forward()).backward()
        scaler.step(optimizer)
        scaler.update()

    def evaluation() -> None:
        with torch.no_grad(), device.autocast():
            evaluate(network)

    train_mode(network)
    whole, half = _seconds(device, step), _seconds(device, forward)
    network.eval()
    return {
        "forward": half / len(labels),
        "backward": max(whole - half, 0.0) / len(labels),
        "evaluation": _seconds(device, evaluation) / val_count,
    }


def _seconds(device: Device, call: Callable[[], object]) -> float:
    """Median time of a call, after one that warms up."""
    times = []
    for _ in range(1 + REPEATS):
        device.synchronize()
        start = time.perf_counter()
        call()
        device.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def as_jpeg(image: np.ndarray, side: int) -> io.BytesIO:
    """A uint8 image `(3, S, S)` as a JPEG file in memory, `side` pixels wide and high."""
    file = io.BytesIO()
    photo = Image.fromarray(image.transpose(1, 2, 0)).resize((side, side), Image.Resampling.BICUBIC)
    photo.save(file, "JPEG", quality=90)
    return file


def open_jpeg(file: io.BytesIO) -> Image.Image:
    """Decode it, as torchvision's data sets do."""
    file.seek(0)
    return Image.open(file).convert("RGB")
