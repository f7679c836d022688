"""Planes to a picture and back: what the values become, held against the core's own resize."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
import vapoursynth as vs
from torch import Tensor

from vs_vsr.kernels import planes as kernels

FLOATS = [torch.float32, torch.float16]
INTEGERS = {8: vs.RGB24, 9: vs.RGB27, 10: vs.RGB30, 12: vs.RGB36, 16: vs.RGB48}


def strided(dtype: torch.dtype, height: int, width: int, *, gap: int = 3) -> list[Tensor]:
    """Three planes whose rows lie `gap` values apart."""
    return [torch.zeros(height, width + gap, dtype=dtype)[:, :width] for _ in range(3)]


def plane_dtype(bits: int) -> torch.dtype:
    return torch.uint8 if bits == 8 else torch.uint16


def through_the_core(planes: Sequence[Tensor], source: int, target: int) -> list[Tensor]:
    """What the core's resize makes of these planes, without dither."""
    height, width = planes[0].shape
    clip = vs.core.std.BlankClip(format=source, width=width, height=height, length=1)

    def filled(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame = f.copy()
        for p, plane in enumerate(planes):
            np.copyto(np.asarray(frame[p]), plane.numpy())
        return frame

    frame = clip.std.ModifyFrame(clip, filled).resize.Point(format=target).get_frame(0)
    return [torch.from_numpy(np.array(frame[p])) for p in range(3)]


@pytest.mark.parametrize("bits", INTEGERS)
def test_integers_become_floats_as_in_the_core(bits: int) -> None:
    maximum = 2**bits - 1
    planes = strided(plane_dtype(bits), (maximum + 1) // 64, 64)
    for p, plane in enumerate(planes):
        plane.copy_(torch.arange(maximum + 1).roll(p).view_as(plane))
    out = torch.empty(1, 3, *planes[0].shape)
    kernels.unpack_plain(planes, out, maximum)
    want = through_the_core(planes, INTEGERS[bits], vs.RGBS)
    assert torch.equal(out[0], torch.stack(want))


@pytest.mark.parametrize("bits", INTEGERS)
def test_floats_become_integers_as_in_the_core(bits: int) -> None:
    maximum = 2**bits - 1
    # The middle between two integers, the floats beside it, and what lies outside.
    middle = ((torch.arange(maximum) + 0.5) / maximum).float()
    values = torch.cat(
        (
            middle.nextafter(torch.zeros(())),
            middle,
            middle.nextafter(torch.ones(())),
            torch.tensor((-3.0, -0.1, 1.1, 60.0)),
        )
    )
    picture = [values.roll(p).view(1, -1) for p in range(3)]
    planes = strided(plane_dtype(bits), 1, len(values))
    kernels.pack_plain(picture, planes, maximum)
    want = through_the_core(picture, vs.RGBS, INTEGERS[bits])
    assert all(torch.equal(got, plane) for got, plane in zip(planes, want, strict=True))


@pytest.mark.parametrize("bits", INTEGERS)
def test_every_integer_comes_back(bits: int) -> None:
    maximum = 2**bits - 1
    planes = strided(plane_dtype(bits), 1, maximum + 1)
    for plane in planes:
        plane.copy_(torch.arange(maximum + 1))
    out = torch.empty(1, 3, 1, maximum + 1)
    kernels.unpack_plain(planes, out, maximum)
    back = strided(plane_dtype(bits), 1, maximum + 1)
    kernels.pack_plain(list(out[0]), back, maximum)
    assert all(torch.equal(got, plane) for got, plane in zip(back, planes, strict=True))


@pytest.mark.parametrize("dtype", FLOATS)
def test_values_outside_and_nan(dtype: torch.dtype) -> None:
    values = torch.tensor((-1, 0.25, 2, torch.nan, torch.inf, -torch.inf))
    want = torch.tensor((0, 0.25, 1, 0, 1, 0))
    planes = strided(dtype, 1, 6)
    for plane in planes:
        plane.copy_(values)
    out = torch.empty(1, 3, 1, 6)
    kernels.unpack_plain(planes, out, None)
    assert torch.equal(out, want.expand(1, 3, 1, 6))
    kernels.pack_plain([values.view(1, 6)] * 3, planes, None)
    assert all(torch.equal(plane.float(), want.view(1, 6)) for plane in planes)


def test_integers_above_the_greatest_are_the_greatest() -> None:
    planes = [torch.tensor([[1023, 1024, 65535]], dtype=torch.uint16)] * 3
    out = torch.empty(1, 3, 1, 3)
    kernels.unpack_plain(planes, out, 1023)
    assert torch.equal(out, torch.ones(1, 3, 1, 3))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("plane", [0, 1, 2])
def test_what_is_not_finite_is_told_and_stays_told(plane: int, value: float) -> None:
    good, bad = torch.full((3, 2, 4), 7.0), torch.zeros(3, 2, 4)
    bad[plane, 1, 3] = value
    told = torch.zeros(1, dtype=torch.int32)
    write = partial(kernels.pack_plain, planes=strided(torch.uint8, 2, 4), maximum=255)
    for picture, want in ((good, 0), (bad, 1), (good, 1)):
        before = picture.clone()
        write(list(picture), not_finite=told)
        assert told.tolist() == [want]
        assert torch.equal(picture.nan_to_num(5), before.nan_to_num(5))
