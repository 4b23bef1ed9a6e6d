"""Files that survive: written whole or not at all, and read without running code from them."""

import contextlib
import errno
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from flowers_utils.errors import FlowersError


def atomic_write(
    path: str | os.PathLike, write: Callable[[Path], None], *, needed_bytes: int = 0
) -> None:
    """Let `write` fill a file beside `path`, then rename it into place: all or nothing.

    Raises FlowersError for a full disk or a folder that cannot be written; the earlier file, if
    there is one, stays whole.
    """
    path = Path(path)
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_space(path, needed_bytes)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
        part = Path(name)
        write(part)
        _flush_to_disk(part)
        part.replace(path)
    except OSError as error:
        raise FlowersError(_why_not_written(path, error)) from error
    finally:
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def _check_space(path: Path, needed_bytes: int) -> None:
    if shutil.disk_usage(path.parent).free < needed_bytes:
        raise OSError(errno.ENOSPC, f"{needed_bytes / 1e6:.0f} MB are needed")


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


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
        except RuntimeError as error:  # torch's own writer reports a full disk this way
            raise OSError(errno.ENOSPC, str(error).splitlines()[0]) from error

    atomic_write(path, write)


def load_tensors(path: str | os.PathLike) -> dict[str, Any]:
    """Read what `save_tensors` wrote, never running code from it; FlowersError if it cannot be."""
    path = Path(path)
    if not path.is_file():
        raise FlowersError(f"There is no file '{path}'; run the cell that trains and saves first.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FlowersError(
            f"'{path}' is damaged, or holds more than tensors and plain values and was not opened, "
            "since it could run code. Delete it and train again, or get it from a source you trust."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError,
            IndexError, AssertionError, OverflowError, MemoryError, ImportError) as error:  # fmt: skip
        raise FlowersError(
            f"'{path}' is damaged or not a checkpoint; delete it and train again."
        ) from error
    if not isinstance(content, dict):
        raise FlowersError(f"'{path}' holds no checkpoint of this lesson but something else.")
    return content


def save_json(path: str | os.PathLike, content: dict[str, Any]) -> None:
    """Write `content` as readable JSON, atomically."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    atomic_write(path, lambda part: part.write_text(text, encoding="utf-8"))
