"""Small sources and plans for the tests of jobs: made by PyAV, 64x48, seconds in all."""

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.rational import AVRational
from av.stream import Disposition
from av.video.stream import VideoStream

from vs_vsr.job.encode import PartWriter, check_part
from vs_vsr.job.encoders import encoder
from vs_vsr.job.plan import Colour, JobPlan, Recipe, Source
from vs_vsr.job.source import packets_hash, probe, seconds

WIDTH, HEIGHT = 64, 48
SDR = Colour(matrix=1, primaries=1, transfer=1, full_range=False, chroma_location=0)
MASTERING = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
HDR = Colour(
    matrix=9,
    primaries=9,
    transfer=16,
    full_range=False,
    chroma_location=2,
    mastering_display=MASTERING,
    content_light="1000,400",
)


def picture(n: int, picture_format: str = "YUV420P8") -> list[np.ndarray[Any, Any]]:
    """Planes of a picture that differs from its neighbours, in VapourSynth's order."""
    family, bits = picture_format[:3], picture_format.rpartition("P")[2]
    deep = bits not in ("8", "RGB24", "GRAY8")
    kind, top = (np.uint16, 1023) if deep else (np.uint8, 255)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [((x * 3 + y * 2 + n * 7) % 200 + 20) * top // 255]
    if family != "GRA":
        low = (2, 2) if "420" in picture_format else (1, 1)
        for shift in (40, 90):
            plane = (planes[0] + shift * (n % 3 + 1)) % (top - 20)
            planes.append(plane[:: low[0], :: low[1]])
    return [plane.astype(kind) for plane in planes]


def film(
    path: Path,
    times: Sequence[int],
    unit: Fraction = Fraction(1, 1000),
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    sound: tuple[str, ...] = (),
    sound_start: Fraction = Fraction(0),
    sound_seconds: Fraction | None = None,
    rotation: int = 0,
    aspect: Fraction = Fraction(1),
    subtitles: Sequence[tuple[int, int, str]] = (),
    subtitle_codec: str = "ass",
    fonts: Sequence[tuple[str, bytes]] = (),
    chapters: Sequence[tuple[int, int, str]] = (),
    metadata: dict[str, str] | None = None,
    format: str | None = None,
) -> Path:
    """A file with pictures at `times`, and with whatever else is asked for.

    `sound` has the languages of its AAC streams; subtitles and chapters are (from, to, text) in ms.
    """
    length = (times[-1] - times[0]) * unit + Fraction(1, 10)
    container_options = {"video_track_timescale": str(unit.denominator)}
    if path.suffix != ".mp4":
        container_options = {}
    with av.open(str(path), "w", format=format, container_options=container_options) as out:
        out.metadata.update(metadata or {})
        stream = out.add_stream(codec, rate=25, options=options or {"preset": "veryfast"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context = stream.codec_context
        context.time_base = stream.time_base = unit
        context.colorspace = context.color_primaries = context.color_trc = 1
        context.color_range = 1
        context.sample_aspect_ratio = aspect
        context.thread_count = 1
        stream.metadata.update({"language": "jpn", "title": "The pictures"})
        if rotation:
            stream.set_display_rotation(-rotation)
        tracks = [_sound(out, language) for language in sound]
        lines: Any = None
        if subtitles:
            lines = out.add_stream(subtitle_codec)
            lines.codec_context.subtitle_header = _HEADER
            lines.codec_context.open()
            lines.time_base = Fraction(1, 1000)
            lines.metadata.update({"language": "ger", "title": "Untertitel"})
        for name, data in fonts:
            out.add_attachment(name, "font/ttf", data)
        out.set_chapters(
            [
                {
                    "id": n + 1,
                    "start": start,
                    "end": end,
                    "time_base": AVRational(1, 1000),
                    "metadata": {"title": title},
                }
                for n, (start, end, title) in enumerate(chapters)
            ]
        )
        pictures = []
        for n, time in enumerate(times):
            frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
            for target, plane in zip(frame.planes, picture(n), strict=True):
                rows = np.frombuffer(target, np.uint8).reshape(target.height, -1)
                rows[:, : target.width] = plane
            frame.pts, frame.time_base = time, unit
            pictures.extend(stream.encode(frame))
        pictures.extend(stream.encode(None))
        packets = list(pictures)
        for number, track in enumerate(tracks):
            packets += _tone(track, sound_start, sound_seconds or length, 440 * (number + 1))
        for start, end, text in subtitles:
            packets.append(_line(lines, start, end, text))
        packets.sort(key=lambda p: (p.dts or 0) * seconds(p.time_base))
        out.mux(packets)
    return path


_HEADER = (
    b"[Script Info]\nScriptType: v4.00+\nPlayResX: 64\nPlayResY: 48\n\n[V4+ Styles]\n"
    b"Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, "
    b"BackColour, Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, "
    b"BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding\n"
    b"Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0\n"
    b"\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
)


def _sound(out: OutputContainer, language: str) -> AudioStream:
    track = out.add_stream("aac", rate=48000)
    assert isinstance(track, AudioStream)
    track.layout = "mono"
    track.metadata.update({"language": language, "title": f"Sound in {language}"})
    return track


def _tone(track: AudioStream, start: Fraction, length: Fraction, hertz: int) -> list[Any]:
    packets = []
    first = round(start * 48000)
    for block in range(round(length * 48000) // 1024):
        n = np.arange(block * 1024, (block + 1) * 1024)
        wave = (0.3 * np.sin(2 * np.pi * hertz * n / 48000)).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
        frame.sample_rate, frame.pts = 48000, first + block * 1024
        frame.time_base = Fraction(1, 48000)
        packets += track.encode(frame)
    return packets + track.encode(None)


def _line(stream: Any, start: int, end: int, text: str) -> Any:
    line = f"0,0,Default,,0,0,0,,{text}"
    packet = stream.codec_context.encode_subtitle(
        av.subtitles.subtitle.SubtitleSet.create(line.encode(), 0, end - start, start * 1000)
    )
    packet.stream = stream
    packet.time_base = Fraction(1, 1000)
    packet.pts = packet.dts = start
    packet.duration = end - start
    return packet


def plan_of(
    source: Path,
    out: Path,
    times: Sequence[int],
    parts: Sequence[tuple[int, int]],
    *,
    unit: Fraction | None = None,
    codec: str = "x264",
    options: dict[str, str] | None = None,
    colour: Colour = SDR,
    picture_format: str = "YUV420P8",
    rotation: int = 0,
    aspect: tuple[int, int] = (1, 1),
    last_duration: int | None = None,
) -> JobPlan:
    """A plan for pictures at `times` (the source's, in its unit), in `parts`."""
    info = probe(source)
    unit = unit or info.time_base
    presets = {"x264": "veryfast", "x265": "ultrafast", "av1": "10"}
    return JobPlan(
        source=Source(
            path=str(source),
            size=source.stat().st_size,
            modified_ns=source.stat().st_mtime_ns,
            packets=packets_hash(source, info.track),
            track=info.track,
            width=info.width,
            height=info.height,
            frames=len(times),
        ),
        recipe=Recipe(
            filter="BasicVSR",
            weights="none",
            weights_sha256="",
            arguments={},
            deinterlace="",
            top_field_first=True,
            frames_per_input=1,
            width=WIDTH,
            height=HEIGHT,
            format=picture_format,
        ),
        encoder=encoder(
            codec,
            crf=None,
            preset=presets.get(codec),
            threads=1,
            options=options or {},
            picture_format=picture_format,
            colour=colour,
            width=WIDTH,
            height=HEIGHT,
            rate=Fraction(25),
        ),
        colour=colour,
        sample_aspect=aspect,
        rotation=rotation,
        time_base=(unit.numerator, unit.denominator),
        times=tuple(times),
        last_duration=last_duration or max(1, round(Fraction(1, 25) / unit)),
        cuts=(),
        parts=tuple(parts),
        versions={},
        out=str(out),
    )


def make_parts(plan: JobPlan, folder: Path) -> list[str]:
    """Write the parts of a plan; the hashes of their pictures."""
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    hashes = []
    for number, (first, last) in enumerate(plan.parts):
        path = plan.part_file(folder, number)
        with PartWriter(path, plan, first) as writer:
            for n in range(first, last):
                writer.write(picture(n, plan.recipe.format))
        hashes.append(check_part(path, plan, number))
    return hashes


def decoded(path: Path) -> str:
    """SHA-256 over the samples of all pictures of a file."""
    digest = hashlib.sha256()
    decoded_into(digest, path)
    return digest.hexdigest()


def decoded_into(digest: Any, path: Path) -> None:
    """Add the samples of all pictures of a file to a hash."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            for plane in frame.planes:
                deep = 2 if frame.format.components[0].bits > 8 else 1
                rows = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)
                digest.update(np.ascontiguousarray(rows[:, : plane.width * deep]))


def sound_only(path: Path) -> None:
    """A file without pictures."""
    with av.open(str(path), "w", format="matroska") as out:
        out.mux(_tone(_sound(out, "eng"), Fraction(0), Fraction(1, 5), 440))


def with_cover(source: Path, path: Path) -> Path:
    """The same file, with a cover."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        copies = {
            s.index: new.add_stream_from_template(s, opaque=True)
            for s in old.streams
            if s.type in ("video", "audio")
        }
        cover = new.add_stream("mjpeg", rate=1)
        assert isinstance(cover, VideoStream)
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuvj420p")
        for plane in frame.planes:
            np.frombuffer(plane, np.uint8)[:] = 100
        new.mux(cover.encode(frame) + cover.encode(None))
        for packet in old.demux():
            if packet.dts is not None and packet.stream.index in copies:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    return path
