"""What a file is: its pictures, what they mean, and what else is in it. No picture is changed here.

Only PyAV looks at the file, and it may open that file alone (playlists name others).
"""

import hashlib
import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.rational import AVRational
from av.stream import Discard, Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vs_vsr.errors import JobError
from vs_vsr.job.plan import Colour

__all__ = [
    "OtherStream",
    "SourceInfo",
    "media",
    "packets",
    "packets_hash",
    "probe",
    "reading",
    "seconds",
]

# Streams cut in the middle begin with pictures that need earlier ones.
_PACKETS_TO_TRY = 1000

# FFmpeg's AVChromaLocation begins with "unspecified"; VapourSynth's begins with "left".
_UNKNOWN_LOCATION = -1
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_UNKNOWN_CODE = 2  # H.273

# FFmpeg's readers of lists: what such a file names would be opened too, wherever it is.
_LISTS = {"concat", "dash", "hls", "imf", "rtsp", "sap", "sdp", "vobsub", "webm_dash_manifest"}
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(sorted(av.formats_available - _LISTS)),
}

# AVFieldOrder: progressive; then coded and displayed top or bottom first.
_FIELDS = {1: "progressive", 2: "top", 3: "bottom", 4: "bottom", 5: "top"}

# Of AVMasteringDisplayMetadata: x and y of red, green, blue and white, then the least and the
# greatest luminance, each a numerator and a denominator; then whether either was given.
_MASTERING = struct.Struct("=20i2i")
# Of AVContentLightMetadata: MaxCLL and MaxFALL.
_LIGHT = struct.Struct("=2I")
# Units of the SEI message and of x265's option, in which the numbers above are given.
_CHROMATICITY_UNIT, _LUMINANCE_UNIT = 50000, 10000

# PyAV's packets take a parameter in their stubs only.
type _Packet = Packet[Stream]


@dataclass(frozen=True, kw_only=True)
class OtherStream:
    """A stream beside the pictures."""

    index: int
    kind: str
    """ "audio", "subtitle", "attachment", "data", "picture" (such as a cover), "video" (another
    one) or "unknown"."""
    codec: str
    """FFmpeg's name; an attachment's MIME type; "" where neither is known."""
    language: str
    title: str

    def __str__(self) -> str:
        """Name it in a sentence."""
        about = ", ".join(filter(None, (self.codec, self.language, self.title)))
        return f"{self.kind} stream {self.index}" + (f" ({about})" if about else "")


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """A file that has pictures."""

    path: Path
    """Absolute."""
    container: str
    """FFmpeg's names, such as "matroska,webm"."""
    track: int
    """Index of the first video stream that is no cover."""
    codec: str
    width: int
    """Of the coded pictures, as `height`: before `rotation`."""
    height: int
    pixel_format: str
    """FFmpeg's name."""
    bits: int
    """Of one sample."""
    colour: Colour
    sample_aspect: tuple[int, int]
    """(1, 1) where the file does not say."""
    rotation: int
    """Degrees clockwise by which a player turns the pictures: 0, 90, 180 or 270."""
    mirrored: bool
    """Whether a player also mirrors them."""
    field_order: str
    """ "progressive", "top" or "bottom" (the field that is shown first), or "unknown"."""
    rate: Fraction
    """Average rate in pictures per second; 0 where it is unknown."""
    time_base: Fraction
    """Seconds of one unit of the stream's times."""
    duration: Fraction
    """Of the pictures, or if that is not told of the whole file, in seconds; 0 where unknown."""
    dolby_vision: bool
    hdr10_plus: bool
    others: tuple[OtherStream, ...]
    chapters: int


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn faults of a media file into sentences.

    Raises:
        JobError: It is none, or cannot be read.
    """
    try:
        yield
    except FileNotFoundError:
        raise JobError(f"input must be a file, got {path}, which does not exist.") from None
    except PermissionError:
        raise JobError(
            f"input must be a file that you may read, got {path}. Change its permissions."
        ) from None
    except av.InvalidDataError as e:
        raise JobError(
            f"input must be a media file that FFmpeg can read, got {path} ({e.strerror}). "
            "Try to play it; if that fails too, get a whole copy of it."
        ) from None
    except (av.FFmpegError, OSError) as e:
        raise JobError(
            f"{path} could not be read ({e.strerror}). Check the disk or the network."
        ) from None


@contextmanager
def media(path: Path) -> Iterator[InputContainer]:
    """Open a media file, and nothing that it may name.

    Raises:
        JobError: It is none, or cannot be opened. Within the `with` block, use `reading`.
    """
    with reading(path):
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise JobError(f"input must be a file, got the folder {path}. Name a file in it.")
        if os.path.getsize(path) == 0:
            raise JobError(f"input must be a media file, got {path}, which is empty.")
        try:
            container = av.open(os.path.abspath(path), options=_OPTIONS)
        except av.ArgumentError:
            raise JobError(
                f"input must be a media file that has its pictures in it, got {path}. If it is a "
                "list of files, name one of those."
            ) from None
    with container:
        yield container


def packets(container: InputContainer, stream: Stream) -> Iterator[_Packet]:
    """The packets of one stream that are shown, in their coded order; the others are not read."""
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    for packet in container.demux(stream):
        if packet.size:
            yield packet


def probe(path: Path) -> SourceInfo:
    """Look at a file: its headers and its first picture.

    Raises:
        JobError: It does not exist, is no media file, cannot be read, has no pictures, or none that
            can be decoded.
    """
    with reading(path), media(path) as container:
        stream = _video(container, path)
        others = tuple(_other(s) for s in container.streams if s.index != stream.index)
        chapters = len(container.chapters())
        frame = _first_picture(container, stream, path)
        matrix = _side_data(stream, frame, "display_matrix", "DISPLAYMATRIX")
        rotation, mirrored = _orientation(matrix)
        length = stream.duration and stream.duration * seconds(stream.time_base)
        if not length:
            length = _tagged_length(stream) or Fraction(container.duration or 0, av.time_base)
        # The container's, else that of the first picture, which has told it to the context.
        aspect = seconds(stream.sample_aspect_ratio)
        aspect = aspect or seconds(stream.codec_context.sample_aspect_ratio) or Fraction(1)
        return SourceInfo(
            path=Path(os.path.abspath(path)),
            container=container.format.name,
            track=stream.index,
            codec=stream.codec_context.codec.canonical_name,
            width=frame.width,
            height=frame.height,
            pixel_format=frame.format.name,
            bits=frame.format.components[0].bits,
            colour=_colour(stream, frame),
            sample_aspect=(aspect.numerator, aspect.denominator),
            rotation=rotation,
            mirrored=mirrored,
            field_order=_field_order(stream, frame),
            rate=seconds(stream.average_rate),
            time_base=seconds(stream.time_base),
            duration=max(Fraction(length), Fraction(0)),
            dolby_vision=bool(
                _side_data(stream, frame, "dovi_conf", "DOVI_METADATA")
                or _side_data(stream, frame, "dovi_conf", "DOVI_RPU_BUFFER")
            ),
            hdr10_plus=bool(_side_data(stream, frame, "dynamic_hdr10_plus", "DYNAMIC_HDR_PLUS")),
            others=others,
            chapters=chapters,
        )


def packets_hash(path: Path, track: int) -> str:
    """SHA-256 over a stream's packets, their sizes, times and bytes: what its pictures depend on.

    Nothing is decoded, so it is as fast as the file can be read.

    Args:
        path: The file.
        track: Index of the stream.

    Returns:
        Its hexadecimal digits.

    Raises:
        JobError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with reading(path), media(path) as container:
        for packet in packets(container, container.streams[track]):
            line = f"{packet.size} {packet.pts} {packet.dts} {packet.duration}\n"
            digest.update(line.encode())
            digest.update(packet)
    return digest.hexdigest()


def seconds(value: AVRational) -> Fraction:
    """A rational of PyAV as one of Python; 0 for one that is unknown (0/0 or 0/1)."""
    return Fraction(value.numerator, value.denominator) if value else Fraction(0)


def _video(container: InputContainer, path: Path) -> VideoStream:
    """The first stream of pictures that is no cover."""
    for stream in container.streams.video:
        if not _is_cover(stream):
            if stream.codec_context is None:
                raise JobError(
                    f"input must have pictures that FFmpeg can decode, got {path}, whose video "
                    "codec is unknown. Convert it with a program that can play it."
                )
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    found = f"{' and '.join(kinds)} only" if kinds else "no streams"
    raise JobError(
        f"input must have a video stream, got {path}, which has {found}. Name another file."
    )


def _is_cover(stream: Stream) -> bool:
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def _other(stream: Stream) -> OtherStream:
    kind = "picture" if stream.type == "video" and _is_cover(stream) else stream.type
    if kind == "attachment":
        codec = stream.metadata.get("mimetype", "")
        title = stream.metadata.get("filename", "")
    else:
        context = stream.codec_context
        codec = (context.codec.canonical_name if context else getattr(stream, "name", "")) or ""
        title = stream.metadata.get("title", "")
    return OtherStream(
        index=stream.index, kind=kind, codec=codec, language=stream.language or "", title=title
    )


def _first_picture(container: InputContainer, stream: VideoStream, path: Path) -> VideoFrame:
    tried = 0
    # One thread: with more, several packets are read before the first picture comes.
    stream.thread_count = 1
    for packet in container.demux(stream):
        try:
            for frame in packet.decode():
                return frame
        except av.FFmpegError:
            # Pictures before the first key frame; undecodable streams fail below.
            pass
        tried += 1
        if tried >= _PACKETS_TO_TRY:
            break
    raise JobError(
        f"input must have pictures that FFmpeg can decode, got {path}: none of its first "
        f"{tried} packets ({stream.codec_context.name}) can be decoded. It is encrypted or "
        "damaged: get another copy of it."
    )


def _side_data(stream: VideoStream, frame: VideoFrame, of_stream: str, of_frame: str) -> bytes:
    """From the container, which players believe first, or from the first picture."""
    for kind, data in stream.codec_context.coded_side_data.items():
        if kind == of_stream:
            return data
    for kind_of_frame, value in frame.side_data.items():
        if kind_of_frame.name == of_frame:
            return bytes(value)
    return b""


def _orientation(matrix: bytes) -> tuple[int, bool]:
    """Degrees clockwise, and whether it mirrors, of FFmpeg's 3x3 display matrix."""
    if not matrix:
        return 0, False
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    mirrored = a * d - b * c < 0
    if mirrored:
        a, c = -a, -c
    if abs(a) >= abs(b):
        return (0 if a >= 0 else 180), mirrored
    return (90 if b > 0 else 270), mirrored


def _field_order(stream: VideoStream, frame: VideoFrame) -> str:
    order = _FIELDS.get(stream.codec_context.field_order, "unknown")
    if order == "unknown" and frame.interlaced_frame:
        return "top"
    return order


def _tagged_length(stream: VideoStream) -> Fraction:
    """Seconds of the pictures by Matroska's tag, which counts from 0; 0 if there is none."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", stream.metadata.get("DURATION", ""))
    if match is None:
        return Fraction(0)
    hours, minutes, rest = map(Fraction, match.groups())
    end = 3600 * hours + 60 * minutes + rest
    return max(end - (stream.start_time or 0) * seconds(stream.time_base), Fraction(0))


def _colour(stream: VideoStream, frame: VideoFrame) -> Colour:
    context = stream.codec_context
    rgb = frame.format.is_rgb
    matrix = _code(frame.colorspace, context.colorspace)
    full = frame.color_range or context.color_range
    location = frame.chroma_location or context.chroma_sample_location
    return Colour(
        matrix=0 if rgb else matrix,
        primaries=_code(frame.color_primaries, context.color_primaries),
        transfer=_code(frame.color_trc, context.color_trc),
        full_range=full == _FULL_RANGE or (rgb and not full) or "yuvj" in frame.format.name,
        chroma_location=location - 1 if location else _UNKNOWN_LOCATION,
        mastering_display=_mastering_display(
            _side_data(stream, frame, "mastering_display_metadata", "MASTERING_DISPLAY_METADATA")
        ),
        content_light=_content_light(
            _side_data(stream, frame, "content_light_level", "CONTENT_LIGHT_LEVEL")
        ),
    )


def _code(of_frame: int, of_stream: int) -> int:
    return of_stream if of_frame == _UNKNOWN_CODE else of_frame


def _mastering_display(data: bytes) -> str:
    """As x265 takes it, or "" if a part of it is missing."""
    if len(data) < _MASTERING.size:
        return ""
    *numbers, has_primaries, has_luminance = _MASTERING.unpack_from(data)
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    if not (has_primaries and has_luminance) or any(not below for _, below in pairs):
        return ""
    values = [Fraction(above, below) for above, below in pairs]
    red, green, blue, white = (values[i : i + 2] for i in range(0, 8, 2))
    named = [
        f"{name}({round(x * _CHROMATICITY_UNIT)},{round(y * _CHROMATICITY_UNIT)})"
        for name, (x, y) in (("G", green), ("B", blue), ("R", red), ("WP", white))
    ]
    least, most = (round(value * _LUMINANCE_UNIT) for value in values[8:])
    return "".join(named) + f"L({most},{least})"


def _content_light(data: bytes) -> str:
    return "{},{}".format(*_LIGHT.unpack_from(data)) if len(data) >= _LIGHT.size else ""
