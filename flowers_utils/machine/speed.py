"""How fast a model is, and about how long the lesson takes here."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import transfer_learning_config as config
from flowers_utils import models
from flowers_utils.config_check import image_sizes, phase_settings
from flowers_utils.datasets import practice
from flowers_utils.device import Device, choose_device
from flowers_utils.training import make_optimizer, train_one_epoch


def measure(call: Callable[[], object], *, repeats: int) -> list[float]:
    """Seconds of `call`, once for each repeat, after a first call that warms up."""
    device, times = choose_device(), []
    for _ in range(repeats + 1):
        device.synchronize()  # a GPU may still be busy with earlier work
        start = time.perf_counter()
        call()
        device.synchronize()  # a GPU's calls return before the work is done
        times.append(time.perf_counter() - start)
    return times[1:]


def latency_in_turn(calls: Mapping[str, Callable], *, rounds: int = 15) -> dict[str, float]:
    """Median milliseconds of each call, timed in turn: a busy minute slows all of them alike."""
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name] += measure(call, repeats=3)
    return {name: 1000 * median(found) for name, found in times.items()}


def count_flops(model: nn.Module, *, image_size: int) -> int:
    """Floating-point operations for one image; a multiply-add counts as two."""
    image = torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device)
    # Not `inference_mode`: in it the counter does not see linear layers.
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(image)
    return counter.get_total_flops()


def lesson_seconds(device: Device, *, on_practice: bool, profile: str, recipe: str) -> float:
    """About how long part one takes here, in seconds, from three real steps."""
    counts = practice.SPLIT_SIZES if on_practice else config.DATASET["splits"]
    limit = config.PROFILES[profile]["images"]
    train, val, test = (min(count, limit or count) for count in counts.values())
    first, second = (phase_settings(name, profile, recipe)["epochs"] for name in config.PHASES)
    # A forward pass is a third of a step. Other cells pass over train about eight times.
    steps = second * train + ((first + 8) * train + second * val + test) / 3
    if on_practice and not (Path(config.PATHS["models"]) / "practice_backbone.pth").is_file():
        sizes, images = practice.PRETRAINING["sizes"], practice.PRETRAINING["images"]
        steps += images * sum(part * (size / practice.PRACTICE_CROP) ** 2 for size, part in sizes)
    crop = practice.PRACTICE_CROP if on_practice else image_sizes(recipe)[1]
    return steps * seconds_an_image(device, crop) + 60.0  # for figures


def seconds_an_image(device: Device, crop: int) -> float:
    """Seconds for one photograph of `crop` pixels in a step that trains the complete network."""
    slow = crop > 64 and device.torch_device.type == "cpu"  # fewer, so that it takes no minute
    count = 8 if slow else config.TRAINING_CONFIG["batch_size"]
    images = device.place_batch(torch.zeros(count, 3, crop, crop))
    labels = torch.zeros(count, dtype=torch.int64, device=device.torch_device)
    model = device.place(models.build_model(config.BACKBONE, num_classes=102, weights=None))
    optimizer = make_optimizer([{"params": list(model.parameters()), "lr": 1e-3}], device)
    step = partial(train_one_epoch, model, [(images, labels)], optimizer, device)
    return median(measure(step, repeats=3)) / count
