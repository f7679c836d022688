"""Pictures as the bytes of PNG and JPEG files."""

from fractions import Fraction
from typing import Any

import av
import numpy as np

from vs_vsr.compare.colours import Array

__all__ = ["jpeg", "png"]


def png(picture: Array) -> bytes:
    """A picture, (H, W, 3), uint8, as a PNG file, which loses nothing."""
    return _encoded(picture, "png", "rgb24", {"pred": "mixed"})


def jpeg(picture: Array, quality: int) -> bytes:
    """A picture, (H, W, 3), uint8, as a JPEG file with all of its chroma.

    Args:
        picture: The picture.
        quality: FFmpeg's, from 1, the best, to 31.
    """
    options = {"qmin": str(quality), "qmax": str(quality)}
    return _encoded(picture, "mjpeg", "yuvj444p", options)


def _encoded(picture: Array, codec: str, pixel_format: str, options: dict[str, str]) -> bytes:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    frame.pts = 0
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = frame.width, frame.height, pixel_format
    context.time_base, context.options = Fraction(1, 25), options
    packets = context.encode(frame.reformat(format=pixel_format)) + context.encode(None)
    return b"".join(map(bytes, packets))
