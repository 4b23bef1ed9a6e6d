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
    """Bytes in words: `502 kB`, `345 MB`."""
    return f"{count / 1e6:,.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def file_md5(path: Path) -> str:
    """MD5 checksum of a file, as 32 hexadecimal digits."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_writable(
    folder: Path, needed: int = 0, *, advice: str = "Choose another folder."
) -> None:
    """Make `folder` if need be; FlowersError if no file, or not `needed` bytes, can be saved in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        reason = f"Nothing can be saved in {folder} ({error.strerror})"
        raise FlowersError(f"{reason}. {advice}") from error
    if free < needed:
        raise FlowersError(
            f"The disk of {folder} is too full: {megabytes(needed)} are needed, {megabytes(free)} "
            "are free. Delete what you do not need there, then run this again."
        )


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
