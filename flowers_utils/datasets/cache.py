"""Photographs decoded once into a file that is mapped into memory: later epochs read it like an array."""

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from torchvision.transforms.v2 import functional as TF

import transfer_learning_config as config
from flowers_utils.datasets.photos import BrokenPhotos, open_photo
from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress
from flowers_utils.storage.files import atomic_write, one_at_a_time

CACHE_VERSION = 3  # part of every cache's name: raise it when decoding changes
TINY = 16  # pixels: below it a quickly decoded version of a JPEG is as good as the whole


def decode(path: Path, size: int) -> np.ndarray:
    """One photograph, squashed to `size` x `size` like torchvision's `Resize`: uint8 `(3, S, S)`."""
    image = open_photo(path, at_least=TINY * size if size < TINY else None)
    return np.asarray(TF.resize(image, [size, size])).transpose(2, 0, 1)


def decoded(files: Sequence[Path], *, size: int, name: str) -> np.ndarray:
    """All `files` decoded once: memory-mapped uint8 `(N, 3, size, size)`, read-only.

    After a change it is made anew, and older arrays of the same `name` and folder are removed.
    Raises one BrokenPhotos for all that cannot be opened.
    """
    facts = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    name = f"{name}-{_short_hash(files[0].parent.resolve())}-{size}"
    path = Path(config.PATHS["cache"]) / f"{name}-{_short_hash(CACHE_VERSION, *facts)}.npy"
    with one_at_a_time(path.with_name(name)):
        if (images := _load(path)) is None:
            write = partial(_write, files, size)
            atomic_write(path, write, needed_bytes=len(files) * 3 * size**2)
            images = _load(path)
            for other in set(path.parent.glob(f"{name}-*.npy")) - {path}:
                with contextlib.suppress(PermissionError):  # Windows: a notebook still reads it
                    other.unlink(missing_ok=True)
    return images


def _short_hash(*facts: object) -> str:
    return sha256(repr(facts).encode()).hexdigest()[:12]


def _write(files: Sequence[Path], size: int, part: Path) -> None:
    """Decode `files` into the array file `part`; after a broken one the rest is tried, too."""

    def attempt(file: Path) -> np.ndarray | FlowersError:
        try:
            return decode(file, size)
        except FlowersError as error:
            return error

    # Row by row, not through a memory map: on a full disk that would end the whole process.
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), 3, size, size)}
    bar = Progress(len(files), f"Preparing photographs at {size} pixels", unit="image")
    broken = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool, bar, part.open("wb") as target:
        np.lib.format.write_array_header_1_0(target, header)
        for file, result in zip(files, pool.map(attempt, files), strict=True):
            bar.update()
            if isinstance(result, FlowersError):
                broken[file] = str(result)
            else:
                target.write(result.tobytes())
    if broken:
        raise BrokenPhotos(broken)


def _load(path: Path) -> np.ndarray | None:
    """The array at `path`, or None if it is not there or damaged."""
    try:
        return np.load(path, mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):  # the last two: not complete, made anew
        return None
    except OSError:  # a network drive, for example, that cannot map files into memory
        return np.load(path)
