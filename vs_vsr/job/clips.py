"""The pictures of a job as a clip: the source, what is done to it first, the filter, the size."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import vapoursynth as vs
from vapoursynth import core

from vs_vsr.errors import JobError
from vs_vsr.job.fields import deinterlaced
from vs_vsr.job.plan import JobPlan
from vs_vsr.job.times import mended

__all__ = ["Opened", "before", "open_source", "pictures", "planes", "prepared"]


@dataclass(frozen=True)
class Opened:
    """A source as BestSource reads it."""

    clip: vs.VideoNode
    times: tuple[int, ...]
    """When each frame is shown, in units of `time_base`, ascending."""
    time_base: Fraction
    """Seconds."""
    note: str
    """What the user should know of the times, or ""."""


def open_source(path: str, track: int, index: Path) -> Opened:
    """Read a file. The first time it is decoded as a whole, to index it.

    Args:
        path: The file.
        track: Index of its video stream.
        index: Where the index is kept, without its suffix.

    Raises:
        JobError: It cannot be read, or its times do not rise.
    """
    try:
        # Mode 4 keeps the index under exactly this name, so that every process finds it. Rotation
        # is left to the player, and repeated fields are no frames. Names go as bytes, because they
        # need not be text.
        with _quiet():
            answer = core.bs.VideoSource(
                os.fsencode(path),
                track=track,
                cachemode=4,
                cachepath=os.fsencode(index),
                exporttimestamps=1,
                apply_rotation=0,
                rff=0,
            )
    except vs.Error as e:
        raise JobError(
            f"{path} cannot be decoded ({str(e).removeprefix('VideoSource: ')}). Check that it "
            "plays, or give a copy of it that does."
        ) from None
    if not isinstance(answer, dict):  # one frame has no times
        return Opened(answer, (0,), Fraction(1, 1000), "")
    base = Fraction(answer["timebasenum"], answer["timebaseden"])
    times = answer["timestamps"]
    times = (times,) if isinstance(times, int) else tuple(times)
    clip = answer["clip"]
    # The clip's rate is that of the pictures' own headers, which raw streams have alone.
    return Opened(clip, *mended(times, base, clip.fps))


@contextmanager
def _quiet() -> Iterator[None]:
    """Standard error goes nowhere.

    The core writes there that BestSource 22 gives back more than it has declared, which is nothing
    that a user could do something about.
    """
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def prepared(clip: vs.VideoNode, picture_format: str) -> vs.VideoNode:
    """The clip with at least the bit depth of the pictures, so that none is lost on the way back.

    Args:
        clip: The source, progressive.
        picture_format: VapourSynth's name of the format of the pictures.
    """
    wanted = core.get_video_format(getattr(vs, picture_format))
    now = clip.format
    if wanted.bits_per_sample <= now.bits_per_sample or now.sample_type == vs.FLOAT:
        return clip
    return clip.resize.Point(format=now.replace(bits_per_sample=wanted.bits_per_sample).id)


def _marked(clip: vs.VideoNode, cuts: Sequence[int]) -> vs.VideoNode:
    """The clip with `_SceneChangePrev` on each frame: 1 on those of `cuts`, 0 on all others."""
    plain = clip.std.SetFrameProps(_SceneChangePrev=0, _SceneChangeNext=0)
    if not cuts:
        return plain
    begins = clip.std.SetFrameProps(_SceneChangePrev=1, _SceneChangeNext=0)
    where = frozenset(cuts)
    return plain.std.FrameEval(lambda n: begins if n in where else plain)


def _sized(clip: vs.VideoNode, plan: JobPlan) -> vs.VideoNode:
    """The filter's pictures in the size and format of the plan's."""
    recipe, changes = plan.recipe, dict[str, Any]()
    wanted = core.get_video_format(getattr(vs, recipe.format))
    if clip.format.id != wanted.id:
        changes["format"] = wanted.id
        if clip.format.color_family == vs.RGB and wanted.color_family != vs.RGB:
            changes |= {"matrix": plan.colour.matrix, "range": int(plan.colour.full_range)}
    if (clip.width, clip.height) != (recipe.width, recipe.height):
        return clip.resize.Lanczos(recipe.width, recipe.height, **changes)
    return clip.resize.Bicubic(**changes) if changes else clip


def pictures(plan: JobPlan, folder: Path, device: str, **changes: Any) -> vs.VideoNode:
    """All pictures of a job's clip; those that a part does not ask for are not computed.

    Args:
        plan: The job.
        folder: Its folder.
        device: Where the network runs, as the filters' `device`.
        changes: Arguments of the filter in place of the recipe's.

    Raises:
        JobError: The source is not what it was when the job was planned.
        VsrError: The filter cannot be made.
    """
    clip = _marked(_source(plan, folder), plan.cuts)
    recipe = plan.recipe
    arguments = {**recipe.arguments, "weights": recipe.weights, "device": device, **changes}
    return _sized(getattr(core.vsr, recipe.filter)(clip, **arguments), plan)


def before(plan: JobPlan, folder: Path) -> vs.VideoNode:
    """The source of each picture, enlarged to its size by interpolation.

    Raises:
        JobError: As for `pictures`.
    """
    clip = _source(plan, folder)
    if plan.recipe.frames_per_input > 1:
        clip = core.std.Interleave([clip] * plan.recipe.frames_per_input)
    return _sized(clip, plan)


def _source(plan: JobPlan, folder: Path) -> vs.VideoNode:
    """The source as the filter gets it, but for the marks of scene cuts."""
    recipe, source = plan.recipe, plan.source
    # The index is beside the job, for others on the same source.
    opened = open_source(source.path, source.track, folder.parent / source.packets[:16])
    if len(opened.clip) != source.frames:
        raise JobError(
            f"{source.path} had {source.frames} frames when the job was planned, and has "
            f"{len(opened.clip)} now. Run vs-vsr upscale again to make a new job."
        )
    clip = deinterlaced(opened.clip, recipe.deinterlace, top_first=recipe.top_field_first)
    return prepared(clip, recipe.format)


def planes(frame: vs.VideoFrame) -> "list[np.ndarray[Any, Any]]":
    """The planes of a frame, each (H, W), over the frame's own memory."""
    return [np.asarray(plane) for plane in frame]
