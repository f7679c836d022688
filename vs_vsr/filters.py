"""The filters as typed functions, for scripts that import `vs_vsr`.

`basicvsr(clip, weights="vimeo90k-bd")` is the same as `clip.vsr.BasicVSR(weights="vimeo90k-bd")`.
"""

import os
from importlib.metadata import files
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from vs_vsr.errors import ArgumentError, BridgeError

if TYPE_CHECKING:
    from vapoursynth import VideoNode

__all__ = [
    "CommonArguments",
    "RecurrentArguments",
    "animesr",
    "basicvsr",
    "basicvsrpp",
    "edvr",
    "iconvsr",
    "realbasicvsr",
    "vrt",
]


class CommonArguments(TypedDict, total=False):
    """Arguments that every filter has.

    Attributes:
        weights: A published name (`vs-vsr weights list`) or a file.
        device: "auto" (a GPU if there is one), "cpu", "cuda:0", …; or different GPUs, which take
            the segments of the clip in turn: "cuda:0,cuda:1".
        precision: "auto" (fp16 on a GPU; on a CPU bf16 if the processor has it; fp32 for VRT),
            "fp32", "bf16" or "fp16".
        chunk: Frames computed together; the default is smaller if the pictures are large. 0 is the
            whole clip at once, which is how the papers' numbers are made.
        tile: Side of the spatial tiles in pixels, at least 64. 0 is whole frames, the default of
            all filters except VRT.
        overlap: Pixels that neighbouring tiles share, default 32 (VRT: 20), or a quarter of `tile`
            if that is less.
        scenes: Where states and windows stop: at the frames' own marks ("props": `_SceneChangePrev`
            and `_SceneChangeNext`), at cuts found by comparing frames ("detect"), nowhere ("off"),
            or at both kinds of cuts ("auto", the default). With "auto" a mark decides about its
            pair of frames, even if it is 0, and frames are compared only where there is no mark.
        matrix: Matrix of YUV and GRAY frames that name none in `_Matrix`: "709", "170m", "470bg",
            "2020ncl", "240m", "fcc" or "ycgco", or its number (`vapoursynth.MATRIX_BT709`). Where
            it is left out, a frame whose `_Transfer` is PQ or HLG is BT.2020 ("2020ncl"); for all
            others it follows from the clip's size.
        prefetch: While a chunk is handed out, compute the next one; while one is computed, ask the
            source for the frames of the next. Only where frames are read in order. By default on
            for a GPU, and off for a processor, where a chunk is made beside its own hand-over
            anyway.
    """

    weights: str | os.PathLike[str]
    device: str
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    chunk: int
    tile: int
    overlap: int
    scenes: Literal["auto", "props", "detect", "off"]
    matrix: str | int
    prefetch: bool


class RecurrentArguments(CommonArguments, total=False):
    """Arguments of the filters that carry a forward state.

    Attributes:
        lookahead: Frames after a chunk that its backward pass sees, default 15.
        segment: Frames over which the forward state is carried, a multiple of `chunk`, default 120,
            or the next multiple, and at least 2 chunks. A seek computes from the segment's start.
        preroll: Frames before a segment that warm its state up, default 10.
        latency: "normal", or "low" for players and previews: the first picture, and that after a
            seek, comes several times sooner, at less speed and a little less quality. It changes
            the defaults of `chunk` (10), `lookahead` (7), `segment` (30) and `preroll` (7).
    """

    lookahead: int
    segment: int
    preroll: int
    latency: Literal["normal", "low"]


def basicvsr(clip: "VideoNode", **arguments: Unpack[RecurrentArguments]) -> "VideoNode":
    """Upscale a clip four times with BasicVSR.

    Args:
        clip: Any constant format and size, progressive. Formats other than RGBS and RGBH are
            converted to RGB in floats and back; values are clamped to [0, 1] in RGB.
        arguments: As in `RecurrentArguments`; `chunk` is 90 by default (on a GPU 30), `weights`
            "reds4".

    Returns:
        The clip at four times the width and height, in its own format, with its properties.

    Raises:
        vapoursynth.Error: An argument breaks its rule, or the weights or the device cannot be
            used.

    Source: BasicVSR, arXiv:2012.02181.
    """
    return _call("BasicVSR", clip, arguments)


def iconvsr(
    clip: "VideoNode", *, keyframe: int | None = None, **arguments: Unpack[RecurrentArguments]
) -> "VideoNode":
    """Upscale a clip four times with IconVSR.

    Args:
        clip: As for `basicvsr`.
        keyframe: Frames from one keyframe to the next, counted from frame 0; at a keyframe both
            branches are refilled. Default 5, as the published networks were trained. The first and
            the last frame of a shot are always keyframes.
        arguments: As in `RecurrentArguments`; `chunk` is 90 by default (on a GPU 30), `weights`
            "reds4". A seek computes the backward pass of the segment's chunks too.

    Returns:
        As `basicvsr`.

    Raises:
        vapoursynth.Error: As `basicvsr`.

    Source: IconVSR, arXiv:2012.02181.
    """
    return _call("IconVSR", clip, {"keyframe": keyframe, **arguments})


def edvr(
    clip: "VideoNode",
    *,
    padding: Literal["reflection_circle", "replicate"] | None = None,
    **arguments: Unpack[CommonArguments],
) -> "VideoNode":
    """Upscale a clip four times, or deblur it, with EDVR: each frame with 2 or 3 on either side.

    Args:
        clip: As for `basicvsr`.
        padding: What windows see beyond the ends of a shot: the frames beyond their other end
            ("reflection_circle"), or the end frame again ("replicate"). The default is that of the
            official tests: the former for weights that upscale sharp input, the latter for all
            others.
        arguments: As in `CommonArguments`; `chunk` is 10 by default, `weights` "reds4".

    Returns:
        The clip at four times the width and height; at its own size for weights that restore
        ("deblur", "deblurcomp", the second stages).

    Raises:
        vapoursynth.Error: As `basicvsr`.

    Source: EDVR, arXiv:1905.02716.
    """
    return _call("EDVR", clip, {"padding": padding, **arguments})


def realbasicvsr(
    clip: "VideoNode",
    *,
    refine_threshold: float | None = None,
    **arguments: Unpack[RecurrentArguments],
) -> "VideoNode":
    """Upscale a clip of real, degraded footage four times with RealBasicVSR.

    Args:
        clip: As for `basicvsr`.
        refine_threshold: Clean a chunk's frames again, up to three times in all, until a pass
            changes them by less than this on average, in 1/255. The default is one pass, as in
            every published configuration; 5 is what these suggest for dynamic refinement. The
            reference decides once for a whole clip; the filter decides for each chunk, and for
            each tile of it.
        arguments: As in `RecurrentArguments`; `chunk` is 90 by default (on a GPU 30), `weights`
            "reds".

    Returns:
        As `basicvsr`.

    Raises:
        vapoursynth.Error: As `basicvsr`.

    Source: RealBasicVSR, arXiv:2111.12704.
    """
    return _call("RealBasicVSR", clip, {"refine_threshold": refine_threshold, **arguments})


def vrt(
    clip: "VideoNode",
    *,
    lookahead: int | None = None,
    sigma: float | None = None,
    **arguments: Unpack[CommonArguments],
) -> "VideoNode":
    """Upscale, deblur, denoise or interpolate a clip with VRT.

    Args:
        clip: As for `basicvsr`.
        lookahead: Frames that neighbouring windows share and average, at most `chunk`, default 2.
            A window has `chunk + lookahead` frames. Interpolation does not have it.
        sigma: For denoising, which needs it: standard deviation of the noise on a scale of 255. The
            published network knows 0 to 50.
        arguments: As in `CommonArguments`. `weights` has no default, because the published ones may
            not be used commercially (CC BY-NC 4.0). The default `chunk` makes windows of 12 or 16
            frames. By default `tile` is 128, a multiple of 8; memory grows with its area.

    Returns:
        The clip at four times the width and height for super-resolution, at its own size for
        restoration; with twice the frames, of half the duration each, for interpolation.

    Raises:
        vapoursynth.Error: As `basicvsr`.

    Source: VRT, arXiv:2201.12288.
    """
    return _call("VRT", clip, {"lookahead": lookahead, "sigma": sigma, **arguments})


def basicvsrpp(
    clip: "VideoNode",
    *,
    lookahead: int | None = None,
    preroll: int | None = None,
    latency: Literal["normal", "low"] | None = None,
    **arguments: Unpack[CommonArguments],
) -> "VideoNode":
    """Upscale a clip four times, or restore it, with BasicVSR++.

    Args:
        clip: As for `basicvsr`.
        lookahead: Frames after a chunk that its passes see, default 15.
        preroll: Frames before a chunk that its passes see, default 15.
        latency: "normal", or "low" for players and previews. It changes the defaults of `chunk`
            (10), `lookahead` (7) and `preroll` (7).
        arguments: As in `CommonArguments`; `chunk` is 60 by default, `weights` "reds4".

    Returns:
        The clip at four times the width and height; at its own size for weights that restore
        ("deblur-gopro", "denoise", "ntire-decompress-track1", …).

    Raises:
        vapoursynth.Error: As `basicvsr`.

    Source: BasicVSR++, arXiv:2104.13371.
    """
    around = {"lookahead": lookahead, "preroll": preroll, "latency": latency}
    return _call("BasicVSRPP", clip, {**around, **arguments})


def animesr(
    clip: "VideoNode",
    *,
    segment: int | None = None,
    preroll: int | None = None,
    **arguments: Unpack[CommonArguments],
) -> "VideoNode":
    """Upscale animation four times with AnimeSR, which sees one frame ahead.

    Args:
        clip: As for `basicvsr`.
        segment: Frames over which the state is carried, a multiple of `chunk`, default 120, or the
            next multiple. A seek computes from the segment's start.
        preroll: Frames before a segment that warm its state up, default 8.
        arguments: As in `CommonArguments`; `chunk` is 1 by default, `weights` "v2".

    Returns:
        As `basicvsr`.

    Raises:
        vapoursynth.Error: As `basicvsr`.

    Source: AnimeSR, arXiv:2206.07038.
    """
    return _call("AnimeSR", clip, {"segment": segment, "preroll": preroll, **arguments})


def _call(filter_name: str, clip: "VideoNode", arguments: Any) -> "VideoNode":
    passed = {name: value for name, value in arguments.items() if value is not None}
    if "weights" in passed:
        passed["weights"] = os.fspath(passed["weights"])
    node: VideoNode = getattr(_plugin(clip, filter_name), filter_name)(**passed)
    return node


def _plugin(clip: "VideoNode", filter_name: str) -> Any:
    """The plugin, bound to the clip; loaded first if VapourSynth did not find it itself."""
    import vapoursynth as vs

    try:
        return clip.vsr
    except AttributeError:
        if not isinstance(clip, vs.VideoNode):
            raise ArgumentError(
                f"{filter_name}: clip must be a VideoNode, got {clip!r}. Open a file with a source "
                "filter."
            ) from None
        # VapourSynth looks only next to its own package; this one may be installed elsewhere.
        for file in files("vs-vsr") or ():
            if file.stem == "libvsr":
                vs.core.std.LoadPlugin(str(file.locate()))
                return clip.vsr
    raise BridgeError(f"{filter_name}: the compiled plugin is missing. Reinstall vs-vsr.")
