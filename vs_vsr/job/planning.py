"""Makes the plan of a job: reads the source, and settles all that is left open."""

import hashlib
import json
import os
import shutil
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.metadata import version
from itertools import batched, pairwise
from pathlib import Path

import torch
import vapoursynth as vs
from vapoursynth import core

from vs_vsr.errors import JobError, StorageError
from vs_vsr.job.clips import Opened, open_source, planes, prepared
from vs_vsr.job.encoders import check_container, encoder, lost_in
from vs_vsr.job.exact import kind_here
from vs_vsr.job.fields import Fields, check, deinterlaced, look, times_after
from vs_vsr.job.join import dropped
from vs_vsr.job.plan import Colour, JobPlan, Recipe, Source
from vs_vsr.job.request import Request
from vs_vsr.job.source import SourceInfo, packets_hash, probe
from vs_vsr.plugin.arguments import MATRICES
from vs_vsr.plugin.contract import ClipInfo
from vs_vsr.plugin.plans import FILTERS
from vs_vsr.plugin.worker import Resolved, resolve
from vs_vsr.streaming.scenes import Marks, cuts

__all__ = ["make_plan"]


# Pictures in a part, about: two minutes of a fast GPU's work, half an hour of a slow machine's. A
# short clip has ten parts all the same, where its segments are that short.
_PART, _LEAST_PARTS = 480, 10
# Frames that are compared at once in the search for cuts.
_AT_ONCE = 16
_PQ, _HLG, _UNKNOWN = 16, 18, 2
_RGB = 0  # the matrix of pictures that are no YUV
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


def make_plan(request: Request, device: str, tell: _Tell) -> tuple[JobPlan, Path, list[str]]:
    """The plan of a job, its folder, where it is written, and what the user should know about it.

    Args:
        request: What the user asks for.
        device: Where the network will run, as the filters' `device`.
        tell: Told how far this is.

    Raises:
        VsrError: The source cannot be upscaled as it is asked.
    """
    try:
        return _make_plan(request, device, tell)
    except BaseException:
        # A source that is refused leaves nothing behind.
        folder = Path(request.folder)
        if folder == Path(f"{request.out}.job") and not any(folder.glob("*/plan.json")):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _make_plan(request: Request, device: str, tell: _Tell) -> tuple[JobPlan, Path, list[str]]:
    """As `make_plan`."""
    reading = _read(request, tell)
    info, opened, fields = reading.info, reading.opened, reading.fields
    times, last_duration = times_after(
        request.deinterlace, opened.times, _last_duration(opened, info.rate)
    )
    picture_format = _picture_format(opened.clip.format, request, info.colour.transfer)
    clip = deinterlaced(opened.clip, request.deinterlace, top_first=fields.top_first)
    clip = prepared(clip, picture_format)

    values = {**request.arguments, "device": device}
    resolved = resolve(request.filter, values, _clip_info(clip, info.rate))
    width, height, sample_aspect = _size(request, info, clip, resolved)
    colour = _colour(info.colour, clip, picture_format, resolved, request.arguments)
    rate, base = resolved.frames_per_input, opened.time_base
    if rate > 1:
        times, last_duration, base = _doubled(times, last_duration, base)
    first, last = _range(request, times, base)
    made = encoder(
        request.encoder,
        crf=request.crf,
        preset=request.encoder_preset or None,
        threads=request.threads or min(os.cpu_count() or 1, _ENCODER_THREADS),
        options=request.encoder_options,
        picture_format=picture_format,
        colour=colour,
        width=width,
        height=height,
        rate=info.rate * rate,
    )
    check_container(Path(request.out), made, sample_aspect)
    notes = [
        *_about(info, opened.clip),
        *filter(None, (fields.note, resolved.message)),
        *dropped(info, Path(request.out)),
        *lost_in(made, colour),
    ]
    recipe = Recipe(
        filter=request.filter,
        weights=_weights(request, resolved),
        weights_sha256=_sha256(resolved.weights),
        arguments=_arguments(request, resolved, colour),
        deinterlace=request.deinterlace,
        top_field_first=fields.top_first,
        frames_per_input=rate,
        width=width,
        height=height,
        format=picture_format,
    )
    plan = JobPlan(
        source=_source(reading),
        recipe=recipe,
        encoder=made,
        colour=colour,
        sample_aspect=sample_aspect,
        rotation=info.rotation,
        time_base=(base.numerator, base.denominator),
        times=tuple(times),
        last_duration=last_duration,
        # Last, as it takes longest: all that can be refused is refused before.
        cuts=_cuts(request, reading.index, clip, colour.matrix, tell),
        parts=_parts(first, last, len(times), rate * resolved.segment),
        versions=kind_here(device).versions,
        out=request.out,
    )
    folder = Path(request.folder) / plan.name
    folder.mkdir(parents=True, exist_ok=True)
    plan.save(folder)
    return plan, folder, notes


def _read(request: Request, tell: _Tell) -> _Reading:
    """Read the source, and refuse one that is interlaced.

    Raises:
        JobError: It cannot be read, or has to be deinterlaced.
    """
    tell("reading the file", 0)
    info = probe(Path(request.source))
    packets = packets_hash(info.path, info.track)
    folder = Path(request.folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StorageError(
            f"The folder of the job, {folder}, cannot be made ({e.strerror}). Name another with "
            "--job."
        ) from None
    index = folder / packets[:16]
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
    if info.colour.transfer in (_PQ, _HLG):
        name = "PQ" if info.colour.transfer == _PQ else "HLG"
        yield f"HDR ({name}) goes through as it is: same codes, same tags, 10 bits."
    if (clip.width, clip.height) != (info.width, info.height):
        yield (
            f"Pictures of {info.width}x{info.height} are read as {clip.width}x{clip.height}: "
            "VapourSynth has none of an odd size with chroma of half the size."
        )


def _last_duration(opened: Opened, rate: Fraction) -> int:
    """How long the last picture is shown, which files often do not say: as the one before."""
    if len(opened.times) > 1:
        return max(opened.times[-1] - opened.times[-2], 1)
    return max(round(1 / rate / opened.time_base), 1) if rate else 1


def _doubled(
    times: Sequence[int], last_duration: int, base: Fraction
) -> tuple[list[int], int, Fraction]:
    """Times with another picture half-way to the next, in half the unit."""
    following = [*times[1:], times[-1] + last_duration]
    both = [t for now, then in zip(times, following, strict=True) for t in (2 * now, now + then)]
    return both, last_duration, base / 2


def _picture_format(source: vs.VideoFormat, request: Request, transfer: int) -> str:
    """VapourSynth's name of the format of the pictures."""
    name, family, bits = request.encoder, source.color_family, source.bits_per_sample
    lossless = name == "ffv1"
    if source.sample_type == vs.FLOAT:
        bits = 16
    most = 16 if lossless else 10
    wanted = request.bits or (
        10 if transfer in (_PQ, _HLG) else 8 if bits <= 8 else min(bits, most)
    )
    if wanted not in (8, 10, 12, 16) or wanted > (16 if lossless else 12):
        raise JobError(f"bits must be 8, 10 or 12, or 16 for ffv1, got {wanted}. Use 10.")
    if family == vs.GRAY:
        return f"GRAY{wanted}" if name != "av1" else f"YUV420P{wanted}"
    if family == vs.RGB:
        if lossless:
            return f"RGB{3 * wanted}"
        return f"YUV4{20 if name == 'av1' else 44}P{wanted}"
    across, down = source.subsampling_w, source.subsampling_h
    kept = {(0, 0): "444", (1, 0): "422", (1, 1): "420"}.get((across, down), "444")
    return f"YUV{'420' if name == 'av1' else kept}P{wanted}"


def _clip_info(clip: vs.VideoNode, rate: Fraction) -> ClipInfo:
    return ClipInfo(
        width=clip.width,
        height=clip.height,
        num_frames=len(clip),
        format=int(clip.format.id),
        fps_num=rate.numerator,
        fps_den=rate.denominator,
    )


def _size(
    request: Request, info: SourceInfo, clip: vs.VideoNode, resolved: Resolved
) -> tuple[int, int, tuple[int, int]]:
    """Width and height of the pictures, and the aspect of their pixels."""
    aspect = Fraction(*info.sample_aspect)
    width, height = Fraction(resolved.scale * clip.width), Fraction(resolved.scale * clip.height)
    size = request.size.lower()
    if size:
        numbers = size.removesuffix("x" if size.count("x") == 1 else "").removesuffix("p")
        both = size.split("x")
        try:
            if size.endswith("x"):
                scale = Fraction(numbers)
                width, height = scale * clip.width, scale * clip.height
            elif size.endswith("p"):
                scale = Fraction(int(numbers), clip.height)
                width, height = scale * clip.width, scale * clip.height
            else:
                width, height = (Fraction(int(side)) for side in both)
                # The picture keeps its shape on the screen.
                aspect *= (clip.width * height) / (clip.height * width)
        except (ValueError, ZeroDivisionError):
            raise _bad_size(request.size) from None
    if request.square_pixels:
        width, aspect = width * aspect, Fraction(1)
    # Chroma of half the size needs even sides.
    sides = [2 * round(side / 2) for side in (width, height)]
    if not all(16 <= side <= 16384 for side in sides):
        raise _bad_size(request.size or f"{sides[0]}x{sides[1]}")
    return sides[0], sides[1], (aspect.numerator, aspect.denominator)


def _bad_size(size: str) -> JobError:
    return JobError(
        f'size must be a factor ("2x"), a height ("1080p") or "WIDTHxHEIGHT", with sides from 16 '
        f'to 16384, got "{size}". Leave it out for what the network makes.'
    )


def _colour(
    source: Colour,
    clip: vs.VideoNode,
    picture_format: str,
    resolved: Resolved,
    arguments: Mapping[str, object],
) -> Colour:
    """The source's, with the matrix that is used where it names none."""
    if picture_format.startswith("RGB"):
        return replace(source, matrix=_RGB, full_range=True)
    if clip.format.color_family == vs.RGB:
        # Where the pictures are YUV, players take BT.709 for this size.
        return replace(source, matrix=MATRICES["709"], full_range=False)
    if source.matrix not in (_RGB, _UNKNOWN, 3):
        return source
    matrix = int(resolved.arguments["matrix"])
    if "matrix" not in arguments and source.transfer in (_PQ, _HLG):
        matrix = MATRICES["2020ncl"]
    return replace(source, matrix=matrix)


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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cuts(
    request: Request, index: Path, clip: vs.VideoNode, matrix: int, tell: _Tell
) -> tuple[int, ...]:
    """The scene cuts of the whole film; kept beside the index for the next time."""
    if request.arguments.get("scenes", "auto") == "off":
        return ()
    key = f"{request.deinterlace} {matrix} {clip.format.name} {version('vs-vsr')}"
    path = index.with_name(f"{index.name}.cuts.json")
    try:
        known: dict[str, list[int]] = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}
    if key not in known:
        known = {key: list(_found_cuts(clip, matrix, tell))}
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(known))
        os.replace(temporary, path)
    return tuple(known[key])


def _found_cuts(clip: vs.VideoNode, matrix: int, tell: _Tell) -> Iterator[int]:
    """Every frame with which a scene begins, as the filters find it with scenes="detect"."""
    changes = {"matrix_in": matrix} if clip.format.color_family != vs.RGB else {}
    rgb = clip.resize.Bicubic(format=vs.RGBS, **changes)
    pictures = (_tensor(frame) for frame in rgb.frames(close=True))
    before: tuple[torch.Tensor, Marks] | None = None
    done = 0
    for batch in batched(pictures, _AT_ONCE):
        marks: list[Marks] = [(None, None)] * len(batch)
        yield from sorted(done + t for t in cuts(batch, marks, "detect", before=before))
        before = batch[-1], marks[-1]
        done += len(batch)
        tell("looking for scene cuts", done / len(clip))


def _tensor(frame: vs.VideoFrame) -> torch.Tensor:
    """A frame in RGBS as (1, 3, H, W), [0, 1]."""
    return torch.stack([torch.from_numpy(plane.copy()) for plane in planes(frame)])[None].clamp_(
        0, 1
    )


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


def _parts(first: int, last: int, count: int, segment: int) -> tuple[tuple[int, int], ...]:
    """Parts of whole segments; only the first and the last are cut by what is wanted.

    Their borders follow from the clip's length alone, so that another machine, or another range of
    the clip, makes the same parts.
    """
    wanted = min(_PART, count // _LEAST_PARTS)
    length = max(round(wanted / segment), 1) * segment
    borders = [first, *range((first // length + 1) * length, last, length), last]
    return tuple(pairwise(borders))
