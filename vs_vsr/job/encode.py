"""One part's file: pictures in, packets out, and the check that the file is what the plan says.

Which pictures a part has, and what is done before and after, is not decided here.
"""

import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.stream import VideoStream

from vs_vsr.errors import JobError, StorageError
from vs_vsr.job.encoders import configure, pixel_format
from vs_vsr.job.plan import JobPlan

__all__ = ["PartWriter", "average_rate", "check_part", "sync", "writing"]

# Rates in use are whole numbers, or these by NTSC's factor, such as 24000/1001.
_NTSC = Fraction(1000, 1001)
# Of other average rates; the field in a codec's header is 32 bits wide.
_DENOMINATOR_MAX = 1001
_FORMATS = {".mp4": "mp4", ".mkv": "matroska"}
# The most pictures that H.264 and H.265 code before one that is shown earlier.
_REORDERED_MAX = 16
# What says that a folder is full, gone or not to be written to, and not that a muxer refuses.
_OF_STORAGE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.EMFILE),
}
# FFmpeg's planes of RGB are green, blue, red; VapourSynth's are red, green, blue.
_GREEN_BLUE_RED = (1, 2, 0)


class PartWriter:
    """Encodes a part's pictures into a file: `with PartWriter(path, plan, first) as writer: …`.

    At its end the file is whole and on the disk; after an exception there is none.
    """

    def __init__(self, path: Path, plan: JobPlan, first: int) -> None:
        """Take what to write, and open nothing yet.

        Args:
            path: The file to write.
            plan: The job.
            first: The part's first picture.
        """
        self._path, self._plan, self._first = path, plan, first
        self._pictures = self._coded = 0
        self._frame = VideoFrame(
            plan.recipe.width, plan.recipe.height, pixel_format(plan.recipe.format)
        )
        self._stream: VideoStream
        self._life: AbstractContextManager[Self]
        self.bytes_written = 0
        """Of packets, in all."""

    def __enter__(self) -> Self:
        self._life = self._open()
        return self._life.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._life.__exit__(kind, value, trace)

    def write(self, planes: Sequence[np.ndarray[Any, Any]]) -> None:
        """Encode the part's next picture.

        Args:
            planes: (height, width) each, uint8 or uint16, in VapourSynth's order; they may have
                strides. They are copied once.

        Raises:
            JobError: The disk is full, or the file cannot be written.
        """
        plan = self._plan
        frame = self._frame
        # Memory that is new for each picture costs more than the copy. Where the encoder still
        # reads the last one, this takes new memory.
        frame.make_writable()
        _fill(frame, planes)
        frame.pts = self._ticks(self._pictures)
        frame.time_base = Fraction(1, plan.time_base[1])
        self._pictures += 1
        self._mux(frame)

    @contextmanager
    def _open(self) -> Iterator[Self]:
        plan = self._plan
        # MP4 takes any unit of the form 1/n; Matroska rounds to its own, and `join` mends that.
        unit = Fraction(1, plan.time_base[1])
        kind = _FORMATS[plan.encoder.suffix]
        with writing(self._path):
            with av.open(os.path.abspath(self._path), "w", format=kind) as container:
                made = container.add_stream(plan.encoder.name, options=dict(plan.encoder.options))
                assert isinstance(made, VideoStream)
                self._stream = made
                context = made.codec_context
                configure(
                    context,
                    plan.encoder,
                    plan.recipe.format,
                    plan.colour,
                    plan.recipe.width,
                    plan.recipe.height,
                    average_rate(plan),
                )
                context.sample_aspect_ratio = Fraction(*plan.sample_aspect)
                context.time_base = made.time_base = unit
                yield self
                self._mux(None)
            sync(self._path)

    def _mux(self, frame: VideoFrame | None) -> None:
        container = self._stream.container
        assert isinstance(container, av.container.OutputContainer)
        for packet in self._stream.encode(frame):
            # Not the encoder's decoding times: x265's are undefined for a part of one picture.
            packet.dts = min(packet.pts or 0, self._ticks(self._coded - _REORDERED_MAX))
            self._coded += 1
            self.bytes_written += packet.size
            container.mux_one(packet)

    def _ticks(self, place: int) -> int:
        """When a picture of the part is shown; before its first one, equally spaced times."""
        times, first, numerator = self._plan.times, self._first, self._plan.time_base[0]
        if place < 0:
            return place * self._plan.duration(first) * numerator
        return (times[first + place] - times[first]) * numerator


def average_rate(plan: JobPlan) -> Fraction:
    """Pictures per second of the whole clip, as near as its clock can tell."""
    ticks = plan.times[-1] - plan.times[0] + plan.last_duration
    rate = len(plan.times) / (ticks * plan.unit)
    known = min(
        (Fraction(round(rate)), round(rate / _NTSC) * _NTSC), key=lambda known: abs(known - rate)
    )
    if abs(known - rate) * ticks <= rate:
        return known
    return rate.limit_denominator(_DENOMINATOR_MAX) or Fraction(1, _DENOMINATOR_MAX)


def check_part(path: Path, plan: JobPlan, part: int) -> str:
    """Read a part's file back whole and compare it with the plan.

    Args:
        path: The file.
        plan: The job.
        part: Number of the part.

    Returns:
        SHA-256 over the samples of its decoded pictures, as hexadecimal digits.

    Raises:
        JobError: It is not that part, or not whole.
    """
    first, last = plan.parts[part]
    digest = hashlib.sha256()
    times: list[int] = []
    pictures = 0
    try:
        with av.open(os.path.abspath(path), options={"protocol_whitelist": "file"}) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            # Else decoders patch up what they notice.
            stream.codec_context.options = {"err_detect": "explode"}
            unit = Fraction(stream.time_base.numerator, stream.time_base.denominator)
            for packet in container.demux(stream):
                if packet.size and packet.pts is not None:
                    _require(bool(times) or packet.is_keyframe, path, "no key frame first")
                    times.append(packet.pts)
                for frame in packet.decode():
                    size = (frame.width, frame.height)
                    _require(
                        size == (plan.recipe.width, plan.recipe.height),
                        path,
                        f"pictures of {size[0]}x{size[1]}",
                    )
                    pictures += 1
                    for plane in frame.planes:
                        digest.update(np.ascontiguousarray(_samples(plane, frame)))
    except (av.FFmpegError, OSError, IndexError) as e:
        _require(False, path, getattr(e, "strerror", None) or "no pictures")
    want = last - first
    _require(pictures == len(times) == want, path, f"{pictures} pictures instead of {want}")
    for n, pts in enumerate(sorted(times)):
        error = pts * unit - (plan.times[first + n] - plan.times[first]) * plan.unit
        # Exact in MP4; in Matroska to half of its unit.
        _require(abs(error) <= unit / 2, path, f"picture {n} at another time")
    return digest.hexdigest()


def _require(so: bool, path: Path, what: str) -> None:
    if not so:
        raise JobError(
            f"{path} is damaged or of another job ({what}). Delete it, and run the same command "
            "again: only this part is made anew."
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Write a file whole or not at all: an exception within the `with` block deletes it.

    Raises:
        JobError: The disk is full, or the file cannot be written.
    """
    try:
        yield
    except BaseException as e:
        with suppress(OSError):
            path.unlink()
        if isinstance(e, av.FFmpegError | OSError):
            if e.errno in _OF_STORAGE:
                raise StorageError(
                    f"{path.name} could not be written into {path.parent} ({e.strerror}). Make "
                    "room or mend the folder, and run the same command again: finished parts are "
                    "kept."
                ) from e
            raise JobError(
                f"{path.name} could not be written ({e.strerror}). Choose another ending or "
                "another --encoder for the output; finished parts are kept."
            ) from e
        raise


def sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    # Windows syncs what is open for writing, and no folders; others open folders for reading only.
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _fill(frame: VideoFrame, planes: Sequence[np.ndarray[Any, Any]]) -> None:
    name = frame.format.name
    if name == "bgr0":
        # FFV1 has no planes for 8 bits of RGB.
        pixels = _samples(frame.planes[0], frame).reshape(frame.height, frame.width, 4)
        for channel, plane in enumerate(reversed(planes)):
            np.copyto(pixels[..., channel], plane, casting="no")
        pixels[..., 3] = 0
        return
    if name.startswith("gbr"):
        planes = [planes[n] for n in _GREEN_BLUE_RED]
    for target, plane in zip(frame.planes, planes, strict=True):
        np.copyto(_samples(target, frame), plane, casting="no")


def _samples(plane: VideoPlane, frame: VideoFrame) -> np.ndarray[Any, Any]:
    """(height, width) of a plane without its padding; four bytes per pixel where it is packed."""
    kind = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
    packed = 4 if len(frame.planes) == 1 and len(frame.format.components) > 1 else 1
    rows = np.frombuffer(plane, kind).reshape(plane.height, -1)
    return rows[:, : plane.width * packed]
