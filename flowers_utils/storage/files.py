"""Files that survive: written whole or not at all, and read without running code from them."""

import contextlib
import errno
import os
import secrets
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from flowers_utils.errors import FlowersError

RENAME_PAUSES = (0.1, 0.3, 1.0)  # seconds
LEFTOVER_AFTER = 3600.0  # seconds untouched until a half-written file counts as a killed run's
TORCH_COULD_NOT_WRITE = ("PytorchStreamWriter", "unexpected pos", "iostream")  # in its own words


def atomic_write(
    path: str | os.PathLike, write: Callable[[Path], None], *, needed_bytes: int = 0
) -> None:
    """Let `write` fill a file beside `path`, then rename it into place: all or nothing.

    Raises FlowersError for a full disk or a folder that cannot be written; the earlier file, if
    there is one, stays whole.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free < needed_bytes:
            raise OSError(errno.ENOSPC, f"{needed_bytes / 1e6:.0f} MB are needed")
        _remove_leftovers(path)
        try:
            write(part)
            with part.open("rb+") as file:
                os.fsync(file.fileno())  # a laptop's battery may end before the disk has it
            rename(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise FlowersError(_why_not_written(path, error)) from error


def _remove_leftovers(path: Path) -> None:
    """Half-written files of runs that were killed; those of a run in progress are younger."""
    for part in path.parent.glob(f".{path.stem}-????????{path.suffix}"):
        with contextlib.suppress(OSError):  # another run renames its own at any moment
            if time.time() - part.stat().st_mtime > LEFTOVER_AFTER:
                part.unlink(missing_ok=True)


def rename(old: Path, new: Path) -> None:
    """Rename a file or folder; on Windows a reader or a virus scanner may block it for a moment."""
    for pause in RENAME_PAUSES:
        try:
            old.replace(new)
            return
        except PermissionError:
            time.sleep(pause)
    old.replace(new)


def keep_earlier(path: Path) -> Path | None:
    """Rename `a.pth`, if it is there, to the first free of `a.earlier-1.pth`, ...; returns that."""
    if not path.exists():
        return None
    number = 1
    while (kept := path.with_name(f"{path.stem}.earlier-{number}{path.suffix}")).exists():
        number += 1
    rename(path, kept)
    return kept


def _why_not_written(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk is full, so '{path}' was not written ({error.strerror}); the earlier file "
            "is untouched. Free some space and run the cell again."
        )
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return (
            f"'{path}' cannot be written: no permission for the folder '{path.parent}', or another "
            "program holds the file. Change that, or run the lesson from a folder of your own."
        )
    return f"'{path}' was not written ({error}); the earlier file is untouched."


def save_tensors(path: str | os.PathLike, content: dict[str, Any]) -> None:
    """Write a dict of tensors and plain values that `torch.load(weights_only=True)` opens."""

    def write(part: Path) -> None:
        try:
            torch.save(content, part)
        except RuntimeError as error:
            if not any(word in str(error) for word in TORCH_COULD_NOT_WRITE):
                raise
            # Torch's own writer does not say why it failed; a full disk is the usual reason.
            raise OSError(errno.ENOSPC, "torch could not write all of it") from error

    atomic_write(path, write)


def load_tensors(path: str | os.PathLike) -> dict[str, Any]:
    """Read what `save_tensors` wrote, never running code from it; FlowersError if it cannot be."""
    path = Path(path)
    if not path.is_file():
        raise FlowersError(f"There is no file '{path}'; run the cell that trains and saves first.")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums inside
            whole = archive.testzip() is None
        content = torch.load(path, map_location="cpu", weights_only=True) if whole else None
    except PermissionError as error:
        raise FlowersError(f"'{path}' cannot be read: no permission. Change that.") from error
    except Exception as error:  # torch.load raises almost anything on a damaged file
        raise FlowersError(_why_not_read(path)) from error
    if not isinstance(content, dict):
        raise FlowersError(_why_not_read(path))
    return content


def _why_not_read(path: Path) -> str:
    return (
        f"'{path}' is damaged, or not a file of tensors that this lesson saved (then it is not "
        "opened: it could run code). If this lesson made it, delete it and train again; else name "
        "the right file, such as 'models/resnet18_final.pth'."
    )
