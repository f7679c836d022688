"""The parts and everything else of the source, in one file. No picture is encoded again here.

Times of the joined pictures are the plan's. With T the times of all pictures as they are shown, i a
picture's place in coded order, and the delay the greatest number of places by which any picture is
coded too early, the decoding time of the i-th is T[i - delay]: it never decreases, over parts too.

    shown   0 1 2 3 | 4 5 6 7        coded   0 3 1 2 | 4 7 5 6        delay 2
"""

import hashlib
import heapq
import io
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.codeccontext import AudioCodecContext
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Discard, Disposition, Stream
from av.subtitles.codeccontext import SubtitleCodecContext
from av.video.stream import VideoStream

from vs_vsr.errors import JobError
from vs_vsr.job.encode import average_rate, sync, writing
from vs_vsr.job.folder import rename
from vs_vsr.job.plan import JobPlan
from vs_vsr.job.source import OtherStream, SourceInfo, media, packets, reading, seconds

__all__ = ["dropped", "join"]

_FORMATS = {
    ".mkv": "matroska",
    ".webm": "webm",
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
}
_MP4S = ("mp4", "mov")
_CODED = ("video", "audio", "subtitle")
# Subtitles that are text can become the text of the container, without their styling.
_TEXTS = ("ass", "ssa", "subrip", "srt", "mov_text", "webvtt", "text")
_TEXT_OF = {"matroska": "subrip", "webm": "webvtt", "mp4": "mov_text", "mov": "mov_text"}
# What another file's writer says of itself and of sizes that are no longer true.
_STALE = (
    *("encoder", "duration", "major_brand", "minor_version", "compatible_brands", "vendor_id"),
    *("bps", "number_of_frames", "number_of_bytes", "rotate", "_statistics_writing_app"),
    *("_statistics_writing_date_utc", "_statistics_tags", "source_id"),
)
# FFmpeg holds back packets that wait for those of a silent stream; in microseconds.
_INTERLEAVE = 1_000_000
# Of time scales, which are 32 bits wide in MP4.
_SCALE_MAX = 2**31 - 1
_AUDIO_RATE = 48000
# How much of the work each of the three passes is: measure, write, read back.
_PASSES = (0.2, 0.5, 0.3)

# PyAV's packets take a parameter in their stubs only.
type _Packet = Packet[Stream]


def dropped(source: SourceInfo, out: Path) -> list[str]:
    """What of a source is lost in a file, each in one line: empty for most.

    Args:
        source: The file.
        out: The file to write; its ending says of which kind.

    Raises:
        JobError: The source cannot be read.
    """
    lines = []
    if source.dolby_vision:
        lines.append("dropped: Dolby Vision (its base layer is kept)")
    if source.hdr10_plus:
        lines.append("dropped: HDR10+ (HDR10 is kept)")
    if source.mirrored:
        lines.append("dropped: the flag that makes players mirror the pictures")
    with reading(source.path), media(source.path) as container:
        lines += [
            line
            for other in source.others
            for line in _fate(container.streams[other.index], other, out, source.chapters > 0)[1]
        ]
    return lines


def join(
    plan: JobPlan, folder: Path, report: Callable[[float], None], *, force: bool = False
) -> Path:
    """Write the joined file beside its name, read it back, and rename it. The parts stay.

    Args:
        plan: The job.
        folder: Its folder, with all parts.
        report: Called with how much is done, from 0 to 1.
        force: Whether a file that has come to that name meanwhile is overwritten.

    Returns:
        The file.

    Raises:
        JobError: A part is missing or another's, the source cannot be read, the file cannot be
            written, or it is not what was put in. There is no half-written file then.
    """
    out = Path(plan.out)
    # Of this job alone: another one may write to the same name.
    temporary = out.with_name(f".{out.name}.{plan.name}.partial")
    # Its parts of the work one after the other, as one fraction.
    done = [sum(_PASSES[:n]) for n in range(3)]
    order = _measure(plan, folder, lambda x: report(done[0] + _PASSES[0] * x))
    with writing(temporary):
        written = _write(plan, folder, order, temporary, lambda x: report(done[1] + _PASSES[1] * x))
        sync(temporary)
        _verify(plan, temporary, written, lambda x: report(done[2] + _PASSES[2] * x))
        if out.exists() and not force:
            raise JobError(
                f"{out} must be a new file, got one that was made since the job began. Move it "
                "away, or add --force, and run the same command again: the parts are kept."
            )
        rename(temporary, out)
        # Some network folders cannot be synced; the file itself is.
        with suppress(OSError):
            sync(out.parent)
    report(1.0)
    return out


@dataclass(frozen=True)
class _Order:
    """How the packets of all parts follow each other."""

    shown: list[int]
    """The place as shown of each picture in coded order, over the whole file."""
    delay: int


@dataclass(frozen=True)
class _Written:
    """What the joined file must have."""

    packets: str
    """SHA-256 over the bytes of the pictures' packets."""
    origin: Fraction
    """The source's time that is the file's 0, in seconds."""
    kinds: Counter[str]
    """How many streams of each kind."""


@dataclass(frozen=True)
class _Copy:
    """A stream of the source on its way into the file."""

    source: Stream
    target: Stream
    converted: bool
    """Whether its packets are decoded and encoded: text."""


def _measure(plan: JobPlan, folder: Path, report: Callable[[float], None]) -> _Order:
    """Look through all parts for the order of their pictures, and that they fit together."""
    shown: list[int] = []
    delay = 0
    headers: bytes | None = None
    for part, (first, last) in enumerate(plan.parts):
        path = plan.part_file(folder, part)
        with _part(path) as (container, stream):
            extradata = stream.codec_context.extradata or b""
            headers = extradata if headers is None else headers
            if extradata != headers:
                raise JobError(
                    f"parts must have one codec header, got another in {path}. Delete that part, "
                    "and run the same command again, with the versions that made the others."
                )
            times = [packet.pts or 0 for packet in packets(container, stream)]
        if len(times) != last - first:
            raise JobError(
                f"{path} must have {last - first} pictures, got {len(times)}. Delete it, and run "
                "the same command again."
            )
        places = sorted(range(len(times)), key=times.__getitem__)
        place_of = {coded: place for place, coded in enumerate(places)}
        base = len(shown)
        shown += [base + place_of[coded] for coded in range(len(times))]
        delay = max(delay, *(coded - place_of[coded] for coded in range(len(times))))
        report((part + 1) / len(plan.parts))
    return _Order(shown, delay)


def _write(
    plan: JobPlan, folder: Path, order: _Order, path: Path, report: Callable[[float], None]
) -> _Written:
    out = Path(plan.out)
    kind = _FORMATS[out.suffix.lower()]
    unit = Fraction(1, plan.time_base[1])
    digest = hashlib.sha256()
    with (
        media(Path(plan.source.path)) as source,
        av.open(str(path), "w", format=kind, container_options=_options(kind, unit)) as target,
    ):
        video = source.streams[plan.source.track]
        origin, end = _range(plan, source)
        with _part(plan.part_file(folder, 0)) as (_, part):
            pictures = _picture_stream(plan, kind, part, target, video)
        pictures.time_base = unit
        copies, covers = _copies(plan, source, target, out)
        target.metadata.update(_metadata(source.metadata, kind))
        target.set_chapters(_chapters(source, origin, end, kind))
        kinds = Counter(_kind(c.target) for c in copies)
        kinds["video"] += 1
        kinds["attachment"] += covers
        target.start_encoding()
        streams = heapq.merge(
            _pictures(plan, folder, order, origin, pictures, digest),
            _others(Path(plan.source.path), source, copies, origin, end),
            key=lambda item: item[0],
        )
        written = 0
        for _, packet in streams:
            if packet.stream is pictures:
                written += 1
                if written % 100 == 0:
                    report(written / len(order.shown))
            target.mux_one(packet)
    return _Written(digest.hexdigest(), origin, kinds)


def _options(kind: str, unit: Fraction) -> dict[str, str]:
    options = {"max_interleave_delta": str(_INTERLEAVE)}
    if kind in _MP4S:
        # "strict" admits TrueHD and the like. The movie's scale is that of the gaps before streams:
        # by default 1 ms.
        scale = math.lcm(unit.denominator, _AUDIO_RATE)
        scale = scale if scale <= _SCALE_MAX else unit.denominator
        return options | {"strict": "-2", "movie_timescale": str(scale)}
    return options | {"default_mode": "passthrough"}


def _range(plan: JobPlan, source: InputContainer) -> tuple[Fraction, Fraction | None]:
    """The source's times in seconds that are the file's 0 and its end; None for all."""
    start = plan.times[plan.first] * plan.unit
    if plan.first > 0 or plan.last < len(plan.times):
        last = plan.last - 1
        return start, (plan.times[last] + plan.duration(last)) * plan.unit
    starts = [
        s.start_time * seconds(s.time_base)
        for s in source.streams
        if s.type in ("audio", "video") and s.start_time is not None and not _is_cover(s)
    ]
    return min([start, *starts]), None


def _picture_stream(
    plan: JobPlan, kind: str, part: VideoStream, target: OutputContainer, source: Stream
) -> VideoStream:
    """The stream of the joined pictures, with all that a container says of pictures."""
    stream: VideoStream = target.add_stream_from_template(part, opaque=True)
    context = stream.codec_context
    colour = plan.colour
    context.colorspace, context.color_primaries = colour.matrix, colour.primaries
    context.color_trc, context.color_range = colour.transfer, 2 if colour.full_range else 1
    context.chroma_sample_location = colour.chroma_location + 1
    context.sample_aspect_ratio = Fraction(*plan.sample_aspect)
    # A rate in the header is a promise that all pictures last as long.
    context.framerate = average_rate(plan) if _is_constant(plan) else Fraction(0)
    if kind in _MP4S and context.codec.canonical_name == "hevc":
        # FFmpeg's "hev1" does not play on Apple's devices.
        context.codec_tag = "hvc1"
    if plan.rotation:
        stream.set_display_rotation(-plan.rotation)
    stream.metadata.update(_metadata(source.metadata, kind))
    stream.disposition = source.disposition
    return stream


def _is_constant(plan: JobPlan) -> bool:
    """Whether each picture is where the average rate puts it, within the unit of times."""
    step = 1 / (average_rate(plan) * plan.unit)
    return all(abs(t - plan.times[0] - n * step) <= 1 for n, t in enumerate(plan.times))


def _copies(
    plan: JobPlan, source: InputContainer, target: OutputContainer, out: Path
) -> tuple[list[_Copy], int]:
    """The streams that the file takes beside the pictures, and how many covers it has got."""
    kind = _FORMATS[out.suffix.lower()]
    chapters = len(source.chapters()) > 0
    copies, covers = [], 0
    for stream in source.streams:
        if stream.index == plan.source.track:
            continue
        fate, _ = _fate(stream, None, out, chapters)
        if fate == "":
            continue
        if kind == "matroska" and _is_cover(stream):
            _attach(target, stream, _cover(plan, stream.index))
            covers += 1
            continue
        copies.append(_Copy(stream, _add(target, stream, fate, kind), fate != "copy"))
    return copies, covers


def _fate(
    stream: Stream, about: OtherStream | None, out: Path, chapters: bool
) -> tuple[str, list[str]]:
    """What becomes of a stream: "copy", a subtitle codec, or "" if it is left out; and the line."""
    kind = _FORMATS[out.suffix.lower()]
    if stream.type == "data":
        # An MP4's chapters are such a stream too; they go another way.
        if chapters and stream.name == "bin_data":
            return "", []
    elif stream.type in _CODED and not stream.codec_context:
        # Teletext in a TS is one. PyAV cannot copy a stream that it has no decoder for.
        return "", [f"dropped: {about}, whose codec is unknown"]
    elif (kind == "matroska" and _is_cover(stream)) or _fits(stream, "copy", kind):
        return "copy", []
    elif stream.type == "subtitle" and stream.codec_context.codec.canonical_name in _TEXTS:
        text = _TEXT_OF[kind]
        if _fits(stream, text, kind):
            return text, [f"dropped: the styling of {about}, which becomes {text}"]
    return "", [f"dropped: {about}, which {out.suffix} files cannot have"]


def _fits(stream: Stream, fate: str, kind: str) -> bool:
    """Whether a container takes a stream: what its muxer says when it writes a header."""
    try:
        with av.open(
            io.BytesIO(), "w", format=kind, container_options=_options(kind, Fraction(1, 1000))
        ) as trial:
            _add(trial, stream, fate, kind)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _add(target: OutputContainer, stream: Stream, fate: str, kind: str) -> Stream:
    """Add a stream like another to a file."""
    new: Stream
    if isinstance(stream, AttachmentStream):
        _attach(target, stream, stream.data)
        return target.streams[len(target.streams) - 1]
    if fate == "copy":
        new = target.add_stream_from_template(stream, opaque=True)
    else:
        new = target.add_stream(fate)
        assert isinstance(new.codec_context, SubtitleCodecContext)
        assert isinstance(stream.codec_context, SubtitleCodecContext)
        stream.codec_context.open(strict=False)
        new.codec_context.subtitle_header = stream.codec_context.subtitle_header
        new.time_base = new.codec_context.time_base = Fraction(1, 1000)
        new.codec_context.open()
    new.metadata.update(_metadata(stream.metadata, kind))
    new.disposition = stream.disposition
    return new


def _attach(target: OutputContainer, stream: Stream, data: bytes) -> None:
    name = stream.metadata.get("filename", "")
    mime = stream.metadata.get("mimetype", "application/octet-stream")
    if stream.type == "video":
        codec = stream.codec_context.codec.canonical_name
        kind = {"mjpeg": "jpeg"}.get(codec, codec)
        name, mime = name or f"cover.{kind}", f"image/{kind}"
    new = target.add_attachment(name or f"attachment {stream.index}", mime, data)
    rest = {k: v for k, v in stream.metadata.items() if k not in ("filename", "mimetype")}
    new.metadata.update(rest)


def _cover(plan: JobPlan, index: int) -> bytes:
    path = Path(plan.source.path)
    with reading(path), media(path) as source:
        return b"".join(bytes(packet) for packet in packets(source, source.streams[index]))


def _is_cover(stream: Stream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _metadata(old: dict[str, str], kind: str) -> dict[str, str]:
    """What stays true of a file or a stream, in the words of the new container."""
    new = {k: v for k, v in old.items() if k.lower().partition("-")[0] not in _STALE}
    # MP4's demuxer and muxer name a stream's title differently.
    if "name" in new:
        new.setdefault("title", new.pop("name"))
    if kind not in _MP4S:
        new.pop("handler_name", None)
    return new


def _chapters(
    source: InputContainer, origin: Fraction, end: Fraction | None, kind: str
) -> list[Any]:
    """The source's chapters in the file's time, as far as they lie in it."""
    chapters: list[dict[str, Any]] = []
    for chapter in source.chapters():
        unit = seconds(chapter["time_base"])
        start = max(chapter["start"] * unit - origin, Fraction(0))
        stop = chapter["end"] * unit - origin
        if end is not None:
            stop = min(stop, end - origin)
        if stop > start:
            if kind in _MP4S and start > 0 and not chapters:
                # An MP4's chapters follow each other without gaps, the first one from 0.
                chapters.append(
                    {
                        "id": 0,
                        "start": 0,
                        "end": round(start / unit),
                        "time_base": unit,
                        "metadata": {},
                    }
                )
            moved = {"start": round(start / unit), "end": round(stop / unit)}
            chapters.append({**chapter, **moved, "time_base": unit})
    return chapters


@contextmanager
def _part(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        with av.open(os.path.abspath(path), options={"protocol_whitelist": "file"}) as container:
            yield container, container.streams.video[0]
    except (av.FFmpegError, OSError, IndexError) as e:
        raise JobError(
            f"the part {path} could not be read ({getattr(e, 'strerror', None) or e}). Delete it, "
            "and run the same command again."
        ) from None


def _pictures(
    plan: JobPlan,
    folder: Path,
    order: _Order,
    origin: Fraction,
    stream: VideoStream,
    digest: Any,
) -> Iterator[tuple[Fraction, _Packet]]:
    """All parts' packets with the plan's times, and the time by which each is to be written."""
    step = max(1, plan.duration(plan.first))
    unit = Fraction(1, plan.time_base[1])

    def ticks(place: int) -> int:
        early = min(0, place) * step
        time = plan.times[plan.first + max(0, place)] + early
        return round((time * plan.unit - origin) / unit)

    coded = 0
    for part in range(len(plan.parts)):
        with _part(plan.part_file(folder, part)) as (container, source):
            for packet in packets(container, source):
                shown = order.shown[coded]
                digest.update(packet)
                packet.stream = stream
                packet.time_base = unit
                packet.pts, packet.dts = ticks(shown), ticks(coded - order.delay)
                packet.duration = plan.duration(plan.first + shown) * plan.time_base[0]
                coded += 1
                yield packet.dts * unit, packet


def _others(
    path: Path,
    source: InputContainer,
    copies: Sequence[_Copy],
    origin: Fraction,
    end: Fraction | None,
) -> Iterator[tuple[Fraction, _Packet]]:
    """The other streams' packets in the file's time, and when each is to be written."""
    by_index = {c.source.index: c for c in copies if c.source.type != "attachment"}
    for stream in source.streams:
        stream.discard = Discard.default if stream.index in by_index else Discard.all
    begun: set[int] = set()
    if not by_index:
        return
    with reading(path):
        for packet in source.demux([c.source for c in by_index.values()]):
            copy = by_index[packet.stream.index]
            if not packet.size:
                continue
            if end is not None and copy.source.type == "video" and copy.source.index not in begun:
                # What a second stream of pictures begins with, where it is cut.
                if not packet.is_keyframe or (packet.pts or 0) * seconds(packet.time_base) < origin:
                    continue
                begun.add(copy.source.index)
            moved = _moved(packet, copy, origin, end)
            if moved is not None:
                yield (moved.dts or 0) * seconds(moved.time_base), moved


def _moved(packet: _Packet, copy: _Copy, origin: Fraction, end: Fraction | None) -> _Packet | None:
    """A packet of the source for the file, with its times; None if it is outside of the range."""
    unit = seconds(copy.source.time_base)
    pts = packet.dts if packet.pts is None else packet.pts
    shift = round(origin / unit)
    duration = packet.duration or 0
    if _is_cover(copy.source):
        pts = shift
    elif pts is None or not _is_in_range(packet, pts * unit, copy.source, origin, end):
        return None
    elif copy.source.type == "subtitle" and duration:
        # Text that is there already when the file begins, or still there when it ends.
        start, stop = max(pts, shift), pts + duration
        if end is not None:
            stop = min(stop, round(end / unit))
        pts, duration = start, stop - start
        packet.dts = pts
    if copy.converted:
        return _converted(packet, copy, (pts - shift) * unit, duration * unit)
    early = 0 if packet.dts is None else pts - packet.dts
    packet.stream = copy.target
    packet.pts, packet.dts, packet.duration = pts - shift, pts - shift - early, duration
    return packet


def _is_in_range(
    packet: _Packet, time: Fraction, stream: Stream, origin: Fraction, end: Fraction | None
) -> bool:
    """Whether a packet is shown or heard in the file, or primes a decoder for what is."""
    context = stream.codec_context
    # Samples that a decoder gives before the first true one; players skip as many.
    priming = Fraction(0)
    if isinstance(context, AudioCodecContext) and context.initial_padding:
        priming = Fraction(context.initial_padding, context.sample_rate)
    unit = seconds(stream.time_base)
    length = (packet.duration or 0) * unit
    if end is not None and time >= end:
        return False
    begin = origin if end is not None else None
    if packet.is_discard:
        # Not in the edit list of its MP4.
        first = (stream.start_time or 0) * unit
        if not first - priming <= time < first:
            return False
    if stream.type == "subtitle":
        return time + length > origin or time >= origin
    return begin is None or time >= begin - priming


def _converted(packet: _Packet, copy: _Copy, time: Fraction, duration: Fraction) -> _Packet | None:
    """A subtitle as another kind of text."""
    reader, writer = copy.source.codec_context, copy.target.codec_context
    assert isinstance(reader, SubtitleCodecContext) and isinstance(writer, SubtitleCodecContext)
    lines = reader.decode2(packet)
    if lines is None or not lines.rects:
        return None
    text: _Packet = writer.encode_subtitle(lines)
    if not text.size:
        return None
    text.stream = copy.target
    text.time_base = Fraction(1, 1000)
    text.pts = text.dts = round(time * 1000)
    text.duration = round(duration * 1000)
    return text


def _kind(stream: Stream) -> str:
    """As far as it is the same in every container."""
    return "attachment" if _is_cover(stream) else stream.type


def _verify(plan: JobPlan, path: Path, written: _Written, report: Callable[[float], None]) -> None:
    """Read the joined file back."""
    digest = hashlib.sha256()
    times = []
    with reading(path), media(path) as container:
        kinds = Counter(_kind(s) for s in container.streams if s.type != "data")
        stream = container.streams[0]
        unit = seconds(stream.time_base)
        want = plan.last - plan.first
        for packet in packets(container, stream):
            digest.update(packet)
            times.append((packet.pts or 0) * unit)
            if len(times) % 100 == 0:
                report(len(times) / want)
    times.sort()
    expected = [t * plan.unit - written.origin for t in plan.times[plan.first : plan.last]]
    faults = []
    if len(times) != len(expected):
        faults.append(f"{len(times)} pictures instead of {len(expected)}")
    elif digest.hexdigest() != written.packets:
        faults.append("other packets than its parts")
    elif any(abs(a - b) > unit for a, b in zip(times, expected, strict=True)):
        faults.append("pictures at other times")
    if kinds != written.kinds:
        faults.append(f"the streams {dict(kinds)} instead of {dict(written.kinds)}")
    if faults:
        raise JobError(
            f"{plan.out} was not written, because what was joined has {' and '.join(faults)}. "
            "Choose another ending for the output; the parts are kept."
        )
