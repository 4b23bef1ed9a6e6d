"""Files over a connection that breaks: resumed, retried, verified, put in place in one move.

`requests` speaks to the server. Resuming and retrying are ours: no library continues half a file.
"""

import contextlib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import sleep

import requests

from flowers_utils.datasets.disk import (
    check_free_disk,
    check_writable,
    file_md5,
    megabytes,
    one_at_a_time,
)
from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress
from flowers_utils.storage.files import rename

USER_AGENT = "flowers-lesson (Python requests)"
CHUNK = 1 << 13  # bytes a read: small, since a cut line loses what is read of the last one
LONGEST_PAUSE = 30.0  # seconds
TWICE, ALWAYS = 2, 10**6  # how often an address may show the same trouble before it is given up


class _TransferError(Exception):
    """One try at one address went wrong; `patience` tries of this kind are worth making."""

    def __init__(self, reason: str, *, patience: int = ALWAYS):
        super().__init__(reason)
        self.patience = patience


def reachable(url: str, *, timeout: float = 3.0) -> bool:
    """Whether the file at `url` could be downloaded now; answers within `timeout` seconds."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            with _open(url, {"Range": "bytes=0-0"}, timeout) as response:
                answers.append(response.ok and not _is_web_page(response))
        except requests.RequestException:
            answers.append(False)

    # In a thread, because looking up a name without a network can outlast every timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return answers == [True]


@dataclass(frozen=True)
class Patience:
    """How long a download is tried."""

    attempts: int = 5  # rounds in a row that bring no new byte
    pause: float = 1.0  # seconds between the first two of them; it doubles each time
    timeout: float = 20.0  # seconds that a server may be silent


PATIENT = Patience()


def download_file(
    urls: Sequence[str],
    path: Path,
    *,
    md5: str | None = None,
    size: int = 0,
    patience: Patience = PATIENT,
) -> Path:
    """Download a file from the first of `urls` that has it, and return its path.

    The file is right if it has the checksum `md5`; a right file that is there already is left
    alone. Half a file waits as `NAME.part` and is resumed. `size` in bytes is only used to check
    the disk. Raises FlowersError.
    """
    if _is_right(path, md5):
        return path
    check_writable(path.parent)
    with one_at_a_time(path):
        if not _is_right(path, md5):  # another notebook may have fetched it meanwhile
            part = path.with_name(path.name + ".part")
            check_free_disk(path.parent, size - _length(part))
            _fetch_from_any(urls, part, md5, patience)
            rename(part, path)
    return path


def _is_right(path: Path, md5: str | None) -> bool:
    return path.is_file() and (md5 is None or file_md5(path) == md5)


def _fetch_from_any(urls: Sequence[str], part: Path, md5: str | None, patience: Patience) -> None:
    """Fill `part` until it is right; mirrors share what has arrived. Raises FlowersError."""
    left, troubles, counts = list(urls), {}, Counter()
    furthest, failures = _length(part), 0
    while left and failures < patience.attempts:
        if troubles:
            sleep(min(patience.pause * 2 ** max(0, failures - 1), LONGEST_PAUSE))
        for url in tuple(left):
            try:
                _fetch(url, part, patience.timeout)
                return _discard_if_wrong(part, md5)
            except _TransferError as trouble:
                troubles[url] = str(trouble)
                counts[url, str(trouble)] += 1
                if counts[url, str(trouble)] >= trouble.patience:
                    left.remove(url)
        failures = 0 if _length(part) > furthest else failures + 1
        furthest = max(furthest, _length(part))
    raise FlowersError(_final_words(part, troubles))


def _discard_if_wrong(part: Path, md5: str | None) -> None:
    if not _is_right(part, md5):
        part.unlink(missing_ok=True)
        raise _TransferError("what arrived is not the right file (wrong checksum)", patience=TWICE)


def _final_words(part: Path, troubles: dict[str, str]) -> str:
    """What the student reads when every address has been given up."""
    reasons = "; ".join(f"{url}: {reason}" for url, reason in troubles.items())
    kept = f" {megabytes(_length(part))} have arrived and are kept." if _length(part) else ""
    return (
        f"{part.stem} could not be downloaded ({reasons or 'no address is known'}).{kept} "
        f"Check the connection and run this again, or get the file in another way "
        f"(browser, USB stick) and save it as '{part.absolute().with_suffix('')}'."
    )


def _length(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _open(url: str, headers: dict[str, str], timeout: float) -> requests.Response:
    """Ask for a file as it is, not packed on the way: the checksum is that of the file."""
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
    return requests.get(url, headers=headers, stream=True, timeout=timeout)


def _is_web_page(response: requests.Response) -> bool:
    """Firewalls and hotel networks answer every request with their own login page."""
    return response.headers.get("Content-Type", "").startswith("text/html")


def _fetch(url: str, part: Path, timeout: float) -> None:
    """One try: fetch what `part` still lacks. Raises _TransferError."""
    start = _length(part)
    try:
        with _open(url, {"Range": f"bytes={start}-"} if start else {}, timeout) as response:
            if response.status_code == 416:  # nothing lies beyond `part`: it is whole, or not ours
                return
            _check_answer(response)
            _store(response, part)
    except requests.RequestException as error:
        if isinstance(error, ValueError):  # an address in the config that is none
            raise _TransferError(f"this is no web address ({error})", patience=1) from error
        raise _TransferError(_in_words(error, timeout)) from error


def _check_answer(response: requests.Response) -> None:
    """Raise _TransferError unless the server sends the file."""
    code = response.status_code
    if code >= 500:
        raise _TransferError(f"the server is in trouble, HTTP {code}")
    if code in (404, 410):
        raise _TransferError(f"the server does not have it, HTTP {code}", patience=1)
    if code >= 400:
        patience = 1 if code in (401, 403, 451) else ALWAYS
        raise _TransferError(f"the server refused, HTTP {code}", patience=patience)
    if _is_web_page(response):
        reason = "a web page came instead of the file, perhaps the network's login page"
        raise _TransferError(reason, patience=TWICE)


def _in_words(error: BaseException | None, timeout: float) -> str:
    """A network error as a student understands it, from the innermost cause that we know."""
    words = {
        socket.gaierror: "no internet connection, or a firewall that hides the server",
        ssl.SSLCertVerificationError: "the server's certificate could not be verified",
        ssl.SSLError: "no secure connection to the server could be made",
        ConnectionRefusedError: "the server refused the connection",
        requests.Timeout: f"the server was silent for {timeout:g} seconds",
        TimeoutError: f"the server was silent for {timeout:g} seconds",
        ConnectionError: "the connection was cut",
    }
    first = error
    while error is not None:  # requests wraps urllib3's error, which wraps that of the socket
        for kind, text in words.items():
            if isinstance(error, kind):
                return text
        error = error.__cause__ or error.__context__
    return str(first)


def _store(response: requests.Response, part: Path) -> None:
    """Append what the server sends to `part`, or start anew where the server ignores ranges."""
    resumed, start = response.status_code == 206, _length(part)
    if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        part.unlink(missing_ok=True)
        raise _TransferError("the server sent another part than was asked for", patience=TWICE)
    start = start if resumed else 0
    announced = response.headers.get("Content-Length", "")
    total = start + int(announced) if announced.isdigit() else 0  # 0: the server does not say
    cut, bar = False, Progress(total, f"Downloading {part.stem}", unit="B")
    with _disk_trouble_in_words(part), bar, part.open("ab" if resumed else "wb") as file:
        bar.skip(start)
        try:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        except requests.exceptions.ChunkedEncodingError:
            cut = True
    if cut or _length(part) < total:
        of_all = f" of {megabytes(total)}" if total else ""
        raise _TransferError(f"the connection was cut after {megabytes(_length(part))}{of_all}")


@contextlib.contextmanager
def _disk_trouble_in_words(part: Path) -> Iterator[None]:
    try:
        yield
    except requests.RequestException:  # an OSError too, but of the network
        raise
    except OSError as error:  # a disk that fills up while we write
        reason = f"{part} could not be written ({error.strerror})"
        raise FlowersError(f"{reason}. Make room on this disk, then run this again.") from error
