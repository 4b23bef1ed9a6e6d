"""Files that survive: written whole or not at all, and read without running code from them."""

import contextlib
import errno
import json
import os
import pickle
import secrets
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from flowers_utils.errors import FlowersError

LEFTOVER_AFTER = 3600.0  # seconds untouched until a half-written file counts as a killed run's
TORCH_COULD_NOT_WRITE = ("PytorchStreamWriter", "unexpected pos", "iostream")  # in its own words
RENAME_PAUSES = (0.1, 0.3, 1.0)  # seconds


def atomic_write(
    path: str | os.PathLike,
    write: Callable[[Path], None],
    *,
    needed_bytes: int = 0,
    flush: bool = True,
) -> None:
    """Let `write` fill a file beside `path`, then rename it into place: all or nothing.

    `flush` waits until the disk has it, so that it also survives a power cut.
    Raises FlowersError for a full disk or a folder that cannot be written; the earlier file, if
    there is one, stays whole.
    """
    path = Path(path)
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_space(path, needed_bytes)
        _remove_leftovers(path)
        part = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
        part.touch(exist_ok=False)
        write(part)
        if flush:
            _flush_to_disk(part)
        rename(part, path)
    except OSError as error:
        raise FlowersError(_why_not_written(path, error)) from error
    finally:
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def _check_space(path: Path, needed_bytes: int) -> None:
    if shutil.disk_usage(path.parent).free < needed_bytes:
        raise OSError(errno.ENOSPC, f"{needed_bytes / 1e6:.0f} MB are needed")


def _remove_leftovers(path: Path) -> None:
    """Half-written files of runs that were killed; those of a run in progress are younger."""
    for part in path.parent.glob(f".{path.stem}-????????{path.suffix}"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > LEFTOVER_AFTER:
                part.unlink()


def rename(old: Path, new: Path) -> None:
    """Rename a file or folder; on Windows a reader or a virus scanner may block that for a moment."""
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


def save_tensors(path: str | os.PathLike, content: dict[str, Any], *, flush: bool = True) -> None:
    """Write a dict of tensors and plain values that `torch.load(weights_only=True)` opens."""

    def write(part: Path) -> None:
        try:
            torch.save(content, part)
        except RuntimeError as error:
            if not any(word in str(error) for word in TORCH_COULD_NOT_WRITE):
                raise
            # Torch's own writer does not say why it failed; a full disk is the usual reason.
            raise OSError(errno.ENOSPC, "torch could not write all of it") from error

    atomic_write(path, write, flush=flush)


def load_tensors(path: str | os.PathLike) -> dict[str, Any]:
    """Read what `save_tensors` wrote, never running code from it; FlowersError if it cannot be."""
    path = Path(path)
    missing = f"There is no file '{path}'; run the cell that trains and saves first."
    damaged = f"'{path}' is damaged or not a checkpoint; delete it and train again."
    try:
        if not path.is_file():
            raise FileNotFoundError(path)
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise FlowersError(missing) from error
    except PermissionError as error:
        raise FlowersError(f"'{path}' cannot be read: no permission. Change that.") from error
    except pickle.UnpicklingError as error:
        raise FlowersError(
            f"'{path}' is damaged, or holds more than tensors and plain values and was not opened, "
            "since it could run code. Delete it and train again, or get it from a source you trust."
        ) from error
    except Exception as error:  # a damaged file makes torch.load raise almost anything
        raise FlowersError(damaged) from error
    if not isinstance(content, dict):
        raise FlowersError(f"'{path}' holds no checkpoint of this lesson but something else.")
    return content


def _check_sums(path: Path) -> None:
    """Compare the file with the checksums inside it: torch.load itself does not look at them."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise ValueError("a checksum does not match")


def save_json(path: str | os.PathLike, content: dict[str, Any]) -> None:
    """Write `content` as readable JSON, atomically."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    atomic_write(path, lambda part: part.write_text(text, encoding="utf-8"))
