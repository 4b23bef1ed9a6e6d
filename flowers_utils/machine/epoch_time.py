"""Where the time of an epoch goes, in the textbook loop and in this lesson's; how long the lesson takes."""

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import transfer_learning_config as config
from flowers_utils.config_check import profile_epochs
from flowers_utils.data import FlowerData, Split, batches
from flowers_utils.datasets import practice
from flowers_utils.device import Device
from flowers_utils.machine.speed import measure
from flowers_utils.models import build_model, train_mode, unfreeze
from flowers_utils.progress import Progress
from flowers_utils.models import make_optimizer
from flowers_utils.training import evaluate, train_one_epoch
from flowers_utils.transforms import (
    augment_batch,
    draw_augmentation,
    eval_batch,
    eval_transform,
    train_transform,
)

PARTS = ("decode", "augmentation", "forward", "backward", "evaluation")
JPEG_SIDE = 500  # pixels: the longer side of the JPEG files that the textbook loop decodes
OTHER_PASSES = 8  # over a split without training: before and after the phases, stored features
COMPARISON_PASSES = 17  # the five backbones of part two, counted in passes of a ResNet18
EVERYTHING_ELSE = 60.0  # seconds of a run that are neither training nor evaluation: figures, export


def where_time_goes(
    model: nn.Module, data: FlowerData, device: Device, *, seconds: float = 0.5
) -> dict[str, dict[str, float]]:
    """Seconds that one epoch of Phase 2 spends in each of PARTS, for two ways of training.

    Name of the loop -> name of the part -> seconds, scaled up from one batch. The textbook loop
    decodes JPEG files (made here from the cached photographs, as large as real ones; practice
    flowers stay as they are), augments image by image and computes in float32. Model and random
    state stay as they were. `seconds` are spent on each measurement.
    """
    count = _images_a_batch(device, data.image_size)
    train, val = (each.subset(range(min(count, len(each)))) for each in (data.train, data.val))
    side = data.image_size if data.is_practice else JPEG_SIDE
    plain = Device(device.torch_device, device.name)  # float32, contiguous
    loops = {
        "textbook": (plain, _textbook(train, val, side=side)),
        "this lesson": (device, _lesson(train, val, device)),
    }
    sizes = dict.fromkeys(PARTS, len(data.train)) | {"evaluation": len(data.val)}
    found = {}
    with Progress(len(loops), "Timing both loops", unit="loop") as bar:
        for name, (place, steps) in loops.items():
            each = _seconds_an_image(model, place, steps, seconds=seconds)
            found[name] = {part: each[part] * sizes[part] for part in PARTS}
            bar.update()
    return found


def lesson_seconds(device: Device, *, on_practice: bool, profile: str) -> tuple[float, float]:
    """About how long parts one and two take here, in seconds, from a few real steps."""
    resize, crop = config.AUGMENTATION["resize"], config.AUGMENTATION["crop"]
    splits = config.DATASET["splits"]
    if on_practice:
        resize, crop, splits = (
            practice.PRACTICE_RESIZE,
            practice.PRACTICE_CROP,
            practice.SPLIT_SIZES,
        )
    if limit := config.PROFILES[profile]["images"]:
        splits = dict.fromkeys(splits, limit)
    train, forward = seconds_an_image(device, resize=resize, crop=crop)
    epoch = train * splits["train"] + forward * splits["val"]
    phase2 = profile_epochs(profile, "phase2") * epoch  # training from scratch takes as long
    passes = profile_epochs(profile, "phase1") + OTHER_PASSES
    seen = forward * (passes * splits["train"] + splits["test"])
    kept = (Path(config.PATHS["models"]) / "practice_backbone.pth").is_file()
    pretraining = 0.0
    if on_practice and not kept:  # it begins with small pictures, and work grows with the area
        area = sum(share * (size / crop) ** 2 for size, share in practice.PRETRAINING["sizes"])
        pretraining = train * area * practice.PRETRAINING["images"]
    comparison = 0.0 if on_practice else COMPARISON_PASSES * forward * splits["train"]
    return phase2 + seen + pretraining + EVERYTHING_ELSE, phase2 + comparison


def seconds_an_image(device: Device, *, resize: int, crop: int) -> tuple[float, float]:
    """Seconds that this lesson needs for one image: (training everything, evaluation)."""
    count = _images_a_batch(device, crop)
    train, val = (
        Split("", np.zeros((count, 3, size, size), np.uint8), torch.zeros(count, dtype=torch.int64))
        for size in (resize, crop)
    )
    model = build_model(config.BACKBONE, num_classes=config.DATASET["num_classes"], weights=None)
    each = _seconds_an_image(model, device, _lesson(train, val, device), seconds=0.5)
    return sum(each[part] for part in PARTS[:-1]), each["evaluation"]


def _images_a_batch(device: Device, size: int) -> int:
    """Fewer on a CPU, where a whole batch of photographs takes seconds."""
    slow = device.torch_device.type == "cpu" and size > 64
    return 8 if slow else config.TRAINING_CONFIG["batch_size"]


@dataclass(frozen=True)
class _Steps:
    """What a loop does before the network: `augment` takes what `decode` returns."""

    decode: Callable[[], Any]
    augment: Callable[[Any], torch.Tensor]
    for_evaluation: Callable[[], torch.Tensor]
    labels: tuple[torch.Tensor, torch.Tensor]  # of train and val


def _textbook(train: Split, val: Split, *, side: int) -> _Steps:
    """JPEG files, opened and augmented one by one, as torchvision's data sets do."""
    resize, crop = train.images.shape[-1], val.images.shape[-1]
    augment, prepare = train_transform(resize=resize, crop=crop), eval_transform(size=crop)
    files, val_files = ([as_jpeg(image, side) for image in split.images] for split in (train, val))
    return _Steps(
        decode=lambda: [open_jpeg(file) for file in files],
        augment=lambda photos: torch.stack([augment(photo) for photo in photos]),
        for_evaluation=lambda: torch.stack([prepare(open_jpeg(file)) for file in val_files]),
        labels=(train.labels, val.labels),
    )


def _lesson(train: Split, val: Split, device: Device) -> _Steps:
    """uint8 from the cache, augmented as a batch on the device."""
    generator = torch.Generator().manual_seed(0)
    resize, crop = train.images.shape[-1], val.images.shape[-1]

    def fetch(split: Split) -> torch.Tensor:
        return next(iter(batches(split, device, batch_size=len(split))))[0]

    def augment(images: torch.Tensor) -> torch.Tensor:
        draws = draw_augmentation(len(images), generator, resize=resize, crop=crop)
        return augment_batch(images, draws, crop=crop)

    return _Steps(
        decode=lambda: fetch(train),
        augment=augment,
        for_evaluation=lambda: eval_batch(fetch(val), crop),
        labels=(train.labels, val.labels),
    )


def _seconds_an_image(
    model: nn.Module, device: Device, steps: _Steps, *, seconds: float
) -> dict[str, float]:
    """Seconds for one image in each of PARTS; the network is a copy."""
    network = device.place(copy.deepcopy(model))
    unfreeze(network)
    optimizer = make_optimizer([{"params": list(network.parameters()), "lr": 1e-4}], device)
    labels, val_labels = (each.to(device.torch_device) for each in steps.labels)

    def timed(call: Callable[[], object], labels: torch.Tensor = labels) -> float:
        return measure(call, device, seconds=seconds).median / len(labels)

    def forward() -> None:
        with device.autocast():
            network(images)

    def evaluation() -> None:
        evaluate(network, [(device.place_batch(steps.for_evaluation()), val_labels)], device)

    with torch.random.fork_rng():  # torchvision's transforms draw from the global generator
        photos = steps.decode()
        images = device.place_batch(steps.augment(photos))
        train_mode(network)
        half = timed(forward)
        whole = timed(partial(train_one_epoch, network, [(images, labels)], optimizer, device))
        return {
            "decode": timed(steps.decode),
            "augmentation": timed(lambda: device.place_batch(steps.augment(photos))),
            "forward": half,
            "backward": max(whole - half, 0.0),
            "evaluation": timed(evaluation, val_labels),
        }


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
