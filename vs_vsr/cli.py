"""The command `vs-vsr`: lists, fetches and checks weights, and shows what is installed."""

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vs_vsr import __version__
from vs_vsr.errors import VsrError
from vs_vsr.weights import store
from vs_vsr.weights.registry import lookup, rows_of
from vs_vsr.weights.rows import Row

__all__ = ["main"]

_NAME_HELP = 'a name from "weights list", or FILTER/NAME where filters share a name'
_DAMAGED, _NO_HASH = "DAMAGED", "no hash is published"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments; by default the arguments of the process.

    Returns:
        The exit status: 0, or 1 if something is missing or damaged.
    """
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except VsrError as e:
        sys.stderr.write(f"{e}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vs-vsr", description=__doc__)
    parser.add_argument("--version", action="version", version=f"vs-vsr {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    weights = commands.add_parser("weights", help="published checkpoints")
    actions = weights.add_subparsers(required=True, metavar="ACTION")
    listing = _add(
        actions, "list", _list, "list every published file, its licence, and whether it is here"
    )
    listing.add_argument(
        "filter", nargs="?", metavar="FILTER", help="list only those of one filter"
    )
    fetch = _add(actions, "fetch", _fetch, "fetch files that are not on this machine yet")
    fetch.add_argument("names", nargs="+", metavar="NAME", help=_NAME_HELP)
    _add(actions, "verify", _verify, "check every file on this machine against its published hash")
    where = _add(actions, "where", _where, "show the cache folder, or where one file is")
    where.add_argument("name", nargs="?", metavar="NAME", help=_NAME_HELP)
    _add(commands, "info", _info, "show versions, devices, and whether the filters are loaded")
    return parser


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: object,
    text: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def _list(args: argparse.Namespace) -> int:
    rows = rows_of(args.filter)
    width = max(len(row.name) for row in rows)
    filter_name = ""
    for row in rows:
        if row.filter != filter_name:
            filter_name = row.filter
            _tell(filter_name)
        path = store.local_file(row)
        place = f"here      {path}" if path else f"not here  {row.file}"
        _tell(f"  {row.name:{width}}  {place}", f"  {'':{width}}    {_about(row)}")
    return 0


def _about(row: Row) -> str:
    """What a user may want to know before choosing: the task, the training, the licence."""
    task = f"{row.task} x{row.scale}" if row.scale > 1 else row.task
    notes = [", ".join(filter(None, (task, row.trained_on, row.degradation))), row.licence]
    if row.non_commercial:
        notes.append("not for commercial use")
    if not row.sha256:
        notes.append(_NO_HASH)
    if not row.urls:
        notes.append(f"fetch by hand from {row.page}")
    return "; ".join(notes)


def _fetch(args: argparse.Namespace) -> int:
    # All names are looked up before the first file is fetched.
    for row in [lookup(name) for name in args.names]:
        _tell(str(store.local_file(row) or store.fetch(row)))
    return 0


def _verify(args: argparse.Namespace) -> int:
    copies = [(row, path) for row in rows_of() for path in store.copies(row)]
    verdicts = [(_verdict(row, path), path) for row, path in copies]
    _tell(*(f"{verdict}  {path}" for verdict, path in verdicts))
    if not verdicts:
        sys.stderr.write("No published file is on this machine. Run vs-vsr weights fetch NAME.\n")
    return 1 if any(verdict == _DAMAGED for verdict, _ in verdicts) else 0


def _verdict(row: Row, path: Path) -> str:
    if not store.is_intact(path, row):
        return _DAMAGED
    return "whole" if row.sha256 else _NO_HASH


def _where(args: argparse.Namespace) -> int:
    if args.name is None:
        _tell(str(store.cache_folder()))
        return 0
    row = lookup(args.name)
    path = store.local_file(row)
    if path is None:
        sys.stderr.write(
            f"{row.full_name} is not on this machine. Run vs-vsr weights fetch {row.full_name}.\n"
        )
        return 1
    _tell(str(path))
    return 0


def _info(args: argparse.Namespace) -> int:
    lines = [("python", platform.python_version())]
    for name in ("vs-vsr", "vapoursynth", "torch"):
        try:
            lines.append((name, version(name)))
        except PackageNotFoundError:
            lines.append((name, "not installed"))
    # Imported here because it brings torch, which takes seconds to import.
    from vs_vsr.devices import describe_all

    lines += [*describe_all(), ("filters", _filters())]
    _tell(*(f"{name:12}  {value}" for name, value in lines))
    return 0


def _filters() -> str:
    """Whether VapourSynth has loaded the plugin."""
    try:
        from vapoursynth import core

        plugin = core.vsr
    except ImportError as e:
        return f"not loaded, because VapourSynth cannot be imported ({e})"
    except AttributeError:
        return "not loaded by VapourSynth: reinstall vs-vsr in the same environment"
    found = sorted(function.name for function in plugin.functions())
    return f"core.vsr: {', '.join(found)}"


def _tell(*lines: str) -> None:
    text = "".join(f"{line}\n" for line in lines)
    # Standard output only here: the plugin, which shares it with vspipe, never imports this module.
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:
        # A path that is not text, or not in this encoding: as the system has it, for scripts.
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(text))
