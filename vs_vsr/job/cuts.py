"""Where scenes begin: looked for once, so that every machine and every part has the same answer."""

import json
import os
from collections.abc import Callable
from importlib.metadata import version
from itertools import batched
from pathlib import Path

import torch
import vapoursynth as vs

from vs_vsr.job.clips import planes
from vs_vsr.streaming.scenes import Marks, cuts

__all__ = ["cuts_between", "cuts_of_film"]

# Frames that are compared at once.
_AT_ONCE = 16

_Tell = Callable[[str, float], None]


def cuts_of_film(
    clip: vs.VideoNode, matrix: int, index: Path, what: str, tell: _Tell
) -> tuple[int, ...]:
    """Every frame with which a scene begins, as the filters find it with scenes="detect".

    Args:
        clip: What the filter will read.
        matrix: Of frames that name none.
        index: The index of the source; the cuts are kept beside it for the next time.
        what: What else the frames depend on.
        tell: Told how far this is.
    """
    path = _file(index)
    key, known = _key(clip, matrix, what), _known(path)
    if key not in known:
        known = {key: cuts_between(clip, matrix, 0, len(clip), tell)}
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(known))
        os.replace(temporary, path)
    return tuple(known[key])


def cuts_between(clip: vs.VideoNode, matrix: int, first: int, last: int, tell: _Tell) -> list[int]:
    """Those among the frames from `first` to `last` (half open), without `first` itself."""
    # Only where no frame names its matrix; colour.matrix is the one that they name otherwise.
    changes = {"matrix_in": matrix} if clip.format.color_family != vs.RGB else {}
    rgb = clip[first:last].resize.Bicubic(format=vs.RGBS, **changes)
    pictures = (_tensor(frame) for frame in rgb.frames(close=True))
    before: tuple[torch.Tensor, Marks] | None = None
    found: list[int] = []
    done = first
    for batch in batched(pictures, _AT_ONCE):
        marks: list[Marks] = [(None, None)] * len(batch)
        found += sorted(done + t for t in cuts(batch, marks, "detect", before=before))
        before = batch[-1], marks[-1]
        done += len(batch)
        tell("looking for scene cuts", (done - first) / (last - first))
    return found


def _file(index: Path) -> Path:
    return index.with_name(f"{index.name}.cuts.json")


def _key(clip: vs.VideoNode, matrix: int, what: str) -> str:
    return f"{what} {matrix} {clip.format.name} {version('vs-vsr')}"


def _known(path: Path) -> dict[str, list[int]]:
    try:
        known: dict[str, list[int]] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return known


def _tensor(frame: vs.VideoFrame) -> torch.Tensor:
    """A frame in RGBS as (1, 3, H, W), [0, 1]."""
    rgb = torch.stack([torch.from_numpy(plane.copy()) for plane in planes(frame)])
    return rgb[None].clamp_(0, 1)
