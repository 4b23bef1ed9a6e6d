"""Files that survive: written complete or not at all, one notebook at a time, read without running code."""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from flowers_utils.errors import FlowersError


def atomic_write(path: str | Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file beside `path`, then rename it into place: all or nothing.

    Raises FlowersError for a full disk or a folder that cannot be written.
    """
    path = Path(path)
    check_writable(path.parent)
    part = path.with_name(f".{path.stem}-part{path.suffix}")  # overwrites what a killed run left
    try:
        with explain_full_disk(path):
            write(part)
            rename(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Where `path` cannot be written, raise FlowersError that says why and what to do."""
    try:
        yield
    except OSError as error:
        full = "The disk is full: " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise FlowersError(
            f"{full}'{path}' was not written ({error.strerror or error}); an earlier file is "
            "untouched. Free some space, or close what uses the file; then run the cell again."
        ) from error


def rename(old: Path, new: Path) -> Path:
    """Rename a file or folder; on Windows a virus scanner may hold it for a moment."""
    for pause in (0.1, 0.3, 1.0):  # seconds
        try:
            return old.replace(new)
        except PermissionError:
            time.sleep(pause)
    return old.replace(new)


def keep_earlier(path: Path) -> Path | None:
    """Rename `a.pth`, if it is there, to `a.earlier.pth`, the one keepsake; returns its path."""
    if not path.exists():
        return None
    return rename(path, path.with_name(f"{path.stem}.earlier{path.suffix}"))


def save_tensors(path: str | Path, content: dict[str, Any]) -> None:
    """Write a dict of tensors and plain values that `torch.load(weights_only=True)` opens."""
    buffer = BytesIO()  # for a full disk torch raises an error that does not say so
    torch.save(content, buffer)
    atomic_write(path, lambda part: part.write_bytes(buffer.getbuffer()))


def load_tensors(path: str | Path) -> dict[str, Any]:
    """Read what `save_tensors` wrote, never running code from it; FlowersError if it cannot be."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        told = f"There is no file '{path}'; run the cell that trains and saves first."
        raise FlowersError(told) from None
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


def check_writable(folder: Path, needed: int = 0, *, advice: str = "Use another folder.") -> None:
    """Make `folder` if need be; FlowersError if no file, or not `needed` bytes, can be saved in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Not `tempfile`: on Windows it tries for hours in a folder that denies new files.
        (probe := folder / f".probe-{os.getpid()}").touch()
        probe.unlink(missing_ok=True)
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"{megabytes(needed)} are needed, {megabytes(free)} free")
    except OSError as error:
        told = f"Nothing can be saved in {folder} ({error.strerror}). {advice}"
        raise FlowersError(told) from error


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let only one notebook make `path`; a second one waits until the first is done.

    A small file `.NAME.lock` stays beside it. It blocks nobody: the lock ends with its process.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with contextlib.suppress(NotImplementedError, OSError, FlowersError):  # no locks, or read-only
        check_writable(path.parent)  # where nobody can write, some releases would wait for ever
        lock.acquire()
    try:
        yield
    finally:
        lock.release()  # does nothing if it is not held
