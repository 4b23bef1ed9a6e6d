"""Files that survive: written complete or not at all, one notebook at a time, read without running code."""

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from flowers_utils.errors import FlowersError
from flowers_utils.progress import say

NO_FSYNC = (errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)  # network drives refuse it: only a hint


def atomic_write(path: str | Path, write: Callable[[Path], None], *, needed_bytes: int = 0) -> None:
    """Let `write` fill a file beside `path`, then rename it into place: all or nothing.

    Raises FlowersError for a full disk or a folder that cannot be written.
    """
    path = Path(path)
    check_writable(path.parent, needed_bytes)
    part = path.with_name(f".{path.stem}-part{path.suffix}")  # overwrites what a killed run left
    try:
        write(part)
        _push_to_disk(part)
        rename(part, path)
    except OSError as error:
        full = "The disk is full: " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise FlowersError(
            f"{full}'{path}' was not written ({error.strerror or error}); an earlier file is "
            "untouched. Free some space, or close what uses the file; then run the cell again."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _push_to_disk(path: Path) -> None:
    """A laptop's battery may end before the disk has what was written."""
    with path.open("rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in NO_FSYNC:
                raise


def rename(old: Path, new: Path) -> None:
    """Rename a file or folder; on Windows a virus scanner may hold it for a moment."""
    for pause in (0.1, 0.3, 1.0):  # seconds
        with contextlib.suppress(PermissionError):
            old.replace(new)
            return
        time.sleep(pause)
    old.replace(new)


def keep_earlier(path: Path) -> Path | None:
    """Rename `a.pth`, if it is there, to `a.earlier.pth`, the one keepsake; returns its path."""
    if not path.exists():
        return None
    kept = path.with_name(f"{path.stem}.earlier{path.suffix}")
    rename(path, kept)
    return kept


def save_tensors(path: str | Path, content: dict[str, Any]) -> None:
    """Write a dict of tensors and plain values that `torch.load(weights_only=True)` opens."""

    def write(part: Path) -> None:
        try:
            torch.save(content, part)
        except RuntimeError as error:  # torch does not say why; a full disk is the usual reason
            raise OSError(errno.ENOSPC, "torch could not write all of it") from error

    atomic_write(path, write)


def load_tensors(path: str | Path) -> dict[str, Any]:
    """Read what `save_tensors` wrote, never running code from it; FlowersError if it cannot be."""
    if not Path(path).is_file():
        raise FlowersError(f"There is no file '{path}'; run the cell that trains and saves first.")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums inside
            sound = archive.testzip() is None
        content = torch.load(path, map_location="cpu", weights_only=True) if sound else None
    except Exception:  # torch.load raises almost anything on a damaged file
        content = None
    if not isinstance(content, dict):
        raise FlowersError(
            f"'{path}' is damaged, or no file of tensors that this lesson saved; it is not opened, "
            "because it could run code. If this lesson made it, delete it and train again."
        )
    return content


def megabytes(count: float) -> str:
    """Bytes in words: `502 kB`, `345 MB`."""
    return f"{count / 1e6:,.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def file_md5(path: Path) -> str:
    """MD5 checksum of a file, as 32 hexadecimal digits."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_writable(folder: Path, needed: int = 0, *, advice: str = "Use another folder.") -> None:
    """Make `folder` if need be; FlowersError if no file, or not `needed` bytes, can be saved in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
        if free < needed:
            room = f"{megabytes(needed)} are needed, {megabytes(free)} are free"
            raise OSError(errno.ENOSPC, f"the disk is too full: {room}")
    except OSError as error:
        told = f"Nothing can be saved in {folder} ({error.strerror}). {advice}"
        raise FlowersError(told) from error


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let only one notebook make `path`; a second one says so and waits until the first is done.

    A small file `.NAME.lock` stays beside it. It blocks nobody: the lock ends with its process.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        say(f"Another notebook is making '{path}'. This one waits for it, then goes on.")
        lock.acquire()
    except (NotImplementedError, OSError):
        pass  # no locks on this drive, or no permission: then writing says it, in its own words
    try:
        yield
    finally:
        lock.release()  # does nothing if it is not held
