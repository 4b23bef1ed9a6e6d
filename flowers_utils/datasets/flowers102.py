"""Oxford Flowers102 on the disk, in the layout torchvision reads: found, completed, verified.

torchvision only looks whether the folder exists, so a half-extracted set passes it (its
`flowers102.py`, `_check_integrity`). Here every photograph is asked for.
"""

import os
import re
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

from scipy.io import loadmat
from torchvision.datasets import Flowers102

import transfer_learning_config as config
from flowers_utils.datasets.download import download_file, reachable
from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress
from flowers_utils.storage.files import check_writable, file_md5, one_at_a_time, rename

ARCHIVE_BYTES = 344_862_509  # 102flowers.tgz
FULL_SIDE = 500  # pixels: the shorter side of every original photograph
MATLAB_FILES = ("labels", "setid")  # keys of DATASET
MATLAB_SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}  # names inside setid.mat
FLOWERS102_NAMES = tuple(Flowers102.classes)  # in label order


def root_of(folder: Path) -> Path | None:
    """The root of Flowers102, if `folder` is that, or its `flowers-102` or `jpg`; else None."""
    inner = folder.parent if folder.name == "jpg" else folder
    for base in (folder / "flowers-102", inner):
        files = [base / config.DATASET[key]["name"] for key in MATLAB_FILES]
        if (base / "jpg").is_dir() and all(file.is_file() for file in files):
            if base.name != "flowers-102":
                raise FlowersError(
                    f"'{base}' holds Flowers102, but torchvision looks for it in a folder named "
                    "'flowers-102'. Rename it, and set FLOWERS_DATA_DIR to the folder above it."
                )
            return base.parent
    return None


def read_split(root: Path, name: str) -> tuple[list[Path], list[int]]:
    """Photographs and 0-based labels of "train", "val" or "test", in the official order."""
    base = root / "flowers-102"
    ids = loadmat(base / config.DATASET["setid"]["name"])[MATLAB_SPLITS[name]][0]
    all_labels = loadmat(base / config.DATASET["labels"]["name"])["labels"][0]
    labels = [int(all_labels[number - 1]) - 1 for number in ids]  # Matlab counts from 1
    return [base / "jpg" / f"image_{number:05d}.jpg" for number in ids], labels


def missing_images(root: Path) -> list[str]:
    """Names of photographs that are not there or empty; cheap, opens no file."""
    folder, there = root / "flowers-102" / "jpg", set()
    if folder.is_dir():
        with os.scandir(folder) as entries:
            there = {entry.name for entry in entries if entry.stat().st_size > 0}
    total = sum(config.DATASET["splits"].values())
    names = (f"image_{number:05d}.jpg" for number in range(1, total + 1))
    return [name for name in names if name not in there]


def flowers102_is_whole(root: Path) -> bool:
    """Whether both `.mat` files are correct and no photograph is missing, be it a small copy."""
    base = root / "flowers-102"
    found = [_find(root, key) for key in MATLAB_FILES]
    return all(file and file.parent == base for file in found) and not missing_images(root)


def flowers102_lies_ready(root: Path) -> bool:
    """Whether all that `ensure_flowers102` needs is in `root` already, so that it needs no network."""
    keys = (*MATLAB_FILES, "archive") if missing_images(root) else MATLAB_FILES
    return all(_find(root, key) for key in keys)


def flowers102_is_reachable(*, timeout: float = 3.0) -> bool:
    """Whether some address has the archive now; each has `timeout` seconds."""
    return any(reachable(url, timeout=timeout) for url in _urls("archive"))


def ensure_flowers102(root: Path, *, damaged: Iterable[Path] = ()) -> Path:
    """Return the folder `root/flowers-102` once all of Flowers102 is in it.

    Fetches only what is missing or `damaged`, and nothing that was put into `root` or
    `root/flowers-102` by hand; a complete set is never written to, so `root` may be read-only.
    Raises FlowersError.
    """
    base, damaged = root / "flowers-102", [path.name for path in damaged]
    if flowers102_is_whole(root) and not damaged:
        return base
    ready = _find(root, "archive") if damaged else flowers102_lies_ready(root)
    needed = 0 if ready else 2 * ARCHIVE_BYTES  # the archive, and what comes out of it
    check_writable(base, needed, advice="Set FLOWERS_DATA_DIR to a folder of your own.")
    with one_at_a_time(base):
        for key in MATLAB_FILES:
            found = _obtain(root, key)
            if found.parent != base:
                shutil.copyfile(found, base / found.name)
        if names := {*missing_images(root), *damaged}:
            _unpack(_obtain(root, "archive"), root, names)
    return base


def _urls(key: str) -> list[str]:
    name = config.DATASET[key]["name"]
    return [f"{base.rstrip('/')}/{name}" for base in config.DATASET["base_urls"]]


def _find(root: Path, key: str) -> Path | None:
    """One file of the set that is there already, with the correct checksum."""
    file = config.DATASET[key]
    for place in (root / "flowers-102" / file["name"], root / file["name"]):
        if place.is_file() and file_md5(place) == file["md5"]:
            return place
    return None


def _obtain(root: Path, key: str) -> Path:
    """One file of the set: put there by hand, or kept from an earlier run, or downloaded."""
    if (found := _find(root, key)) is not None:
        return found
    file = config.DATASET[key]
    try:
        return download_file(_urls(key), root / "flowers-102" / file["name"], md5=file["md5"])
    except FlowersError as error:
        by_hand = root / file["name"]
        damaged = f" '{by_hand}' is damaged." if by_hand.is_file() else ""
        names = ", ".join(config.DATASET[part]["name"] for part in ("archive", *MATLAB_FILES))
        advice = f'The set consists of {names}. DATA = "practice" needs none of them.'
        raise FlowersError(f"{error}{damaged} {advice}") from error


def _unpack(archive: Path, root: Path, left: set[str]) -> None:
    """Put the photographs named in `left` from the archive's `jpg/image_00001.jpg` ... into place.

    Nothing else in an archive is written: no link, no other name, no path that leads elsewhere.
    """
    folder = root / "flowers-102" / "jpg"
    part = folder.with_name("image.part")  # a half-written photograph never has its final name
    folder.mkdir(exist_ok=True)
    with tarfile.open(archive) as tar, Progress(len(left), "Unpacking", unit="image") as bar:
        for member in tar:
            match = re.fullmatch(r"(?:\./)?jpg/(image_\d{5}\.jpg)", member.name)
            if match and match[1] in left and member.isreg():
                with tar.extractfile(member) as source, part.open("wb") as target:
                    shutil.copyfileobj(source, target)
                rename(part, folder / match[1])
                left.remove(match[1])
                bar.update()
    if left:
        raise FlowersError(f"{archive} lacks {min(left)} and more. Delete it and run this again.")
