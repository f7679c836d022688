"""PSNR and SSIM as the papers of this field report them: on Y, after rounding to 8 bits."""

from typing import Any

import numpy as np

__all__ = ["Array", "luma", "psnr", "ssim"]

Array = np.ndarray[Any, Any]

# MATLAB's rgb2ycbcr: BT.601, 16 to 235.
_LUMA = np.array((65.481, 128.553, 24.966))


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
    """PSNR of two Y pictures in dB, peak 255, no border cropped."""
    return float(10 * np.log10(255.0**2 / np.mean((a - b) ** 2)))


def ssim(a: Array, b: Array) -> float:
    """SSIM of two Y pictures as MATLAB's: 11x11 Gaussian of 1.5, valid region."""
    # Only here, as PSNR alone needs no further package.
    from skimage.metrics import structural_similarity

    value: float = structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return value
