"""Where the flowers come from: Flowers102, the practice flowers, or a student's own folder."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import Flowers102

import transfer_learning_config as config
from flowers_utils.config_check import check_knobs
from flowers_utils.data import FlowerData, Split, check_split
from flowers_utils.datasets import practice
from flowers_utils.datasets.class_names import FLOWERS102_NAMES
from flowers_utils.datasets.flowers102 import (
    ensure_flowers102,
    flowers102_is_reachable,
    flowers102_lies_ready,
)
from flowers_utils.datasets.folder import list_folder
from flowers_utils.datasets.photos import cached_array, decoded
from flowers_utils.device import Device
from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress

SPLITS = ("train", "val", "test")


def data_root() -> Path:
    """The folder that holds `flowers-102`: FLOWERS_DATA_DIR, else `data`. It may be read-only."""
    return Path(os.environ.get("FLOWERS_DATA_DIR") or "data")


def load_data(choice: str = "auto", *, profile: str = "full", seed: int = 0) -> FlowerData:
    """The data set named by `choice`, decoded once, checked, ready for training.

    `choice`: `"auto"` (Flowers102 if it is on disk or can be downloaded, else practice flowers),
    `"flowers102"`, `"practice"`, or a path to a folder of class sub-folders.
    `profile` may limit the number of images. Raises FlowersError that says what to do.
    """
    check_knobs("auto", profile, 0)
    limit = config.PROFILES[profile]["images"]
    if choice == "practice":
        return load_practice(limit=limit, seed=seed)
    if choice == "flowers102":
        return load_flowers102(limit=limit)
    if choice == "auto":
        why_not = why_no_flowers102(data_root())
        if why_not:
            return load_practice(limit=limit, seed=seed, note=practice_banner(why_not))
        return load_flowers102(limit=limit)
    return load_own_folder(Path(choice).expanduser(), limit=limit, seed=seed)


def why_no_flowers102(root: Path) -> str:
    """Empty if Flowers102 is on disk (unpacked or not) or can be downloaded, else the reason in words."""
    if flowers102_lies_ready(root) or flowers102_is_reachable():
        return ""
    return f"Flowers102 is not (whole) in '{root}', and its server cannot be reached from here"


def practice_banner(why: str) -> str:
    """What a student must see when the lesson does not run on real photographs."""
    bar = "=" * 88
    return (
        f"{bar}\n  PRACTICE FLOWERS: drawn by a formula, not photographs.\n  {why}.\n"
        "  Every figure, table and result below says 'practice'. Accuracies here say nothing about\n"
        f"  Flowers102; to use it, see 'Download errors' in README.md.\n{bar}"
    )


def load_flowers102(*, limit: int | None = None) -> FlowerData:
    """Oxford Flowers102 with its official splits, downloaded if need be."""
    root = data_root()
    ensure_flowers102(root)
    resize, crop = config.AUGMENTATION["resize"], config.AUGMENTATION["crop"]
    splits = {}
    for name in SPLITS:
        dataset = Flowers102(root, split=name)
        files, labels = dataset._image_files, dataset._labels
        _assert_official(name, labels)
        chosen = _spread(len(files), limit)
        splits[name] = _decoded_split(
            name,
            [files[i] for i in chosen],
            [labels[i] for i in chosen],
            size=resize if name == "train" else crop,
            prefix=f"flowers102-{name}{_first(limit)}",
        )
    title = config.DATASET["name"]
    return _checked(FlowerData("flowers102", title, FLOWERS102_NAMES, **splits,
                               resize_size=resize, image_size=crop))  # fmt: skip


def _assert_official(name: str, labels: Sequence[int]) -> None:
    """The official splits have known sizes, and labels that start at 0."""
    expected, classes = config.DATASET["splits"][name], config.DATASET["num_classes"]
    if len(labels) != expected or set(labels) != set(range(classes)):
        raise FlowersError(
            f"The {name} split of Flowers102 has {len(labels)} images of {len(set(labels))} classes "
            f"instead of {expected} of {classes}; delete 'setid.mat' and 'imagelabels.mat' in the "
            "data folder so that they are fetched again."
        )


def _spread(count: int, limit: int | None) -> list[int]:
    """All indices, or `limit` of them spread evenly over the split."""
    if limit is None or limit >= count:
        return list(range(count))
    return np.linspace(0, count - 1, limit).round().astype(int).tolist()


def _first(limit: int | None) -> str:
    """Part of a cache's name, so that a short run and a full one keep their own."""
    return "" if limit is None else f"-some{limit}"


def _decoded_split(
    name: str, files: list[Path], labels: list[int], *, size: int, prefix: str
) -> Split:
    cache = Path(config.PATHS["cache"])
    images = decoded(files, size=size, cache=cache, name=prefix)
    return Split(name, images, torch.tensor(labels, dtype=torch.int64))


def load_practice(*, limit: int | None = None, seed: int = 0, note: str = "") -> FlowerData:
    """The built-in practice flowers: the same shapes, splits and labels as Flowers102, smaller."""
    splits = {}
    for name in SPLITS:
        size = practice.PRACTICE_RESIZE if name == "train" else practice.PRACTICE_CROP
        splits[name] = _practice_split(name, size=size, limit=limit, seed=seed)
    return _checked(FlowerData("practice", "practice flowers", practice.PRACTICE_NAMES, **splits,
                               resize_size=practice.PRACTICE_RESIZE,
                               image_size=practice.PRACTICE_CROP, note=note))  # fmt: skip


def _practice_split(name: str, *, size: int, limit: int | None, seed: int) -> Split:
    """One split, drawn once and cached like decoded photographs."""
    labels = practice.practice_labels(name, limit=limit)

    def fill(images: np.ndarray, bar: Progress) -> None:
        images[:] = practice.draw_practice_split(
            name, size=size, seed=seed, limit=limit, progress=bar
        )[0]

    facts = [f"version {practice.PRACTICE_VERSION}", f"seed {seed}"]
    shape = (len(labels), 3, size, size)
    cache = Path(config.PATHS["cache"])
    images = cached_array(cache, f"practice-{name}{_first(limit)}-{size}", facts, shape, fill)
    return Split(name, images, torch.from_numpy(labels))


def load_own_folder(folder: Path, *, limit: int | None = None, seed: int = 0) -> FlowerData:
    """A student's own photographs: one sub-folder a class, or `train/`, `val/`, `test/` of such."""
    class_names, files = list_folder(folder, seed=seed)
    resize, crop = config.AUGMENTATION["resize"], config.AUGMENTATION["crop"]
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:6]
    splits = {}
    for name, (photos, labels) in files.items():
        chosen = _spread(len(photos), limit)
        splits[name] = _decoded_split(
            name,
            [photos[i] for i in chosen],
            [labels[i] for i in chosen],
            size=resize if name == "train" else crop,
            prefix=f"folder{place}-{name}{_first(limit)}",
        )
    title = f"own flowers '{folder.resolve().name}'"
    return _checked(FlowerData("folder", title, class_names, **splits,
                               resize_size=resize, image_size=crop))  # fmt: skip


def starting_weights(
    data: FlowerData, device: Device, *, backbone: str, seed: int = 0
) -> str | dict[str, torch.Tensor]:
    """What the backbone starts from, as `build_model` takes it.

    ImageNet's weights for photographs. For practice flowers a backbone pretrained here and now on
    other species of the same formula (some minutes, kept in `models/` for every profile).
    """
    if not data.is_practice:
        return "imagenet"
    if backbone != "resnet18":
        raise FlowersError(
            f"Practice flowers come with a ResNet18 only; set BACKBONE = 'resnet18' instead of "
            f"'{backbone}', or use real photographs."
        )
    path = Path(config.PATHS["models"]) / "practice_backbone.pth"
    return practice.pretrain_backbone(path, device=device, seed=seed)


def _checked(data: FlowerData) -> FlowerData:
    """Raise FlowersError for a data set that training would stumble over later."""
    for split in (data.train, data.val, data.test):
        check_split(split, data.num_classes)
    if len(data.train) < 2:
        raise FlowersError("Training needs at least two photographs; add some to the train split.")
    return data
