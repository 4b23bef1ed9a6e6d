"""Disks: is there room, may we write, is a file whole, and is another notebook at work on it?"""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from flowers_utils.errors import FlowersError
from flowers_utils.progress import say


def megabytes(count: float) -> str:
    """Bytes in words: `502 bytes`, `15 kB`, `345 MB`."""
    if count < 1000:
        return f"{count:.0f} bytes"
    if count < 1e6:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1e7 else f"{count / 1e6:,.0f} MB"


def file_md5(path: Path) -> str:
    """MD5 checksum of a file, as 32 hexadecimal digits."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_writable(folder: Path, *, advice: str = "Choose a folder of your own.") -> None:
    """Make `folder` if need be; raises FlowersError if no file can be saved in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"Nothing can be saved in {folder} ({error.strerror})"
        raise FlowersError(f"{reason}. {advice}") from error


def check_free_disk(folder: Path, needed: int) -> None:
    """Raise FlowersError if the disk of `folder` has fewer than `needed` bytes free."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise FlowersError(
            f"The disk of {folder} is too full: {megabytes(needed)} are needed, {megabytes(free)} "
            "are free. Delete what you do not need there, then run this again."
        )


def as_path(text: str | Path) -> Path:
    """A path as a student writes it; `~` is the home folder. Raises FlowersError if there is none."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # else a folder named "~" would be made
        raise FlowersError(
            f"The home folder in '{text}' is not known here; write the whole path instead of '~'."
        ) from error


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
        say(
            f"Another notebook is making '{path}'. This one waits for it, then goes on. (If no other "
            f"one is open, delete '{lock.lock_file}'.)"
        )
        lock.acquire()
    except (NotImplementedError, OSError):
        # No locks on this drive, or no permission: then writing says it, in its own words.
        lock = contextlib.nullcontext()
    try:
        yield
    finally:
        if isinstance(lock, FileLock):
            lock.release()
