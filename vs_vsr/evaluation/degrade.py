"""Low-resolution frames as the papers of this field make them from the true ones."""

from typing import Literal

import numpy as np

from vs_vsr.evaluation.separable import Array, filtered, gaussian

__all__ = ["SCALE", "Degradation", "degraded"]

Degradation = Literal["BI", "BD"]

SCALE = 4

_BD = gaussian(12, 1.6)


def _bicubic() -> Array:
    """MATLAB's cubic (a = -0.5), four times as wide, at the 16 pixels around a 4x4 block's middle.

    Source: R. Keys, "Cubic convolution interpolation for digital image processing", 1981, eq. 15.
    """
    x = np.abs(np.arange(16) - 7.5) / SCALE
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, far) / SCALE


_BI = _bicubic()


def degraded(picture: Array, degradation: Degradation) -> Array:
    """A frame at a quarter of its width and height.

    Args:
        picture: RGB, (3, H, W), uint8; H and W are multiples of 4.
        degradation: "BI", MATLAB's `imresize(picture, 1/4)`: antialiased bicubic, the picture
            mirrored at its edges. "BD": a Gaussian of sigma 1.6 over 12x12 pixels, at the middle
            of each 4x4 block, the edges repeated. A Gaussian of 13x13 that is read at every fourth
            pixel, as some authors take it, is 1.5 pixels aside, and no input for weights that were
            trained on "BD".

    Returns:
        (3, H / 4, W / 4), uint8, rounded once, halves up.
    """
    kernel = _BI if degradation == "BI" else _BD
    margin = (len(kernel) - SCALE) // 2
    margins = ((0, 0), (margin, margin), (margin, margin))
    wide = np.pad(picture, margins, mode="symmetric" if degradation == "BI" else "edge")
    # In float64 the cubic's weights and sums are exact, so a half is a half.
    small = filtered(wide.astype(np.float64), kernel, SCALE)
    rounded: Array = np.floor(small.clip(0, 255) + 0.5).astype(np.uint8)
    return rounded
