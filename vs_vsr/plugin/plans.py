"""How each filter is set up: one row of measured defaults, and a function for each kind of plan."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import nn

from vs_vsr import devices
from vs_vsr.errors import ArgumentError, DeviceError
from vs_vsr.models.animesr import AnimeSR
from vs_vsr.models.basicvsrpp import BasicVSRPP
from vs_vsr.models.edvr import EDVR, Padding
from vs_vsr.models.stream import Stream
from vs_vsr.models.vrt import VRT
from vs_vsr.plugin.arguments import Arguments, Defaults, Options
from vs_vsr.plugin.contract import RGBH, RGBS, ClipInfo
from vs_vsr.plugin.memory import Footprint, fitting, needed, shorter_chunks, smaller_tiles
from vs_vsr.streaming.plan import Plan, WindowPlan
from vs_vsr.streaming.tiles import Tile, tiles
from vs_vsr.streaming.windows import WindowStream

__all__ = ["FILTERS", "Filter", "Setup", "defaults_for", "formats", "plan_for"]

# The longest clip that VapourSynth allows.
_MOST_FRAMES = 2**31 - 1
# What three chunks may take of the machine's memory if the user names no chunk. The rest is for the
# networks' own work, other filters and the encoder.
_SHARE = 0.6
# A chunk that memory makes short has a shorter lookahead, so that the backward pass does at most
# 1.6 steps a frame, down to the frames below which a worst frame loses more than 0.2 dB.
_LOOKAHEAD_SHARE, _LEAST_LOOKAHEAD = 0.6, 7
# BasicVSR++ keeps features for every frame that a chunk sees. With fewer frames than this in a
# chunk, most of the work would be for the frames before and after it. So it may take more than its
# share, but if the machine cannot hold it, a smaller one is still an answer.
_PP_LEAST_CHUNK = 15


@dataclass(frozen=True)
class Setup:
    """What runs a clip through a network."""

    stream: Stream
    plan: Plan
    tiles: list[Tile]
    frames_per_input: int = 1
    """Output frames for each input frame."""
    message: str = ""
    """What to tell the user about the chosen defaults; may be empty."""
    gpu_bytes: int = 0
    """What it takes on a GPU beside the weights and the pictures, as far as is known."""
    tile: int = 0
    """As the option, which a GPU with little memory may have changed."""
    overlap: int = 0
    """As the option."""


@dataclass(frozen=True)
class Filter:
    """How one filter is set up."""

    defaults: Defaults
    plan: Callable[[Any, Arguments, Defaults, Options, ClipInfo], Setup]
    """From the network, the arguments, this row's defaults, the options and the clip."""
    network_options: Callable[[Arguments], dict[str, Any]] = lambda arguments: {}
    """What the filter's arguments say about the network, as `load_model` takes it."""
    footprint: Footprint | None = None
    """What its published network takes on a GPU; None if its tiles bound that."""
    low_latency: Defaults | None = None
    """The defaults with `latency="low"`; None if it does not have this argument."""


def defaults_for(arguments: Arguments) -> Defaults:
    """The defaults that hold for these arguments.

    Raises:
        ArgumentError: `latency` breaks its rule.
    """
    row = FILTERS[arguments.filter_name]
    if row.low_latency is None:
        return row.defaults
    latency = arguments.choice("latency", "normal", ("normal", "low"))
    return row.low_latency if latency == "low" else row.defaults


def plan_for(
    network: nn.Module,
    arguments: Arguments,
    options: Options,
    clip: ClipInfo,
    *,
    fit: bool = True,
) -> Setup:
    """How `network` runs over this clip.

    Args:
        network: The network.
        arguments: Of the filter.
        options: Those of them that every filter has.
        clip: The clip.
        fit: Whether chunk and tile have to fit in the memory of a GPU. Otherwise only the stream is
            of use.

    Raises:
        ArgumentError: An argument breaks its rule.
    """
    # Chosen by the filter's name, because a reload makes other classes.
    row, defaults = FILTERS[arguments.filter_name], defaults_for(arguments)
    if options.device.type == "cpu" or row.footprint is None or not fit:
        setup = row.plan(network, arguments, defaults, options, clip)
        return replace(setup, tile=options.tile, overlap=options.overlap)
    defaults, options, message = _on_gpu(network, arguments, defaults, row.footprint, options, clip)
    setup = row.plan(network, arguments, defaults, options, clip)
    plan = setup.plan
    gpu_bytes = needed(
        row.footprint,
        width=clip.width,
        height=clip.height,
        chunk=min(plan.chunk, clip.num_frames),
        tile=options.tile,
        inputs=2 * (plan.lookahead + plan.context) + plan.preroll + plan.chunk,
        picture_bytes=0,
        sample=_sample_bytes(options, clip),
        itemsize=options.dtype.itemsize,
    )
    message = " ".join(filter(None, (message, setup.message)))
    return replace(
        setup,
        message=message,
        gpu_bytes=gpu_bytes,
        tile=options.tile,
        overlap=options.overlap,
    )


def formats(clip_format: int, device: torch.device) -> tuple[int, int]:
    """What the network's side reads and what it writes for clips of this format: RGBS or RGBH."""
    bits, is_float = clip_format >> 16 & 0xFF, clip_format >> 24 & 0xF
    # Half as much to keep and to move. Up to 10 bits float16 is finer than the clip: Vid4's PSNR
    # stays within 0.001 dB (docs/measurements.md).
    output = RGBH if clip_format == RGBH or (not is_float and bits <= 10) else RGBS
    # But not where bfloat16 reads it, which is what most processors take, and they move nothing.
    exact = device.type == "cpu" and clip_format != RGBH
    return RGBS if exact else output, output


def _on_gpu(
    network: Any,
    arguments: Arguments,
    defaults: Defaults,
    footprint: Footprint,
    options: Options,
    clip: ClipInfo,
) -> tuple[Defaults, Options, str]:
    """Defaults and options whose chunk and tile fit in a GPU, and a message about them."""
    given = [arguments.given(name) for name in ("chunk", "tile")]
    if all(given):
        return defaults, options, ""
    # The devices of a filter must all have one plan.
    device = min(options.devices, key=devices.memory_bytes)
    name, total = arguments.filter_name, devices.memory_bytes(device)
    asked = arguments.at_least("chunk", defaults.chunk, 0) or clip.num_frames
    if given[0]:
        asked = min(asked, clip.num_frames)
    shorter = [asked] if given[0] else shorter_chunks(asked)
    if arguments.given("segment") and not given[0]:
        segment = arguments.at_least("segment", asked, 1)
        shorter = [k for k in range(asked, 0, -1) if segment % k == 0] or shorter
    choices = {
        "width": clip.width,
        "height": clip.height,
        "inputs": 2 * defaults.lookahead + defaults.preroll + asked,
        "picture_bytes": _picture_bytes(network, options, clip),
        "sample": _sample_bytes(options, clip),
        "itemsize": options.dtype.itemsize,
    }
    sides = [options.tile] if given[1] else smaller_tiles(clip.width, clip.height)
    found = fitting(footprint, total, chunks=shorter, tiles=sides, **choices)
    if found is None and not given[0]:
        # Few frames in small tiles are slow, but they are an answer.
        fewest = range(min(shorter) - 1, 0, -1)
        found = fitting(footprint, total, chunks=fewest, tiles=sides, **choices)
    if found is None:
        named = " and ".join(n for n in ("chunk", "tile") if arguments.given(n))
        advice = f"Leave out {named}, crop" if named else "Crop"
        raise DeviceError(
            f"{name}: device must have the memory for a chunk of frames of {clip.width}x"
            f"{clip.height}, got {device} with {_gib(total)}. {advice} the clip, or use "
            'device="cpu".'
        )
    chunk, tile = found
    message = ""
    if (chunk, tile) != (asked, options.tile):
        message = f"{name}: chunk is {chunk} and tile is {tile}, as {device} has {_gib(total)}."
    if tile != options.tile:
        overlap = arguments.at_least("overlap", min(defaults.overlap, tile // 4), 0)
        options = replace(options, tile=tile, overlap=overlap)
    if chunk != asked:
        defaults = replace(defaults, chunk=chunk)
    return defaults, options, message


def _recurrent(
    network: Any,
    arguments: Arguments,
    defaults: Defaults,
    options: Options,
    clip: ClipInfo,
    *,
    has_lookahead: bool = True,
    context: int = 0,
    coupled: bool = False,
) -> Setup:
    """BasicVSR, RealBasicVSR: a forward state, and a lookahead for the backward pass.

    A network without a backward pass has no lookahead.
    """
    preroll = arguments.at_least("preroll", defaults.preroll, 0)
    # The features of the backward pass are kept for the frames of a chunk; with a GPU they are
    # there, and `_on_gpu` has counted them.
    keeps = has_lookahead and options.device.type == "cpu"
    features = network.channels * options.dtype.itemsize * _area(options, clip) if keeps else 0
    default = defaults.cpu_chunk if options.device.type == "cpu" else None
    chunk, message = _chunk(
        arguments,
        options,
        clip,
        default or defaults.chunk,
        _picture_bytes(network, options, clip),
        work_bytes=features + _sum_bytes(network, options, clip),
    )
    length = chunk or clip.num_frames
    lookahead = 0
    if has_lookahead:
        lookahead = defaults.lookahead
        if message:
            lookahead = min(lookahead, max(int(_LOOKAHEAD_SHARE * length), _LEAST_LOOKAHEAD))
        lookahead = arguments.at_least("lookahead", lookahead, 0)
        if message and lookahead < defaults.lookahead and not arguments.given("lookahead"):
            message += f" lookahead is {lookahead} instead of {defaults.lookahead}."
    default_segment = length * max(defaults.segment_chunks, -(-defaults.segment_frames // length))
    segment = arguments.at_least("segment", default_segment, 1)
    if not chunk:
        plan = Plan.whole(clip.num_frames, context=context, coupled=coupled)
        return _tiled(network, plan, options, clip)
    if segment % chunk:
        below, above = segment // chunk * chunk, -(-segment // chunk) * chunk
        nearest = f"{below} or {above}" if below else f"{above}"
        rule = f"a multiple of chunk ({chunk})"
        raise arguments.error("segment", rule, segment, f"Use {nearest}.")
    plan = Plan(
        frames=clip.num_frames,
        chunk=chunk,
        lookahead=lookahead,
        segment=segment,
        preroll=preroll,
        context=context,
        coupled=coupled,
    )
    return _tiled(network, plan, options, clip, message)


def _iconvsr(
    network: Any, arguments: Arguments, defaults: Defaults, options: Options, clip: ClipInfo
) -> Setup:
    """IconVSR: as `_recurrent`, with frames around keyframes; the branches depend on each other."""
    # Mirrored at a cut, a window reads up to 2*radius frames on the other side of its centre.
    context = 2 * network.radius
    return _recurrent(network, arguments, defaults, options, clip, context=context, coupled=True)


def _animesr(
    network: AnimeSR, arguments: Arguments, defaults: Defaults, options: Options, clip: ClipInfo
) -> Setup:
    """AnimeSR: a forward state that depends on the frame after it, and no backward pass."""
    return _recurrent(
        network,
        arguments,
        defaults,
        options,
        clip,
        has_lookahead=False,
        context=network.radius,
        coupled=True,
    )


def _edvr(
    network: EDVR, arguments: Arguments, defaults: Defaults, options: Options, clip: ClipInfo
) -> Setup:
    chunk, message = _chunk(
        arguments,
        options,
        clip,
        defaults.chunk,
        _picture_bytes(network, options, clip),
        work_bytes=_sum_bytes(network, options, clip),
    )
    chunk = chunk or clip.num_frames
    # The same context as IconVSR's.
    plan = Plan(
        frames=clip.num_frames,
        chunk=chunk,
        segment=chunk,
        context=2 * network.radius,
        state_is_cache=True,
    )
    return _tiled(network, plan, options, clip, message)


def _basicvsrpp(
    network: BasicVSRPP,
    arguments: Arguments,
    defaults: Defaults,
    options: Options,
    clip: ClipInfo,
) -> Setup:
    lookahead = arguments.at_least("lookahead", defaults.lookahead, 0)
    preroll = arguments.at_least("preroll", defaults.preroll, 0)
    # For every frame that a chunk sees, its own feature and those of four passes are kept. Networks
    # that restore reduce frames to a quarter of their size each way first.
    area = _area(options, clip) // (1 if network.low_res else 16)
    features = 5 * network.channels * options.dtype.itemsize * area
    chunk, message = _chunk(
        arguments,
        options,
        clip,
        defaults.chunk,
        _picture_bytes(network, options, clip),
        work_bytes=features + _sum_bytes(network, options, clip),
        context_bytes=min(lookahead + preroll, clip.num_frames) * features,
        least=_PP_LEAST_CHUNK,
    )
    if not chunk:
        return _tiled(network, Plan.whole(clip.num_frames), options, clip)
    plan = Plan(
        frames=clip.num_frames, chunk=chunk, lookahead=lookahead, segment=chunk, preroll=preroll
    )
    return _tiled(network, plan, options, clip, message)


def _vrt(
    network: VRT, arguments: Arguments, defaults: Defaults, options: Options, clip: ClipInfo
) -> Setup:
    sigma = _sigma(network, arguments)
    whole_frame = tiles(clip.height, clip.width, 0, 0, network.scale)
    if network.interpolates:
        if arguments.given("lookahead"):
            got = arguments.at_least("lookahead", 0, 0)
            raise ArgumentError(
                f"{arguments.filter_name}: lookahead is not for interpolation weights, got {got}. "
                "Leave it out."
            )
        pictures = 2 * _picture_bytes(network, options, clip)
        chunk, message = _chunk(arguments, options, clip, defaults.chunk, pictures)
        # Twice as many frames come out, which must not be more than a clip can have.
        count = min(clip.num_frames, _MOST_FRAMES // 2)
        chunk = chunk or count
        plan = Plan(frames=count, chunk=chunk, segment=chunk, context=2)
        stream = WindowStream(network, None, tile=options.tile, overlap=options.overlap)
        return Setup(stream, plan, whole_frame, 2, message)
    # A window of frames is twice as long as the attention's window.
    length = 2 * network.window[0]
    chunk, message = _chunk(
        arguments,
        options,
        clip,
        length - defaults.lookahead,
        _picture_bytes(network, options, clip),
        work_bytes=_sum_bytes(network, options, clip, windows=True),
    )
    is_whole = not chunk
    chunk = chunk or clip.num_frames
    lookahead = arguments.at_least("lookahead", min(defaults.lookahead, chunk), 0)
    if is_whole:
        lookahead = 0
    if lookahead > chunk:
        rule = f"at most chunk ({chunk})"
        raise arguments.error("lookahead", rule, lookahead, f"Use {chunk}.")
    windows = WindowPlan(frames=clip.num_frames, chunk=chunk, lookahead=lookahead, segment=chunk)
    stream = WindowStream(
        network,
        windows,
        tile=options.tile,
        overlap=options.overlap,
        sigma=sigma,
        extend=is_whole,
    )
    return Setup(stream, windows, whole_frame, message=message)


def _sigma(network: VRT, arguments: Arguments) -> float | None:
    hint = "Use the noise's standard deviation on a scale of 255."
    sigma = arguments.number("sigma", 0, 255, hint)
    if network.denoises and sigma is None:
        rule = "given for weights that denoise"
        raise arguments.error("sigma", rule, None, "Use 0 to 50 for the published weights.")
    if sigma is not None and not network.denoises:
        raise ArgumentError(
            f"{arguments.filter_name}: sigma is for denoising weights only, got {sigma}. Leave it "
            "out."
        )
    return sigma


def _keyframe(arguments: Arguments) -> dict[str, Any]:
    if not arguments.given("keyframe"):
        return {}
    return {"keyframe_stride": arguments.at_least("keyframe", 5, 1)}


def _padding(arguments: Arguments) -> dict[str, Any]:
    if not arguments.given("padding"):
        return {}
    allowed = get_args(Padding)
    return {"padding": arguments.choice("padding", allowed[0], allowed)}


def _refine_threshold(arguments: Arguments) -> dict[str, Any]:
    hint = "Leave it out for one cleaning pass."
    threshold = arguments.number("refine_threshold", 0, 255, hint)
    return {} if threshold is None else {"refine_threshold": threshold}


# The figures behind these are in docs/measurements.md.
# Longer chunks look ahead less often. On a GPU what they gain is not measured.
_BASICVSR = Defaults(
    chunk=30, cpu_chunk=90, lookahead=15, segment_chunks=2, segment_frames=120, preroll=10
)
# For players and previews: the first picture comes after 17 backward steps, and a seek runs at most
# 20 forward steps and the preroll first.
_BASICVSR_SOON = replace(
    _BASICVSR,
    chunk=10,
    cpu_chunk=None,
    lookahead=7,
    segment_chunks=3,
    segment_frames=0,
    preroll=7,
)
# This chunk is for interpolation. VRT's other networks take two of their own windows less what they
# share, as the published tests do. The tiles are those of the tests too; memory grows with their
# area. float32, because what half precision costs on the released weights is not measured.
_VRT = Defaults(
    weights=None,
    dtype=torch.float32,
    chunk=10,
    lookahead=2,
    tile=128,
    tile_multiple=8,
    overlap=20,
)

# Bytes for a pixel, counted on torch's meta device in chunks of two lengths, and what torchvision's
# deformable convolution takes inside (tests/plugin/test_memory.py).
_PLAIN, _REFILLED = Footprint(5500, 370), Footprint(19800, 370)

FILTERS = {
    "BasicVSR": Filter(_BASICVSR, _recurrent, footprint=_PLAIN, low_latency=_BASICVSR_SOON),
    "IconVSR": Filter(_BASICVSR, _iconvsr, _keyframe, _REFILLED, _BASICVSR_SOON),
    # Its frames share only features, which are kept: a short chunk costs nothing and starts soon.
    "EDVR": Filter(Defaults(chunk=10), _edvr, _padding, Footprint(29800, 80)),
    "RealBasicVSR": Filter(
        replace(_BASICVSR, weights="reds"),
        _recurrent,
        _refine_threshold,
        _PLAIN,
        replace(_BASICVSR_SOON, weights="reds"),
    ),
    "VRT": Filter(_VRT, _vrt),
    # It computes frames on both sides of every chunk too, so long chunks waste less.
    "BasicVSRPP": Filter(
        Defaults(chunk=60, lookahead=15, preroll=15),
        _basicvsrpp,
        footprint=Footprint(24500, 820),
        low_latency=Defaults(chunk=10, lookahead=7, preroll=7),
    ),
    # It sees one frame ahead whatever the chunk is, so the shortest chunk starts soonest, and is no
    # slower (measured).
    "AnimeSR": Filter(
        Defaults(weights="v2", chunk=1, segment_frames=120, preroll=8),
        _animesr,
        footprint=Footprint(1700, 160),
    ),
}


def _tiled(network: Any, plan: Plan, options: Options, clip: ClipInfo, message: str = "") -> Setup:
    """Run the network as it is, one stream for each spatial tile."""
    tile, overlap, device = options.tile, options.overlap, options.device
    parts = tiles(clip.height, clip.width, tile, overlap, network.scale, device)
    return Setup(network, plan, parts, message=message)


def _area(options: Options, clip: ClipInfo) -> int:
    """Pixels of the input that are computed at a time."""
    area = clip.width * clip.height
    return min(area, options.tile**2) if options.tile else area


def _sample_bytes(options: Options, clip: ClipInfo) -> int:
    """Memory of one sample of a picture as the network's side writes it."""
    _, output = formats(clip.format, options.device)
    return 2 if output == RGBH else 4


def _picture_bytes(network: Any, options: Options, clip: ClipInfo) -> int:
    """Memory of one output frame as the network's side writes it."""
    return int(3 * _sample_bytes(options, clip) * clip.width * clip.height * network.scale**2)


def _sum_bytes(network: Any, options: Options, clip: ClipInfo, *, windows: bool = False) -> int:
    """Memory on a CPU of one output frame while tiles, or windows, are added up in float32.

    These are the sum and what is added to it: one tile, or a window whose tiles are added up. A GPU
    has them in its own memory, for which there is memory.py.
    """
    whole = clip.width * clip.height
    is_tiled = 0 < options.tile < max(clip.width, clip.height)
    if options.device.type != "cpu" or not (is_tiled or windows):
        return 0
    part = whole if windows else _area(options, clip)
    return int(3 * torch.float32.itemsize * (whole + part) * network.scale**2)


def _chunk(
    arguments: Arguments,
    options: Options,
    clip: ClipInfo,
    default: int,
    picture_bytes: int,
    *,
    work_bytes: int = 0,
    context_bytes: int = 0,
    least: int = 1,
) -> tuple[int, str]:
    """The chunk, 0 for the whole clip at once, and a message about it, which may be empty.

    Each frame of a chunk takes `picture_bytes`, and while the chunk is computed `work_bytes`
    too; the frames that it sees before and after take `context_bytes`. The pictures of three chunks
    can be in memory at the same time: of the chunk being computed, of the one being handed out, and
    of one that is still in a cache.
    """
    rule = "at least 1, or 0 for the whole clip at once"
    chunk = arguments.at_least("chunk", default, 0, rule)
    whole = clip.num_frames * (picture_bytes + work_bytes)
    memory = devices.memory_bytes()

    def computed(frames: int) -> int:
        if not 0 < frames < clip.num_frames:
            return whole
        return frames * (picture_bytes + work_bytes) + context_bytes

    def held(frames: int) -> int:
        others = min(2 * frames, clip.num_frames - frames) if 0 < frames < clip.num_frames else 0
        return computed(frames) + others * picture_bytes

    if arguments.given("chunk"):
        if held(chunk) > memory:
            rule = f"at least 1 for a clip whose output needs {_gib(held(chunk))}"
            if chunk:
                rule = f"small enough that three chunks ({_gib(held(chunk))}) fit in memory"
            rule += f" ({_gib(memory)} here)"
            raise arguments.error("chunk", rule, chunk, "Leave it out for a chunk that fits.")
        return chunk, ""
    most = int(_SHARE * memory)
    if held(chunk) <= most:
        return chunk, ""
    each = 3 * picture_bytes + work_bytes
    within_share = (most - context_bytes) // each
    chunk = max(least, within_share)
    if held(chunk) > memory and within_share > 0:
        chunk = within_share
    message = f"{arguments.filter_name}: chunk is {chunk} instead of {default} frames, "
    if held(chunk) <= most:
        return chunk, message + (
            f"because each takes {each >> 20} MiB and all should stay under {_gib(most)}."
        )
    if held(chunk) > memory:
        rule = (
            f"such that three chunks of {chunk} frames ({_gib(held(chunk))}) fit in memory "
            f"({_gib(memory)} here)"
        )
        if context_bytes and not arguments.given("tile"):
            raise arguments.error("tile", rule, 0, "Use tile=256.")
        size = f"{clip.width}x{clip.height}"
        raise arguments.error("clip", rule, size, "Crop it, and filter the parts.")
    if chunk == default:
        return chunk, ""
    return chunk, message + (
        f"the smallest default, and takes {_gib(computed(chunk))}. "
        "Set tile or a smaller chunk to use less."
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
