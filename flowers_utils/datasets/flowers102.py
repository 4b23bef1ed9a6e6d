"""Oxford Flowers102 on the disk: found, completed, verified, in the layout torchvision reads.

torchvision only looks whether the folder of photographs exists, so a half-extracted set passes it
(torchvision/datasets/flowers102.py, `_check_integrity`). Here every photograph is asked for.
"""

import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transfer_learning_config as config
from flowers_utils.datasets.download import (
    check_free_disk,
    check_writable,
    download_file,
    file_md5,
    megabytes,
    reachable,
)
from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress

ARCHIVE_BYTES = 344_862_509  # 102flowers.tgz
MATLAB_FILES = ("labels", "setid")  # keys of DATASET
READ_ONLY_ADVICE = "Set FLOWERS_DATA_DIR to a folder of your own and run this again."


def photo_folder(root: Path | str) -> Path:
    """Where the photographs lie under torchvision's `root`."""
    return Path(root) / "flowers-102" / "jpg"


def missing_images(root: Path | str, *, dataset: Mapping[str, Any] = config.DATASET) -> list[str]:
    """Names of photographs that are not there or empty; cheap, opens no file."""
    folder = photo_folder(root)
    if not folder.is_dir():
        return _image_names(dataset)
    with os.scandir(folder) as entries:
        there = {entry.name for entry in entries if entry.is_file() and entry.stat().st_size > 0}
    return [name for name in _image_names(dataset) if name not in there]


def flowers102_is_whole(root: Path | str, *, dataset: Mapping[str, Any] = config.DATASET) -> bool:
    """Whether both `.mat` files are right and every photograph is there.

    Photographs are not judged by a checksum: shrunken copies of the set are welcome.
    """
    files = [(Path(root) / "flowers-102" / dataset[key]["name"], key) for key in MATLAB_FILES]
    right = all(file.is_file() and file_md5(file) == dataset[key]["md5"] for file, key in files)
    return right and not missing_images(root, dataset=dataset)


def flowers102_lies_ready(root: Path | str, *, dataset: Mapping[str, Any] = config.DATASET) -> bool:
    """Whether `ensure_flowers102` can do without a network: the set is whole, or all files that
    make it up were put there by hand."""
    base = Path(root) / "flowers-102"
    keys = (*MATLAB_FILES, "archive") if missing_images(root, dataset=dataset) else MATLAB_FILES
    return all(_find_right(base, key, dataset) is not None for key in keys)


def flowers102_is_reachable(
    *, dataset: Mapping[str, Any] = config.DATASET, timeout: float = 3.0
) -> bool:
    """Whether some address has the archive now; each answers within `timeout` seconds."""
    return any(reachable(url, timeout=timeout) for url in _urls(dataset, "archive"))


def ensure_flowers102(
    root: Path | str, *, dataset: Mapping[str, Any] = config.DATASET, **how: Any
) -> Path:
    """Return the folder `root/flowers-102` once all of Flowers102 is in it.

    Fetches only what is missing; a whole set is never written to, so `root` may be read-only.
    Files put into `root` or `root/flowers-102` by hand are used if their checksum is right.
    `how` goes to `download_file`. Raises FlowersError.
    """
    base = Path(root) / "flowers-102"
    if flowers102_is_whole(root, dataset=dataset):
        return base
    check_writable(base, advice=READ_ONLY_ADVICE)
    for key in MATLAB_FILES:
        found = _obtain(base, key, dataset, **how)
        if found.parent != base:
            shutil.copyfile(found, base / found.name)
    if missing_images(root, dataset=dataset):
        _unpack(_obtain(base, "archive", dataset, **how), base / "jpg", dataset)
    return base


def _image_names(dataset: Mapping[str, Any]) -> list[str]:
    return [f"image_{number:05d}.jpg" for number in range(1, sum(dataset["splits"].values()) + 1)]


def _urls(dataset: Mapping[str, Any], key: str) -> list[str]:
    return [f"{base.rstrip('/')}/{dataset[key]['name']}" for base in dataset["base_urls"]]


def _places(base: Path, name: str) -> tuple[Path, Path]:
    return base / name, base.parent / name


def _find_right(base: Path, key: str, dataset: Mapping[str, Any]) -> Path | None:
    """One file of the set that is there already, with the right checksum."""
    name, md5 = dataset[key]["name"], dataset[key]["md5"]
    right = (place for place in _places(base, name) if place.is_file() and file_md5(place) == md5)
    return next(right, None)


def _obtain(base: Path, key: str, dataset: Mapping[str, Any], **how: Any) -> Path:
    """One file of the set: put there by hand, or kept from an earlier run, or downloaded."""
    name, md5 = dataset[key]["name"], dataset[key]["md5"]
    found = _find_right(base, key, dataset)
    if found is not None:
        return found
    size = dataset[key].get("size", ARCHIVE_BYTES) if key == "archive" else None
    check_free_disk(base, 2 * (size or 0))  # the archive and what comes out of it
    try:
        return download_file(_urls(dataset, key), base / name, md5=md5, size=size, **how)
    except FlowersError as error:
        found = _state_in_words(base, key, dataset)
        names = ", ".join(dataset[part]["name"] for part in ("archive", *MATLAB_FILES))
        advice = f'The set consists of {names}. DATA = "practice" needs none of them.'
        raise FlowersError(f"{found}{error} {advice}") from error


def _state_in_words(base: Path, key: str, dataset: Mapping[str, Any]) -> str:
    """What is wrong with that which is there already, in sentences; empty if nothing is there."""
    wrong = [place for place in _places(base, dataset[key]["name"]) if place.is_file()]
    text = "".join(
        f"{file} ({megabytes(file.stat().st_size)}) is damaged or incomplete: its checksum is "
        "wrong. "
        for file in wrong
    )
    if key == "archive" and (base / "jpg").is_dir():
        missing = missing_images(base.parent, dataset=dataset)
        text += f"{base / 'jpg'} lacks {len(missing)} photographs ({missing[0]}, ...). "
    return text


def _unpack(archive: Path, folder: Path, dataset: Mapping[str, Any]) -> None:
    """Extract the photographs into a side folder, and put it in the place of `folder`."""
    check_free_disk(folder.parent, archive.stat().st_size)
    side = folder.with_name("jpg.unpacking")
    shutil.rmtree(side, ignore_errors=True)
    side.mkdir()
    try:
        count = _extract_photos(archive, side, sum(dataset["splits"].values()))
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        reason = f"{archive.name} could not be unpacked in {folder.parent} ({error})"
        raise FlowersError(f"{reason}. Delete {archive} and run this again.") from error
    lacking = [name for name in _image_names(dataset) if not (side / name).is_file()]
    if lacking:
        raise FlowersError(
            f"{archive} lacks {len(lacking)} photographs ({lacking[0]}, ...); {count} came out of "
            "it. It is not the archive of Flowers102: delete it and run this again."
        )
    _replace_folder(side, folder)


def _extract_photos(archive: Path, side: Path, total: int) -> int:
    """Write `jpg/image_00001.jpg` and so on as plain files into `side`; returns how many.

    Nothing else in an archive is written: no link, no other name, no path that leads elsewhere.
    """
    count = 0
    with tarfile.open(archive) as tar, Progress(total, "Unpacking", unit="image") as bar:
        for member in tar:
            match = re.fullmatch(r"(?:\./)?jpg/(image_\d{5}\.jpg)", member.name)
            source = tar.extractfile(member) if match and member.isreg() else None
            if source is not None:
                with source, (side / match[1]).open("wb") as target:
                    shutil.copyfileobj(source, target)
                count += 1
                bar.update()
    return count


def _replace_folder(new: Path, folder: Path) -> None:
    """Rename `new` to `folder`, which may exist and is then removed."""
    old = folder.with_name("jpg.incomplete")
    shutil.rmtree(old, ignore_errors=True)
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
