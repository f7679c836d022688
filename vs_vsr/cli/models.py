"""`vs-vsr models`: which network for which footage, and all that is known of each."""

import argparse
from collections.abc import Iterator

from vs_vsr.cli.answers import Commands, add_command, tell
from vs_vsr.cli.weights import about
from vs_vsr.weights import store
from vs_vsr.weights.footage import CARDS, FOOTAGE, MACHINE, Footage, card
from vs_vsr.weights.registry import rows_of
from vs_vsr.weights.rows import Row

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "models", _models, "tell what to use for which footage, or all about one network"
    )
    parser.add_argument(
        "network", nargs="?", metavar="NETWORK", help="tell all about this one: BasicVSR, VRT, …"
    )


def _models(args: argparse.Namespace) -> int:
    tell(*(_one(args.network) if args.network else _all()))
    return 0


def _all() -> Iterator[str]:
    width = max(len(name) for name in map(_names, FOOTAGE))
    for row in FOOTAGE:
        yield f"{_names(row):{width}}  {row.what}"
        yield f"{'':{width}}    use {_choices(row)}"
        yield f"{'':{width}}    {row.why}"
    yield f"All about one: vs-vsr models {'|'.join(known.filter for known in CARDS)}"


def _names(row: Footage) -> str:
    return ", ".join((row.name, *row.also))


def _choices(row: Footage) -> str:
    """What to use, and what else."""
    given = f" with {' and '.join(row.needs)}" if row.needs else ""
    others = f", or {', '.join(row.others)}" if row.others else ""
    return f"{row.choices[0]}{given}{others}"


def _one(network: str) -> Iterator[str]:
    known = card(network)
    yield f"{known.filter}: {known.does} ({known.paper})"
    for row in FOOTAGE:
        names = [choice.partition("/")[2] for choice in row.choices if _is_of(choice, known.filter)]
        if names:
            yield f"  for      {row.what}: {', '.join(names)}"
    yield f"  speed    {known.speed}"
    yield f"  memory   {known.memory}"
    yield f"           (on {MACHINE})"
    yield "           on a GPU: not measured"
    yield "  weights  (PSNR in dB and SSIM; Vid4, UDM10 and x4 of Vimeo-90K-T on Y, others on RGB)"
    for weights in rows_of(known.filter):
        yield from _weights(weights)


def _is_of(choice: str, filter_name: str) -> bool:
    return choice.partition("/")[0] == filter_name


def _weights(row: Row) -> Iterator[str]:
    here = "here" if store.local_file(row) else "not here"
    yield f"    {row.name}: {here}; {about(row)}"
    for tested_on, (psnr, ssim) in row.published.items():
        yield f"        {tested_on}: {psnr:.2f}, {ssim:.4f}"
    if row.other_figures:
        yield f"        {row.other_figures}"
    yield f"        ({row.published_in or 'no figures are published'})"
