"""Photographs decoded once into a file that is mapped into memory: later epochs read it like an array."""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from torchvision.transforms.v2 import functional as TF

from flowers_utils.datasets.photos import check_photos, open_photo
from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress, say
from flowers_utils.storage.files import atomic_write, one_at_a_time

CACHE_VERSION = 3  # part of every cache's name: raise it when decoding changes
TINY = 16  # pixels: below it a quickly decoded version of a JPEG is as good as the whole


def decode(path: Path, size: int) -> np.ndarray:
    """One photograph, squashed to `size` x `size` like torchvision's `Resize`: uint8 `(3, S, S)`."""
    image = open_photo(path, at_least=TINY * size if size < TINY else None)
    return np.asarray(TF.resize(image, [size, size])).transpose(2, 0, 1)


def decoded(files: Sequence[Path], *, size: int, cache: Path, name: str) -> np.ndarray:
    """All `files` decoded once: memory-mapped uint8 `(N, 3, size, size)`, read-only.

    Made anew when a file, the size or the way of decoding changes; then older arrays of the same
    `name` are removed. Raises one BrokenPhotos for all photographs that cannot be opened.
    """
    shape, name = (len(files), 3, size, size), f"{name}-{size}"
    states = [(str(file), file.stat()) for file in files]
    facts = [f"{file}:{state.st_size}:{state.st_mtime_ns}" for file, state in states]
    digest = hashlib.sha256("\n".join([str(CACHE_VERSION), *facts]).encode()).hexdigest()
    path = cache / f"{name}-{digest[:12]}.npy"

    def write(part: Path) -> None:
        # Row by row, not through a memory map: on a full disk that would end the whole process.
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        bar = Progress(len(files), f"Preparing photographs at {size} pixels", unit="image")
        with bar, part.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for image in _decode_all(files, size, bar):
                file.write(image.tobytes())

    if (images := _load(path, shape)) is not None:
        return images
    with one_at_a_time(cache / name):  # and looked up again: another notebook may have made it
        if (images := _load(path, shape)) is None:
            atomic_write(path, write, needed_bytes=int(np.prod(shape)))
            images = _load(path, shape)
            for other in set(cache.glob(f"{name}-????????????.npy")) - {path}:
                with contextlib.suppress(PermissionError):  # Windows: a notebook still reads it
                    other.unlink(missing_ok=True)
    return images


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


def _load(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array at `path`, or None if it is not there or damaged."""
    try:
        images = np.load(path, mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):  # the last two: not complete, made anew
        return None
    except OSError:  # a network drive, for example
        images = np.load(path)
        images.flags.writeable = False
        say(f"'{path.parent}' cannot map files into memory, so {path.name} was read into it whole.")
    return images if images.shape == shape else None
