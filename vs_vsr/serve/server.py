"""The server as a process: its folder, its token, its port, how it starts and how it ends."""

import contextlib
import os
import secrets
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import filelock
import uvicorn

from vs_vsr.errors import ArgumentError, JobError
from vs_vsr.serve.app import Server
from vs_vsr.serve.files import write_own
from vs_vsr.serve.guard import going_on

__all__ = ["opening", "serve", "token_of"]

_HOST = "127.0.0.1"
# Seconds that downloads in hand have when the server ends.
_LAST_S = 2


def serve(folder: Path, port: int, options: Sequence[str], announce: Callable[[str], None]) -> None:
    """Serve the page until it is interrupted.

    Args:
        folder: Of all jobs and uploads.
        port: To listen on; 0 for any.
        options: Of `vs-vsr upscale`, for every job.
        announce: Told the start address, once it can be opened.

    Raises:
        ArgumentError: The port is taken, or the folder is another user's.
        JobError: Another server has the folder.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name == "posix" and folder.stat().st_uid != os.geteuid():
        raise ArgumentError(
            f"folder must be your own, got {folder}, which belongs to another user. Choose another "
            "--folder."
        )
    with _alone(folder), _listening(port) as listener:
        port = listener.getsockname()[1]
        token = token_of(folder)
        server = Server(folder, port=port, token=token, options=options)
        config = uvicorn.Config(
            server.app,
            # Nothing about a request is logged: its address may have the token.
            log_level="error",
            access_log=False,
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_LAST_S,
        )
        announce(f"http://{_HOST}:{port}/?token={token}")
        _Process(config, server.events.close).run(sockets=[listener])


def opening(folder: Path, address: str) -> Path:
    """A file for the browser to open: on a command line, others could read the address."""
    page = folder / "open.html"
    write_own(page, going_on(address))
    return page


class _Process(uvicorn.Server):
    """Ends the streams of events, which have no end of their own, before it waits for others."""

    def __init__(self, config: uvicorn.Config, ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._ending = ending

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._ending()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        with filelock.FileLock(folder / "lock", timeout=0):
            yield
    except filelock.Timeout:
        raise JobError(
            f"folder must be of no other vs-vsr serve, got {folder}, which one uses now. Open the "
            "page of that one, or choose another --folder."
        ) from None


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        if os.name == "posix":
            # Else the port of a server that has just ended could not be taken again for a minute.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
        except (OSError, OverflowError) as e:
            why = getattr(e, "strerror", None) or "no port"
            raise ArgumentError(
                f"port must be a free one of this machine, got {port} ({why}). Choose another "
                "--port, or 0 for any."
            ) from None
        # From now on a browser can connect; it is answered when the server has started.
        listener.listen()
        yield listener


def token_of(folder: Path) -> str:
    """The folder's: a page that is open goes on with a server that is started again."""
    path = folder / "token"
    with contextlib.suppress(FileNotFoundError):
        token = _own(path).strip()
        if len(token) >= 32:
            return token
    token = secrets.token_urlsafe(32)
    write_own(path, token)
    return token


def _own(path: Path) -> str:
    """The text of a file that no other user has written, or can read."""
    if os.name == "posix":
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o077:
            raise ArgumentError(
                f"{path} must be a file that you alone can read, got another. Remove it: vs-vsr "
                "serve makes a new one."
            )
    return path.read_text("ascii")
