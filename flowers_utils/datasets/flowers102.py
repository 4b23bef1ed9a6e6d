"""Oxford Flowers102 on the disk, in the layout torchvision reads: found, completed, verified.

torchvision only looks whether the folder exists. Here every photograph is asked for.
"""

import re
import tarfile
from collections.abc import Iterable
from pathlib import Path

from scipy.io import loadmat
from torchvision.datasets import Flowers102

import transfer_learning_config as config
from flowers_utils.config_check import check
from flowers_utils.datasets.download import download_file, reachable
from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress
from flowers_utils.storage.files import check_writable, file_md5, one_at_a_time

ARCHIVE_BYTES = 344_862_509  # 102flowers.tgz
FULL_SIDE = 500  # pixels: the shorter side of every original photograph
MATLAB_FILES = ("labels", "setid")  # keys of DATASET
ALL_FILES = (*MATLAB_FILES, "archive")
MATLAB_SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}  # names inside setid.mat
FLOWERS102_NAMES = tuple(Flowers102.classes)  # in label order


def root_of(folder: Path) -> Path | None:
    """The root of Flowers102, if `folder` is that, or its `flowers-102` or `jpg`; else None."""
    for base in (folder / "flowers-102", folder.parent if folder.name == "jpg" else folder):
        files = [base / config.DATASET[key]["name"] for key in MATLAB_FILES]
        if (base / "jpg").is_dir() and all(file.is_file() for file in files):
            told = f"'{base}' holds Flowers102. Rename it: torchvision looks for 'flowers-102'."
            check(base.name == "flowers-102", told)
            return base.parent
    return None


def read_split(root: Path, name: str) -> tuple[list[Path], list[int]]:
    """Photographs and 0-based labels of "train", "val" or "test", in the official order."""
    base = root / "flowers-102"
    ids = loadmat(base / config.DATASET["setid"]["name"])[MATLAB_SPLITS[name]][0]
    labels = loadmat(base / config.DATASET["labels"]["name"])["labels"][0]
    photos = [base / "jpg" / f"image_{number:05d}.jpg" for number in ids]
    return photos, (labels[ids - 1].astype(int) - 1).tolist()  # Matlab counts from 1


def missing_images(root: Path) -> list[str]:
    """Names of photographs that are not there or empty; cheap, opens no file."""
    photos = (root / "flowers-102" / "jpg").glob("image_?????.jpg")
    there = {photo.name for photo in photos if photo.stat().st_size}
    total = sum(config.DATASET["splits"].values())
    names = (f"image_{number:05d}.jpg" for number in range(1, total + 1))
    return [name for name in names if name not in there]


def flowers102_is_whole(root: Path) -> bool:
    """Whether both `.mat` files are correct and no photograph is missing, be it a small copy."""
    return all(_is_there(root, key) for key in MATLAB_FILES) and not missing_images(root)


def flowers102_lies_ready(root: Path) -> bool:
    """Whether all that `ensure_flowers102` needs is in `root` already, so that it needs no network."""
    return flowers102_is_whole(root) or all(_is_there(root, key) for key in ALL_FILES)


def flowers102_is_reachable() -> bool:
    """Whether some address has the archive now."""
    return any(map(reachable, _urls("archive")))


def ensure_flowers102(root: Path, *, damaged: Iterable[Path] = ()) -> Path:
    """Return the folder `root/flowers-102` once all of Flowers102 is in it; or raise FlowersError.

    Fetches only what is missing or `damaged`: a complete set may be read-only.
    """
    base, damaged = root / "flowers-102", [path.name for path in damaged]
    if flowers102_is_whole(root) and not damaged:
        return base
    needed = ARCHIVE_BYTES * (1 if _is_there(root, "archive") else 2)  # and what comes out of it
    check_writable(base, needed, advice="Set FLOWERS_DATA_DIR to a folder of your own.")
    with one_at_a_time(base):
        for key in MATLAB_FILES:
            _obtain(root, key)
        if names := {*missing_images(root), *damaged}:
            _unpack(_obtain(root, "archive"), base / "jpg", names)
    return base


def _urls(key: str) -> list[str]:
    name = config.DATASET[key]["name"]
    return [f"{base.rstrip('/')}/{name}" for base in config.DATASET["base_urls"]]


def _is_there(root: Path, key: str) -> bool:
    file = root / "flowers-102" / config.DATASET[key]["name"]
    return file.is_file() and file_md5(file) == config.DATASET[key]["md5"]


def _obtain(root: Path, key: str) -> Path:
    """One file of the set: put there by hand, or kept from an earlier run, or downloaded."""
    path = root / "flowers-102" / config.DATASET[key]["name"]
    if _is_there(root, key):
        return path
    damaged = f"'{path}' is damaged. " if path.is_file() else ""
    try:
        return download_file(_urls(key), path, md5=config.DATASET[key]["md5"])
    except FlowersError as error:
        names = ", ".join(config.DATASET[part]["name"] for part in ALL_FILES)
        advice = f'The set consists of {names}. DATA = "practice" needs none of them.'
        raise FlowersError(f"{damaged}{error} {advice}") from error


def _unpack(archive: Path, folder: Path, left: set[str]) -> None:
    """Write the photographs named in `left` from the archive's `jpg/` into `folder`, nothing else."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(archive) as tar, Progress(len(left), "Unpacking", unit="image") as bar:
        for member in tar:
            match = re.fullmatch(r"(?:\./)?jpg/(image_\d{5}\.jpg)", member.name)
            if match and match[1] in left and member.isreg():  # no link, no path to elsewhere
                # If this stops half-way, the photograph is found to be broken and unpacked again.
                (folder / match[1]).write_bytes(tar.extractfile(member).read())
                left.remove(match[1])
                bar.update()
    check(not left, f"{archive} lacks {min(left, default='')} and more. Delete it, run this again.")
