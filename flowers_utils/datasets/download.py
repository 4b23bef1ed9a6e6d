"""Files over a connection that breaks: resumed (no library here does it), verified, moved into place."""

import time
from collections.abc import Sequence
from pathlib import Path

import requests
from torchvision.datasets.utils import check_integrity

from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress
from flowers_utils.storage.files import megabytes, rename

PAUSES = range(10)  # seconds before each attempt; a cut download goes on where it stopped
SILENCE = 20.0  # seconds that a server may be silent
WEB_PAGE = "text/html"  # firewalls and hotel networks answer every request with their login page
CHUNK = 1 << 13  # bytes a read: small, since a cut line loses what is read of the last one


def reachable(url: str, *, timeout: float = 3.0) -> bool:
    """Whether the file at `url` could be downloaded now; the server has `timeout` seconds."""
    try:
        with requests.get(url, stream=True, timeout=timeout) as response:
            return response.ok and not response.headers.get("Content-Type", "").startswith(WEB_PAGE)
    except (OSError, ValueError):  # also for settings of a proxy or certificate that are wrong
        return False


def download_file(urls: Sequence[str], path: Path, *, md5: str) -> None:
    """Download `path` from the first of `urls` that has it; half a file waits as `NAME.part`."""
    part, troubles = path.with_name(path.name + ".part"), []
    part.touch()
    for url in urls:
        trouble = _fetch(url, part, md5)
        if not trouble:
            rename(part, path)
            return
        troubles.append(f"{url}: {trouble}")
    there = " (the file there is damaged)" if path.is_file() else ""
    raise FlowersError(
        f"{path.name} could not be downloaded ({'; '.join(troubles)}). What has arrived is kept "
        f"({megabytes(part.stat().st_size)}). Check the connection and run this again, or get the "
        f"file in another way (browser, USB stick) and save it as '{path.absolute()}'{there}."
    )


def _fetch(url: str, part: Path, md5: str) -> str:
    """Fetch what `part` still lacks; returns what went wrong at last, or ""."""
    for pause in PAUSES:
        time.sleep(pause)
        start = part.stat().st_size
        # "identity": not packed, because the checksum is of the file.
        headers = {"Range": f"bytes={start}-", "Accept-Encoding": "identity"}
        try:
            with requests.get(url, headers=headers, stream=True, timeout=SILENCE) as response:
                if response.status_code != 416:  # 416: nothing lies beyond `part`
                    response.raise_for_status()
                    if response.headers.get("Content-Type", "").startswith(WEB_PAGE):
                        return "a web page came instead, perhaps the network's login page"
                    _append(response, part)
        except requests.RequestException as error:
            failed = f"the connection failed or was cut: {type(error).__name__}"
            trouble = str(error) if isinstance(error, requests.HTTPError) else failed
            continue
        if check_integrity(part, md5):
            return ""
        part.write_bytes(b"")
        trouble = "not the correct file came (wrong checksum)"
        if start == 0:
            break  # else its beginning may have been of another file: once more
    return trouble


def _append(response: requests.Response, part: Path) -> None:
    """Append what the server sends to `part`, or start anew where the server ignores ranges."""
    resumed = response.status_code == 206
    start = part.stat().st_size if resumed else 0
    total = start + int(response.headers.get("Content-Length", 0))
    bar = Progress(total, f"Downloading {part.stem}", unit="B")
    with bar, part.open("ab" if resumed else "wb") as file:
        bar.skip(start)
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
