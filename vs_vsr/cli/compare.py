"""`vs-vsr compare`: files at the same moments, as one page for a browser or as one picture."""

import argparse
import os
from collections import Counter
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from vs_vsr.cli.answers import Commands, add_command, tell
from vs_vsr.cli.options import seconds
from vs_vsr.errors import ArgumentError, StorageError

if TYPE_CHECKING:
    from vs_vsr.compare.sources import Source

__all__ = ["add"]

# The page has a key for each.
_MOST_SOURCES = 9
# Of JPEG, as FFmpeg counts.
_QUALITIES = range(1, 32)
# Shapes that differ by less, as rounded sizes do, are the same.
_SHAPES_DIFFER = Fraction(1, 50)
# Moments, where none are named.
_PAGE_FRAMES, _STILL_FRAMES = 5, 1


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "compare",
        _compare,
        "show files at the same moments, as a page with a slider, zoom and blink, or as a PNG",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="two to nine video files, pictures or scripts (.vpy, which are run)",
    )
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--at", nargs="+", metavar="TIME", help="moments: seconds, or H:MM:SS")
    when.add_argument(
        "--frames",
        type=int,
        metavar="N",
        help=f"moments spread evenly; by default {_PAGE_FRAMES}, and {_STILL_FRAMES} in a PNG",
    )
    when.add_argument(
        "--clip",
        nargs=2,
        metavar=("START", "END"),
        help="all pictures in this range, which the page can play",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("compare.html"),
        metavar="FILE",
        help="a page (.html) or a picture (.png); by default compare.html",
    )
    parser.add_argument(
        "--scaler",
        choices=("nearest", "bicubic"),
        default="nearest",
        help="how smaller pictures are enlarged: nearest (the default) shows their pixels as they "
        "are, bicubic is smooth",
    )
    parser.add_argument(
        "--quality",
        type=int,
        metavar="Q",
        help="JPEG in the page, 1 (best) to 31, for many pictures; without it PNG, which loses "
        "nothing",
    )
    parser.add_argument("--force", action="store_true", help="overwrite FILE")


def _compare(args: argparse.Namespace) -> int:
    _check(args)
    # Imported here because they bring torch, VapourSynth and PyAV.
    from vs_vsr.cli.display import Display, size
    from vs_vsr.compare.encoded import png
    from vs_vsr.compare.moments import moments
    from vs_vsr.compare.page import page
    from vs_vsr.compare.sources import open_source
    from vs_vsr.compare.still import still

    is_page = args.out.suffix.lower() != ".png"
    with Display(args.out.name) as display, ExitStack() as opened:
        sources = []
        for path in args.sources:
            display.phase(f"opening {path.name}", 0)
            sources.append(opened.enter_context(closing(open_source(path))))
        _tell_apart(args.sources, sources)
        leading, times = _times(args, sources, is_page=is_page)
        notes = _notes(sources, args.scaler)
        for note in notes:
            display.say(note)
        # SSIM takes longer than all else, which the pictures of a clip would add up to.
        measures = is_page and not args.clip
        shown = moments(sources, leading, times, scores=measures, tell=display.phase)
        if is_page:
            text, count = page(
                sources,
                shown,
                scaler=args.scaler,
                quality=args.quality,
                notes=notes,
                is_clip=bool(args.clip),
            )
            data = text.encode()
        else:
            picture, count = still(sources, shown, len(times), args.scaler)
            display.phase("writing the picture", 1)
            data = png(picture)
        _write(args.out, data)
        what = f"{count} moments" if count > 1 else "1 moment"
        display.say(f"{len(sources)} sources at {what}, {size(len(data))}:")
    tell(str(args.out))
    return 0


def _write(out: Path, data: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        StorageError: It cannot be written.
    """
    from vs_vsr.job.folder import own_name

    beside = own_name(out)
    try:
        beside.write_bytes(data)
        os.replace(beside, out)
    except OSError as e:
        beside.unlink(missing_ok=True)
        raise StorageError(
            f"{out} cannot be written ({e.strerror}). Make room there, or choose another place."
        ) from None


def _check(args: argparse.Namespace) -> None:
    """What can be wrong before a file is opened.

    Raises:
        ArgumentError: An option breaks its rule.
    """
    count = len(args.sources)
    if not 2 <= count <= _MOST_SOURCES:
        raise ArgumentError(
            f"sources must be two to {_MOST_SOURCES} files, got {count}. "
            + ("Name a second one." if count < 2 else "Leave some out.")
        )
    suffix = args.out.suffix.lower()
    if suffix not in (".html", ".htm", ".png"):
        raise ArgumentError(
            f"out must end in .html or .png, got {args.out}. Write --out compare.html."
        )
    if suffix == ".png":
        for name in ("clip", "quality"):
            if getattr(args, name) is not None:
                raise ArgumentError(
                    f"{name} must be left out for a PNG, got it with --out {args.out}. Write a "
                    "page: --out compare.html"
                )
    if args.quality is not None and args.quality not in _QUALITIES:
        raise ArgumentError(
            f"quality must be {_QUALITIES[0]} (best) to {_QUALITIES[-1]}, got {args.quality}. "
            "Leave it out for PNG, which loses nothing."
        )
    if not args.out.absolute().parent.is_dir():
        raise ArgumentError(
            f"out must be in a folder that exists, got {args.out}. Make {args.out.parent} first."
        )
    for source in args.sources:
        if args.out.exists() and source.exists() and args.out.samefile(source):
            raise ArgumentError(
                f"out must be another file than the sources, got {args.out}. Choose another name."
            )
    if args.out.exists() and not args.force:
        raise ArgumentError(
            f"out must be a new file, got {args.out}, which exists. Choose another name, or add "
            "--force to overwrite it."
        )


def _times(
    args: argparse.Namespace, sources: "list[Source]", *, is_page: bool
) -> "tuple[Source, list[Fraction]]":
    """The source whose pictures the moments are, and when these are."""
    from vs_vsr.compare.moments import clip_times, first_moving, given_times, spread_times

    if args.clip:
        start, end = (seconds(text, "clip") for text in args.clip)
        return clip_times(sources, start, end)
    if args.at:
        times = given_times(sources, [seconds(text, "at") for text in args.at])
    else:
        usual = _PAGE_FRAMES if is_page else _STILL_FRAMES
        times = spread_times(sources, usual if args.frames is None else args.frames)
    return first_moving(sources), times


def _tell_apart(paths: list[Path], sources: "list[Source]") -> None:
    """Give sources of the same name that of their folder too."""
    count = Counter(source.name for source in sources)
    for path, source in zip(paths, sources, strict=True):
        if count[source.name] > 1:
            source.name = f"{path.absolute().parent.name}/{path.name}"


def _notes(sources: "list[Source]", scaler: str) -> list[str]:
    """What the user should know of what is shown."""
    from vs_vsr.compare.sources import shown_size

    width, height = shown_size(sources)
    notes = [source.note for source in sources if source.note]
    smaller = [s for s in sources if (s.width, s.height) != (width, height)]
    if smaller:
        names = " and ".join(f"{s.name} ({s.width}x{s.height})" for s in smaller)
        how = "nearest neighbour, so that you see its pixels" if scaler == "nearest" else "bicubic"
        notes.append(f"Enlarged to {width}x{height} by {how}: {names}.")
    for source in sources:
        shape = source.width * source.aspect / source.height
        if abs(shape * height / width - 1) > _SHAPES_DIFFER:
            notes.append(
                f"{source.name} has another shape than the largest one, and is stretched to it."
            )
    return notes
