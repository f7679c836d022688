"""The encoders, and how each is asked for parts that can be joined.

Every part begins with a key frame that nothing before it is needed for (closed groups of pictures),
carries its headers, and has constant quality: rate control cannot see across parts.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path

import av
import av.logging
from av.video.codeccontext import VideoCodecContext

from vs_vsr.errors import JobError
from vs_vsr.job.plan import Colour, Encoder

__all__ = [
    "NAMES",
    "check_container",
    "configure",
    "containers",
    "encoder",
    "lost_in",
    "opened",
    "pixel_format",
]

_X26X_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """What is known of an encoder."""

    ffmpeg: str
    containers: tuple[str, ...]
    """Suffixes of files that its packets go into."""
    crf: float | None = None
    """Quality by default; None for one that loses nothing."""
    best: float = 0
    worst: float = 51
    """Of the quality: the lower, the better."""
    preset: str | None = None
    presets: tuple[str, ...] = ()
    params: str = ""
    """FFmpeg's option that takes the encoder's own, as "a=1:b=2"; "" where there is none."""


_MP4S = (".mp4", ".m4v", ".mov")
_KINDS = {
    "x264": _Kind(
        ffmpeg="libx264",
        containers=(".mkv", *_MP4S),
        crf=17,
        preset="medium",
        presets=_X26X_PRESETS,
        params="x264-params",
    ),
    "x265": _Kind(
        ffmpeg="libx265",
        containers=(".mkv", *_MP4S),
        crf=18,
        preset="medium",
        presets=_X26X_PRESETS,
        params="x265-params",
    ),
    "av1": _Kind(
        ffmpeg="libsvtav1",
        containers=(".mkv", ".webm", ".mp4", ".m4v"),
        crf=24,
        best=1,
        worst=63,
        preset="5",
        presets=tuple(str(n) for n in range(0, 14)),
        params="svtav1-params",
    ),
    "ffv1": _Kind(ffmpeg="ffv1", containers=(".mkv",)),
    **{
        name: _Kind(
            ffmpeg=name,
            containers=containers,
            crf=20,
            worst=worst,
            preset="p5",
            presets=tuple(f"p{n}" for n in range(1, 8)),
        )
        for name, containers, worst in (
            ("h264_nvenc", (".mkv", *_MP4S), 51),
            ("hevc_nvenc", (".mkv", *_MP4S), 51),
            ("av1_nvenc", (".mkv", ".webm", ".mp4", ".m4v"), 63),
        )
    },
}
NAMES = tuple(_KINDS)

# Targets of a size: no quality stays constant over parts with them.
_RATES = ("b", "bitrate", "tbr", "rc", "maxrate", "bufsize", "vbv-maxrate", "vbv-bufsize", "pass")
# Set by an argument, or by what parts need.
_OURS = (
    *("crf", "cq", "preset", "threads", "frame-threads", "pools", "lp", "slices", "log-level"),
    *("open-gop", "repeat-headers", "irefresh-type", "keyint", "g", "stats"),
)

# By FFmpeg's names: what passes through x264-params and its kin.
_HDR10 = ("libx264", "libx265", "libsvtav1")
_NO_ASPECT = ("av1", "av1_nvenc", "ffv1")

# Pictures between two key frames, in seconds: how far a player's seek may be off.
_KEY_SECONDS = 10
# x265's pictures differ between one and several frame threads; more than this gain little.
_FRAME_THREADS_MAX = 4
# Of SVT-AV1's levels of parallelism.
_LEVELS_MAX = 6

# VapourSynth's three planes are green, blue, red for FFmpeg only in these.
_RGB = {"24": "bgr0", "27": "gbrp9le", "30": "gbrp10le", "36": "gbrp12le", "48": "gbrp16le"}
# What NVENC takes instead of planes of its own; FFmpeg's scaler moves the samples there.
_NVENC = {"yuv420p10le": "p010le"}


def encoder(
    name: str,
    *,
    crf: float | None,
    preset: str | None,
    threads: int,
    options: Mapping[str, str],
    picture_format: str,
    colour: Colour,
    width: int,
    height: int,
    rate: Fraction,
) -> Encoder:
    """Say how pictures are encoded, once for all parts. It is tried on the way.

    Args:
        name: One of `NAMES`.
        crf: Constant quality, the lower the better; None for the encoder's default here.
        preset: The encoder's own name of its speed; None for the default here.
        threads: Of the encoder, 1 or more, whatever machine makes a part.
        options: More options of the encoder, in its own words, such as {"aq-mode": "3"}.
        picture_format: VapourSynth's name, such as "YUV420P10".
        colour: What the numbers mean.
        width: Of the pictures.
        height: Of the pictures.
        rate: Average, in pictures per second; 0 where it is unknown.

    Raises:
        JobError: An argument breaks a rule of the encoder, or this machine cannot run it.
    """
    if name not in _KINDS:
        close = get_close_matches(name, NAMES, 1)
        advice = f"Did you mean {close[0]}?" if close else "Choose one of them."
        raise JobError(f"encoder must be one of {', '.join(NAMES)}, got {name}. {advice}")
    kind = _KINDS[name]
    _check_options(name, options)
    if threads < 1:
        raise JobError(f"threads must be 1 or more, got {threads}. Leave it out for the default.")
    _check_format(name, kind, picture_format)
    chosen = {
        **_quality(name, kind, crf, preset),
        **_own(name, kind, options, threads, colour),
        "g": str(max(1, round(_KEY_SECONDS * (rate or 24)))),
    }
    if name == "ffv1":
        chosen["g"] = "1"
    made = Encoder(name=kind.ffmpeg, options=chosen, threads=threads)
    with opened(made, picture_format, colour, width, height, rate):
        return made


def containers(name: str) -> tuple[str, ...]:
    """Suffixes of files that the packets of an encoder go into.

    Args:
        name: One of `NAMES`.
    """
    return _KINDS[name].containers


def check_container(out: Path, made: Encoder, sample_aspect: tuple[int, int]) -> None:
    """Check that a file can take what an encoder makes.

    Raises:
        JobError: It cannot.
    """
    name, kind = next((n, k) for n, k in _KINDS.items() if k.ffmpeg == made.name)
    suffix = out.suffix.lower()
    if suffix not in kind.containers:
        raise JobError(
            f"output must end in {' or '.join(kind.containers)} for the encoder {name}, got "
            f"{out.name}. Choose another ending or another --encoder."
        )
    # These packets do not tell it, and PyAV cannot tell Matroska's muxer.
    if sample_aspect != (1, 1) and suffix in (".mkv", ".webm") and name in _NO_ASPECT:
        advice = "Use x265" if name == "ffv1" else "Use .mp4, x265"
        raise JobError(
            f"output must be of another kind for {name} with pixels that are not square "
            f"({sample_aspect[0]}:{sample_aspect[1]}), got {out.name}. {advice}, or "
            "--square-pixels."
        )


def lost_in(made: Encoder, colour: Colour) -> list[str]:
    """What of the colours an encoder cannot tell, each in one line: empty for most."""
    if made.name in _HDR10 or not (colour.mastering_display or colour.content_light):
        return []
    return [
        f"dropped: HDR10's data on the display and the light levels, which {made.name} does not "
        "take (the curve and the primaries are kept)"
    ]


def pixel_format(picture_format: str) -> str:
    """FFmpeg's name of a format of VapourSynth, such as "yuv420p10le" of "YUV420P10"."""
    if picture_format.startswith("RGB"):
        return _RGB.get(picture_format[3:], picture_format)
    name = picture_format.lower()
    family, _, bits = name.rpartition("p") if "p" in name else ("gray", "", name[4:])
    base = family + ("p" if family != "gray" else "")
    return base if bits == "8" else f"{base}{bits}le"


@contextmanager
def opened(
    made: Encoder,
    picture_format: str,
    colour: Colour,
    width: int,
    height: int,
    rate: Fraction,
) -> Iterator[VideoCodecContext]:
    """An encoder that is ready, without a file.

    Raises:
        JobError: This machine cannot run it.
    """
    context = av.CodecContext.create(made.name, "w")
    assert isinstance(context, VideoCodecContext)
    context.options = dict(made.options)
    context.time_base = Fraction(1, 1000)
    configure(context, made, picture_format, colour, width, height, rate)
    said: list[str] = []
    try:
        with _told(said):
            context.open()
    except av.FFmpegError as e:
        advice = (
            "It needs an NVIDIA GPU that has this encoder, and its driver."
            if made.name.endswith("_nvenc")
            else "Choose other options or another --encoder."
        )
        raise JobError(
            f"{made.name} cannot encode {picture_format} at {width}x{height} here "
            f"({said[-1] if said else e.strerror}). {advice}"
        ) from None
    # FFmpeg goes on without options that the encoder does not know.
    for line in said:
        if "option" in line or "Invalid value" in line:
            raise JobError(
                f"options of {made.name} must be ones that it knows, and values that it takes "
                f"({line}). Look them up in its manual."
            )
    yield context


@contextmanager
def _told(lines: list[str]) -> Iterator[None]:
    """Collect FFmpeg's warnings and errors.

    Only while no codec's threads work: one that has something to say waits for Python's lock, which
    whoever waits for that thread may hold.
    """
    level = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture() as logs:
            yield
    finally:
        av.logging.set_level(level)
        lines.extend(message.strip().rstrip(".") for _, _, message in logs)


def configure(
    context: VideoCodecContext,
    made: Encoder,
    picture_format: str,
    colour: Colour,
    width: int,
    height: int,
    rate: Fraction,
) -> None:
    """Tell an encoder that is not open yet all but its options and its unit of time."""
    if made.name == "libsvtav1":
        # It writes a banner to standard error otherwise; 1 is its level for errors.
        os.environ.setdefault("SVT_LOG", "1")
    pixels = pixel_format(picture_format)
    context.width, context.height = width, height
    context.pix_fmt = _NVENC.get(pixels, pixels) if made.name.endswith("_nvenc") else pixels
    context.framerate = rate or Fraction(24)
    context.thread_count = made.threads
    context.colorspace = colour.matrix
    context.color_primaries = colour.primaries
    context.color_trc = colour.transfer
    context.color_range = 2 if colour.full_range else 1
    context.chroma_sample_location = colour.chroma_location + 1


def _check_options(name: str, options: Mapping[str, str]) -> None:
    for key in options:
        if key.lstrip("-") in _RATES:
            raise JobError(
                f"options of {name} must keep the quality constant, got {key}: rate control cannot "
                "see across parts. Use --crf."
            )
        if key.lstrip("-") in _OURS:
            raise JobError(
                f"options of {name} must leave {key} alone, as parts depend on it. "
                "Use --crf, --encoder-preset or --threads for what they set."
            )


def _check_format(name: str, kind: _Kind, picture_format: str) -> None:
    pixels = pixel_format(picture_format)
    if name.endswith("_nvenc"):
        pixels = _NVENC.get(pixels, pixels)
    takes = [f.name for f in av.Codec(kind.ffmpeg, "w").video_formats or ()]
    if pixels not in takes:
        raise JobError(
            f"picture format must be one that {name} takes, got {picture_format}. "
            "Choose other --bits or another --encoder; YUV420P8 and YUV420P10 go everywhere."
        )


def _quality(name: str, kind: _Kind, crf: float | None, preset: str | None) -> dict[str, str]:
    """The options that say how good and how fast."""
    for given, key, takes in ((crf, "crf", kind.crf), (preset, "encoder-preset", kind.preset)):
        if given is not None and takes is None:
            raise JobError(f"{key} must be left out for {name}, got {given}. It loses nothing.")
    if kind.crf is None or kind.preset is None:
        return {}
    crf = kind.crf if crf is None else crf
    if not kind.best <= crf <= kind.worst:
        raise JobError(
            f"crf must be {kind.best:g} (best) to {kind.worst:g} for {name}, got {crf:g}. "
            f"{kind.crf:g} is the default."
        )
    preset = kind.preset if preset is None else preset
    if preset not in kind.presets:
        raise JobError(
            f"encoder-preset must be one of {', '.join(kind.presets)} for {name}, got {preset}. "
            f"{kind.preset} is the default."
        )
    quality = {"preset": preset, "crf": f"{crf:g}"}
    if name.endswith("_nvenc"):
        quality = {"preset": preset, "tune": "hq", "rc": "vbr", "cq": f"{crf:g}", "b": "0"}
    return quality


def _own(
    name: str, kind: _Kind, options: Mapping[str, str], threads: int, colour: Colour
) -> dict[str, str]:
    """Options in the encoder's own words: parts that stand alone, threads, HDR10."""
    light, mastering = colour.content_light, colour.mastering_display
    own: dict[str, str] = {}
    if name == "x264":
        own = {"open-gop": "0", "repeat-headers": "1"}
        own |= {"mastering-display": mastering} if mastering else {}
        own |= {"cll": light} if light else {}
    elif name == "x265":
        own = {"open-gop": "0", "repeat-headers": "1", "log-level": "error"}
        frame_threads = max(1, min(_FRAME_THREADS_MAX, threads // 2))
        own |= {"frame-threads": str(frame_threads), "pools": str(threads)}
        own |= {"master-display": mastering} if mastering else {}
        own |= {"max-cll": light} if light else {}
    elif name == "av1":
        own = {"irefresh-type": "2", "lp": str(min(threads, _LEVELS_MAX))}
        own |= {"mastering-display": _in_units(mastering)} if mastering else {}
        own |= {"content-light": light} if light else {}
    elif name == "ffv1":
        # As many slices whatever the threads: the bits depend on them.
        own = {"level": "3", "slices": "16", "slicecrc": "1"}
    if not kind.params:
        _check_known(name, kind, options)
        return own | dict(options)
    own |= options
    for key, value in own.items():
        if ":" in value or "=" in key:
            raise JobError(
                f"options of {name} must be of the form key=value without a colon, got "
                f"{key}={value}. Give each on its own."
            )
    return {kind.params: ":".join(f"{key}={value}" for key, value in own.items())}


def _check_known(name: str, kind: _Kind, options: Mapping[str, str]) -> None:
    known = {o.name for o in av.CodecContext.create(kind.ffmpeg, "w").supported_options.private}
    for key in options:
        if key not in known:
            raise JobError(
                f"options of {name} must be among {', '.join(sorted(known))}, got {key}. "
                "Leave it out or correct it."
            )


def _in_units(mastering_display: str) -> str:
    """x265's whole numbers as SVT-AV1's: coordinates from 0 to 1 and cd/m2."""
    text = ""
    for item in mastering_display.rstrip(")").split(")"):
        key, _, pair = item.partition("(")
        unit = 10000 if key == "L" else 50000
        text += f"{key}({','.join(f'{int(n) / unit:g}' for n in pair.split(','))})"
    return text
