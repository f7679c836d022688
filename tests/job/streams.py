"""What is in a file, stream by stream, and what of it another file has kept."""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

__all__ = ["Track", "View", "differences", "sync", "view"]

# Written anew by each muxer, and nothing that anybody entered.
_NOT_KEPT = (
    *("encoder", "duration", "handler_name", "vendor_id", "major_brand", "minor_version"),
    *("compatible_brands", "software", "language", "title", "name", "filename", "mimetype"),
)


@dataclass(frozen=True, kw_only=True)
class Track:
    """One stream. What a kind of stream does not have is empty."""

    kind: str
    codec: str
    language: str
    title: str
    disposition: str
    metadata: dict[str, str]
    unit: Fraction
    """Seconds of one unit of its times."""
    times: tuple[Fraction, ...]
    """Of its packets in seconds, less that of the first picture; a video's in order of display."""
    durations: tuple[Fraction, ...]
    packets: tuple[str, ...]
    """A hash of each packet's bytes, in the order of `times`."""
    size: tuple[int, int] = (0, 0)
    """Width and height."""
    aspect: Fraction = Fraction(1)
    rotation: int = 0
    colour: tuple[int, ...] = ()
    """Primaries, transfer, matrix and range."""
    mastering: tuple[Fraction, ...] = ()
    light: tuple[int, ...] = ()
    attached: tuple[str, str, bytes] = ("", "", b"")
    """Name, type and bytes."""


@dataclass(frozen=True, kw_only=True)
class View:
    """One file."""

    video: Track | None
    """The first one that is no cover."""
    others: tuple[Track, ...]
    metadata: dict[str, str]
    chapters: tuple[tuple[Fraction, Fraction, str], ...]
    """Start and end in seconds, less the time of the first picture, and title."""


def view(path: Path) -> View:
    """Read a file's streams and packets."""
    with _opened(path) as container:
        main = next(
            (s for s in container.streams.video if not s.disposition & Disposition.attached_pic),
            None,
        )
        packets: dict[int, list[tuple[Fraction, Fraction, str]]] = {}
        for packet in container.demux():
            at = packet.dts if packet.pts is None else packet.pts
            # mov_text fills its pauses with empty packets, two bytes long.
            empty = packet.stream.type == "subtitle" and packet.size <= 2
            if at is None or empty or not packet.size:
                continue
            row = (
                at * _fraction(packet.time_base),
                (packet.duration or 0) * _fraction(packet.time_base),
                hashlib.sha256(bytes(packet)).hexdigest()[:16],
            )
            packets.setdefault(packet.stream_index, []).append(row)
        first = min(row[0] for row in packets[main.index]) if main is not None else Fraction(0)
        tracks = {}
        for stream in container.streams:
            rows = packets.get(stream.index, [])
            if stream.type == "video":
                rows.sort(key=lambda row: row[0])
            tracks[stream.index] = _track(path, stream, rows, first)
        chapters = tuple(
            (
                chapter["start"] * _fraction(chapter["time_base"]) - first,
                chapter["end"] * _fraction(chapter["time_base"]) - first,
                chapter["metadata"].get("title", ""),
            )
            for chapter in container.chapters()
        )
        # The track in which an MP4 file keeps its chapters.
        skipped = "data" if chapters else ""
        return View(
            video=None if main is None else tracks.pop(main.index),
            others=tuple(track for track in tracks.values() if track.kind != skipped),
            metadata=_entered(container.metadata)
            | {"title": dict(container.metadata).get("title", "")},
            chapters=chapters,
        )


def differences(
    source: Path,
    result: Path,
    *,
    scale: Fraction | int | None = 1,
    allow: Sequence[str] = (),
) -> list[str]:
    """What of a source is not in a result; empty if all is kept.

    Args:
        source: A file.
        result: Another, whose pictures may be encoded anew.
        scale: How many times larger its pictures must be; None does not look at their size.
        allow: Beginnings of findings that do not count, such as "attachment" or "video: rotation".
    """
    old, new = view(source), view(result)
    found = list(_compared(old, new, scale, source, result))
    return [text for text in found if not text.startswith(tuple(allow))]


def sync(path: Path) -> float:
    """Seconds by which the beeps of a file come after its flashes.

    By cross-correlation of brightness and loudness, to a millisecond.
    """
    with _opened(path) as container:
        pictures = [
            (f.time, float(f.to_ndarray(format="gray").mean())) for f in container.decode(video=0)
        ]
    with _opened(path) as container:
        sounds = [
            (f.time, f.sample_rate, np.abs(f.to_ndarray().astype(np.float64)).mean(axis=0))
            for f in container.decode(audio=0)
        ]
    start = min(pictures[0][0], sounds[0][0])
    length = round(1000 * (max(pictures[-1][0], sounds[-1][0]) - start)) + 200
    brightness, loudness = np.zeros(length), np.zeros(length)
    for at, value in pictures:
        brightness[round(1000 * (at - start)) :] = value  # until the next one
    for at, rate, values in sounds:
        for ms in range(len(values) * 1000 // rate):
            place = round(1000 * (at - start)) + ms
            loudness[place] = values[ms * rate // 1000 : (ms + 1) * rate // 1000].mean()
    brightness -= np.median(brightness)
    loudness -= np.median(loudness)
    lag: int = int(np.correlate(loudness, brightness, "full").argmax()) - (length - 1)
    return lag / 1000


def _opened(path: Path) -> Any:
    # "file:" keeps a name such as "a:b.mkv" from being read as a protocol.
    return av.open(f"file:{path}", options={"protocol_whitelist": "file"})


def _fraction(rational: Any) -> Fraction:
    return Fraction(rational.numerator, rational.denominator) if rational else Fraction(0)


def _entered(metadata: Any) -> dict[str, str]:
    """Metadata that somebody entered."""
    return {
        key.lower(): value
        for key, value in dict(metadata).items()
        if key.lower() not in _NOT_KEPT and not key.startswith("_STATISTICS")
    }


def _track(path: Path, stream: Any, rows: list[Any], first: Fraction) -> Track:
    metadata = dict(stream.metadata)
    language = metadata.get("language", "")
    more: dict[str, Any] = {}
    if stream.type == "video":
        more = _of_pictures(path, stream)
    elif stream.type == "attachment":
        more = {"attached": (stream.name or "", stream.mimetype or "", stream.data or b"")}
    return Track(
        kind=stream.type,
        codec="" if stream.type in ("attachment", "data") else stream.codec_context.codec.name,
        # "und" is how MP4 says that nobody said anything.
        language="" if language == "und" else language,
        # MP4 has no titles but names of tracks.
        title=metadata.get("title") or metadata.get("name") or "",
        disposition="+".join(flag.name or "" for flag in Disposition(stream.disposition)),
        metadata=_entered(metadata),
        unit=_fraction(stream.time_base),
        times=tuple(row[0] - first for row in rows),
        durations=tuple(row[1] for row in rows),
        packets=tuple(row[2] for row in rows),
        **more,
    )


def _of_pictures(path: Path, stream: Any) -> dict[str, Any]:
    # From a picture too: Matroska leaves much to the coded pictures themselves.
    with _opened(path) as container:
        context = container.streams[stream.index].codec_context
        frame = next(container.decode(container.streams[stream.index]))
        data = {kind.name: bytes(value) for kind, value in frame.side_data.items()}
        mastering: tuple[Fraction, ...] = ()
        if "MASTERING_DISPLAY_METADATA" in data:
            numbers = struct.unpack_from("=20i", data["MASTERING_DISPLAY_METADATA"])
            mastering = tuple(map(Fraction, numbers[0::2], numbers[1::2]))
        light = struct.unpack_from("=2I", data.get("CONTENT_LIGHT_LEVEL", b"\0" * 8))
        # RGB has no matrix to keep.
        rgb = frame.format.is_rgb
        matrix = 0 if rgb else int(frame.colorspace)
        return {
            "size": (frame.width, frame.height),
            # 0 is unknown, which all players take for square.
            "aspect": _fraction(stream.sample_aspect_ratio) or Fraction(1),
            "rotation": frame.rotation,
            "colour": (
                context.color_primaries,
                context.color_trc,
                matrix,
                int(frame.color_range) if not rgb else 0,
            ),
            "mastering": mastering,
            "light": light if any(light) else (),
        }


def _compared(
    old: View, new: View, scale: Fraction | int | None, source: Path, result: Path
) -> Iterator[str]:
    if (old.video is None) != (new.video is None):
        yield f"video: {old.video and 'was there'}, is {new.video and 'there'}"
    if old.video is not None and new.video is not None:
        yield from _pictures(old.video, new.video, scale)
    unit = max((view.video.unit for view in (old, new) if view.video), default=Fraction(0))
    for kind in ("video", "audio", "subtitle", "attachment", "data"):
        name = "cover" if kind == "video" else kind
        before = [track for track in old.others if track.kind == kind]
        after = [track for track in new.others if track.kind == kind]
        if len(before) != len(after):
            yield f"{name}: there were {len(before)}, there are {len(after)}"
            continue
        for n, (a, b) in enumerate(zip(before, after, strict=True)):
            yield from _copied(f"{name} {n + 1}", a, b, unit)
    for key, value in old.metadata.items():
        if value and new.metadata.get(key) != value:
            yield f"metadata: {key} was {value!r}, is {new.metadata.get(key)!r}"
    if len(old.chapters) != len(new.chapters):
        yield f"chapters: there were {len(old.chapters)}, there are {len(new.chapters)}"
    for one, other in zip(old.chapters, new.chapters, strict=False):
        if one[2] != other[2]:
            yield f"chapters: title was {one[2]!r}, is {other[2]!r}"
        late = max(abs(one[0] - other[0]), abs(one[1] - other[1]))
        if late > Fraction(1, 1000):
            yield f"chapters: {one[2]!r} is off by {float(late):.4f} s"


def _pictures(old: Track, new: Track, scale: Fraction | int | None) -> Iterator[str]:
    if scale is not None and new.size != tuple(n * scale for n in old.size):
        yield f"video: size was {old.size}, is {new.size}"
    yield from _late("video", old, new, max(old.unit, new.unit))
    for name in ("language", "title", "aspect", "rotation", "mastering", "light"):
        if getattr(old, name) != getattr(new, name):
            yield f"video: {name} was {getattr(old, name)!r}, is {getattr(new, name)!r}"
    names = ("primaries", "transfer", "matrix", "range")
    for name, one, other in zip(names, old.colour, new.colour, strict=True):
        # What a source leaves open may be said now: 2, or 0 for the range and RGB's matrix.
        left_open = {"range": (0,), "matrix": (0, 2)}.get(name, (2,))
        if one != other and one not in left_open:
            yield f"video: {name} was {one}, is {other}"


def _copied(name: str, old: Track, new: Track, unit: Fraction) -> Iterator[str]:
    for what in ("codec", "language", "title", "disposition", "attached"):
        if getattr(old, what) != getattr(new, what):
            yield f"{name}: {what} was {getattr(old, what)!r}, is {getattr(new, what)!r}"
    for key, value in old.metadata.items():
        if new.metadata.get(key) != value:
            yield f"{name}: {key} was {value!r}, is {new.metadata.get(key)!r}"
    if old.packets != new.packets:
        yield f"{name}: packets are others ({len(old.packets)} were, {len(new.packets)} are)"
    if name.startswith("cover"):
        return
    unit = max(unit, old.unit, new.unit)
    yield from _late(name, old, new, unit)
    if name.startswith("subtitle"):
        pairs = zip(old.durations, new.durations, strict=False)
        if any(abs(one - other) > unit for one, other in pairs):
            yield f"{name}: durations are others"


def _late(name: str, old: Track, new: Track, unit: Fraction) -> Iterator[str]:
    """Each side is rounded by half a unit twice: its own time, and that of the first picture."""
    if len(old.times) != len(new.times):
        yield f"{name}: times: there were {len(old.times)}, there are {len(new.times)}"
        return
    late = max((abs(a - b) for a, b in zip(old.times, new.times, strict=True)), default=0)
    if late > unit:
        yield f"{name}: times are off by up to {float(late):.4f} s"
