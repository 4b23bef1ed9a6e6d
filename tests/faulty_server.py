"""A web server on 127.0.0.1 that misbehaves as it is told, for the tests of downloads."""

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""

    def do_GET(self) -> None:
        name, wanted = self.path.strip("/"), self.headers.get("Range")
        self.server.requests.append((name, wanted))
        plan = self.server.plans.get(name, ["good"])
        fault = plan.pop(0) if len(plan) > 1 else plan[0]
        if name not in self.server.files or fault in ("404", "500"):
            return self.send_error(500 if fault == "500" else 404)
        if fault == "slow":
            time.sleep(0.6)
        body, code, kind = self.server.files[name], 200, "application/octet-stream"
        if fault == "wrong":
            body = b"of another file"
        elif fault == "login page":
            body, kind = b"<!DOCTYPE html>Please log in.", "text/html; charset=utf-8"
        elif wanted and "no range" not in fault:
            start, code = int(wanted.removeprefix("bytes=").removesuffix("-")), 206
            if start >= len(body):
                return self.send_error(416)
            body = body[start:]
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", kind)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # a client that has given up
            self.wfile.write(body[: (len(body) + 1) // 2] if "cut" in fault else body)


class FaultyServer(ThreadingHTTPServer):
    """Serves `files` (name -> bytes); a context manager. `requests` are (name, Range header)."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.plans, self.requests = files, {}, []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def misbehave(self, name: str, *faults: str) -> None:
        """The first request for `name` meets the first of the faults, all later ones the last."""
        self.plans[name] = list(faults)

    def __enter__(self) -> "FaultyServer":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
