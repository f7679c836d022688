"""Makes the plan of a job: reads the source, and settles all that is left open."""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import vapoursynth as vs
from vapoursynth import core

from vs_vsr.errors import JobError, StorageError
from vs_vsr.job.clips import Opened, open_source, prepared
from vs_vsr.job.cuts import cuts_between, cuts_of_film
from vs_vsr.job.encoders import check_container, encoder, lost_in
from vs_vsr.job.exact import kind_here
from vs_vsr.job.fields import Fields, check, deinterlaced, look, times_after
from vs_vsr.job.join import dropped
from vs_vsr.job.plan import Colour, JobPlan, Recipe, Source
from vs_vsr.job.request import Request
from vs_vsr.job.shape import (
    HLG,
    PQ,
    colour_of,
    doubled,
    last_duration,
    picture_format,
    size_of,
)
from vs_vsr.job.source import SourceInfo, packets_hash, probe
from vs_vsr.plugin.arguments import MATRICES
from vs_vsr.plugin.contract import ClipInfo
from vs_vsr.plugin.plans import FILTERS
from vs_vsr.plugin.worker import Resolved, resolve
from vs_vsr.weights.store import obtain, sha256_of

__all__ = ["make_plan", "plan_preview"]


# Pictures in a part, about; fewer where they are larger than 640x360, so that parts have about as
# many pixels: a stop loses the part in hand. A short clip has ten parts all the same. Where a
# segment is longer than all this, it is a part.
_PART, _PART_PIXELS, _LEAST_PARTS = 480, 480 * 640 * 360, 10
# What a picture depends on beside these is less than this many frames away (IconVSR's windows).
_LENGTHS, _CONTEXT = ("chunk", "lookahead", "segment", "preroll"), 16
# More gain little, and pictures of x264 and x265 depend on the number.
_ENCODER_THREADS = 8


_Tell = Callable[[str, float], None]
"""Told what is being done, and how much of it is, from 0 to 1."""


@dataclass(frozen=True)
class _Reading:
    """What is known of a source once it is read."""

    info: SourceInfo
    packets: str
    index: Path
    """Of BestSource, without its suffix."""
    opened: Opened
    fields: Fields


@dataclass(frozen=True)
class _Draft:
    """A plan that is settled but for the cuts, whose search takes longest."""

    plan: JobPlan
    clip: vs.VideoNode
    """What the filter will read."""
    index: Path
    notes: list[str]


def make_plan(request: Request, device: str, tell: _Tell) -> tuple[JobPlan, Path, list[str]]:
    """The plan of a job, its folder, where it is written, and what the user should know about it.

    Args:
        request: What the user asks for.
        device: Where the network will run, as the filters' `device`.
        tell: Told how far this is.

    Raises:
        VsrError: The source cannot be upscaled as it is asked.
    """
    draft = _draft(request, device, tell)
    plan = draft.plan
    if plan.recipe.arguments["scenes"] != "off":
        matrix, index = plan.colour.matrix, draft.index
        cuts = cuts_of_film(draft.clip, matrix, index, request.deinterlace, tell)
        plan = replace(plan, cuts=cuts)
    folder = Path(request.folder) / plan.name
    folder.mkdir(parents=True, exist_ok=True)
    plan.save(folder)
    return plan, folder, draft.notes


def plan_preview(
    request: Request, times: Sequence[Fraction], device: str, tell: _Tell
) -> tuple[JobPlan, list[int], list[str]]:
    """A plan for a few pictures, whose cuts are looked for only as far as these depend on them.

    Args:
        request: What the user asks for.
        times: Of the pictures, in seconds from the first one of the file; if there are none, at
            quarters of the file.
        device: As for `make_plan`.
        tell: As for `make_plan`.

    Returns:
        The plan; the pictures that are shown at these times; what the user should know.

    Raises:
        VsrError: As for `make_plan`.
    """
    draft = _draft(request, device, tell)
    plan = draft.plan
    start, end = plan.times[plan.first], plan.times[plan.last - 1]
    offsets = [t / plan.unit for t in times] or [Fraction(end - start, 4) * k for k in (1, 2, 3)]
    shown = [bisect_right(plan.times, start + offset) - 1 for offset in offsets]
    numbers = sorted({min(max(n, plan.first), plan.last - 1) for n in shown})
    if plan.recipe.arguments["scenes"] != "off":
        cuts: set[int] = set()
        for number in numbers:
            first, last = _reach(plan, number // plan.recipe.frames_per_input, len(draft.clip))
            cuts.update(cuts_between(draft.clip, plan.colour.matrix, first, last, tell))
        plan = replace(plan, cuts=tuple(sorted(cuts)))
    return plan, numbers, draft.notes


def _reach(plan: JobPlan, frame: int, frames: int) -> tuple[int, int]:
    """The frames from which a picture may be made, at most: first, and the one after the last."""
    lengths = {k: int(v) for k, v in plan.recipe.arguments.items() if k in _LENGTHS}
    chunk = lengths.get("chunk") or frames
    around = chunk + lengths.get("lookahead", 0) + lengths.get("preroll", 0) + _CONTEXT
    start = frame - frame % (lengths.get("segment") or chunk)
    return max(start - around, 0), min(frame + around, frames)


def _draft(request: Request, device: str, tell: _Tell) -> _Draft:
    """Settle all but the cuts."""
    tell("reading the file", 0)
    info = probe(Path(request.source))
    _check_early(request, info)
    packets = packets_hash(info.path, info.track)
    folder = Path(request.folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StorageError(
            f"The folder of the job, {folder}, cannot be made ({e.strerror}). Name another with "
            "--job."
        ) from None
    try:
        return _settled(request, _read(request, info, packets, tell), device)
    except BaseException:
        # A source that is refused leaves nothing behind.
        if not any(folder.glob("*/plan.json")):
            for path in folder.glob(f"{packets[:16]}.*"):
                path.unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()  # only if it is empty
        raise


def _check_early(request: Request, info: SourceInfo) -> None:
    """Refuse what needs no picture to be decoded: a film takes minutes to index.

    Raises:
        VsrError: An option breaks its rule.
    """
    check(Fields("progressive", top_first=True, note=""), request.deinterlace)
    if "weights" in request.arguments:
        obtain(str(request.arguments["weights"]), request.filter)
    # Of a size that every encoder takes: the pictures' own is not known yet.
    made = encoder(
        request.encoder,
        crf=request.crf,
        preset=request.encoder_preset or None,
        threads=request.threads or 1,
        options=request.encoder_options,
        picture_format="YUV420P8",
        colour=info.colour,
        width=640,
        height=360,
        rate=info.rate,
    )
    check_container(Path(request.out), made, (1, 1))


def _settled(request: Request, reading: _Reading, device: str) -> _Draft:
    info, opened, fields = reading.info, reading.opened, reading.fields
    format_name = picture_format(opened.clip.format, request, info.colour.transfer)
    clip = deinterlaced(opened.clip, request.deinterlace, top_first=fields.top_first)
    clip = prepared(clip, format_name)
    values = {**request.arguments, "device": device}
    resolved = resolve(request.filter, values, _clip_info(clip, info.rate))
    width, height, sample_aspect = size_of(request, info, clip, resolved)
    colour = colour_of(info.colour, clip, format_name, resolved, request.arguments)

    base, rate = opened.time_base, resolved.frames_per_input
    last_shown = last_duration(opened.times, base, info.rate)
    times, last_shown = times_after(request.deinterlace, opened.times, last_shown)
    if rate > 1:
        times, last_shown, base = doubled(times, last_shown, base)
    first, last = _range(request, times, base)
    made = encoder(
        request.encoder,
        crf=request.crf,
        preset=request.encoder_preset or None,
        threads=request.threads or min(os.cpu_count() or 1, _ENCODER_THREADS),
        options=request.encoder_options,
        picture_format=format_name,
        colour=colour,
        width=width,
        height=height,
        rate=info.rate * rate,
    )
    check_container(Path(request.out), made, sample_aspect)
    plan = JobPlan(
        source=_source(reading),
        recipe=Recipe(
            filter=request.filter,
            weights=_weights(request, resolved),
            weights_sha256=sha256_of(resolved.weights),
            arguments=_arguments(request, resolved, colour),
            deinterlace=request.deinterlace,
            top_field_first=fields.top_first,
            frames_per_input=rate,
            width=width,
            height=height,
            format=format_name,
        ),
        encoder=made,
        colour=colour,
        sample_aspect=sample_aspect,
        rotation=info.rotation,
        time_base=(base.numerator, base.denominator),
        times=tuple(times),
        last_duration=last_shown,
        cuts=(),
        parts=_parts(
            *(first, last, len(times)),
            segment=rate * resolved.segment,
            pixels=clip.width * clip.height,
        ),
        versions=kind_here(device).versions,
        out=request.out,
    )
    notes = [
        *_about(info, opened.clip),
        *filter(None, (opened.note, fields.note, resolved.message)),
        *dropped(info, Path(request.out)),
        *lost_in(made, colour),
    ]
    return _Draft(plan, clip, reading.index, notes)


def _read(request: Request, info: SourceInfo, packets: str, tell: _Tell) -> _Reading:
    """Read the source, and refuse one that is interlaced.

    Raises:
        JobError: It cannot be decoded, or has to be deinterlaced.
    """
    index = Path(request.folder) / packets[:16]
    tell("indexing the pictures", 0)
    opened = open_source(str(info.path), info.track, index)
    tell("looking for interlaced pictures", 0)
    if request.progressive:
        fields = Fields("progressive", top_first=True, note="")
    else:
        fields = look(opened.clip, info.field_order)
    check(fields, request.deinterlace)
    return _Reading(info, packets, index, opened, fields)


def _source(reading: _Reading) -> Source:
    info = reading.info
    stat = info.path.stat()
    return Source(
        path=str(info.path),
        size=stat.st_size,
        modified_ns=stat.st_mtime_ns,
        packets=reading.packets,
        track=info.track,
        width=info.width,
        height=info.height,
        frames=len(reading.opened.clip),
    )


def _about(info: SourceInfo, clip: vs.VideoNode) -> Iterator[str]:
    """What may surprise about the pictures."""
    if info.colour.transfer in (PQ, HLG):
        name = "PQ" if info.colour.transfer == PQ else "HLG"
        yield f"HDR ({name}) goes through as it is: same codes, same tags, 10 bits."
    if (clip.width, clip.height) != (info.width, info.height):
        yield (
            f"Pictures of {info.width}x{info.height} are read as {clip.width}x{clip.height}: "
            "VapourSynth has no odd sizes with chroma of half the size."
        )


def _clip_info(clip: vs.VideoNode, rate: Fraction) -> ClipInfo:
    return ClipInfo(
        width=clip.width,
        height=clip.height,
        num_frames=len(clip),
        format=int(clip.format.id),
        fps_num=rate.numerator,
        fps_den=rate.denominator,
    )


def _arguments(
    request: Request, resolved: Resolved, colour: Colour
) -> dict[str, int | float | str]:
    """Those of the filter on which pictures depend, none left to a default."""
    signature = getattr(core.vsr, request.filter).signature
    names = {argument.partition(":")[0] for argument in signature.split(";")}
    given = {k: v for k, v in request.arguments.items() if k != "weights"}
    found = {name: value for name, value in resolved.arguments.items() if name in names}
    scenes = "off" if request.arguments.get("scenes") == "off" else "props"
    # Of RGB the filter needs none, but it takes no other name for that.
    matrix = colour.matrix or MATRICES["709"]
    return {**given, **found, "scenes": scenes, "matrix": str(matrix)}


def _weights(request: Request, resolved: Resolved) -> str:
    """The published name, as another machine has the file elsewhere; else the file."""
    name = str(request.arguments.get("weights", FILTERS[request.filter].defaults.weights))
    is_file = Path(name).expanduser().is_file()
    return str(resolved.weights.resolve()) if is_file else name


def _range(request: Request, times: Sequence[int], base: Fraction) -> tuple[int, int]:
    """The first picture that is wanted, and the one after the last."""
    length = float((times[-1] - times[0]) * base)
    first, last = (
        len(times) if second is None else bisect_left(times, times[0] + second / base)
        for second in (request.start or Fraction(0), request.end)
    )
    if first >= last:
        asked = [request.start or 0, "the end" if request.end is None else request.end]
        start, end = (x if isinstance(x, str) else f"{float(x):g}" for x in asked)
        raise JobError(
            f"start and end must have pictures between them, got {start} and {end} of a video of "
            f"{length:.3f} s. Give them in seconds, the start first."
        )
    return first, last


def _parts(
    first: int, last: int, count: int, *, segment: int, pixels: int
) -> tuple[tuple[int, int], ...]:
    """Parts of whole segments; only the first and the last are cut by what is wanted.

    Their borders follow from the clip's length and size alone, so that another machine, or another
    range of the clip, makes the same parts.
    """
    wanted = min(_PART, _PART_PIXELS // pixels, count // _LEAST_PARTS)
    length = max(round(wanted / segment), 1) * segment
    borders = [first, *range((first // length + 1) * length, last, length), last]
    return tuple(pairwise(borders))
