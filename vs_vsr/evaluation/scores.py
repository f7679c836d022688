"""PSNR and SSIM as the papers of this field report them, after rounding to 8 bits."""

from typing import Literal

import numpy as np

from vs_vsr.evaluation.separable import Array, filtered, gaussian

__all__ = ["LEAST_SIDE", "Space", "luma", "measured", "psnr", "ssim"]

Space = Literal["y", "rgb"]

# MATLAB's rgb2ycbcr: BT.601, 16 to 235.
_LUMA = np.array((65.481, 128.553, 24.966))

# Pixels of the window of SSIM, and so the least width and height that have one.
LEAST_SIDE = 11
_WINDOW = gaussian(LEAST_SIDE, 1.5)


def measured(picture: Array, space: Space) -> Array:
    """What of a picture is compared.

    Args:
        picture: RGB, (3, H, W), uint8.
        space: "y" for Vid4, UDM10 and Vimeo-90K, "rgb" for REDS4.

    Returns:
        Y, (H, W), or the picture itself, (3, H, W); float64.
    """
    return luma(picture) if space == "y" else picture.astype(np.float64)


def luma(picture: Array) -> Array:
    """Y of a picture that is rounded to 8 bits first.

    Args:
        picture: RGB, (3, H, W), [0, 1], or uint8.

    Returns:
        (H, W), float64, 16 to 235, not rounded.
    """
    if picture.dtype != np.uint8:
        picture = np.clip(picture.astype(np.float64) * 255, 0, 255).round()
    y: Array = 16 + np.tensordot(_LUMA, picture / 255.0, axes=1)
    return y


def psnr(a: Array, b: Array) -> float:
    """PSNR of two pictures in dB, peak 255, no border cropped; infinite for equal ones.

    Args:
        a: Y, (H, W), or RGB, (3, H, W), 0 to 255, floating point.
        b: Likewise.
    """
    error = float(np.mean((a - b) ** 2))
    return 10 * float(np.log10(255.0**2 / error)) if error else float("inf")


def ssim(a: Array, b: Array) -> float:
    """SSIM of two pictures as MATLAB's: a Gaussian of 1.5 over 11x11 pixels inside the picture.

    Args:
        a: Y, (H, W), or RGB, (3, H, W), 0 to 255, floating point; of RGB the mean of the three.
        b: Likewise.

    Source: Z. Wang et al., "Image quality assessment: from error visibility to structural
    similarity", 2004, eq. 13 to 17.
    """
    mean_a, mean_b, square_a, square_b, product = filtered(
        np.stack([a, b, a * a, b * b, a * b]), _WINDOW
    )
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    variances = square_a - mean_a**2 + square_b - mean_b**2
    likeness *= (2 * (product - mean_a * mean_b) + c2) / (variances + c2)
    return float(likeness.mean())
