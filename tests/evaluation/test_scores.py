"""PSNR and SSIM beside scikit-image's."""

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vs_vsr.evaluation.scores import Space, luma, measured, psnr, ssim
from vs_vsr.evaluation.separable import Array


def pictures() -> tuple[Array, Array]:
    """A smooth picture, and the same with noise, (3, 40, 30), uint8."""
    y, x = np.mgrid[:40, :30]
    smooth = np.stack([4 * x + y, 3 * y + x, 100 + x - y]).astype(np.uint8)
    noise = np.random.default_rng(2).normal(0, 9, smooth.shape)
    return smooth, (smooth + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("space", ["y", "rgb"])
def test_both_are_scikit_images(space: Space) -> None:
    a, b = (measured(picture, space) for picture in pictures())
    assert a.shape == ((40, 30) if space == "y" else (3, 40, 30))
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=255), abs=1e-9)
    want = structural_similarity(
        *(a, b),
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=0 if space == "rgb" else None,
    )
    assert 0.3 < want < 0.95
    assert ssim(a, b) == pytest.approx(want, abs=1e-12)


def test_equal_pictures_have_no_finite_psnr() -> None:
    a = measured(pictures()[0], "y")
    assert psnr(a, a) == math.inf
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)


def test_luma_is_that_of_matlab_after_rounding() -> None:
    colours = np.array([[0, 1, 1, 0, 0], [0, 1, 0, 1, 0], [0, 1, 0, 0, 1]], np.float32)
    want = [16, 235, 81.481, 144.553, 40.966]
    assert luma(colours[:, None])[0] == pytest.approx(want, abs=1e-9)
    a_little_less = colours[:, None] * np.float32(0.999)
    assert np.array_equal(luma(a_little_less), luma(colours[:, None]))
