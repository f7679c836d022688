"""Decoded pictures as 8-bit RGB, by their matrix and range."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import vapoursynth as vs
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from vapoursynth import core

from vs_vsr.errors import ArgumentError
from vs_vsr.job.plan import Colour
from vs_vsr.plugin.arguments import MATRICES, default_matrix

__all__ = ["Array", "decoded_rgb", "enlarged", "is_hdr", "node_rgb"]

type Array = np.ndarray[Any, Any]

# H.273: PQ and HLG; RGB, which no YUV picture is, and unknown.
_HDR_TRANSFERS = (16, 18)
_NO_MATRIX = (0, 2)
# What VapourSynth has integer formats for.
_BITS = (8, 9, 10, 12, 14, 16)


def is_hdr(transfer: int) -> bool:
    """Whether a transfer of H.273 is PQ or HLG."""
    return transfer in _HDR_TRANSFERS


def decoded_rgb(name: str, frame: VideoFrame, colour: Colour) -> Array:
    """A picture of a file.

    Args:
        name: Of the file, for messages.
        frame: As PyAV decodes it.
        colour: What its numbers mean. A matrix that is not known is taken as the filters take it.

    Returns:
        (H, W, 3), uint8; deeper pictures are rounded, transparency is left out.

    Raises:
        ArgumentError: Its colours cannot be converted.
    """
    if frame.format.is_rgb or frame.format.has_palette:
        return frame.to_ndarray(format="rgb24")
    # Packed and big-endian pictures are laid out anew, which loses nothing.
    format, wanted = _planar(frame.format)
    if frame.format.name.replace("yuvj", "yuv") != wanted:
        frame = frame.reformat(format=wanted)
    planes = [_samples(frame, plane, format.bytes_per_sample) for plane in range(format.num_planes)]
    node = _node(format.id, planes)
    props = {"_Matrix": colour.matrix, "_Range": int(colour.full_range)}
    props |= {"_Transfer": colour.transfer}
    if colour.chroma_location >= 0:
        props["_ChromaLocation"] = colour.chroma_location
    return node_rgb(name, node.std.SetFrameProps(**props), 0)


def node_rgb(name: str, node: vs.VideoNode, number: int) -> Array:
    """A frame of a clip, by its properties.

    Args:
        name: Of the clip, for messages.
        node: Of any format that zimg takes.
        number: Of the frame.

    Returns:
        (H, W, 3), uint8; deeper frames are rounded.

    Raises:
        ArgumentError: The frame cannot be made, or its colours cannot be converted.
    """
    try:
        if node.format.color_family != vs.RGB:
            with node.get_frame(number) as frame:
                matrix, transfer = (int(frame.props.get(k, 2)) for k in ("_Matrix", "_Transfer"))
                if matrix in _NO_MATRIX:
                    usual = default_matrix(frame.width, frame.height)
                    matrix = MATRICES["2020ncl"] if is_hdr(transfer) else usual
            node = node.std.SetFrameProps(_Matrix=matrix)
        with node.resize.Bicubic(format=vs.RGB24).get_frame(number) as frame:
            return np.dstack([np.asarray(plane) for plane in frame])
    except vs.Error as e:
        raise ArgumentError(
            f"sources must have pictures that can be shown as RGB, got {name} ({e}). Convert it "
            "first, or leave it out."
        ) from None


def enlarged(picture: Array, width: int, height: int, scaler: str) -> Array:
    """A picture in another size.

    Args:
        picture: (H, W, 3), uint8.
        width: In pixels.
        height: In pixels.
        scaler: "nearest" or "bicubic" (b = 0, c = 0.5).

    Returns:
        (height, width, 3), uint8.
    """
    if picture.shape[:2] == (height, width):
        return picture
    node = _node(vs.RGB24, [picture[..., plane] for plane in range(3)])
    resize = node.resize.Point if scaler == "nearest" else node.resize.Bicubic
    with resize(width, height).get_frame(0) as frame:
        return np.dstack([np.asarray(plane) for plane in frame])


def _planar(format: VideoFormat) -> tuple[vs.VideoFormat, str]:
    """The planar format that holds all of a YUV or grey one: VapourSynth's, and FFmpeg's name."""
    bits = min(b for b in _BITS if b >= format.components[0].bits or b == _BITS[-1])
    deep = f"{bits}le" if bits > 8 else ""
    # Grey with transparency has two components.
    if len(format.components) < 3:
        return core.query_video_format(vs.GRAY, vs.INTEGER, bits), f"gray{deep}"
    across, down = (
        (16 // low).bit_length() - 1 for low in (format.chroma_width(16), format.chroma_height(16))
    )
    # 4:4:4, 4:2:2, 4:2:0, 4:4:0, 4:1:1, 4:1:0 by how often chroma is halved.
    names = {(0, 0): "444", (1, 0): "422", (1, 1): "420", (0, 1): "440", (2, 0): "411"}
    ratio = names.get((across, down), "410")
    return (
        core.query_video_format(vs.YUV, vs.INTEGER, bits, across, down),
        f"yuv{ratio}p{deep}",
    )


def _samples(frame: VideoFrame, plane: int, sample_bytes: int) -> Array:
    """The samples of a plane, (H, W), over the frame's own memory."""
    data = frame.planes[plane]
    kind = np.uint8 if sample_bytes == 1 else np.dtype("<u2")
    rows = np.frombuffer(data, np.uint8).reshape(data.height, data.line_size)
    return rows.view(kind)[:, : data.width]


def _node(format: int, planes: Sequence[Array]) -> vs.VideoNode:
    """A clip of one frame."""
    height, width = planes[0].shape
    blank = core.std.BlankClip(format=format, width=width, height=height, length=1)

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame = f.copy()
        for plane, samples in enumerate(planes):
            np.asarray(frame[plane])[:] = samples
        return frame

    return blank.std.ModifyFrame(blank, draw)
