"""Shared set-up: a small network, data that it can learn, and a tiny Flowers102 on the disk."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from small_training import CPU, small_data
from torchvision.datasets import Flowers102

import transfer_learning_config as config

# jsonschema, which nbformat needs, spends seconds on a grammar of addresses that no notebook has.
sys.modules["rfc3987_syntax"] = None
# One thread is many times faster for so small a network, and tests can run side by side.
torch.set_num_threads(1)


@pytest.fixture
def cpu():
    """The plainest device: float32, contiguous."""
    return CPU


@pytest.fixture
def tiny_data():
    """Four classes of colour patches: training at 36 pixels, val and test at 32."""
    return small_data()


def write_mini_flowers102(root: Path) -> dict[str, dict]:
    """Draw a tiny Flowers102 in its own layout; returns what `config.DATASET` says of such a set."""
    base, splits = root / "flowers-102", {"train": 102, "val": 102, "test": 204}
    (base / "jpg").mkdir(parents=True)
    rng, numbers = np.random.default_rng(0), np.arange(sum(splits.values()))
    colours = rng.integers(0, 256, (102, 3))
    for number in numbers:
        pixels = colours[number % 102] + rng.normal(0, 12, (40, 48, 3))
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(base / "jpg" / f"image_{number + 1:05d}.jpg")
    ids = np.split(numbers + 1, np.cumsum(list(splits.values()))[:-1])
    savemat(base / "imagelabels.mat", {"labels": numbers[None] % 102 + 1})
    savemat(base / "setid.mat", dict(zip(("trnid", "valid", "tstid"), ids, strict=True)))
    described = {"splits": splits}
    for key, name in (("labels", "imagelabels.mat"), ("setid", "setid.mat")):
        md5 = hashlib.md5((base / name).read_bytes()).hexdigest()
        described[key] = {"name": name, "md5": md5}
    return described


@pytest.fixture
def mini_flowers102(tmp_path, monkeypatch):
    """A tiny whole Flowers102 that the project's loading code and torchvision's both accept."""
    root = tmp_path / "share"
    for key, value in write_mini_flowers102(root).items():
        monkeypatch.setitem(config.DATASET, key, value)
    monkeypatch.setattr(Flowers102, "_check_integrity", lambda self: True)  # knows real sums alone
    monkeypatch.setenv("FLOWERS_DATA_DIR", str(root))
    monkeypatch.setitem(config.PATHS, "cache", str(tmp_path / "cache"))
    return root
