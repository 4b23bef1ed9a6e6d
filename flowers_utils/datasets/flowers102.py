"""Oxford Flowers102 as torchvision reads it, but every photograph is looked for, or fetched."""

import tarfile
from pathlib import Path

from scipy.io import loadmat
from torchvision.datasets import Flowers102
from torchvision.datasets.utils import check_integrity

import transfer_learning_config as config
from flowers_utils.config_check import check
from flowers_utils.datasets.download import download_file, reachable
from flowers_utils.progress import Progress
from flowers_utils.storage.files import check_writable, one_at_a_time

FULL_SIDE = 500  # pixels: the shorter side of every original photograph
MATLAB_FILES = ("labels", "setid")  # keys of DATASET
MATLAB_SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}  # names inside setid.mat
FLOWERS102_NAMES = tuple(Flowers102.classes)  # in label order


def root_of(folder: Path) -> Path | None:
    """The root of Flowers102, if `folder` is that, or its `flowers-102` or `jpg`; else None."""
    for base in (folder / "flowers-102", folder.parent if folder.name == "jpg" else folder):
        files = [base / config.DATASET[key]["name"] for key in (*MATLAB_FILES, "archive")]
        if sum(part.exists() for part in (base / "jpg", *files)) > 1:  # what lacks is fetched
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


def flowers102_is_whole(root: Path) -> bool:
    """Whether both `.mat` files are correct and no photograph is missing, be it a small copy."""
    photos = (root / "flowers-102" / "jpg").glob("image_?????.jpg")
    there = sum(photo.stat().st_size > 0 for photo in photos)
    complete = there >= sum(config.DATASET["splits"].values())
    return complete and all(_is_there(root, key) for key in MATLAB_FILES)


def flowers102_is_available(root: Path) -> bool:
    """Whether it is in `root`, complete or as the three files, or some address has the archive now."""
    files = (*MATLAB_FILES, "archive")
    on_disk = flowers102_is_whole(root) or all(_is_there(root, key) for key in files)
    return on_disk or any(map(reachable, _urls("archive")))


def ensure_flowers102(root: Path) -> None:
    """Complete Flowers102 in `root/flowers-102`, which may be read-only if nothing is missing."""
    if flowers102_is_whole(root):
        return
    base = root / "flowers-102"
    check_writable(base, advice="Set FLOWERS_DATA_DIR to a folder of your own.")
    with one_at_a_time(base):
        for key in MATLAB_FILES:
            _obtain(root, key)
        if not flowers102_is_whole(root):
            _unpack(_obtain(root, "archive"), base / "jpg")


def _urls(key: str) -> list[str]:
    name = config.DATASET[key]["name"]
    return [f"{base.rstrip('/')}/{name}" for base in config.DATASET["base_urls"]]


def _is_there(root: Path, key: str) -> bool:
    file = config.DATASET[key]
    return check_integrity(root / "flowers-102" / file["name"], md5=file["md5"])


def _obtain(root: Path, key: str) -> Path:
    """One file of the set: put there by hand, or kept from an earlier run, or downloaded."""
    path = root / "flowers-102" / config.DATASET[key]["name"]
    if not _is_there(root, key):
        download_file(_urls(key), path, md5=config.DATASET[key]["md5"])
    return path


def _unpack(archive: Path, folder: Path) -> None:
    """Write the photographs in `archive` into `folder`."""
    folder.mkdir(exist_ok=True)
    total = sum(config.DATASET["splits"].values())
    with tarfile.open(archive) as tar, Progress(total, "Unpacking", unit="image") as bar:
        for member in tar:
            if member.isfile():
                # If this stops half-way, a photograph is cut; then `open_photo` says: delete it.
                (folder / Path(member.name).name).write_bytes(tar.extractfile(member).read())
                bar.update()
