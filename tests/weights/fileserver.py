"""An HTTP server on this machine that misbehaves on command, and counts what it sends."""

import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WAIT_S = 20.0


class FileServer(ThreadingHTTPServer):
    """Serves `data` under every path."""

    daemon_threads = True

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.data = data
        self.url = f"http://127.0.0.1:{self.server_port}/weights.pth"
        self.status = 200
        self.location = ""
        """Where a redirect sends the client, once."""
        self.content_type = "application/octet-stream"
        self.with_length = True
        self.length: int | None = None
        """The length in the header, if it is not that of the body."""
        self.with_range = True
        self.cuts: list[int] = []
        """Bytes after which each connection, one after the other, is closed."""
        self.stall_after: int | None = None
        """Bytes after which a connection waits for `gate`."""
        self.gate = threading.Event()
        self.ranges: list[str | None] = []
        """The Range header of each request."""
        self.sent_bytes = 0

    def secure(self, folder: Path) -> Path:
        """Serve over https with a new certificate, and return its path."""
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        files = ["-keyout", str(key), "-out", str(certificate)]
        command = ["openssl", *options.split(), *subject, *files]
        subprocess.run(command, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = self.url.replace("http:", "https:")
        return certificate

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: the tests are about clients that go away."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        if server.location:
            self.send_response(302)
            self.send_header("Location", server.location)
            self.end_headers()
            server.location = ""
            return
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(asked[6:-1]) if asked and server.with_range else 0
        if start >= len(server.data):
            self.send_error(416)
            return
        body = server.data[start:]
        self.send_response(206 if asked and server.with_range else 200)
        self.send_header("Content-Type", server.content_type)
        if server.with_length:
            self.send_header("Content-Length", str(server.length or len(body)))
        self.end_headers()
        self._send(body[: server.cuts.pop(0)] if server.cuts else body)

    def _send(self, body: bytes) -> None:
        stall = self.server.stall_after
        for piece in (body,) if stall is None else (body[:stall], body[stall:]):
            self.wfile.write(piece)
            self.wfile.flush()
            self.server.sent_bytes += len(piece)
            if stall is not None:
                self.server.gate.wait(WAIT_S)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def wait_until(true: Callable[[], bool]) -> None:
    """Return as soon as `true()` holds."""
    end = time.monotonic() + WAIT_S
    while not true():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)


@contextmanager
def serving(server: FileServer) -> Iterator[FileServer]:
    """Let a server run, on another thread, and close it at the end."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.gate.set()
        server.shutdown()
        thread.join()
