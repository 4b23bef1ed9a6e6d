"""A student's own flowers: a folder with one sub-folder a class."""

from pathlib import Path

import numpy as np

from flowers_utils.errors import FlowersError

PHOTO_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"}
SPLITS = ("train", "val", "test")
Files = dict[str, tuple[list[Path], list[int]]]  # split -> photographs, labels


def list_folder(folder: Path, *, seed: int) -> tuple[tuple[str, ...], Files]:
    """Class names and the photographs and labels of train, val and test.

    With `train/`, `val/` and `test/` inside, these are taken as they are; otherwise the class
    folders are split 60 / 20 / 20 within each class, always alike for the same `seed`.
    Raises FlowersError for a folder that no classifier can be trained on.
    """
    if not folder.is_dir():
        raise FlowersError(
            f"There is no folder '{folder}'; set DATA to the folder with your classes."
        )
    if all((folder / split).is_dir() for split in SPLITS):
        return _list_split_folders(folder)
    by_class = photos_by_class(folder)
    files: Files = {split: ([], []) for split in SPLITS}
    rng = np.random.default_rng(seed)
    for label, photos in enumerate(by_class.values()):
        if len(photos) < 3:
            raise FlowersError(
                f"Class '{list(by_class)[label]}' has {len(photos)} photographs, but each class "
                "needs at least 3: one each to train, to choose and to test on."
            )
        order = [photos[i] for i in rng.permutation(len(photos))]
        held = max(1, len(order) // 5)
        parts = {"val": order[:held], "test": order[held : 2 * held], "train": order[2 * held :]}
        for split, part in parts.items():
            files[split][0].extend(part)
            files[split][1].extend([label] * len(part))
    return tuple(by_class), files


def _list_split_folders(folder: Path) -> tuple[tuple[str, ...], Files]:
    listed = {split: photos_by_class(folder / split) for split in SPLITS}
    names = tuple(listed["train"])
    files: Files = {}
    for split, by_class in listed.items():
        for name in set(by_class) ^ set(names):
            raise FlowersError(
                f"Class '{name}' is not in both '{folder / 'train'}' and '{folder / split}'; every "
                "split needs the same class folders."
            )
        photos = [photo for name in names for photo in by_class[name]]
        labels = [label for label, name in enumerate(names) for _ in by_class[name]]
        files[split] = (photos, labels)
    return names, files


def photos_by_class(folder: Path) -> dict[str, list[Path]]:
    """The photographs in each sub-folder, classes and files in alphabetical order."""
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(classes) < 2:
        raise FlowersError(
            f"'{folder}' has {len(classes)} class folders, but telling flowers apart takes at least "
            "two: make one sub-folder for each kind of flower and put its photographs there."
        )
    found = {c.name: _photos_in(c) for c in classes}
    for name, photos in found.items():
        if not photos:
            raise FlowersError(
                f"Class folder '{folder / name}' holds no photographs ({', '.join(sorted(PHOTO_ENDINGS))}); "
                "fill it or remove it."
            )
    return found


def _photos_in(folder: Path) -> list[Path]:
    files = (p for p in folder.rglob("*") if p.suffix.lower() in PHOTO_ENDINGS)
    return sorted(p for p in files if p.is_file() and not p.name.startswith("."))
