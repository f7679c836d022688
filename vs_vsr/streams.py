"""How each network streams: its plan, with measured defaults, and what runs along it."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vs_vsr.bridge import ClipInfo
from vs_vsr.models.basicvsrpp import BasicVSRPP
from vs_vsr.models.edvr import EDVR, Padding
from vs_vsr.models.vrt import VRT
from vs_vsr.options import Options, Reader
from vs_vsr.streaming.plan import Plan, WindowPlan
from vs_vsr.streaming.runner import Stream
from vs_vsr.streaming.tiles import Tile, tiles
from vs_vsr.streaming.windows import InterpolationStream, WindowStream

__all__ = ["DEFAULT_WEIGHTS", "Streaming", "network_options", "streaming"]

# The longest clip there is.
_MOST_FRAMES = 2**31 - 1

# The weights each filter takes when none are named. VRT's may not be used commercially, so the user
# names them.
DEFAULT_WEIGHTS = {
    "BasicVSR": "reds4",
    "IconVSR": "reds4",
    "EDVR": "reds4",
    "RealBasicVSR": "reds",
    "VRT": None,
    "BasicVSRPP": "reds4",
}

# Measured: docs/measurements.md.
_CHUNK, _LOOKAHEAD, _SEGMENT_CHUNKS, _PREROLL = 30, 15, 4, 10
# EDVR's frames share features only, which are kept: a short chunk costs nothing and starts soon.
_EDVR_CHUNK = 10
# Of BasicVSR++, on both sides of every chunk: so the chunk is longer, and never gets so short that
# most of the work is for the context.
_PP_CHUNK, _PP_LEAST, _PP_CONTEXT = 60, 15, 15
# VRT: what the windows of the reference share.
_VRT_LOOKAHEAD = 2
_INTERPOLATION_CHUNK = 10
# A chunk's pictures are held together; by default they take no more than this.
_CHUNK_BYTES = 2 << 30


@dataclass(frozen=True)
class Streaming:
    """What runs a clip through a network."""

    stream: Stream
    plan: Plan
    tiles: list[Tile]
    rate: int = 1
    """Output frames for each input frame."""
    message: str = ""
    """What the user should know about the defaults taken; may be empty."""


def network_options(read: Reader) -> dict[str, Any]:
    """What the filter's own arguments say about the network, as `load_model` takes it.

    Raises:
        ArgumentError: A value breaks its rule.
    """
    options: dict[str, Any] = {}
    if read.given("keyframe"):
        options["keyframe_stride"] = read.at_least("keyframe", 5, 1)
    if read.given("padding"):
        allowed: tuple[Padding, ...] = ("reflection_circle", "replicate")
        options["padding"] = read.choice("padding", allowed[0], allowed)
    threshold = read.number("refine_threshold", 0, 255, "Leave it out for one cleaning pass.")
    if threshold is not None:
        options["refine_threshold"] = threshold
    return options


def streaming(model: nn.Module, read: Reader, options: Options, clip: ClipInfo) -> Streaming:
    """How `model` streams this clip.

    Raises:
        ArgumentError: An argument breaks its rule.
    """
    # Chosen by the filter's name, as a reload makes other classes.
    plan: Callable[..., Streaming] = _PLANS.get(read.function, _recurrent)
    return plan(model, read, options, clip)


def _recurrent(model: Any, read: Reader, options: Options, clip: ClipInfo) -> Streaming:
    """BasicVSR, RealBasicVSR and IconVSR: a forward state, and a look-ahead for the other way."""
    lookahead = read.at_least("lookahead", _LOOKAHEAD, 0)
    preroll = read.at_least("preroll", _PREROLL, 0)
    chunk, message = _chunk(read, clip, _CHUNK, _picture_bytes(model, clip))
    # A window that mirrors at a cut reads as far beyond it as it is wide.
    coupled = read.function == "IconVSR"
    context = 2 * model.radius if coupled else 0
    segment = read.at_least("segment", _SEGMENT_CHUNKS * (chunk or clip.num_frames), 1)
    if not chunk:
        plan = Plan(clip.num_frames, clip.num_frames, 0, clip.num_frames, 0, context, coupled)
        return _tiled(model, plan, options, clip)
    if segment % chunk:
        below, above = segment // chunk * chunk, -(-segment // chunk) * chunk
        nearest = f"{below} or {above}" if below else f"{above}"
        raise read.error("segment", f"a multiple of chunk ({chunk})", segment, f"Use {nearest}.")
    plan = Plan(clip.num_frames, chunk, lookahead, segment, preroll, context, coupled)
    return _tiled(model, plan, options, clip, message)


def _edvr(model: EDVR, read: Reader, options: Options, clip: ClipInfo) -> Streaming:
    chunk, message = _chunk(read, clip, _EDVR_CHUNK, _picture_bytes(model, clip))
    chunk = chunk or clip.num_frames
    plan = Plan(clip.num_frames, chunk, 0, chunk, 0, context=2 * model.radius, spares=True)
    return _tiled(model, plan, options, clip, message)


def _basicvsrpp(model: BasicVSRPP, read: Reader, options: Options, clip: ClipInfo) -> Streaming:
    lookahead = read.at_least("lookahead", _PP_CONTEXT, 0)
    preroll = read.at_least("preroll", _PP_CONTEXT, 0)
    # Each frame's own feature and those of four passes are held for all that a chunk sees.
    area = clip.width * clip.height
    area = (min(area, options.tile**2) if options.tile else area) // (1 if model.low_res else 16)
    features = 5 * model.channels * options.dtype.itemsize * area
    around = min(lookahead + preroll, clip.num_frames) * features
    chunk, message = _chunk(
        read, clip, _PP_CHUNK, _picture_bytes(model, clip), features, around, least=_PP_LEAST
    )
    if not chunk:
        return _tiled(
            model, Plan(clip.num_frames, clip.num_frames, 0, clip.num_frames, 0), options, clip
        )
    plan = Plan(clip.num_frames, chunk, lookahead, chunk, preroll)
    return _tiled(model, plan, options, clip, message)


def _vrt(model: VRT, read: Reader, options: Options, clip: ClipInfo) -> Streaming:
    whole = tiles(clip.height, clip.width, 0, 0, model.scale)
    sigma = read.number("sigma", 0, 255, "Use the noise's standard deviation on a scale of 255.")
    if model.denoises != (sigma is not None):
        rule = "given for weights that denoise" if model.denoises else "left out but for denoising"
        what_now = "Published weights take 0 to 50." if model.denoises else "Leave it out."
        raise read.error("sigma", rule, sigma, what_now)
    if model.interpolates:
        if read.given("lookahead"):
            got = read.at_least("lookahead", 0, 0)
            raise read.error("lookahead", "left out for interpolation", got, "Leave it out.")
        chunk, message = _chunk(read, clip, _INTERPOLATION_CHUNK, 2 * _picture_bytes(model, clip))
        # Twice as many frames come out, and a clip has no more than that.
        count = min(clip.num_frames, _MOST_FRAMES // 2)
        chunk = chunk or count
        plan = Plan(count, chunk, 0, chunk, 0, context=2)
        between = InterpolationStream(model, tile=options.tile, overlap=options.overlap)
        return Streaming(between, plan, whole, 2, message)
    # Two of the network's own windows in time.
    length = 2 * model.window[0]
    chunk, message = _chunk(read, clip, length - _VRT_LOOKAHEAD, _picture_bytes(model, clip))
    whole_clip = not chunk
    chunk = chunk or clip.num_frames
    lookahead = read.at_least("lookahead", min(_VRT_LOOKAHEAD, chunk), 0)
    if whole_clip:
        lookahead = 0
    if lookahead > chunk:
        raise read.error("lookahead", f"at most chunk ({chunk})", lookahead, f"Use {chunk}.")
    windows = WindowPlan(clip.num_frames, chunk, lookahead, chunk, 0)
    stream = WindowStream(
        model,
        windows,
        tile=options.tile,
        overlap=options.overlap,
        sigma=sigma,
        whole=whole_clip,
    )
    return Streaming(stream, windows, whole, 1, message)


_PLANS: dict[str, Callable[..., Streaming]] = {
    "EDVR": _edvr,
    "BasicVSRPP": _basicvsrpp,
    "VRT": _vrt,
}


def _tiled(
    model: Any, plan: Plan, options: Options, clip: ClipInfo, message: str = ""
) -> Streaming:
    """A network whose spatial tiles are streams side by side."""
    parts = tiles(clip.height, clip.width, options.tile, options.overlap, model.scale)
    return Streaming(model, plan, parts, message=message)


def _picture_bytes(model: Any, clip: ClipInfo) -> int:
    """Memory of one output frame, RGBS."""
    return int(12 * clip.width * clip.height * model.scale**2)


def _chunk(
    read: Reader,
    clip: ClipInfo,
    default: int,
    picture_bytes: int,
    feature_bytes: int = 0,
    around: int = 0,
    least: int = 1,
) -> tuple[int, str]:
    """The chunk, and what to tell about it; 0 is the whole clip at once.

    Each frame of a chunk takes `picture_bytes`, and `feature_bytes` while the chunk is computed,
    with `around` for what it sees beside them. The pictures of three chunks can be there at a time:
    of the one being computed, the one being handed out, and the one that a cache still has.
    """
    rule = "at least 1, or 0 for the whole clip at once"
    chunk = read.at_least("chunk", default, 0, rule)
    whole = clip.num_frames * (picture_bytes + feature_bytes)
    there = _memory_bytes()

    def computed(frames: int) -> int:
        if not 0 < frames < clip.num_frames:
            return whole
        return frames * (picture_bytes + feature_bytes) + around

    def held(frames: int) -> int:
        others = min(2 * frames, clip.num_frames - frames) if 0 < frames < clip.num_frames else 0
        return computed(frames) + others * picture_bytes

    if read.given("chunk"):
        if held(chunk) > there:
            rule = f"at least 1 for a clip whose pictures take {_gib(held(chunk))} of {_gib(there)}"
            if chunk:
                rule = f"so low that three chunks fit in {_gib(there)} ({_gib(held(chunk))} here)"
            raise read.error("chunk", rule, chunk, "Leave it out to stream the clip.")
        return chunk, ""
    most = min(_CHUNK_BYTES, there // 4)
    if computed(chunk) <= most:
        return chunk, ""
    chunk = max(least, (most - around) // (picture_bytes + feature_bytes))
    message = f"{read.function}: chunk is {chunk} instead of {default} frames, "
    if computed(chunk) <= most:
        return chunk, message + (
            f"as each holds {picture_bytes + feature_bytes >> 20} MiB and they should stay under "
            f"{_gib(most)}."
        )
    if held(chunk) > there:
        rule = f"such that chunks of {chunk} fit in {_gib(there)} ({_gib(held(chunk))} here)"
        if around and not read.given("tile"):
            raise read.error("tile", rule, 0, "Use tile=256.")
        raise read.error("clip", rule, f"{clip.width}x{clip.height}", "Filter it in parts.")
    return chunk, message + (
        f"the fewest it goes down to by itself, and holds {_gib(computed(chunk))}. "
        "Name a tile or a smaller chunk for less."
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _memory_bytes() -> int:
    """Memory of the machine, or of the container; without limit where the system does not tell."""
    if not hasattr(os, "sysconf"):
        return sys.maxsize
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min((machine, *_control_group_limits()))


def _control_group_limits(
    own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """Memory limits in bytes of this process's control groups, of both versions (Linux).

    A group's limit holds for those in it. In a container the outer ones are not to be seen, and
    `root` is the container's own.

    Args:
        own: Lines "ID:CONTROLLERS:PATH" (cgroups(7)).
        root: Where the groups are mounted.
    """
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            groups, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            groups, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = groups / path.lstrip("/")
        while group.is_relative_to(groups):
            limit = _text(group / name).strip()
            if limit.isdecimal():
                yield int(limit)
            group = group.parent


def _text(path: Path) -> str:
    """What a file says; nothing where there is none, or none that may be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
