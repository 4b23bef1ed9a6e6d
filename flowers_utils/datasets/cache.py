"""Photographs decoded once into a file that is mapped into memory: later epochs read it like an array."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from flowers_utils.datasets.disk import megabytes, one_at_a_time
from flowers_utils.datasets.photos import broken_in_words, decode
from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress, say
from flowers_utils.storage.files import atomic_write

CACHE_VERSION = 2  # part of every cache's name: raise it when decoding changes


def decoded(files: Sequence[Path], *, size: int, cache: Path, name: str) -> np.ndarray:
    """All `files` decoded once: memory-mapped uint8 `(N, 3, size, size)`, read-only.

    The cache is named after what it holds, so it is rebuilt when a file, the size or the way of
    decoding changes. Raises one FlowersError that names all photographs that cannot be opened.
    """
    facts = [f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files]
    shape = (len(files), 3, size, size)
    return cached_array(
        cache, f"{name}-{size}", facts, shape, lambda bar: _decode_all(files, size, bar)
    )


def _decode_all(files: Sequence[Path], size: int, bar: Progress) -> Iterator[np.ndarray]:
    """The decoded photographs in order. After a broken one the rest is only tried, and told."""

    def attempt(file: Path) -> np.ndarray | FlowersError:
        try:
            return decode(file, size)
        except FlowersError as error:
            return error

    broken = []
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for result in pool.map(attempt, files):
            if isinstance(result, FlowersError):
                broken.append(str(result))
            elif not broken:
                yield result
            bar.update()
    finally:  # a student who stops the cell does not wait for thousands of photographs
        pool.shutdown(cancel_futures=True)
    if broken:
        raise FlowersError(broken_in_words(broken))


def cached_array(
    cache: Path,
    name: str,
    facts: Sequence[str],
    shape: tuple[int, ...],
    make: Callable[[Progress], Iterable[np.ndarray]],
) -> np.ndarray:
    """A uint8 array of `shape`, memory-mapped from `cache`; made if it is not there.

    `make(bar)` gives its rows, or blocks of them, in order and moves the bar. `facts` is everything
    the content depends on. Older arrays of the same name are removed.
    """
    digest = hashlib.sha256("\n".join([str(CACHE_VERSION), str(shape), *facts]).encode())
    path = cache / f"{name}-{digest.hexdigest()[:12]}.npy"
    if (images := _load(path, shape)) is not None:
        return images

    def write(part: Path) -> None:
        # Row by row, and not through a memory map: some network drives cannot map a file.
        with part.open("wb") as file, Progress(shape[0], f"Preparing {name}", unit="image") as bar:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for block in make(bar):
                file.write(block.tobytes())

    with one_at_a_time(cache / name):
        if (images := _load(path, shape)) is not None:  # another notebook made it meanwhile
            return images
        atomic_write(path, write, needed_bytes=int(np.prod(shape)))
    for other in cache.glob(f"{name}-????????????.npy"):
        if other != path:
            _remove_if_unused(other)
    if (images := _load(path, shape)) is None:
        raise FlowersError(
            f"'{path}' was written but cannot be read again: its disk may be failing. "
            "Set PATHS['cache'] in transfer_learning_config.py to another disk."
        )
    return images


def _load(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array at `path`, or None if it is not there or not whole."""
    if not path.is_file():
        return None
    try:
        images = _map_or_read(path)
    except Exception:  # a damaged header makes numpy raise almost anything; it is made anew
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _map_or_read(path: Path) -> np.ndarray:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except OSError:  # a network drive, for example
        with path.open("rb") as file:
            images = np.lib.format.read_array(file, allow_pickle=False)
    images.flags.writeable = False
    say(
        f"The disk of '{path.parent}' cannot map files into memory, so {path.name} was read into it "
        f"whole ({megabytes(images.nbytes)})."
    )
    return images


def _remove_if_unused(path: Path) -> None:
    try:
        path.unlink()
    except PermissionError:
        return  # Windows: another notebook still reads it
