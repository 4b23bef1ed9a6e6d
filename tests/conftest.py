"""Shared set-up: a small network, data that it can learn, and a tiny Flowers102 on the disk."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_training import CPU, NAME, register_small_net, small_data

import transfer_learning_config as config
from flowers_utils.models import BACKBONES
from flowers_utils.storage import resume

MINI_CLASSES, MINI_SPLITS = 102, {"train": 102, "val": 102, "test": 204}
# One thread is many times faster for so small a network, and tests can run side by side.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def save_every_epoch(monkeypatch):
    """Of the tests' short epochs hardly one would be saved otherwise."""
    monkeypatch.setattr(resume, "SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # a quarter of the time of a small phase


@pytest.fixture
def small_net(monkeypatch):
    """`build_model("small")` works in this test, and its name is forgotten afterwards."""
    monkeypatch.setitem(BACKBONES, NAME, None)  # so that it is taken out again
    register_small_net()


@pytest.fixture
def cpu():
    """The plainest device: float32, contiguous."""
    return CPU


@pytest.fixture
def tiny_data():
    """Four classes of colour patches: training at 36 pixels, val and test at 32."""
    return small_data()


def write_mini_flowers102(root: Path) -> dict[str, str]:
    """Draw a tiny Flowers102 in its own layout, `.mat` files and all; returns their checksums."""
    from scipy.io import savemat

    base = root / "flowers-102"
    (base / "jpg").mkdir(parents=True)
    rng = np.random.default_rng(0)
    total = sum(MINI_SPLITS.values())
    labels = np.arange(total) % MINI_CLASSES
    colours = rng.integers(0, 256, (MINI_CLASSES, 3))
    for number, label in enumerate(labels, start=1):
        pixels = np.clip(colours[label] + rng.normal(0, 12, (40, 48, 3)), 0, 255)
        picture = Image.fromarray(pixels.astype(np.uint8))
        picture.save(base / "jpg" / f"image_{number:05d}.jpg")
    ids = np.split(np.arange(1, total + 1), np.cumsum(list(MINI_SPLITS.values()))[:-1])
    savemat(base / "imagelabels.mat", {"labels": labels[None] + 1})
    savemat(base / "setid.mat", dict(zip(("trnid", "valid", "tstid"), ids, strict=True)))
    return {
        name: hashlib.md5((base / f"{name}.mat").read_bytes()).hexdigest()
        for name in ("imagelabels", "setid")
    }


@pytest.fixture
def mini_flowers102(tmp_path, monkeypatch):
    """A tiny whole Flowers102 that the project's loading code and torchvision's both accept."""
    from torchvision.datasets import Flowers102

    root = tmp_path / "share"
    sums = write_mini_flowers102(root)
    labels = {"name": "imagelabels.mat", "md5": sums["imagelabels"]}
    setid = {"name": "setid.mat", "md5": sums["setid"]}
    for key, value in (("labels", labels), ("setid", setid), ("splits", MINI_SPLITS)):
        monkeypatch.setitem(config.DATASET, key, value)
    files = dict(Flowers102._file_dict)
    files["label"], files["setid"] = tuple(labels.values()), tuple(setid.values())
    monkeypatch.setattr(Flowers102, "_file_dict", files)
    monkeypatch.setenv("FLOWERS_DATA_DIR", str(root))
    monkeypatch.setitem(config.PATHS, "cache", str(tmp_path / "cache"))
    return root
