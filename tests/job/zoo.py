"""A zoo of sources: small files of every kind that people upscale, made by PyAV.

`make` writes one of `ANIMALS` by name. All pictures move and have texture, so that encoders, motion
and fields have something to work on; the same name always gives the same file.
"""

import functools
import io
import os
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

__all__ = ["ANIMALS", "FLASHES", "NAMES", "make"]

type Pictures = NDArray[np.uint8]

# Seconds at which the clip with sound flashes and beeps: unevenly, so that only one shift fits.
FLASHES = (0.4, 1.0, 1.88)

# Names that trip up shells, options, encodings and patterns.
NAMES = (
    "two words.mkv",
    'it\'s "quoted".mkv',
    "-dash.mkv",
    "日本語 ünï.mkv",
    "100% [1] {x}.mkv",
    os.fsdecode(b"no text \xff.mkv"),
)

_RATE = 48000
_BT709 = {"color_primaries": 1, "color_trc": 1, "colorspace": 1, "color_range": 1}
_HDR10 = {"color_primaries": 9, "color_trc": 16, "colorspace": 9, "color_range": 1}
_HLG = {"color_primaries": 9, "color_trc": 18, "colorspace": 9, "color_range": 1}
_X265 = "log-level=none:pools=1:frame-threads=1"
_ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour
Style: Default,Zoo Sans,20,&H00FFFFFF

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:00.04,0:00:00.20,Default,,0,0,0,,{\\i1}First{\\i0}
Dialogue: 0,0:00:00.24,0:00:00.44,Default,,0,0,0,,Second, with a comma
"""
_SRT = (
    "1\n00:00:00,040 --> 00:00:00,200\nFirst\n\n2\n00:00:00,240 --> 00:00:00,440\n<i>Second</i>\n"
)
_CHAPTERS = ((0, 200, "Opening"), (200, 480, "Zweites Kapitel"))


def make(name: str, folder: Path) -> Path:
    """Write one of `ANIMALS` into a folder."""
    path = folder / name
    ANIMALS[name](path)
    return path


def moving(count: int, width: int, height: int) -> Pictures:
    """Texture that drifts by 2 pixels right and 1 down a picture, (count, height, width, 3)."""
    rng = np.random.default_rng(5)
    coarse = rng.uniform(30, 220, (height // 8 + 2, width // 8 + 2, 3))
    grain = rng.uniform(-20, 20, (height, width, 3))
    picture = coarse.repeat(8, 0).repeat(8, 1)[:height, :width] + grain
    for axis in (0, 1):  # softens the edges of the squares
        picture = (np.roll(picture, -1, axis) + picture + np.roll(picture, 1, axis)) / 3
    shifted = [np.roll(picture, (n, 2 * n), (0, 1)) for n in range(count)]
    return np.array(shifted).clip(0, 255).astype(np.uint8)


def woven(pictures: Pictures, moments: Sequence[tuple[int, int]]) -> Pictures:
    """Pictures whose even and odd lines are of two moments: (top, bottom) for each."""
    out = np.empty((len(moments), *pictures.shape[1:]), np.uint8)
    for n, (top, bottom) in enumerate(moments):
        out[n, 0::2], out[n, 1::2] = pictures[top, 0::2], pictures[bottom, 1::2]
    return out


def interlaced(count: int, width: int, height: int, *, top_first: bool = True) -> Pictures:
    """Each picture two moments, the earlier one in the top or in the bottom field."""
    first = 0 if top_first else 1
    moments = [(2 * n + first, 2 * n + 1 - first) for n in range(count)]
    return woven(moving(2 * count, width, height), moments)


def telecined(count: int, width: int, height: int) -> Pictures:
    """Four pictures of film in five of video, top field first."""
    cycle = [(0, 0), (1, 1), (1, 2), (2, 3), (3, 3)]
    moments = [
        (4 * (n // 5) + cycle[n % 5][0], 4 * (n // 5) + cycle[n % 5][1]) for n in range(count)
    ]
    return woven(moving(count, width, height), moments)


def tone(seconds: float, pitch: float = 440.0) -> NDArray[np.int16]:
    """A steady sound at 48 kHz, (1, samples)."""
    t = np.arange(round(seconds * _RATE)) / _RATE
    return (8000 * np.sin(2 * np.pi * pitch * t)).astype(np.int16)[None]


class Writer:
    """One file: add streams, then write pictures and sound to them."""

    def __init__(self, path: Path, **options: Any) -> None:
        # Not by name: FFmpeg reads "a:b" and "%d" in one as something else.
        self._file = path.open("wb")
        name = {"mkv": "matroska", "ts": "mpegts"}.get(path.suffix[1:], path.suffix[1:])
        self.container = av.open(self._file, "w", format=name, **options)
        self._pending: list[Callable[[], None]] = []

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: object) -> None:
        # All streams must be there before the first packet.
        for write in self._pending:
            write()
        self.container.close()
        self._file.close()

    def video(
        self,
        pictures: Pictures,
        *,
        codec: str = "libx264",
        format: str = "yuv420p",
        options: dict[str, str] | None = None,
        times: Sequence[int] | None = None,
        time_base: Fraction = Fraction(1, 25),
        rate: Fraction = Fraction(25),
        aspect: Fraction | None = None,
        colour: dict[str, int] | None = None,
        rotation: int = 0,
        flags: str = "",
    ) -> Any:
        """Add a video stream.

        `times` are in units of `time_base`, by default 0, 1, 2, …; `flags` say of each picture
        that it has two moments, the first in the top field ("tff") or in the bottom one ("bff").
        """
        defaults = {
            "libx264": {"preset": "ultrafast", "crf": "18", "threads": "1"},
            "libx264rgb": {"preset": "ultrafast", "crf": "0", "threads": "1"},
            "libx265": {"preset": "ultrafast", "crf": "20", "x265-params": _X265},
        }
        stream: Any = self.container.add_stream(
            codec,
            rate,
            options={
                **defaults.get(codec, {}),
                **({"flags": "+ildct+ilme"} if flags else {}),
                **(options or {}),
            },
        )
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = format
        stream.codec_context.time_base = time_base
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for name, code in (_BT709 if colour is None else colour).items():
            setattr(stream.codec_context, name, code)
        if rotation:
            stream.set_display_rotation(rotation)

        def write() -> None:
            for n, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(
                    format=format, dst_colorspace="itu709"
                )
                frame.pts = n if times is None else times[n]
                frame.time_base = time_base
                self.container.mux(stream.encode(_flagged(frame, flags) if flags else frame))
            self.container.mux(stream.encode(None))

        self._pending.append(write)
        return stream

    def audio(
        self,
        sound: NDArray[np.int16],
        *,
        codec: str = "flac",
        language: str = "",
        title: str = "",
        disposition: Disposition | None = None,
        delay: int = 0,
    ) -> Any:
        """Add an audio stream, mono; `delay` in samples."""
        stream: Any = self.container.add_stream(codec, _RATE, layout="mono")
        _describe(stream, language, title, disposition)

        def write() -> None:
            frame = av.AudioFrame.from_ndarray(sound, "s16p", "mono")
            frame.sample_rate, frame.pts, frame.time_base = _RATE, delay, Fraction(1, _RATE)
            resampler = av.AudioResampler(
                stream.codec_context.format.name, "mono", _RATE, stream.codec_context.frame_size
            )
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                self.container.mux(stream.encode(piece))
            self.container.mux(stream.encode(None))

        self._pending.append(write)
        return stream

    def subtitles(self, text: str, form: str, language: str = "", title: str = "") -> Any:
        """Add the subtitles of a file of the form "ass" or "srt"."""
        with av.open(io.BytesIO(text.encode()), "r", format=form) as source:
            old = source.streams.subtitles[0]
            stream = self.container.add_stream_from_template(old)
            packets = [packet for packet in source.demux(old) if packet.size]
        _describe(stream, language, title, None)

        def write() -> None:
            for packet in packets:
                packet.stream = stream
                self.container.mux(packet)

        self._pending.append(write)
        return stream

    def chapters(self) -> None:
        """Add two chapters with titles."""
        self.container.set_chapters(
            [
                {
                    "id": n + 1,
                    "start": start,
                    "end": end,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": title},
                }
                for n, (start, end, title) in enumerate(_CHAPTERS)
            ]
        )


def _flagged(frame: av.VideoFrame, flags: str) -> av.VideoFrame:
    # The only way to these flags of a frame in PyAV.
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(
            template=None,
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base,
        ),
        graph.add("setfield", flags),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    out = graph.pull()
    assert isinstance(out, av.VideoFrame)
    return out


def _describe(stream: Any, language: str, title: str, disposition: Disposition | None) -> None:
    if language:
        stream.metadata["language"] = language
    if title:
        stream.metadata["title"] = title
    if disposition is not None:
        stream.disposition = disposition


def _pictures_only(path: Path, pictures: Pictures | None = None, **video: Any) -> None:
    with Writer(path) as out:
        out.video(moving(12, 64, 48) if pictures is None else pictures, **video)


def _uneven(path: Path) -> None:
    # 24 pictures a second with one of 42 ms now and then held longer, as telephones write it.
    steps = [0, 42, 83, 125, 300, 342, 383, 900, 933, 967, 1000, 1042]
    if path.suffix == ".mp4":
        _pictures_only(path, times=[90 * t for t in steps], time_base=Fraction(1, 90000))
    else:
        _pictures_only(path, times=steps, time_base=Fraction(1, 1000))


def _two_tracks(path: Path) -> None:
    with Writer(path) as out:
        out.container.metadata["title"] = "The zoo"
        out.container.metadata["comment"] = "Zwei Spuren"
        video = out.video(moving(12, 64, 48))
        _describe(video, "eng", "The pictures", None)
        out.audio(
            tone(0.48), language="deu", title="Deutsch", disposition=Disposition.default, delay=480
        )
        flags = Disposition.comment | Disposition.hearing_impaired
        out.audio(tone(0.48, 880), language="jpn", title="解説", disposition=flags)


def _ass(path: Path) -> None:
    with Writer(path) as out:
        out.video(moving(12, 64, 48))
        out.subtitles(_ASS, "ass", "eng", "Signs")
        font = bytes(range(256)) * 8
        out.container.add_attachment("ZooSans.ttf", "application/x-truetype-font", font)


def _srt(path: Path) -> None:
    with Writer(path) as out:
        out.video(moving(12, 64, 48))
        out.subtitles(_SRT, "srt", "fra", "Français")


def _chapters(path: Path) -> None:
    with Writer(path) as out:
        out.video(moving(12, 64, 48))
        out.chapters()


def _attachments(path: Path) -> None:
    with Writer(path) as out:
        out.video(moving(12, 64, 48))
        out.container.add_attachment("read me.txt", "text/plain", b"Hello.\n")
        out.container.add_attachment("data.bin", "application/octet-stream", bytes(range(256)))


def _mp4_text(path: Path) -> None:
    with Writer(path) as out:
        out.container.metadata["title"] = "The zoo"
        out.video(moving(12, 64, 48))
        out.audio(tone(0.48), codec="aac", language="deu")
        stream: Any = out.container.add_mux_stream("mov_text")
        stream.time_base = Fraction(1, 1000)
        stream.metadata["language"] = "fra"
        out.chapters()

        def write() -> None:
            for start, text in ((40, "First"), (240, "Second")):
                data = text.encode()
                packet = av.Packet(struct.pack(">H", len(data)) + data)
                packet.pts = packet.dts = start
                packet.duration, packet.time_base, packet.stream = 160, Fraction(1, 1000), stream
                out.container.mux(packet)

        out._pending.append(write)


def _truncated(path: Path) -> None:
    # Every picture in a cluster of its own size: the cut falls into the middle of one.
    with Writer(path) as out:
        out.video(moving(24, 96, 64), options={"g": "6", "crf": "10"})
        out.audio(tone(0.96))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])


def _sync(path: Path) -> None:
    pictures = moving(60, 64, 48) // 4
    sound = np.zeros((1, round(2.4 * _RATE)), np.int16)
    beep = tone(0.04, 1000)
    for flash in FLASHES:
        pictures[round(25 * flash)] = 255
        first = round(flash * _RATE)
        sound[:, first : first + beep.shape[1]] = beep
    with Writer(path) as out:
        out.video(pictures)
        out.audio(sound, codec="aac" if path.suffix == ".mp4" else "flac")


def _late(path: Path) -> None:
    # As a recording or a cut has it: the first picture is not at 0.
    with Writer(path) as out:
        out.video(
            moving(12, 64, 48),
            times=[1400 + 40 * n for n in range(12)],
            time_base=Fraction(1, 1000),
        )
        out.audio(tone(0.5), delay=round(1.38 * _RATE))


def _cover(path: Path) -> None:
    with Writer(path) as out:
        cover = out.video(moving(1, 32, 32), codec="mjpeg", format="yuvj420p", colour={})
        cover.disposition = Disposition.attached_pic
        out.video(moving(12, 64, 48))
        out.audio(tone(0.48), codec="aac")


def _cover_attached(path: Path) -> None:
    picture = io.BytesIO()
    with av.open(picture, "w", format="mjpeg") as one:
        stream: Any = one.add_stream("mjpeg")
        stream.width = stream.height = 32
        stream.pix_fmt = "yuvj420p"
        frame = av.VideoFrame.from_ndarray(moving(1, 32, 32)[0], "rgb24")
        one.mux([*stream.encode(frame), *stream.encode(None)])
    with Writer(path) as out:
        out.video(moving(12, 64, 48))
        out.container.add_attachment("cover.jpg", "image/jpeg", picture.getvalue())


def _broadcast(path: Path) -> None:
    with Writer(path) as out:
        out.video(moving(12, 64, 48), codec="mpeg2video", options={"b:v": "400k", "bf": "2"})
        out.audio(tone(0.48), codec="mp2", language="deu")


def _camera(path: Path) -> None:
    with Writer(path) as out:
        out.video(moving(12, 64, 48), codec="mpeg4", options={"b:v": "400k"})
        out.audio(tone(0.48), codec="libmp3lame")


def _b_frames(path: Path) -> None:
    # AVI has no times of display: FFmpeg's decoder has none for the first and the last picture.
    with Writer(path) as out:
        out.video(moving(12, 64, 48), codec="mpeg4", options={"b:v": "400k", "bf": "2"})
        out.audio(tone(0.48), codec="libmp3lame")


def _jumps(path: Path) -> None:
    # Two recordings, one after the other, each with its own times.
    _broadcast(path)
    path.write_bytes(path.read_bytes() * 2)


def _sound_only(path: Path) -> None:
    with Writer(path) as out:
        out.audio(tone(0.5))


def _text(path: Path) -> None:
    path.write_text("This is a text.\n" * 100)


def _headless(path: Path) -> None:
    _pictures_only(path)
    whole = path.read_bytes()
    # The table of an MP4 file comes last; without it nothing can be read.
    path.write_bytes(whole[: whole.rindex(b"moov") - 4])


def _dolby_vision(path: Path) -> None:
    """An MP4 marked as Dolby Vision 8.1, by a configuration box put into the sample entry."""
    _hdr10(path)
    whole = path.read_bytes()
    config = struct.pack(">I4sBBBBB19x", 32, b"dvvC", 1, 0, 8 << 1, 3 << 3 | 0b101, 1 << 4)
    # The table comes last, so no picture moves. Each box around the new one grows by its size.
    data, end = bytearray(whole), 0
    first, last = whole.rindex(b"moov") - 4, len(whole)
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"hev1"):
        first = whole.index(kind, first, last) - 4
        size = struct.unpack_from(">I", whole, first)[0]
        struct.pack_into(">I", data, first, size + len(config))
        end = first + size
    data[end:end] = config
    path.write_bytes(data)


_DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"


def _hdr10(path: Path) -> None:
    params = f"{_X265}:hdr10=1:repeat-headers=1:master-display={_DISPLAY}:max-cll=1000,400"
    _pictures_only(
        path,
        codec="libx265",
        format="yuv420p10le",
        options={"x265-params": params},
        colour=_HDR10,
    )


ANIMALS: dict[str, Callable[[Path], None]] = {
    "plain.mkv": _pictures_only,
    "plain.mp4": _pictures_only,
    "uneven.mkv": _uneven,
    "uneven.mp4": _uneven,
    "rotated.mp4": functools.partial(_pictures_only, rotation=90),
    "dvd.mkv": functools.partial(
        _pictures_only, pictures=moving(12, 72, 56), aspect=Fraction(16, 15)
    ),
    "odd.mkv": functools.partial(
        _pictures_only, pictures=moving(12, 65, 49), codec="ffv1", format="yuv444p"
    ),
    "odd_half_chroma.mkv": functools.partial(
        _pictures_only, pictures=moving(12, 65, 49), codec="ffv1"
    ),
    "hdr10.mkv": _hdr10,
    "hdr10.mp4": _hdr10,
    "hlg.mkv": functools.partial(
        _pictures_only, codec="libx265", format="yuv420p10le", colour=_HLG
    ),
    "pq_no_matrix.mkv": functools.partial(
        _pictures_only,
        codec="libx265",
        format="yuv420p10le",
        colour={**_HDR10, "colorspace": 2},
    ),
    "dolby_vision.mp4": _dolby_vision,
    "two_tracks.mkv": _two_tracks,
    "two_tracks.mp4": _two_tracks,
    "ass_font.mkv": _ass,
    "srt.mkv": _srt,
    "chapters.mkv": _chapters,
    "attachments.mkv": _attachments,
    "chapter_track.mp4": _mp4_text,
    "truncated.mkv": _truncated,
    "headless.mp4": _headless,
    "text.mkv": _text,
    "empty.mkv": Path.touch,
    "sound_only.mkv": _sound_only,
    "one_frame.mkv": functools.partial(_pictures_only, pictures=moving(1, 64, 48)),
    "interlaced.mkv": functools.partial(
        _pictures_only, pictures=interlaced(24, 96, 64), flags="tff"
    ),
    "interlaced_bottom.mkv": functools.partial(
        _pictures_only,
        pictures=interlaced(24, 96, 64, top_first=False),
        flags="bff",
    ),
    "interlaced_no_flags.mkv": functools.partial(_pictures_only, pictures=interlaced(24, 96, 64)),
    "whole_but_flagged.mkv": functools.partial(
        _pictures_only, pictures=moving(24, 96, 64), flags="tff"
    ),
    "telecined.mkv": functools.partial(
        _pictures_only,
        pictures=telecined(25, 96, 64),
        time_base=Fraction(1001, 30000),
        rate=Fraction(30000, 1001),
    ),
    "late.mkv": _late,
    "late.mp4": _late,
    "sync.mkv": _sync,
    "sync.mp4": _sync,
    "grey.mkv": functools.partial(_pictures_only, codec="ffv1", format="gray", colour={}),
    "rgb.mkv": functools.partial(_pictures_only, codec="libx264rgb", format="rgb24", colour={}),
    "full_chroma.mkv": functools.partial(_pictures_only, format="yuv444p"),
    "old.avi": _camera,
    "b_frames.avi": _b_frames,
    "raw.h264": functools.partial(
        _pictures_only,
        options={"preset": "fast", "bf": "2"},
        time_base=Fraction(1, 24),
        rate=Fraction(24),
    ),
    "broadcast.ts": _broadcast,
    "jumps.ts": _jumps,
    "cover.mp4": _cover,
    "cover.mkv": _cover_attached,
}
