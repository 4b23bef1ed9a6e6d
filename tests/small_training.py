"""A network and a data set so small that a phase of training takes a moment."""

import copy
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.models import _api

from flowers_utils.data import FlowerData, Split
from flowers_utils.device import Device
from flowers_utils.models import HEADS, build_model, fingerprint
from flowers_utils.phases import Phase, PhaseResult
from flowers_utils.training import train_phase

CPU = Device(torch.device("cpu"), "test")
NAME = "small"


class SmallNet(nn.Module):
    """Convolution, BatchNorm, pooling and a classifier with dropout: what a real backbone has."""

    def __init__(self, weights: None = None, num_classes: int = 1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=4, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(8, num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.bn1(self.conv1(images)).relu().mean(dim=(2, 3)))


# So `build_model("small")` works in all tests.
HEADS[NAME] = "classifier.1"
_api.BUILTIN_MODELS[NAME] = SmallNet  # where torchvision's `get_model` looks


def small_model(seed: int = 0) -> nn.Module:
    return build_model(NAME, num_classes=4, weights=None, seed=seed)


def backbone_print(model: nn.Module) -> str:
    """A fingerprint that does not see the head."""
    headless = copy.deepcopy(model)
    headless.set_submodule(HEADS[model.architecture], nn.Identity())
    return fingerprint(headless)


def noisy_colours(name: str, count: int, *, size: int, seed: int) -> Split:
    """Patches of four colours under so much noise that val accuracy goes up and down."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    colours = np.random.default_rng(7).integers(96, 160, (4, 3, 1, 1))
    noise = rng.normal(0, 25, (count, 3, 1, 1)) + rng.normal(0, 9, (count, 3, size, size))
    images = (colours[labels] + noise).clip(0, 255).astype(np.uint8)
    return Split(name, images, torch.from_numpy(labels).long())


def small_data(val_seed: int = 1) -> FlowerData:
    """Four classes; training at 36 pixels, val and test at 32."""
    return FlowerData(
        source="folder",
        title="test patches",
        class_names=("red", "green", "blue", "grey"),
        train=noisy_colours("train", 24, size=36, seed=0),
        val=noisy_colours("val", 16, size=32, seed=val_seed),
        test=noisy_colours("test", 16, size=32, seed=2),
        resize_size=36,
        image_size=32,
    )


def small_phase(folder: Path, *, model=None, data=None, device=CPU, **changes) -> PhaseResult:
    """Six epochs of Phase 2 on `small_data`, or what `changes` (fields of a Phase) make of it."""
    usual = {"number": 2, "epochs": 6, "head_lr": 0.02, "backbone_lr": 0.01}
    phase = Phase(**{**usual, **changes})
    return train_phase(model or small_model(), data or small_data(), device, phase, folder=folder)


def history(result: PhaseResult) -> list[dict]:
    """The rows of a history without their times."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]


def facts(result: PhaseResult) -> tuple:
    """All that must be equal, bit by bit: history without times, and the best weights."""
    weights = {key: value.tolist() for key, value in result.model.state_dict().items()}
    return history(result), result.val_correct.tolist(), weights
