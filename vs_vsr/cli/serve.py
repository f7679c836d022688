"""`vs-vsr serve`: a page for the browser of this machine."""

import argparse
from importlib.util import find_spec
from pathlib import Path

from vs_vsr.cli.answers import Commands, add_command, tell
from vs_vsr.errors import JobError

__all__ = ["add"]

_PORT = 8487
_NEEDS = ("starlette", "uvicorn")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "serve", _serve, "serve a page that upscales files, for a browser here"
    )
    parser.add_argument(
        "--port", type=int, default=_PORT, metavar="N", help=f"0 for any; by default {_PORT}"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="FOLDER",
        help="for uploads, jobs and results; by default in the user's data folder",
    )
    parser.add_argument(
        "--device", default="auto", help="auto (all GPUs, or the processor), cpu, cuda:0 or a list"
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")


def _serve(args: argparse.Namespace) -> int:
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        raise JobError(
            f"vs-vsr serve must have {' and '.join(missing)}, which are not installed. Run pip "
            'install "vs-vsr[serve]".'
        )
    # They need these packages, and not every command does.
    from platformdirs import user_data_path

    from vs_vsr.serve.server import opening, serve

    folder = (args.folder or user_data_path("vs_vsr") / "serve").expanduser().absolute()

    def announce(address: str) -> None:
        tell(f"Open {address} in the browser of this machine; Ctrl-C ends the server.")
        if args.open:
            import webbrowser

            webbrowser.open(opening(folder, address).as_uri())

    serve(folder, args.port, ["--device", args.device], announce)
    return 0
