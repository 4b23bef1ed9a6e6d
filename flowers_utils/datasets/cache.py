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
from flowers_utils.config_check import check
from flowers_utils.datasets.photos import open_photo
from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress
from flowers_utils.storage.files import atomic_write, one_at_a_time

CACHE_VERSION = 3  # part of every cache's name: raise it when decoding changes


def decoded(files: Sequence[Path], *, size: int, name: str) -> np.ndarray:
    """All `files` decoded and resized once: memory-mapped uint8 `(N, 3, size, size)`, read-only.

    After a change it is made anew, and older arrays of the same `name` and folder are removed.
    Raises one FlowersError for all that cannot be opened.
    """
    facts = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    name = f"{name}-{_short_hash(files[0].parent.resolve())}-{size}"
    path = Path(config.PATHS["cache"]) / f"{name}-{_short_hash(CACHE_VERSION, *facts)}.npy"
    with one_at_a_time(path.with_name(name)):
        with contextlib.suppress(FileNotFoundError, ValueError, EOFError):  # not there, or damaged
            return _mapped(path)
        atomic_write(path, partial(_write, files, size))
        for other in set(path.parent.glob(f"{name}-*.npy")) - {path}:
            with contextlib.suppress(PermissionError):  # Windows: a notebook still reads it
                other.unlink(missing_ok=True)
        return _mapped(path)


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except OSError:  # some network drives cannot map a file into memory: then read all of it
        return np.load(path)


def _short_hash(*facts: object) -> str:
    return sha256(repr(facts).encode()).hexdigest()[:12]


def _write(files: Sequence[Path], size: int, part: Path) -> None:
    """Decode `files` into the array file `part`; after a broken one the rest is tried, too."""
    broken = []

    def attempt(file: Path) -> bytes:
        try:
            image = TF.resize(open_photo(file), [size, size])
            return np.asarray(image).transpose(2, 0, 1).tobytes()
        except FlowersError as error:
            broken.append(str(error))
            return b""

    # Row by row, not through a memory map: on a full disk that would end the whole process.
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), 3, size, size)}
    bar = Progress(len(files), f"Preparing photographs at {size} pixels", unit="image")
    with ThreadPoolExecutor(os.cpu_count()) as pool, bar, part.open("wb") as target:
        np.lib.format.write_array_header_1_0(target, header)
        for row in pool.map(attempt, files):
            target.write(row)
            bar.update()
    check(not broken, "\n".join(sorted(broken)))
