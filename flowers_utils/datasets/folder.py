"""A student's own flowers: a folder with one sub-folder a class."""

from pathlib import Path

import numpy as np

from flowers_utils.errors import FlowersError

PHOTO_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"}
SPLITS = ("train", "val", "test")
Files = dict[str, tuple[list[Path], list[int]]]  # split -> photographs, labels


def list_folder(folder: Path, *, seed: int) -> tuple[tuple[str, ...], Files]:
    """Class names and the photographs and labels of train, val and test.

    With `train/`, `val/` and `test/` inside, these are taken as they are (some of them without
    the others are an error); otherwise the class folders are split 60 / 20 / 20 within each class,
    always alike for the same `seed`.
    Raises FlowersError for a folder that no classifier can be trained on.
    """
    if not folder.is_dir():
        raise FlowersError(
            f"There is no folder '{folder}'; set DATA to the folder with your classes."
        )
    if split_folders := _split_folders(folder):
        return _list_split_folders(split_folders)
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


def _split_folders(folder: Path) -> dict[str, Path]:
    """The folders of train, val and test, or none of them; FlowersError if only some are there."""
    found = {p.name.lower(): p for p in _folders_in(folder) if p.name.lower() in SPLITS}
    missing = " and ".join(f"'{split}'" for split in SPLITS if split not in found)
    if found and missing:
        raise FlowersError(
            f"'{folder}' has {' and '.join(repr(p.name) for p in found.values())} but lacks "
            f"{missing}. Give it all of 'train', 'val' and 'test', each with the same class "
            "folders, or only class folders with other names, which are then split for you."
        )
    return {split: found[split] for split in SPLITS if found}


def _folders_in(folder: Path) -> list[Path]:
    """The sub-folders in alphabetical order, without hidden ones."""
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        raise FlowersError(
            f"The folder '{folder}' cannot be read ({error}): no permission, or its disk has gone. "
            "Change that, or copy the folder to a place of your own."
        ) from error


def _list_split_folders(folders: dict[str, Path]) -> tuple[tuple[str, ...], Files]:
    listed = {split: photos_by_class(folder) for split, folder in folders.items()}
    names = tuple(listed["train"])
    files: Files = {}
    for split, by_class in listed.items():
        for name in sorted(set(by_class) ^ set(names)):
            raise FlowersError(
                f"Class '{name}' is not in both '{folders['train']}' and '{folders[split]}'; every "
                "split needs the same class folders."
            )
        photos = [photo for name in names for photo in by_class[name]]
        labels = [label for label, name in enumerate(names) for _ in by_class[name]]
        files[split] = (photos, labels)
    return names, files


def photos_by_class(folder: Path) -> dict[str, list[Path]]:
    """The photographs in each sub-folder, classes and files in alphabetical order."""
    classes = _folders_in(folder)
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
