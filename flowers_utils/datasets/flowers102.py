"""Oxford Flowers102 on the disk: found, completed, verified, in the layout torchvision reads.

torchvision only looks whether the folder of photographs exists, so a half-extracted set passes it
(torchvision/datasets/flowers102.py, `_check_integrity`). Here every photograph is asked for.
"""

import os
import re
import shutil
import tarfile
import zlib
from pathlib import Path

from scipy.io import loadmat

import transfer_learning_config as config
from flowers_utils.datasets.disk import (
    check_free_disk,
    check_writable,
    file_md5,
    megabytes,
    one_at_a_time,
)
from flowers_utils.datasets.download import PATIENT, Patience, download_file, reachable
from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress
from flowers_utils.storage.files import rename

ARCHIVE_BYTES = 344_862_509  # 102flowers.tgz
FULL_SIDE = 500  # pixels: the shorter side of every original photograph
MATLAB_FILES = ("labels", "setid")  # keys of DATASET
MATLAB_SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}  # names inside setid.mat
READ_ONLY_ADVICE = "Set FLOWERS_DATA_DIR to a folder of your own and run this again."
# In label order; torchvision knows them only from version 0.22 on (`Flowers102.classes`).
FLOWERS102_NAMES = tuple(
    Path(__file__).with_name("flowers102_names.txt").read_text(encoding="utf-8").splitlines()
)


def read_split(root: Path, name: str) -> tuple[list[Path], list[int]]:
    """Photographs and 0-based labels of "train", "val" or "test", in the official order.

    Raises FlowersError if the split has not the official size or not all classes.
    """
    base = root / "flowers-102"
    ids = loadmat(base / config.DATASET["setid"]["name"])[MATLAB_SPLITS[name]][0]
    all_labels = loadmat(base / config.DATASET["labels"]["name"])["labels"][0]
    labels = [int(all_labels[number - 1]) - 1 for number in ids]  # Matlab counts from 1
    expected, classes = config.DATASET["splits"][name], config.DATASET["num_classes"]
    if len(labels) != expected or set(labels) != set(range(classes)):
        raise FlowersError(
            f"The {name} split of Flowers102 has {len(labels)} photographs of {len(set(labels))} "
            f"classes instead of {expected} of {classes}. Delete 'setid.mat' and 'imagelabels.mat' "
            f"in '{base}', so that they are fetched again."
        )
    return [base / "jpg" / f"image_{number:05d}.jpg" for number in ids], labels


def title_for(photo_side: int) -> str:
    """The name of the set; shrunken copies bear their size, since they score lower."""
    copies = f" (copies, {photo_side} pixels)" if photo_side < FULL_SIDE else ""
    return config.DATASET["name"] + copies


def missing_images(root: Path) -> list[str]:
    """Names of photographs that are not there or empty; cheap, opens no file."""
    folder = root / "flowers-102" / "jpg"
    names = [f"image_{number + 1:05d}.jpg" for number in range(_total())]
    if not folder.is_dir():
        return names
    with os.scandir(folder) as entries:
        there = {entry.name for entry in entries if entry.is_file() and entry.stat().st_size > 0}
    return [name for name in names if name not in there]


def flowers102_is_whole(root: Path) -> bool:
    """Whether both `.mat` files are right and every photograph is there.

    Photographs are not judged by a checksum: shrunken copies of the set are welcome.
    """
    base = root / "flowers-102"
    files = [
        (base / config.DATASET[key]["name"], config.DATASET[key]["md5"]) for key in MATLAB_FILES
    ]
    right = all(file.is_file() and file_md5(file) == md5 for file, md5 in files)
    return right and not missing_images(root)


def flowers102_lies_ready(root: Path) -> bool:
    """Whether `ensure_flowers102` can do without a network: the set is whole, or all files that
    make it up were put there by hand."""
    keys = (*MATLAB_FILES, "archive") if missing_images(root) else MATLAB_FILES
    return all(_find_right(root, key) is not None for key in keys)


def flowers102_is_reachable(*, timeout: float = 3.0) -> bool:
    """Whether some address has the archive now; each answers within `timeout` seconds."""
    return any(reachable(url, timeout=timeout) for url in _urls("archive"))


def ensure_flowers102(root: Path, *, patience: Patience = PATIENT) -> Path:
    """Return the folder `root/flowers-102` once all of Flowers102 is in it.

    Fetches only what is missing; a whole set is never written to, so `root` may be read-only.
    Files put into `root` or `root/flowers-102` by hand are used if their checksum is right.
    Raises FlowersError.
    """
    base = root / "flowers-102"
    if flowers102_is_whole(root):
        return base
    check_writable(base, advice=READ_ONLY_ADVICE)
    with one_at_a_time(base):
        for key in MATLAB_FILES:
            found = _obtain(root, key, patience)
            if found.parent != base:
                shutil.copyfile(found, base / found.name)
        if missing_images(root):
            _unpack(_obtain(root, "archive", patience), base / "jpg")
    return base


def _total() -> int:
    return sum(config.DATASET["splits"].values())


def _urls(key: str) -> list[str]:
    name = config.DATASET[key]["name"]
    return [f"{base.rstrip('/')}/{name}" for base in config.DATASET["base_urls"]]


def _places(root: Path, key: str) -> list[Path]:
    """Where one file of the set may lie."""
    name = config.DATASET[key]["name"]
    return [root / "flowers-102" / name, root / name]


def _find_right(root: Path, key: str) -> Path | None:
    """One file of the set that is there already, with the right checksum."""
    md5 = config.DATASET[key]["md5"]
    places = _places(root, key)
    return next((p for p in places if p.is_file() and file_md5(p) == md5), None)


def _obtain(root: Path, key: str, patience: Patience) -> Path:
    """One file of the set: put there by hand, or kept from an earlier run, or downloaded."""
    if (found := _find_right(root, key)) is not None:
        return found
    target, md5 = _places(root, key)[0], config.DATASET[key]["md5"]
    size = ARCHIVE_BYTES if key == "archive" else 0
    check_free_disk(target.parent, 2 * size)  # the archive and what comes out of it
    try:
        return download_file(_urls(key), target, md5=md5, size=size, patience=patience)
    except FlowersError as error:
        names = ", ".join(config.DATASET[part]["name"] for part in ("archive", *MATLAB_FILES))
        advice = f'The set consists of {names}. DATA = "practice" needs none of them.'
        raise FlowersError(f"{_state_in_words(root, key)}{error} {advice}") from error


def _state_in_words(root: Path, key: str) -> str:
    """What was found instead of a whole set, as the beginning of a message."""
    found = ""
    missing = missing_images(root) if key == "archive" else []
    if 0 < len(missing) < _total():
        found = f"The folder {root / 'flowers-102' / 'jpg'} lacks {len(missing)} photographs "
        found += f"({missing[0]}, ...). "
    for place in _places(root, key):
        if place.is_file():  # with a wrong checksum, or it would have been used
            found += f"{place} ({megabytes(place.stat().st_size)}) is damaged. "
    return found


def _unpack(archive: Path, folder: Path) -> None:
    """Take the photographs out of `archive` and put them in place of `folder` in one move."""
    check_free_disk(folder.parent, archive.stat().st_size)
    side = folder.with_name("jpg.unpacking")
    shutil.rmtree(side, ignore_errors=True)
    side.mkdir()
    try:
        count = _extract_photos(archive, side)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        reason = f"{archive.name} could not be unpacked in {folder.parent} ({error})"
        raise FlowersError(f"{reason}. Delete {archive} and run this again.") from error
    if count != _total():
        raise FlowersError(
            f"{archive} holds {count} photographs instead of {_total()}. It is not the archive of "
            "Flowers102: delete it and run this again."
        )
    _replace_folder(side, folder)


def _extract_photos(archive: Path, side: Path) -> int:
    """Write `jpg/image_00001.jpg` and so on as plain files into `side`; returns how many.

    Nothing else in an archive is written: no link, no other name, no path that leads elsewhere.
    """
    with tarfile.open(archive) as tar, Progress(_total(), "Unpacking", unit="image") as bar:
        for member in tar:
            match = re.fullmatch(r"(?:\./)?jpg/(image_\d{5}\.jpg)", member.name)
            source = tar.extractfile(member) if match and member.isreg() else None
            if source is not None:
                with source, (side / match[1]).open("wb") as target:
                    shutil.copyfileobj(source, target)
                bar.update()
    return len(list(side.iterdir()))


def _replace_folder(new: Path, folder: Path) -> None:
    """Rename `new` to `folder`, which may exist and is then removed."""
    old = folder.with_name("jpg.incomplete")
    shutil.rmtree(old, ignore_errors=True)
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        rename(folder, old)
    rename(new, folder)
    shutil.rmtree(old, ignore_errors=True)
