"""The command `vs-vsr`: upscales files (in a page too), compares and measures them."""

import argparse
import sys
from collections.abc import Sequence

from vs_vsr import __version__
from vs_vsr.cli import compare, doctor, eval, info, models, parts, serve, upscale, weights
from vs_vsr.cli.answers import sentence_of
from vs_vsr.errors import VsrError

__all__ = ["main"]

_COMMANDS = (upscale, serve, parts, models, compare, eval, weights, doctor, info)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments; by default the arguments of the process.

    Returns:
        The exit status: 0, 1 if something is missing, damaged or failed, 130 if interrupted.
    """
    parser = argparse.ArgumentParser(prog="vs-vsr", description=__doc__)
    parser.add_argument("--version", action="version", version=f"vs-vsr {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except (VsrError, OSError) as e:
        sys.stderr.write(f"{sentence_of(e)}\n")
        return 1
    except KeyboardInterrupt:
        return 130  # as shells have it: 128 and the signal
