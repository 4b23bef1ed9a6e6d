"""About how long the lesson takes on this machine, from a few real steps."""

import time
from pathlib import Path

import torch

import transfer_learning_config as config
from flowers_utils.config_check import profile_epochs
from flowers_utils.datasets import practice
from flowers_utils.device import Device
from flowers_utils.models import build_model
from flowers_utils.training import run_epoch
from flowers_utils.transforms import augment_batch, draw_augmentation

ENOUGH_SECONDS = 1.5  # of measuring one kind of step
OTHER_PASSES = 8  # over a split without training: val in Phase 1, linear heads, neighbours
COMPARISON_PASSES = 17  # the five backbones of the comparison, counted in passes of ResNet18
EVERYTHING_ELSE = 60.0  # seconds of a run that are neither training nor evaluation: figures, export


def lesson_seconds(
    device: Device, *, photographs: bool, profile: str = "full"
) -> tuple[float, float]:
    """About how long a profile takes here, in seconds, from a few real steps.

    First until the classifier is there, scored and exported, then for the control experiment.
    """
    a = config.AUGMENTATION
    resize, crop, splits = a["resize"], a["crop"], config.DATASET["splits"]
    if not photographs:
        resize, crop = practice.PRACTICE_RESIZE, practice.PRACTICE_CROP
        splits = practice.SPLIT_SIZES
    if limit := config.PROFILES[profile]["images"]:
        splits = dict.fromkeys(splits, limit)
    train, forward = seconds_per_image(device, resize=resize, crop=crop)
    epoch = train * splits["train"] + forward * splits["val"]
    passes = profile_epochs(profile, "phase1") + OTHER_PASSES + COMPARISON_PASSES * photographs
    only_seen = passes * splits["train"] + splits["test"]
    pretrained = (Path(config.PATHS["models"]) / "practice_backbone.pth").is_file()
    learned = 0 if photographs or pretrained else practice.PRETRAINING["images"]
    classifier = profile_epochs(profile, "phase2") * epoch + forward * only_seen + train * learned
    return classifier + EVERYTHING_ELSE, profile_epochs(profile, "phase2") * epoch


def seconds_per_image(device: Device, *, resize: int, crop: int) -> tuple[float, float]:
    """Seconds for one image: (training everything, forward pass alone), augmentation included."""
    count = 8 if device.torch_device.type == "cpu" and crop > 64 else 32
    classes, generator = config.DATASET["num_classes"], torch.Generator().manual_seed(0)
    model = device.place(build_model(config.BACKBONE, num_classes=classes, weights=None))
    fused = device.torch_device.type != "mps"  # as PhaseTrainer has it
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)
    images = torch.randint(256, (count, 3, resize, resize), generator=generator)
    labels = torch.zeros(count, dtype=torch.int64, device=device.torch_device)
    batch = [(images.to(device.torch_device, torch.uint8), labels)]

    def prepare(images: torch.Tensor) -> torch.Tensor:
        draws = draw_augmentation(count, generator, resize=resize, crop=crop)
        return device.place_batch(augment_batch(images, draws, crop=crop))

    def step(**how: object) -> float:
        start = time.perf_counter()
        run_epoch(model, batch, device, prepare=prepare, **how)
        return (time.perf_counter() - start) / count

    def measured(**how: object) -> float:  # the first step prepares, so it is never the only one
        times = [step(**how)]
        while len(times) < 2 or (len(times) < 5 and sum(times) * count < ENOUGH_SECONDS):
            times.append(step(**how))
        return min(times)

    return measured(optimizer=optimizer, scaler=device.scaler()), measured()
