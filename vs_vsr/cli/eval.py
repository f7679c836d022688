"""`vs-vsr eval`: PSNR and SSIM of a filter's pictures, as the papers of this field take them."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vs_vsr import filters
from vs_vsr.cli.answers import Commands, add_command, tell
from vs_vsr.weights.registry import named_filter

if TYPE_CHECKING:
    from vapoursynth import VideoNode

    from vs_vsr.evaluation.clips import Clip
    from vs_vsr.evaluation.measure import Pair, Scores

__all__ = ["add"]

_DEGRADATIONS = ("BI", "BD", "none")

# Arguments of a filter that pictures depend on, of which several values may be compared.
_COMPARED: dict[str, tuple[Callable[[str], Any], str]] = {
    "weights": (str, "published names or files"),
    "precision": (str, "fp32, bf16 or fp16"),
    "chunk": (int, "frames computed together; 0 is the whole clip, as in the papers"),
    "lookahead": (int, "frames after a chunk that are seen"),
    "segment": (int, "frames over which a state is carried"),
    "preroll": (int, "frames that warm a state up"),
    "tile": (int, "side of the spatial tiles in pixels; 0 is whole frames"),
    "scenes": (str, "where states stop: auto, props, detect or off"),
}

# One value of each that was given, by name.
type _Setting = dict[str, Any]
# A setting with its PSNR and SSIM.
type _Mean = tuple[_Setting, float, float]


@dataclass(frozen=True)
class _Row:
    """What was measured of one clip with one setting."""

    clip: str
    size: tuple[int, int]
    setting: _Setting
    scores: "Scores"


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "eval",
        _eval,
        "measure PSNR and SSIM of a filter against true frames, as the papers do",
    )
    parser.add_argument(
        "gt",
        nargs="+",
        type=Path,
        metavar="GT",
        help="the true frames: a folder of frames, a folder of such folders, or a video file",
    )
    parser.add_argument(
        "--filter", type=_filter, default="BasicVSR", help="as in core.vsr, default BasicVSR"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--degradation",
        type=_degradations,
        metavar="BI,BD,none",
        help="how the filter's input is made from GT: BI (MATLAB's bicubic, a quarter), BD "
        "(Gaussian of 1.6, a quarter) or none (GT itself)",
    )
    source.add_argument(
        "--input",
        type=Path,
        metavar="FOLDER",
        help="the filter's input as it is: frames, or a folder of them for each clip of GT",
    )
    for name, (kind, text) in _COMPARED.items():
        parser.add_argument(f"--{name}", type=_list_of(kind), metavar="A,B,…", help=text)
    parser.add_argument("--device", help="auto, cpu, cuda:0, …")
    parser.add_argument(
        "--space",
        choices=("y", "rgb"),
        default="y",
        help="what is compared: y (Vid4, UDM10, Vimeo-90K; the default) or rgb (REDS4)",
    )
    parser.add_argument(
        "--json", action="store_true", help="answer with JSON, which has every frame's figures too"
    )


def _filter(text: str) -> str:
    name = named_filter(text)
    # The registry also has parts of networks, which are no filters.
    if name is None or name.lower() not in filters.__all__:
        names = ", ".join(n for n in filters.__all__ if n.islower())
        raise argparse.ArgumentTypeError(
            f"must be one of {names}, got {text}. Choose one of these."
        )
    return name


def _degradations(text: str) -> list[str]:
    known = {name.lower(): name for name in _DEGRADATIONS}
    for name in text.split(","):
        if name.lower() not in known:
            raise argparse.ArgumentTypeError(
                f"must be one of {', '.join(_DEGRADATIONS)}, got {name}. Choose one of these."
            )
    return [known[name.lower()] for name in text.split(",")]


def _list_of(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def values(text: str) -> list[Any]:
        return [kind(value) for value in text.split(",")]

    # What argparse calls a value that is none.
    values.__name__ = f"list of {kind.__name__}"
    return values


def _eval(args: argparse.Namespace) -> int:
    # Imported here because they bring torch, VapourSynth and PyAV.
    from vs_vsr.evaluation.clips import find_clips, find_inputs

    clips = find_clips(args.gt)
    inputs = find_inputs(args.input, clips) if args.input else [None] * len(clips)
    settings = _settings(args)
    rows = list(_measure(args, list(zip(clips, inputs, strict=True)), settings))
    means = _means(rows, settings)
    if args.json:
        tell(json.dumps(_document(args, rows, means), indent=1))
    else:
        tell(*_table(rows, means if len(clips) > 1 else []))
    return 0


def _settings(args: argparse.Namespace) -> list[_Setting]:
    """Every combination of the values that were given; weights come first in the table."""
    given = {name: getattr(args, name) for name in ("weights", "degradation", *_COMPARED)}
    lists = {name: values for name, values in given.items() if values is not None}
    return [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]


def _measure(
    args: argparse.Namespace,
    clips: "Sequence[tuple[Clip, VideoNode | None]]",
    settings: Sequence[_Setting],
) -> Iterator[_Row]:
    """Measure every clip with every setting; the clips with their input, if it is given."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    from vs_vsr.evaluation.measure import scores

    # All of them once, so that what is wrong with the last one is told before the first one runs.
    for clip, low in clips:
        for setting in settings:
            pair = _pair(args, clip, low, setting)
        size, whole = _size(pair.truth), _size(clip.node)
        if size != whole:
            sys.stderr.write(
                f"{clip.name}: {size[0]}x{size[1]} of {whole[0]}x{whole[1]} pixels are measured. "
                "What is beyond a multiple of 4 is cut off, at the right and at the bottom.\n"
            )
    columns = (
        # What it is named gives way where the line is too short, so that the count never does.
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
        ),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), expand=True) as progress:
        frames = sum(len(clip.node) for clip, _ in clips)
        task = progress.add_task("", total=frames * len(settings))
        for clip, low in clips:
            for setting in settings:
                named = " ".join([clip.name, *map(str, setting.values())])
                progress.update(task, description=named)
                pair = _pair(args, clip, low, setting)
                found = scores(pair, args.space, lambda: progress.advance(task))
                # At once, so that a run which is stopped was not for nothing.
                psnr, ssim = _text(found.means)
                line = f"{named}: {psnr} dB, {ssim}"
                progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
                yield _Row(clip.name, _size(pair.truth), setting, found)


def _pair(
    args: argparse.Namespace, clip: "Clip", low: "VideoNode | None", setting: _Setting
) -> "Pair":
    from vs_vsr.evaluation.measure import low_resolution, pair

    arguments = {name: value for name, value in setting.items() if name != "degradation"}
    if args.device:
        arguments["device"] = args.device
    if low is None:
        kind = setting["degradation"]
        low = clip.node if kind == "none" else low_resolution(clip.node, kind)
    return pair(clip.node, low, args.filter, arguments)


def _size(node: "VideoNode") -> tuple[int, int]:
    return node.width, node.height


def _means(rows: Sequence[_Row], settings: Sequence[_Setting]) -> list[_Mean]:
    """Over the clips, each of which counts once."""
    means = []
    for setting in settings:
        values = zip(*(row.scores.means for row in rows if row.setting is setting), strict=True)
        psnr, ssim = (sum(v) / len(v) for v in values)
        means.append((setting, psnr, ssim))
    return means


def _table(rows: Sequence[_Row], means: Sequence[_Mean]) -> list[str]:
    """Lines of columns; words at the left of theirs, numbers at the right."""
    cells = [["clip", *rows[0].setting, "frames", "PSNR, dB", "SSIM"]]
    for row in rows:
        frames = str(len(row.scores.frames))
        cells.append([row.clip, *map(str, row.setting.values()), frames, *_text(row.scores.means)])
    for setting, *mean in means:
        cells.append(["mean", *map(str, setting.values()), "", *_text(mean)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    words = len(widths) - 3
    return [
        "  ".join(
            cell.ljust(width) if i < words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]


def _text(values: Sequence[float]) -> list[str]:
    return [f"{value:.4f}" for value in values]


def _document(
    args: argparse.Namespace, rows: Sequence[_Row], means: Sequence[_Mean]
) -> dict[str, Any]:
    """All of it; an infinite PSNR, of equal pictures, is null."""
    return {
        "versions": {name: version(name) for name in ("vs-vsr", "vapoursynth", "torch")},
        "filter": args.filter,
        "space": args.space,
        "input": None if args.input is None else str(args.input),
        "device": args.device or "auto",
        "clips": [
            {
                "clip": row.clip,
                "width": row.size[0],
                "height": row.size[1],
                **row.setting,
                **_named(*row.scores.means),
                "frames": [_named(*values) for values in row.scores.frames],
            }
            for row in rows
        ],
        "means": [{**setting, **_named(*mean)} for setting, *mean in means],
    }


def _named(psnr: float, ssim: float) -> dict[str, float | None]:
    return {"psnr": psnr if math.isfinite(psnr) else None, "ssim": ssim}
