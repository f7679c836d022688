"""One filter along rows and columns, which makes low resolutions and the means of SSIM."""

from typing import Any

import numpy as np

__all__ = ["Array", "filtered", "gaussian"]

Array = np.ndarray[Any, Any]


def gaussian(taps: int, sigma: float) -> Array:
    """A Gaussian around the middle of `taps` samples, (taps,), float64; its sum is 1."""
    x = np.arange(taps) - (taps - 1) / 2
    weights = np.exp(-(x**2) / (2 * sigma**2))
    normalized: Array = weights / weights.sum()
    return normalized


def filtered(pictures: Array, kernel: Array, step: int = 1) -> Array:
    """Weighted sums of a square that moves over pictures and stays within them.

    Args:
        pictures: (..., H, W), floating point, with H and W at least the kernel's length.
        kernel: Weights of the square's rows, and of its columns, (taps,).
        step: Pixels from one square to the next.

    Returns:
        (..., (H - taps) // step + 1, (W - taps) // step + 1).
    """
    for _ in range(2):
        length = (pictures.shape[-1] - len(kernel)) // step + 1
        end = step * (length - 1) + 1
        sums = sum(w * pictures[..., i : i + end : step] for i, w in enumerate(kernel))
        # The columns in the second turn, and back.
        pictures = np.swapaxes(sums, -1, -2)
    return pictures
