"""`vs-vsr weights`: lists, fetches and checks published checkpoints."""

import argparse
import sys
from pathlib import Path

from vs_vsr.cli.answers import Commands, add_command, tell
from vs_vsr.weights import store
from vs_vsr.weights.registry import lookup, rows_of
from vs_vsr.weights.rows import Row

__all__ = ["about", "add"]

_NAME_HELP = 'a name from "weights list", or FILTER/NAME where filters share a name'
_DAMAGED, _NO_HASH = "DAMAGED", "no hash is published"


def add(commands: Commands) -> None:
    """Add the command."""
    weights = commands.add_parser("weights", help="published checkpoints")
    actions = weights.add_subparsers(required=True, metavar="ACTION")
    listing = add_command(
        actions, "list", _list, "list every published file, its licence, and whether it is here"
    )
    listing.add_argument(
        "filter", nargs="?", metavar="FILTER", help="list only those of one filter"
    )
    fetch = add_command(actions, "fetch", _fetch, "fetch files that are not on this machine yet")
    fetch.add_argument("names", nargs="+", metavar="NAME", help=_NAME_HELP)
    add_command(
        actions, "verify", _verify, "check every file on this machine against its published hash"
    )
    where = add_command(actions, "where", _where, "show the cache folder, or where one file is")
    where.add_argument("name", nargs="?", metavar="NAME", help=_NAME_HELP)


def _list(args: argparse.Namespace) -> int:
    rows = rows_of(args.filter)
    width = max(len(row.name) for row in rows)
    filter_name = ""
    for row in rows:
        if row.filter != filter_name:
            filter_name = row.filter
            tell(filter_name)
        path = store.local_file(row)
        place = f"here      {path}" if path else f"not here  {row.file}"
        tell(f"  {row.name:{width}}  {place}", f"  {'':{width}}    {about(row)}")
    return 0


def about(row: Row) -> str:
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
        tell(str(store.local_file(row) or store.fetch(row)))
    return 0


def _verify(args: argparse.Namespace) -> int:
    copies = [(row, path) for row in rows_of() for path in store.copies(row)]
    verdicts = [(_verdict(row, path), path) for row, path in copies]
    tell(*(f"{verdict}  {path}" for verdict, path in verdicts))
    if not verdicts:
        sys.stderr.write("No published file is on this machine. Run vs-vsr weights fetch NAME.\n")
    return 1 if any(verdict == _DAMAGED for verdict, _ in verdicts) else 0


def _verdict(row: Row, path: Path) -> str:
    if not store.is_intact(path, row):
        return _DAMAGED
    return "whole" if row.sha256 else _NO_HASH


def _where(args: argparse.Namespace) -> int:
    if args.name is None:
        tell(str(store.cache_folder()))
        return 0
    row = lookup(args.name)
    path = store.local_file(row)
    if path is None:
        sys.stderr.write(
            f"{row.full_name} is not on this machine. Run vs-vsr weights fetch {row.full_name}.\n"
        )
        return 1
    tell(str(path))
    return 0
