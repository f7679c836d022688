"""`vs-vsr upscale`: its options. What it does is in upscaling.py."""

import argparse

from vs_vsr.cli.answers import Commands, add_command
from vs_vsr.cli.options import add_options

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "upscale",
        _upscale,
        "upscale video files with their sound, subtitles, chapters and times; the same command "
        "again goes on where it was stopped",
    )
    add_options(parser)
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="make the parts on a cluster of Ray: auto, or HOST:PORT of its head",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="refuse to mix parts of different kinds of machines or versions",
    )
    parser.add_argument(
        "--preview",
        nargs="*",
        metavar="TIME",
        help="write pictures at these times, before and after, as PNG files, and stop",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done and how long, and stop"
    )
    parser.add_argument("--json", action="store_true", help="JSON lines on standard output")
    parser.add_argument(
        "--end-with-input",
        action="store_true",
        help="end when standard input does, as with the program that started this one",
    )


def _upscale(args: argparse.Namespace) -> int:
    # It needs packages without which `vs-vsr doctor` still has to work.
    from vs_vsr.cli.upscaling import run

    return run(args)
