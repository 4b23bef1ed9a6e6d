"""Oxford Flowers102 on the disk, in the layout torchvision reads: found, completed, verified.

torchvision only looks whether the folder exists, so a half-extracted set passes it (its
`flowers102.py`, `_check_integrity`). Here every photograph is asked for.
"""

import os
import re
import shutil
import tarfile
from pathlib import Path

from scipy.io import loadmat

import transfer_learning_config as config
from flowers_utils.datasets.disk import check_writable, file_md5, one_at_a_time
from flowers_utils.datasets.download import download_file, reachable
from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress
from flowers_utils.storage.files import rename

ARCHIVE_BYTES = 344_862_509  # 102flowers.tgz
FULL_SIDE = 500  # pixels: the shorter side of every original photograph
MATLAB_FILES = ("labels", "setid")  # keys of DATASET
MATLAB_SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}  # names inside setid.mat
# In label order; torchvision knows them only from version 0.22 on.
FLOWERS102_NAMES = tuple(
    Path(__file__).with_name("flowers102_names.txt").read_text(encoding="utf-8").splitlines()
)


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
    """Whether both `.mat` files are right and every photograph is there, be it a shrunken copy."""
    base = root / "flowers-102"
    found = [_find_right(root, key) for key in MATLAB_FILES]
    return all(file and file.parent == base for file in found) and not missing_images(root)


def flowers102_lies_ready(root: Path) -> bool:
    """Whether `ensure_flowers102` can do without a network: all that it needs lies there already."""
    keys = (*MATLAB_FILES, "archive") if missing_images(root) else MATLAB_FILES
    return all(_find_right(root, key) for key in keys)


def flowers102_is_reachable(*, timeout: float = 3.0) -> bool:
    """Whether some address has the archive now; each has `timeout` seconds."""
    return any(reachable(url, timeout=timeout) for url in _urls("archive"))


def ensure_flowers102(root: Path) -> Path:
    """Return the folder `root/flowers-102` once all of Flowers102 is in it.

    Fetches only what is missing, and nothing that was put into `root` or `root/flowers-102` by
    hand; a whole set is never written to, so `root` may be read-only. Raises FlowersError.
    """
    base = root / "flowers-102"
    if flowers102_is_whole(root):
        return base
    # The archive and what comes out of it.
    needed = 0 if flowers102_lies_ready(root) else 2 * ARCHIVE_BYTES
    check_writable(base, needed, advice="Set FLOWERS_DATA_DIR to a folder of your own.")
    with one_at_a_time(base):
        for key in MATLAB_FILES:
            found = _obtain(root, key)
            if found.parent != base:
                shutil.copyfile(found, base / found.name)
        if missing_images(root):
            _unpack(_obtain(root, "archive"), root)
    return base


def _urls(key: str) -> list[str]:
    name = config.DATASET[key]["name"]
    return [f"{base.rstrip('/')}/{name}" for base in config.DATASET["base_urls"]]


def _places(root: Path, key: str) -> list[Path]:
    """The files in `root` that bear the name of one file of the set."""
    name = config.DATASET[key]["name"]
    return [place for place in (root / "flowers-102" / name, root / name) if place.is_file()]


def _find_right(root: Path, key: str) -> Path | None:
    """One file of the set that is there already, with the right checksum."""
    right = (p for p in _places(root, key) if file_md5(p) == config.DATASET[key]["md5"])
    return next(right, None)


def _obtain(root: Path, key: str) -> Path:
    """One file of the set: put there by hand, or kept from an earlier run, or downloaded."""
    if (found := _find_right(root, key)) is not None:
        return found
    file = config.DATASET[key]
    try:
        return download_file(_urls(key), root / "flowers-102" / file["name"], md5=file["md5"])
    except FlowersError as error:
        damaged = "".join(f" '{path}' is damaged." for path in _places(root, key))
        names = ", ".join(config.DATASET[part]["name"] for part in ("archive", *MATLAB_FILES))
        advice = f'The set consists of {names}. DATA = "practice" needs none of them.'
        raise FlowersError(f"{error}{damaged} {advice}") from error


def _unpack(archive: Path, root: Path) -> None:
    """Put the photographs `jpg/image_00001.jpg` and so on of `archive` into place, one by one.

    Nothing else in an archive is written: no link, no other name, no path that leads elsewhere.
    """
    folder = root / "flowers-102" / "jpg"
    part = folder.with_name("image.part")  # a half-written photograph never has its right name
    total = sum(config.DATASET["splits"].values())
    folder.mkdir(exist_ok=True)
    with tarfile.open(archive) as tar, Progress(total, "Unpacking", unit="image") as bar:
        for member in tar:
            match = re.fullmatch(r"(?:\./)?jpg/(image_\d{5}\.jpg)", member.name)
            if match and member.isreg():
                with tar.extractfile(member) as source, part.open("wb") as target:
                    shutil.copyfileobj(source, target)
                rename(part, folder / match[1])
                bar.update()
    if missing := missing_images(root):
        raise FlowersError(f"{archive} lacks {missing[0]} and more. Delete it and run this again.")
