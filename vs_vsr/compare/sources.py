"""What is compared: video files, pictures and scripts, each read at moments."""

import runpy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import dropwhile
from pathlib import Path
from typing import Protocol

import av
import numpy as np
import vapoursynth as vs
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vs_vsr.compare.colours import Array, decoded_rgb, is_hdr, node_rgb
from vs_vsr.errors import ArgumentError
from vs_vsr.job.source import media, packets, probe, reading, seconds

__all__ = ["Picture", "Source", "open_source", "shown_size"]

# The same moment in two files may differ by this, in seconds, as Matroska rounds both the first
# time and this one to 1 ms.
_ROUNDING = Fraction(2, 1000)
# Seconds that are decoded rather than sought over.
_FAR = Fraction(4)
# What FFmpeg takes for streams that name no rate.
_USUAL_RATE = Fraction(25)
_UNKNOWN_RANGE = 0  # AVCOL_RANGE_UNSPECIFIED


@dataclass(frozen=True)
class Picture:
    """What a source shows for a while. Equal ones are the same object."""

    time: Fraction
    """When that begins, in seconds after the source's first picture."""
    rgb: Array
    """(H, W, 3), uint8, upright."""


class Source(Protocol):
    """What is compared. Times are in seconds after its first picture."""

    name: str
    """Of its file."""
    width: int
    """As `height`, in pixels, upright."""
    height: int
    aspect: Fraction
    """Width of a pixel over its height."""
    about: str
    """Codec and format, for the user."""
    note: str
    """What the user should know of it, or ""."""
    duration: Fraction
    """0 where it is not known, and for a still picture."""
    is_still: bool

    def at(self, time: Fraction) -> Picture:
        """What is shown at a time; at a time after the end, the last picture.

        Raises:
            VsrError: It cannot be read, or its colours cannot be converted.
        """

    def times(self, start: Fraction, end: Fraction) -> list[Fraction]:
        """When the pictures from `start` to before `end` begin, ascending.

        Raises:
            VsrError: It cannot be read.
        """

    def close(self) -> None:
        """Give back the file."""


def open_source(path: Path) -> Source:
    """Open a video file, a picture, or a VapourSynth script (.vpy), which is run.

    Raises:
        VsrError: It cannot be read, or has no pictures; the script fails.
    """
    return _Script(path) if path.suffix.lower() == ".vpy" else _File(path)


def shown_size(sources: Sequence[Source]) -> tuple[int, int]:
    """Width and height in which all are shown: those of the largest, in square pixels."""
    sizes = [(round(s.width * s.aspect), s.height) for s in sources]
    return max(sizes, key=lambda size: size[0] * size[1])


def _note(name: str, transfer: int) -> str:
    if not is_hdr(transfer):
        return ""
    return f"{name} is HDR. Its codes are shown as they are, so it looks pale."


class _File:
    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path
        self._info = info = probe(path)
        turned = info.rotation % 180 != 0
        self.width, self.height = (info.width, info.height)[:: -1 if turned else 1]
        aspect = Fraction(*info.sample_aspect)
        self.aspect = 1 / aspect if turned else aspect
        self.about = f"{info.codec} {info.pixel_format}"
        self.note = _note(self.name, info.colour.transfer)
        # FFmpeg's names for files that are one picture.
        self._is_picture = info.container == "image2" or info.container.endswith("_pipe")
        self._step = 1 / (info.rate or _USUAL_RATE)
        # In seconds; None if its frames have no times, as in raw streams.
        self._first: Fraction | None = Fraction(0)
        with reading(path), media(path) as container:
            frames = self._decoded(container)
            frame = next(frames)[1]
            # Others may hold one picture too: AVIF, GIF.
            self.is_still = self._is_picture or next(frames, None) is None
            self._first = None if frame.pts is None else frame.pts * seconds(frame.time_base)
        self.duration = Fraction(0) if self.is_still else info.duration
        # What comes next, what is shown, and that as a picture.
        self._frames: Iterator[tuple[Fraction, VideoFrame]] = iter(())
        self._ahead: tuple[Fraction, VideoFrame] | None = None
        self._held: tuple[Fraction, VideoFrame] | None = None
        self._shown: Picture | None = None

    def at(self, time: Fraction) -> Picture:
        target = time + _ROUNDING
        with reading(self._path):
            is_far = self._ahead is not None and self._ahead[0] + _FAR < target
            if self._held is None or is_far or target < self._held[0]:
                self.close()
                self._frames = self._frames_from(target)
                self._held = next(self._frames)
                self._ahead = next(self._frames, None)
            while self._ahead is not None and self._ahead[0] <= target:
                self._held, self._ahead = self._ahead, next(self._frames, None)
        assert self._held is not None
        begins, frame = self._held
        if self._shown is None or self._shown.time != begins:
            colour = self._info.colour
            if self._is_picture and frame.color_range == _UNKNOWN_RANGE:
                # Of the whole range, as pictures are, where limited is usual for video.
                colour = replace(colour, full_range=True)
            self._shown = Picture(begins, self._upright(decoded_rgb(self.name, frame, colour)))
        return self._shown

    def times(self, start: Fraction, end: Fraction) -> list[Fraction]:
        if self._first is None:
            first, last = -(-start // self._step), -(-end // self._step)
            return [n * self._step for n in range(first, last)]
        found = set()
        # A second more, as not every container finds the exact place.
        with reading(self._path), self._opened(start - 1) as container:
            stream = self._stream(container)
            unit = seconds(stream.time_base)
            for packet in packets(container, stream):
                if packet.pts is not None:
                    found.add(packet.pts * unit - self._first)
                # None that comes later is shown before it is decoded.
                if packet.dts is not None and packet.dts * unit - self._first >= end:
                    break
        return sorted(time for time in found if start <= time < end)

    def close(self) -> None:
        self._frames, self._held, self._ahead = iter(()), None, None

    def _stream(self, container: InputContainer) -> VideoStream:
        stream = container.streams[self._info.track]
        assert isinstance(stream, VideoStream)
        stream.thread_type = "AUTO"
        return stream

    @contextmanager
    def _opened(self, time: Fraction) -> Iterator[InputContainer]:
        """The file, at a key frame before a time; where it cannot be sought in, at its start."""
        assert self._first is not None
        with ExitStack() as opened:
            container = opened.enter_context(media(self._path))
            stream = self._stream(container)
            try:
                place = int((self._first + time) / seconds(stream.time_base))
                container.seek(place, stream=stream)
            except av.FFmpegError:
                # GIF, for one. It has lost its place.
                opened.close()
                container = opened.enter_context(media(self._path))
            yield container

    def _frames_from(self, target: Fraction) -> Iterator[tuple[Fraction, VideoFrame]]:
        """Frames with their times; the first one is at or before `target`."""
        back = Fraction(0)
        while self._first is not None and target > back:
            with self._opened(target - back) as container:
                # Frames before the first key frame need some that were not read.
                frames = dropwhile(lambda f: not f[1].key_frame, self._decoded(container))
                head = next(frames, None)
                if head is not None and head[1].pts is not None and head[0] <= target:
                    yield head
                    yield from frames
                    return
            # Not every container finds the place, and pictures are shown later than decoded.
            back = max(2 * back, Fraction(1))
        with media(self._path) as container:
            yield from self._decoded(container)

    def _decoded(self, container: InputContainer) -> Iterator[tuple[Fraction, VideoFrame]]:
        stream = self._stream(container)
        time = -self._step
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue  # as players do: what is damaged is left out
            for frame in frames:
                if frame.pts is None or self._first is None:
                    time += self._step
                else:
                    time = frame.pts * seconds(frame.time_base) - self._first
                yield time, frame

    def _upright(self, picture: Array) -> Array:
        turned = np.rot90(picture, -self._info.rotation // 90)
        return np.ascontiguousarray(turned[:, ::-1] if self._info.mirrored else turned)


class _Script:
    """The first output of a script."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        if not path.is_file():
            raise ArgumentError(f"sources must be files, got {path}, which does not exist.")
        vs.clear_outputs()
        try:
            # As vspipe does: relative names in a script are from its folder.
            with chdir(path.absolute().parent):
                runpy.run_path(path.name, run_name="__vapoursynth__")
            output = vs.get_outputs().get(0)
        except (Exception, SystemExit) as e:
            raise ArgumentError(
                f"sources must be scripts that run, got {path} ({type(e).__name__}: {e}). Try it: "
                f"vspipe --info {path}"
            ) from None
        finally:
            vs.clear_outputs()
        node = getattr(output, "clip", None)
        if node is None or not (node.format and node.width and node.fps):
            raise ArgumentError(
                f"sources must be scripts with a clip of one format, size and rate, got {path}. "
                "End it with clip.set_output(); AssumeFPS gives a clip one rate."
            )
        self._node = node
        self._rate = Fraction(node.fps)
        self.width, self.height = node.width, node.height
        self.about = f"script {node.format.name}"
        with self._frame(0) as frame:
            above, below = (int(frame.props.get(k, 1)) for k in ("_SARNum", "_SARDen"))
            self.note = _note(self.name, int(frame.props.get("_Transfer", 2)))
        self.aspect = Fraction(above, below) if above > 0 and below > 0 else Fraction(1)
        self.is_still = len(node) == 1
        self.duration = Fraction(0) if self.is_still else len(node) / self._rate
        self._shown: Picture | None = None

    def at(self, time: Fraction) -> Picture:
        number = min(int((time + _ROUNDING) * self._rate), len(self._node) - 1)
        begins = number / self._rate
        if self._shown is None or self._shown.time != begins:
            self._shown = Picture(begins, node_rgb(self.name, self._node, number))
        return self._shown

    def times(self, start: Fraction, end: Fraction) -> list[Fraction]:
        first, last = -(-start * self._rate // 1), -(-end * self._rate // 1)
        return [n / self._rate for n in range(first, min(last, len(self._node)))]

    def close(self) -> None:
        del self._node

    def _frame(self, number: int) -> vs.VideoFrame:
        try:
            return self._node.get_frame(number)
        except vs.Error as e:
            raise ArgumentError(
                f"sources must be scripts that give their frames, got {self.name} ({e}). Mend "
                "what it names."
            ) from None
