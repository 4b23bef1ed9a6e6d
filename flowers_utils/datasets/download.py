"""Files over a connection that breaks: resumed, retried, verified, put in place in one move.

`requests` speaks to the server. Resuming is ours: no library here continues half a file.
"""

import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from time import sleep

import requests

from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress
from flowers_utils.storage.files import file_md5, megabytes, rename

ATTEMPTS = 5  # rounds in a row that bring no new byte, until the download is given up
PAUSE = 1.0  # seconds between the first two of them; it doubles each time
SILENCE = 20.0  # seconds that a server may be silent
CHUNK = 1 << 13  # bytes a read: small, since a cut line loses what is read of the last one
TROUBLES = {
    socket.gaierror: "no internet connection, or a firewall that hides the server",
    ssl.SSLError: "no secure connection to the server could be made",
    ConnectionRefusedError: "the server refused the connection",
    TimeoutError: "the server was silent for too long",
    requests.exceptions.ChunkedEncodingError: "the connection was cut",
}


def reachable(url: str, *, timeout: float = 3.0) -> bool:
    """Whether the file at `url` could be downloaded now; the server has `timeout` seconds."""
    try:
        with _open(url, 0, timeout) as response:
            return response.ok and not _is_web_page(response)
    except requests.RequestException:
        return False


def download_file(urls: Sequence[str], path: Path, *, md5: str) -> Path:
    """Download the file with checksum `md5` from the first of `urls` that has it; returns `path`.

    Half a file waits as `NAME.part` and is resumed, also from a mirror. Raises FlowersError.
    """
    part = path.with_name(path.name + ".part")
    left, troubles = list(urls), {}
    furthest, failures = _length(part), 0
    while left and failures < ATTEMPTS:
        if troubles:
            sleep(PAUSE * 2 ** max(0, failures - 1))
        for url in tuple(left):
            troubles[url], final = _fetch(url, part, md5)
            if not troubles[url]:
                rename(part, path)
                return path
            if final:
                left.remove(url)
        failures = 0 if _length(part) > furthest else failures + 1
        furthest = max(furthest, _length(part))
    reasons = "; ".join(f"{url}: {trouble}" for url, trouble in troubles.items())
    kept = f" {megabytes(_length(part))} have arrived and are kept." if _length(part) else ""
    raise FlowersError(
        f"{path.name} could not be downloaded ({reasons}).{kept} Check the connection and run this "
        "again, or get the file in another way (browser, USB stick) and save it as "
        f"'{path.absolute()}'."
    )


def _length(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _open(url: str, start: int, timeout: float) -> requests.Response:
    """Ask for a file from byte `start` on, not packed on the way: the checksum is of the file."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    return requests.get(url, headers=headers, stream=True, timeout=timeout)


def _is_web_page(response: requests.Response) -> bool:
    """Firewalls and hotel networks answer every request with their own login page."""
    return response.headers.get("Content-Type", "").startswith("text/html")


def _fetch(url: str, part: Path, md5: str) -> tuple[str, bool]:
    """Fetch what `part` still lacks; returns what went wrong, and whether `url` needs no more tries."""
    start = _length(part)
    try:
        with _open(url, start, SILENCE) as response:
            if response.status_code != 416:  # 416: nothing lies beyond `part`
                response.raise_for_status()
                if _is_web_page(response):
                    return "a web page came instead, perhaps the network's login page", True
                _append(response, part)
    except requests.RequestException as error:
        refused = error.response is not None and error.response.status_code < 500
        mistyped = isinstance(error, ValueError)
        return _in_words(error), refused or mistyped
    if file_md5(part) == md5:
        return "", True
    part.unlink()  # if its beginning is of another run, that may have been at fault
    return "not the correct file came (wrong checksum)", start == 0


def _append(response: requests.Response, part: Path) -> None:
    """Append what the server sends to `part`, or start anew where the server ignores ranges."""
    resumed = response.status_code == 206
    start, announced = _length(part) if resumed else 0, response.headers.get("Content-Length")
    total = start + int(announced) if announced else 0
    bar = Progress(total, f"Downloading {part.stem}", unit="B")
    with bar, part.open("ab" if resumed else "wb") as file:
        bar.skip(start)
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
    if _length(part) < total:  # older versions of urllib3 do not notice
        raise requests.exceptions.ChunkedEncodingError


def _in_words(error: BaseException) -> str:
    """A network error as a student understands it."""
    cause: BaseException | None = error
    while cause is not None:  # requests wraps urllib3's error, which wraps that of the socket
        for kind, text in TROUBLES.items():
            if isinstance(cause, kind):
                return text
        cause = cause.__cause__ or cause.__context__
    return str(error)
