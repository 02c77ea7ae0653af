"""A server on this machine that breaks off, ignores ranges, refuses, and lies about lengths."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """What it serves, and the faults that it shows on the next requests for a path, one per request.

    released: ends a request that hangs.
    """

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, wanted = handler.path, handler.headers.get("Range")
        self.requests.append((path, wanted))
        fault = self.faults[path].pop(0) if self.faults.get(path) else ""
        body = self.files.get(path)
        if fault.startswith(("to ", "length ")):
            kind, _, value = fault.partition(" ")
            handler.send_response(302 if kind == "to" else 200)
            handler.send_header("Location" if kind == "to" else "Content-Length", value)
            handler.end_headers()
            handler.wfile.write(b"" if kind == "to" else body or b"")
            handler.close_connection = True
            return
        if body is None or fault.isdecimal():
            handler.send_error(int(fault) if fault else 404)
            return
        start = int(wanted[len("bytes=") : -1]) if wanted and fault != "ignore range" else 0
        part = body[start:]
        handler.send_response(200 if not start else 206 if part else 416)
        if start:
            first = start + 1 if fault == "wrong range" else start
            extent = f"{first}-{len(body) - 1}" if part else "*"
            handler.send_header("Content-Range", f"bytes {extent}/{len(body)}")
        if fault != "no length":
            handler.send_header("Content-Length", str(len(part) + (10 if fault == "too long" else 0)))
        handler.end_headers()
        handler.wfile.write(part[: len(part) // 2] if fault in ("break", "hang") else part)
        handler.wfile.flush()
        if fault == "hang":
            self.released.wait(5)
        handler.close_connection = True

    def ranges(self, path: str) -> list[str | None]:
        return [wanted for found, wanted in self.requests if found == path]


@contextmanager
def serve() -> Iterator[Server]:
    """A server without any files yet."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state = Server(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield state
        finally:
            http.shutdown()
            thread.join()
