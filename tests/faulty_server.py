"""A web server on 127.0.0.1 that misbehaves as it is told, for the tests of downloads."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOGIN_PAGE = b"<!DOCTYPE html><html><body>Please log in to the school network.</body></html>"
FLIPPED = bytes(range(255, -1, -1))  # turns every byte into another one
FAULTS = {"good", "cut", "no range", "cut, no range", "wrong", "500", "slow", "404", "login page"}


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
        self.base = f"http://127.0.0.1:{self.http.server_port}"

    def url(self, name: str) -> str:
        return f"{self.base}/{name}"

    def misbehave(self, name: str, *faults: str) -> None:
        assert set(faults) <= FAULTS
        self.plans[name] = list(faults)

    def next_fault(self, name: str) -> str:
        plan = self.plans.get(name, ["good"])
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
        name, wanted = self.path.strip("/"), self.headers.get("Range")
        faulty.requests.append((name, wanted))
        fault = faulty.next_fault(name)
        if name not in faulty.files or fault in ("404", "500"):
            return self.send_error(500 if fault == "500" else 404)
        if fault == "login page":
            return self.answer(200, LOGIN_PAGE, {"Content-Type": "text/html; charset=utf-8"})
        if fault == "slow":
            faulty.closing.wait(3)
        content, code, headers, start = faulty.files[name], 200, {}, 0
        if wanted and "no range" not in fault:
            start, code = int(wanted.removeprefix("bytes=").removesuffix("-")), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            if start >= len(content):
                return self.send_error(416)
        body = content[start:].translate(FLIPPED if fault == "wrong" else None)
        self.answer(code, body, headers, sent=(len(body) + 1) // 2 if "cut" in fault else None)

    def answer(self, code: int, body: bytes, headers: dict, sent: int | None = None) -> None:
        """Announce the whole `body`, but send only its first `sent` bytes."""
        self.send_response(code)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # a client that has given up
            self.wfile.write(body[:sent])
