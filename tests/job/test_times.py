"""Times of frames that a file does not give, or gives wrongly."""

from fractions import Fraction

import pytest

from vs_vsr.errors import JobError
from vs_vsr.job.times import mended

NONE = -(2**63)
UNIT, RATE = Fraction(1, 25), Fraction(25)
FILM = Fraction(24000, 1001)


@pytest.mark.parametrize(
    ("times", "whole"),
    [
        ((0, 1, 2), (0, 1, 2)),
        ((5, 7, 20), (5, 7, 20)),
        ((NONE, 2, 3, 4, NONE), (1, 2, 3, 4, 5)),
        ((NONE, NONE, 10, 14, 16, NONE), (2, 6, 10, 14, 16, 18)),
        ((0, NONE, 10, 20), (0, 5, 10, 20)),
        ((0, NONE, NONE, 10), (0, 3, 7, 10)),
        ((NONE, 0, 1), (-1, 0, 1)),
        ((NONE, 7, NONE), (6, 7, 8)),
        ((3,), (3,)),
    ],
)
def test_missing_times_go_on_as_those_beside_them(
    times: tuple[int, ...], whole: tuple[int, ...]
) -> None:
    assert mended(times, UNIT, RATE) == (whole, UNIT, "")


def test_one_time_goes_on_at_the_rate() -> None:
    assert mended((NONE, 900, NONE), Fraction(1, 90000), RATE)[0] == (-2700, 900, 4500)


@pytest.mark.parametrize(
    ("rate", "unit", "told"),
    [
        (RATE, Fraction(1, 25), "25"),
        (FILM, 1 / FILM, "23.976"),
        (Fraction(0), Fraction(1, 25), "25"),
    ],
)
def test_without_any_time_the_rate_counts(rate: Fraction, unit: Fraction, told: str) -> None:
    note = f"The file has no times: taken as {told} pictures a second."
    assert mended((NONE,) * 3, Fraction(1, 1200000), rate) == ((0, 1, 2), unit, note)
    assert mended((NONE,), Fraction(1, 1200000), rate)[0] == (0,)


@pytest.mark.parametrize(
    ("times", "picture", "at", "after"),
    [
        ((1, 2, 3, 1, 2), 3, "0.040", "0.120"),
        ((0, 25, 25, 50), 2, "1.000", "1.000"),
        ((0, NONE, 1), 1, "0.000", "0.000"),
    ],
)
def test_times_that_do_not_rise_are_one_sentence(
    times: tuple[int, ...], picture: int, at: str, after: str
) -> None:
    said = f"picture {picture} at {at} s after one at {after} s. Remux it first: ffmpeg"
    with pytest.raises(JobError, match=said):
        mended(times, UNIT, RATE)
