"""Makes sample.mp4: 24 frames of 128x96, a camera that moves over a photograph.

The photograph is NASA's portrait of the astronaut Eileen Collins. It is in the public domain and
comes with the package scikit-image. Each frame is rendered at 512x384 with pan, zoom and rotation,
then reduced four times by antialiased bicubic (BIx4). So the motion has sub-pixel steps, and there
is detail to win back.

    python examples/make_sample.py
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image
from skimage import data

FRAMES = 24
LARGE, SMALL = (512, 384), (128, 96)


def frame(picture: Image.Image, i: int) -> Image.Image:
    """Frame i at the large size, reduced."""
    t = i / FRAMES
    zoom, angle = 0.78 - 0.10 * t, np.deg2rad(4 * t - 2)
    # The transform maps output pixels to the photograph: rotation, zoom, and a pan.
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    x, y = 230 + 40 * t, 170 + 25 * t
    left, top = (
        x - cos * LARGE[0] / 2 + sin * LARGE[1] / 2,
        y - sin * LARGE[0] / 2 - cos * LARGE[1] / 2,
    )
    large = picture.transform(
        LARGE, Image.Transform.AFFINE, (cos, -sin, left, sin, cos, top), Image.Resampling.BICUBIC
    )
    return large.resize(SMALL, Image.Resampling.BICUBIC)


def main() -> None:
    """Write the clip next to this file."""
    picture = Image.fromarray(data.astronaut())
    with av.open(Path(__file__).with_name("sample.mp4"), "w") as out:
        stream = out.add_stream(
            "libx264", rate=Fraction(24), options={"crf": "8", "preset": "veryslow"}
        )
        stream.width, stream.height = SMALL
        stream.pix_fmt = "yuv420p"
        # BT.601, as players take a picture of this size.
        stream.codec_context.colorspace = 6
        stream.codec_context.color_range = 1
        for i in range(FRAMES):
            out.mux(stream.encode(av.VideoFrame.from_image(frame(picture, i))))
        out.mux(stream.encode())


if __name__ == "__main__":
    main()
