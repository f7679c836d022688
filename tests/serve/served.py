"""A server for tests: its app within this process, or the whole of it in one of its own."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from conftest import environment
from starlette.testclient import TestClient

from vs_vsr.serve.app import Server

__all__ = ["PORT", "TOKEN", "Served", "app", "client", "upload", "wait_for"]

PORT, TOKEN = 8487, "a-token-that-nobody-else-knows-of"
_CODE = """
import contextlib, sys
from pathlib import Path
from vs_vsr.serve.server import serve
folder, port, *options = sys.argv[1:]
def announce(address):
    sys.stdout.write(address + "\\n")
    sys.stdout.flush()
with contextlib.suppress(KeyboardInterrupt):
    serve(Path(folder), int(port), options, announce)
"""


def app(folder: Path, options: tuple[str, ...] = ("--device", "cpu")) -> Server:
    """What a server serves."""
    return Server(folder, port=PORT, token=TOKEN, options=options)


@contextmanager
def client(server: Server) -> Iterator[TestClient]:
    """A browser that has come by the start address."""
    with TestClient(server.app, base_url=f"http://127.0.0.1:{PORT}") as browser:
        browser.get("/", params={"token": TOKEN})
        yield browser


def upload(browser: Any, name: str, data: bytes) -> str:
    """Upload a file whole; return the upload's id."""
    # Not as httpx writes JSON, which cannot write every name that a page can send.
    begun = browser.post("/api/uploads", content=json.dumps({"name": name, "bytes": len(data)}))
    assert begun.status_code == 201, begun.text
    id = str(begun.json()["id"])
    sent = browser.patch(f"/api/uploads/{id}", content=data, headers={"Upload-Offset": "0"})
    assert sent.status_code == 200, sent.text
    return id


class Served:
    """`vs-vsr serve` on a folder, with options for all its jobs."""

    def __init__(self, folder: Path, *options: str) -> None:
        """Start it."""
        self.folder, self.options, self.port = folder, options, 0
        self.start()

    def start(self) -> None:
        """Start it, again on the port that it had."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CODE, str(self.folder), str(self.port), *self.options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # By SERVED whatever it starts, and what that starts, can be found.
            env={**environment(), "SERVED": str(self.folder), "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        base, _, self.token = self.address.partition("/?token=")
        assert self.token, self.process.communicate()[1]
        self.port = int(base.rpartition(":")[2])
        self.browser = httpx2.Client(
            base_url=base, headers={"Authorization": f"Bearer {self.token}"}, timeout=60
        )

    def job(self, id: str) -> dict[str, Any]:
        """What is known of a job."""
        return dict(self.browser.get(f"/api/jobs/{id}").json())

    def kill(self) -> None:
        """End it as a power cut does."""
        self.browser.close()
        self.process.kill()
        self.process.communicate()

    def stop(self) -> str:
        """End it as Ctrl-C does; return what it has said."""
        self.browser.close()
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate()[1]


def wait_for(what: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait until something is so, and return it."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return found
