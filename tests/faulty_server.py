"""A web server on 127.0.0.1 that misbehaves as it is told, for the tests of downloads."""

import contextlib
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOGIN_PAGE = b"<!DOCTYPE html><html><body>Please log in to the school network.</body></html>"
FLIPPED = bytes(range(255, -1, -1))  # turns every byte into another one
FAULTS = (
    "good",
    "cut",
    "cut, no range",
    "wrong",
    "500",
    "slow",
    "404",
    "no range",
    "no length",
    "login page",
)


class FaultyServer:
    """Serves `files` (name -> bytes); a context manager.

    `misbehave(name, "500", "good")` answers the first request for `name` with an error and every
    later one well. `requests` lists (name, Range header) in the order of arrival.
    """

    def __init__(self, files: dict[str, bytes]):
        self.files = files
        self.plans: dict[str, list[str]] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.closing = threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.http.daemon_threads = True
        self.http.faulty = self

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def url(self, name: str) -> str:
        return f"{self.base}/{name}"

    def misbehave(self, name: str, *faults: str) -> None:
        assert set(faults) <= set(FAULTS)
        self.plans[name] = list(faults)

    def next_fault(self, name: str) -> str:
        plan: Sequence[str] = self.plans.get(name, ["good"])
        return plan.pop(0) if len(plan) > 1 else plan[0]

    def __enter__(self) -> "FaultyServer":
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""

    def do_GET(self) -> None:
        faulty: FaultyServer = self.server.faulty
        name = self.path.strip("/")
        wanted = self.headers.get("Range")
        faulty.requests.append((name, wanted))
        fault = faulty.next_fault(name)
        if name not in faulty.files or fault in ("404", "500"):
            self.send_error(500 if fault == "500" else 404)
        elif fault == "login page":
            self.answer(LOGIN_PAGE, kind="text/html; charset=utf-8")
        else:
            if fault == "slow":
                faulty.closing.wait(3)
            self.send_file(faulty.files[name], fault, None if "no range" in fault else wanted)

    def send_file(self, content: bytes, fault: str, wanted: str | None) -> None:
        first, last = 0, len(content) - 1
        if wanted:
            start, _, stop = wanted.removeprefix("bytes=").partition("-")
            first, last = int(start), int(stop or last)
        if first >= len(content):
            self.send_error(416)
            return
        body = content[first : last + 1]
        span = f"bytes {first}-{last}/{len(content)}" if wanted else None
        body = body.translate(FLIPPED) if fault == "wrong" else body
        sent = (len(body) + 1) // 2 if "cut" in fault else len(body)
        self.answer(body, span=span, sent=sent, length=fault != "no length")

    def answer(
        self,
        body: bytes,
        *,
        kind: str = "application/octet-stream",
        span: str | None = None,
        sent: int | None = None,
        length: bool = True,
    ) -> None:
        """Announce the whole `body` (unless not `length`), but send only its first `sent` bytes."""
        self.send_response(206 if span else 200)
        self.send_header("Content-Type", kind)
        if length:
            self.send_header("Content-Length", str(len(body)))
        if span:
            self.send_header("Content-Range", span)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # a client that has given up
            self.wfile.write(body[:sent])
