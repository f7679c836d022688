"""The two degradations beside reference frames, and beside plain readings of their formulas."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vs_vsr.evaluation.degrade import Degradation, degraded
from vs_vsr.evaluation.separable import Array


@pytest.mark.parametrize("kind", ["BI", "BD"])
def test_frames_are_the_reference_ones_to_the_bit(shared: Path, kind: Degradation) -> None:
    folder = shared / "vid4"
    files = sorted((folder / "GT/walk").glob("*.png"))[::6]
    assert len(files) == 8
    for file in files:
        true, want = (
            np.asarray(Image.open(path)).transpose(2, 0, 1)
            for path in (file, folder / f"{kind}x4/walk" / file.name)
        )
        assert np.array_equal(degraded(true, kind), want)


def random_picture(height: int, width: int) -> Array:
    return np.random.default_rng(5).integers(0, 256, (3, height, width), dtype=np.uint8)


def cubic(x: Fraction) -> Fraction:
    """Keys' kernel with a = -1/2."""
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    return Fraction(-1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2 if x < 2 else Fraction(0)


def mirrored(i: int, length: int) -> int:
    """The pixel that stands for pixel i of a picture that is mirrored at its edges for ever."""
    i %= 2 * length
    return min(i, 2 * length - 1 - i)


def imresize(picture: Array) -> Array:
    """MATLAB's x1/4 in exact numbers: the kernel four times as wide, halves away from zero."""

    def weights(length: int) -> Array:
        table = np.full((length // 4, length), Fraction(0))
        for out in range(length // 4):
            middle = 4 * out + Fraction(3, 2)
            for i in range(4 * out - 10, 4 * out + 14):
                table[out, mirrored(i, length)] += cubic((i - middle) / 4) / 4
        return table

    _, height, width = picture.shape
    exact = [
        weights(height) @ plane.astype(int).astype(object) @ weights(width).T for plane in picture
    ]
    half = Fraction(1, 2)
    rounded = [[[int((v + half) // 1) for v in row] for row in plane] for plane in exact]
    small: Array = np.clip(np.array(rounded), 0, 255).astype(np.uint8)
    return small


@pytest.mark.parametrize(("height", "width"), [(4, 4), (4, 24), (20, 28)])
def test_bi_is_matlabs_imresize_in_exact_numbers(height: int, width: int) -> None:
    picture = random_picture(height, width)
    assert np.array_equal(degraded(picture, "BI"), imresize(picture))


def test_a_half_is_rounded_up() -> None:
    picture = np.full((3, 16, 20), 101, np.uint8)
    # Weights -7/4096 and -75/4096 at the left of the second pixel's window make 102.5 of this.
    picture[..., 2], picture[..., 4] = 209, 9
    assert degraded(picture, "BI")[0, 2, 2] == 103


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 24)])
def test_bd_is_a_gaussian_around_the_middle_of_each_block(height: int, width: int) -> None:
    picture = random_picture(height, width)
    want = np.zeros((3, height // 4, width // 4))
    for y in range(height // 4):
        for x in range(width // 4):
            total = 0.0
            for i in range(4 * y - 4, 4 * y + 8):
                for j in range(4 * x - 4, 4 * x + 8):
                    square = (i - 4 * y - 1.5) ** 2 + (j - 4 * x - 1.5) ** 2
                    weight = np.exp(-square / (2 * 1.6**2))
                    total += weight
                    pixel = picture[:, min(max(i, 0), height - 1), min(max(j, 0), width - 1)]
                    want[:, y, x] += weight * pixel
            want[:, y, x] /= total
    assert np.array_equal(degraded(picture, "BD"), want.round().astype(np.uint8))
