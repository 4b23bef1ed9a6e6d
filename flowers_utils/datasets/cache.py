"""Photographs decoded once into a file that is mapped into memory: later epochs read it like an array."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from torchvision.transforms.v2 import functional as TF

from flowers_utils.datasets.disk import one_at_a_time
from flowers_utils.datasets.photos import check_photos, open_photo
from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress, say
from flowers_utils.storage.files import atomic_write

CACHE_VERSION = 2  # part of every cache's name: raise it when decoding changes


def decode(path: Path, size: int) -> np.ndarray:
    """One photograph, squashed to `size` x `size` like torchvision's `Resize`: uint8 `(3, S, S)`."""
    return np.asarray(TF.resize(open_photo(path), [size, size])).transpose(2, 0, 1)


def decoded(files: Sequence[Path], *, size: int, cache: Path, name: str) -> np.ndarray:
    """All `files` decoded once: memory-mapped uint8 `(N, 3, size, size)`, read-only.

    Rebuilt when a file, the size or the way of decoding changes. Raises one FlowersError that names
    all photographs that cannot be opened.
    """
    facts = [f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files]
    shape, make = (len(files), 3, size, size), partial(_decode_all, files, size)
    return cached_array(cache, f"{name}-{size}", facts, shape, make)


def _decode_all(files: Sequence[Path], size: int, bar: Progress) -> Iterator[np.ndarray]:
    """The decoded photographs in order. After a broken one the rest is only tried, and told."""

    def attempt(file: Path) -> np.ndarray | None:
        try:
            return decode(file, size)
        except FlowersError:
            return None

    broken = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for file, image in zip(files, pool.map(attempt, files), strict=True):
            bar.update()
            if image is None:
                broken.append(file)
            elif not broken:
                yield image
    check_photos(broken)


def cached_array(
    cache: Path,
    name: str,
    facts: Sequence[str],
    shape: tuple[int, ...],
    make: Callable[[Progress], Iterable[np.ndarray]],
) -> np.ndarray:
    """A uint8 array of `shape`, memory-mapped from `cache`; made if it is not there.

    `make(bar)` gives blocks of its rows in order and moves the bar; the content depends on `facts`
    alone. Older arrays of the same name are removed.
    """
    digest = hashlib.sha256("\n".join([str(CACHE_VERSION), str(shape), *facts]).encode())
    path = cache / f"{name}-{digest.hexdigest()[:12]}.npy"

    def write(part: Path) -> None:
        # Row by row, and not through a memory map: some network drives cannot map a file.
        with part.open("wb") as file, Progress(shape[0], f"Preparing {name}", unit="image") as bar:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for block in make(bar):
                file.write(block.tobytes())

    if (images := _load(path, shape)) is not None:
        return images
    with one_at_a_time(cache / name):
        if (images := _load(path, shape)) is None:  # another notebook may have made it meanwhile
            atomic_write(path, write, needed_bytes=int(np.prod(shape)))
            images = _load(path, shape)
    for other in set(cache.glob(f"{name}-????????????.npy")) - {path}:
        with contextlib.suppress(PermissionError):  # Windows: another notebook still reads it
            other.unlink()
    return images


def _load(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array at `path`, or None if it is not there or damaged."""
    try:
        images = np.load(path, mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):  # the last two: not whole, made anew
        return None
    except OSError:  # a network drive, for example
        images = np.load(path)
        images.flags.writeable = False
        say(f"'{path.parent}' cannot map files into memory, so {path.name} was read into it whole.")
    return images if images.shape == shape else None
