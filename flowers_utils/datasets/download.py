"""Files over a connection that breaks: resumed, retried, verified, put in place in one move."""

import hashlib
import http.client
import shutil
import socket
import ssl
import tempfile
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from time import sleep
from typing import Any

from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress

USER_AGENT = "flowers-lesson (Python urllib)"
CHUNK = 1 << 16  # bytes per read: small, so that little is lost when the line is cut
LONGEST_PAUSE = 30.0  # seconds
TWICE, ALWAYS = 2, 10**6  # how often an address may show the same trouble before it is given up


class _TransferError(Exception):
    """One try at one address went wrong; `patience` tries of this kind are worth making."""

    def __init__(self, reason: str, *, patience: int = ALWAYS):
        super().__init__(reason)
        self.patience = patience


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


def reachable(url: str, *, timeout: float = 3.0) -> bool:
    """Whether the file at `url` could be downloaded now; answers within `timeout` seconds."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, headers=_headers(first_byte=0, last_byte=0))
            with urllib.request.urlopen(request, timeout=timeout) as response:
                answers.append(not _is_web_page(response, url))
        except (OSError, http.client.HTTPException, ValueError):
            answers.append(False)

    # In a thread, because looking up a name without a network can outlast every timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return answers == [True]


def download_file(
    urls: Sequence[str],
    path: Path | str,
    *,
    md5: str | None = None,
    check: Callable[[Path], bool] | None = None,
    size: int | None = None,
    attempts: int = 5,
    pause: float = 1.0,
    timeout: float = 20.0,
) -> Path:
    """Download a file from the first of `urls` that has it, and return its path.

    The file is right if it has the checksum `md5`, or if `check(file)` says so; a right file that
    is there already is left alone. Half a file waits as `NAME.part` and is resumed. Gives up after
    `attempts` rounds in a row that brought no new bytes, with pauses from `pause` seconds upward.
    `size` in bytes is only used to check the disk. Raises FlowersError.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    is_right = check or (lambda file: md5 is None or file_md5(file) == md5)
    if path.is_file() and is_right(path):
        return path
    check_writable(path.parent)
    check_free_disk(path.parent, (size or 0) - _length(part))
    left, troubles, counts = list(urls), {}, Counter()
    furthest, failures = _length(part), 0
    while left and failures < attempts:
        if troubles:
            sleep(min(pause * 2 ** max(0, failures - 1), LONGEST_PAUSE))
        for url in tuple(left):
            try:
                _fetch(url, part, timeout)
                _put_in_place(part, path, is_right)
                return path
            except _TransferError as trouble:
                troubles[url] = str(trouble)
                counts[url, str(trouble)] += 1
                if counts[url, str(trouble)] >= trouble.patience:
                    left.remove(url)
        failures = 0 if _length(part) > furthest else failures + 1
        furthest = max(furthest, _length(part))
    raise FlowersError(_final_words(path, part, troubles))


def _final_words(path: Path, part: Path, troubles: dict[str, str]) -> str:
    """What the student reads when every address has been given up."""
    reasons = "; ".join(f"{url}: {reason}" for url, reason in troubles.items())
    kept = f" {megabytes(_length(part))} have arrived and are kept." if _length(part) else ""
    return (
        f"{path.name} could not be downloaded ({reasons or 'no address is known'}).{kept} "
        f"Check the connection and run this again, or get the file in another way "
        f"(browser, USB stick) and save it as '{path.absolute()}'."
    )


def _length(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _headers(*, first_byte: int = 0, last_byte: int | str = "") -> dict[str, str]:
    whole = first_byte == 0 and last_byte == ""
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    return headers if whole else {**headers, "Range": f"bytes={first_byte}-{last_byte}"}


def _is_web_page(response: Any, url: str) -> bool:
    """Firewalls and hotel networks answer every request with their own login page."""
    is_html = response.headers.get("Content-Type", "").startswith("text/html")
    return is_html and not url.endswith((".html", "/"))


def _fetch(url: str, part: Path, timeout: float) -> None:
    """One try: fetch what `part` still lacks. Raises _TransferError."""
    try:
        request = urllib.request.Request(url, headers=_headers(first_byte=_length(part)))
        with urllib.request.urlopen(request, timeout=timeout) as response:
            if _is_web_page(response, url):
                reason = "a web page came instead of the file, perhaps the network's login page"
                raise _TransferError(reason, patience=TWICE)
            _store(response, part)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing lies beyond `part`: it is whole, or not ours
            return
        gone = error.code in (401, 403, 404, 410, 451)
        reason = "the server does not have it" if error.code in (404, 410) else "the server refused"
        reason = reason if error.code < 500 else "the server is in trouble"
        patience = 1 if gone else ALWAYS
        raise _TransferError(f"{reason}, HTTP {error.code}", patience=patience) from error
    except (OSError, http.client.HTTPException) as error:
        raise _TransferError(_in_words(error, timeout)) from error
    except ValueError as error:  # an address in the config that is none
        raise _TransferError(str(error), patience=1) from error


def _in_words(error: Exception, timeout: float) -> str:
    """A network error as a student understands it."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    words = {
        socket.gaierror: "no internet connection, or a firewall that hides the server",
        ssl.SSLCertVerificationError: "the server's certificate could not be verified",
        ConnectionRefusedError: "the server refused the connection",
        TimeoutError: f"the server was silent for {timeout:g} seconds",
        ConnectionError: "the connection was cut",
        http.client.IncompleteRead: "the connection was cut",
    }
    return next((text for kind, text in words.items() if isinstance(cause, kind)), str(cause))


def _store(response: Any, part: Path) -> None:
    """Append what the server sends to `part`, or start anew where the server ignores ranges."""
    start = _length(part)
    resumed = getattr(response, "status", None) == 206
    if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        part.unlink(missing_ok=True)
        raise _TransferError("the server sent another part than was asked for", patience=TWICE)
    start = start if resumed else 0
    announced = response.headers.get("Content-Length")
    total = start + int(announced or 0)
    title = f"Downloading {part.stem}"
    with _open(part, "ab" if resumed else "wb") as file, Progress(total, title, unit="B") as bar:
        bar.skip(start)
        while chunk := response.read(CHUNK):
            _write(file, chunk, part)
            bar.update(len(chunk))
    if announced and _length(part) < total:
        reason = f"the connection was cut after {megabytes(_length(part))} of {megabytes(total)}"
        raise _TransferError(reason)


def _open(part: Path, mode: str) -> Any:
    try:
        return part.open(mode)
    except OSError as error:
        raise FlowersError(f"{part} could not be written ({error.strerror}).") from error


def _write(file: Any, chunk: bytes, part: Path) -> None:
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:  # a disk that fills up while we write
        reason = f"{part} could not be written ({error.strerror})"
        raise FlowersError(f"{reason}. Make room on this disk, then run this again.") from error


def _put_in_place(part: Path, path: Path, is_right: Callable[[Path], bool]) -> None:
    """Rename a right file into place; discard a wrong one and raise _TransferError."""
    if not is_right(part):
        part.unlink()
        reason = "what arrived is not the right file (its checksum or its content is wrong)"
        raise _TransferError(reason, patience=TWICE)
    part.replace(path)
