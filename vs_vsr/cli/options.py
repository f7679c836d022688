"""The options of the commands that make a job, and what they come to."""

import argparse
import glob
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from vs_vsr.errors import ArgumentError
from vs_vsr.job.request import DEINTERLACERS, Request
from vs_vsr.weights.footage import CARDS, footage

__all__ = ["add_options", "requests", "seconds"]

_FILTERS = tuple(known.filter for known in CARDS)
_NUMBERS = ("chunk", "lookahead", "segment", "preroll", "tile", "overlap", "keyframe")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the inputs, the output, and everything that says what is made of them."""
    parser.add_argument("inputs", nargs="+", metavar="IN", help="video files")
    parser.add_argument(
        "output",
        metavar="OUT",
        help="the file to write; for several inputs a pattern with {name}: 'up/{name}.mkv'",
    )
    what = parser.add_argument_group("what is made of the pictures")
    what.add_argument("--preset", metavar="NAME", help='by footage; "vs-vsr models" lists them')
    what.add_argument("--filter", choices=_FILTERS, metavar="FILTER", help=", ".join(_FILTERS))
    what.add_argument("--weights", metavar="NAME", help='a name from "weights list", or a file')
    what.add_argument(
        "--device", default="auto", help="auto (all GPUs, or the processor), cpu, cuda:0 or a list"
    )
    what.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"))
    for name in _NUMBERS:
        what.add_argument(f"--{name}", type=int, metavar="N", help="as the filter's argument")
    what.add_argument("--sigma", type=float, metavar="S", help="noise, for denoising weights")
    what.add_argument("--scenes", choices=("auto", "off"), help="off: do not stop at scene cuts")
    what.add_argument("--matrix", help="of a source that names none: 709, 170m, 470bg, 2020ncl, …")
    what.add_argument("--size", default="", metavar="SIZE", help="2x, 1080p or WIDTHxHEIGHT")
    what.add_argument("--square-pixels", action="store_true", help="stretch to square pixels")
    what.add_argument("--bits", type=int, metavar="N", help="of the pictures: 8, 10, 12 or 16")
    what.add_argument("--deinterlace", choices=DEINTERLACERS, help="needs the plugin")
    what.add_argument(
        "--progressive", action="store_true", help="its pictures are whole: do not look at them"
    )
    what.add_argument("--start", metavar="TIME", help="seconds, or H:MM:SS")
    what.add_argument("--end", metavar="TIME", help="seconds, or H:MM:SS")
    how = parser.add_argument_group("how they are encoded")
    how.add_argument("--encoder", default="x265", help="x264, x265, av1, ffv1, hevc_nvenc, …")
    how.add_argument("--crf", type=float, metavar="Q", help="quality; the lower, the better")
    how.add_argument("--encoder-preset", default="", metavar="NAME", help="the encoder's own")
    how.add_argument(
        "--encoder-options",
        default="",
        metavar="K=V:K=V",
        help="more of the encoder's own, such as aq-mode=3:psy-rd=1.5",
    )
    how.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="of the encoder; part of the job, as pictures depend on it",
    )
    where = parser.add_argument_group("where")
    where.add_argument("--job", metavar="FOLDER", help="for the parts; by default OUT.job")
    where.add_argument("--force", action="store_true", help="overwrite OUT")


def requests(args: argparse.Namespace) -> list[Request]:
    """What is asked for, one for each input.

    Raises:
        ArgumentError: An option breaks its rule.
    """
    inputs = _inputs(args.inputs)
    several = len(inputs) > 1
    if several and "{name}" not in args.output:
        raise ArgumentError(
            f"OUT must have {{name}} in it for several inputs, got {args.output}. Write "
            "'{name}_x4.mkv', which stands for the name of each input."
        )
    found: dict[str, str] = {}
    made = []
    for path in inputs:
        out = os.path.abspath(args.output.replace("{name}", Path(path).stem))
        if out in found:
            raise ArgumentError(
                f"inputs must have different names, got {found[out]} and {path}, which would both "
                f"become {out}. Give them to the command one by one."
            )
        found[out] = path
        # These write nothing to it.
        writes = getattr(args, "preview", None) is None and not getattr(args, "dry_run", False)
        _check_paths(path, out, force=args.force or not writes)
        made.append(_request(args, path, out))
    return made


def _inputs(given: Sequence[str]) -> list[str]:
    """The files; patterns that no shell has expanded are expanded here (Windows)."""
    found = []
    for name in given:
        matches = [] if os.path.exists(name) else sorted(glob.glob(name))
        found += matches or [name]
    return found


def _check_paths(path: str, out: str, *, force: bool) -> None:
    if os.path.exists(out) and os.path.exists(path) and os.path.samefile(path, out):
        raise ArgumentError(
            f"OUT must be another file than IN, got {path} for both. Choose another name."
        )
    if os.path.isdir(out):
        raise ArgumentError(
            f"OUT must be a file, got the folder {out}. Write {out}{os.sep}NAME.mkv."
        )
    if os.path.exists(out) and not force:
        raise ArgumentError(
            f"OUT must be a new file, got {out}, which exists. Choose another name, or add --force "
            "to overwrite it."
        )
    if not os.path.isdir(os.path.dirname(out)):
        raise ArgumentError(
            f"OUT must be in a folder that exists, got {out}. Make {os.path.dirname(out)} first."
        )


def _request(args: argparse.Namespace, path: str, out: str) -> Request:
    arguments: dict[str, int | float | str] = {}
    filter_name, why = args.filter, ""
    if not filter_name:
        row = footage(args.preset or "film")
        filter_name, arguments["weights"], why = (
            row.filter,
            row.weights,
            f"for {row.what}: {row.why}",
        )
        missing = [name for name in row.needs if getattr(args, name) is None]
        if missing:
            raise ArgumentError(
                f"{missing[0]} must be given for the preset {row.name}, got none. Add "
                f"--{missing[0]} N."
            )
    elif args.preset:
        raise ArgumentError(
            f"preset must be left out where a filter is named, got {args.preset} and "
            f"{filter_name}. Leave one of them out."
        )
    if args.weights:
        why = ""
        is_file = os.path.isfile(os.path.expanduser(args.weights))
        arguments["weights"] = (
            os.path.abspath(os.path.expanduser(args.weights)) if is_file else args.weights
        )
    for name in (*_NUMBERS, "sigma", "precision", "scenes", "matrix"):
        if getattr(args, name) is not None:
            arguments[name] = getattr(args, name)
    if args.deinterlace and args.progressive:
        raise ArgumentError(
            f"progressive must be left out where a source is deinterlaced, got it with "
            f"--deinterlace {args.deinterlace}. Leave one of them out."
        )
    return Request(
        source=os.path.abspath(path),
        out=out,
        folder=os.path.abspath(args.job or f"{out}.job"),
        filter=filter_name,
        arguments=arguments,
        why=why,
        size=args.size,
        square_pixels=args.square_pixels,
        bits=args.bits,
        start=None if args.start is None else seconds(args.start, "start"),
        end=None if args.end is None else seconds(args.end, "end"),
        encoder=args.encoder,
        crf=args.crf,
        encoder_preset=args.encoder_preset,
        encoder_options=_encoder_options(args.encoder_options),
        threads=args.threads,
        deinterlace=args.deinterlace or "",
        progressive=args.progressive,
    )


def _encoder_options(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(":") if pair]
    for key, sign, value in pairs:
        if not (key and sign and value):
            raise ArgumentError(
                f'encoder-options must be KEY=VALUE pairs joined by colons, got "{text}". Write '
                "--encoder-options aq-mode=3:psy-rd=1.5."
            )
    return {key: value for key, _, value in pairs}


def seconds(text: str, name: str) -> Fraction:
    """The seconds of "90", "1:30" or "0:01:30.5".

    Raises:
        ArgumentError: It is no time.
    """
    parts = text.split(":")
    try:
        # Not as floats: 0.8 must be the picture at 0.8 s.
        numbers = [Fraction(part) for part in parts]
        if len(parts) > 3 or any(number < 0 for number in numbers):
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise ArgumentError(
            f'{name} must be seconds or H:MM:SS, got "{text}". Write --{name} 1:30.'
        ) from None
    total = Fraction(0)
    for number in numbers:
        total = 60 * total + number
    return total
