"""Padding in space and in time, against what the references' windows are."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vs_vsr.models.padding import mirror_pad
from vs_vsr.models.stream import Span, reflected, shots


@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 4, 8, 16]), st.integers(1, 70),
    st.booleans(),
)  # fmt: skip
def test_mirroring_as_numpy_does(
    height: int, width: int, multiple: int, least: int, repeat_edge: bool
) -> None:
    x = torch.arange(height * width).view(1, height, width)
    got = mirror_pad(x, multiple=multiple, least=least, repeat_edge=repeat_edge)
    rows, columns = got.shape[-2:]
    for size, wanted in ((height, rows), (width, columns)):
        assert wanted % multiple == 0
        assert wanted >= max(size, least)
        assert wanted - multiple < max(size, least)
    mode: Any = "symmetric" if repeat_edge else "reflect"
    pad = ((0, 0), (0, rows - height), (0, columns - width))
    assert np.array_equal(got.numpy(), np.pad(x.numpy(), pad, mode=mode))


@pytest.mark.parametrize(
    ("centre", "want"),
    [
        (0, [4, 3, 0, 1, 2]),
        (1, [4, 0, 1, 2, 3]),
        (2, [0, 1, 2, 3, 4]),
        (8, [6, 7, 8, 9, 5]),
        (9, [7, 8, 9, 6, 5]),
    ],
)
def test_windows_that_mirror_about_themselves(centre: int, want: list[int]) -> None:
    positions = range(centre - 2, centre + 3)
    assert [reflected(i, range(10), 2, centre) for i in positions] == want


@pytest.mark.parametrize(
    ("radius", "before", "after"), [(2, [4, 3], [5, 4]), (3, [6, 5, 4], [4, 3, 2])]
)
def test_a_clip_that_is_padded_once(radius: int, before: list[int], after: list[int]) -> None:
    assert [reflected(i, range(9), radius) for i in range(-radius, 0)] == before
    assert [reflected(i, range(9), radius) for i in range(9, 9 + radius)] == after


@given(st.integers(0, 20), st.integers(1, 9), st.integers(1, 3), st.integers(0, 8))
def test_a_window_never_leaves_its_shot(start: int, length: int, radius: int, inside: int) -> None:
    shot = range(start, start + length)
    centre = shot[inside % length]
    for i in range(centre - radius, centre + radius + 1):
        for about in (None, centre):
            got = reflected(i, shot, radius, about)
            assert got in shot
            assert got == i or i not in shot


@given(st.integers(0, 9), st.integers(1, 30), st.sets(st.integers(-5, 45)))
def test_shots_cover_the_frames_and_start_at_cuts(first: int, count: int, cuts: set[int]) -> None:
    frames = range(first, first + count)
    parts = shots(frames, cuts)
    assert [i for part in parts for i in part] == list(frames)
    assert {part.start for part in parts} - {first} == {c for c in cuts if first < c < frames.stop}


def test_a_whole_clip_is_one_shot() -> None:
    span = Span.whole(7)
    assert span.shot(3) == range(7)
    assert span.output == span.active == range(7)
