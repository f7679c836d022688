"""Planes to a picture and back: the plain form against the core's own resize, the kernels too."""

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


TYPES = [(torch.uint8, 255), (torch.uint16, 1023), (torch.float16, None), (torch.float32, None)]
# The rows of these start where wide reads may, and where they may not.
GAPS = [(1, 1, 0), (1, 31, 1), (6, 1, 7), (5, 32, 0), (3, 48, 16), (4, 45, 19)]


def noise(dtype: torch.dtype, height: int, width: int, gap: int, start: int = 0) -> list[Tensor]:
    """Three planes of random values, in and out of range; beside the rows lie values that show."""
    planes = []
    for _ in range(3):
        memory = torch.full((height, start + width + gap), 77.0).to(dtype)
        plane = memory[:, start : start + width]
        if dtype.is_floating_point:
            plane.copy_(torch.randn(height, width))
            plane[0, 0], plane[-1, -1], plane[0, -1] = torch.nan, torch.inf, -torch.inf
        else:
            plane.copy_(torch.randint(0, 256 if dtype == torch.uint8 else 1200, (height, width)))
        planes.append(plane)
    return planes


def memory(plane: Tensor) -> Tensor:
    """All that the memory of a plane holds, the gaps with it."""
    return plane.as_strided((plane.untyped_storage().nbytes() // plane.itemsize,), (1,), 0)


def moved(planes: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Copies of the same strides on the device, with all that lies around them."""
    return [
        memory(plane).to(device, copy=True).as_strided(*layout)
        for plane in planes
        for layout in ((plane.shape, plane.stride(), plane.storage_offset()),)
    ]


def assert_same(got: Sequence[Tensor], want: Sequence[Tensor]) -> None:
    """Planes on any device hold what `want` holds, and so does the memory around them."""
    for one, other in zip(got, want, strict=True):
        assert torch.equal(memory(one).cpu(), memory(other))


@pytest.mark.parametrize(("height", "width", "gap"), GAPS)
@pytest.mark.parametrize(("dtype", "maximum"), TYPES)
def test_unpack(
    device: torch.device, dtype: torch.dtype, maximum: int | None, height: int, width: int, gap: int
) -> None:
    for start in (0, 3):
        planes = noise(dtype, height, width, gap, start)
        for beside in (0, 4, 3):  # columns of a larger buffer that stay as they are
            whole = torch.full((1, 3, height, width + beside), 5.0)
            on_device = whole.to(device, copy=True)
            kernels.unpack_plain(planes, whole[..., :width], maximum)
            kernels.unpack(moved(planes, device), on_device[..., :width], maximum)
            assert torch.equal(on_device.cpu(), whole)


@pytest.mark.parametrize("source", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("height", "width", "gap"), GAPS)
@pytest.mark.parametrize(("dtype", "maximum"), TYPES)
def test_pack(
    device: torch.device,
    dtype: torch.dtype,
    maximum: int | None,
    height: int,
    width: int,
    gap: int,
    source: torch.dtype,
) -> None:
    for start in (0, 3):
        picture = noise(source, height, width, gap, start)
        planes = noise(dtype, height, width, gap, start)
        on_device = moved(planes, device)
        flags = torch.zeros(2, dtype=torch.int32)
        flag = flags.to(device, copy=True)
        kernels.pack_plain(picture, planes, maximum, flags[:1])
        kernels.pack(moved(picture, device), on_device, maximum, flag[:1])
        assert flag.tolist() == flags.tolist() == [1, 0]
        assert_same(on_device, planes)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, None])
@pytest.mark.parametrize("at", [(0, 0, 0), (1, 2, 30), (2, 3, 17)])
def test_pack_tells_one_value_that_is_not_finite(
    device: torch.device, at: tuple[int, int, int], value: float | None
) -> None:
    # As convolutions give it: channels_last, with more channels than three.
    picture = (9 * torch.randn(1, 8, 4, 31)).contiguous(memory_format=torch.channels_last)
    if value is not None:
        picture[0][at] = value
    flag = torch.zeros(1, dtype=torch.int32, device=device)
    planes, want = strided(torch.uint8, 4, 31), strided(torch.uint8, 4, 31)
    on_device = moved(planes, device)
    kernels.pack(list(picture[0, :3].to(device)), on_device, 255, flag)
    kernels.pack_plain(list(picture[0, :3]), want, 255)
    assert_same(on_device, want)
    assert flag.tolist() == [int(value is not None)]
    kernels.pack(list(picture[0, :3].to(device)), on_device, 255)  # without a flag


@pytest.mark.parametrize("bits", INTEGERS)
def test_the_kernels_round_as_the_plain_form(device: torch.device, bits: int) -> None:
    maximum = 2**bits - 1
    integers = torch.arange(maximum + 1).view(1, -1)
    planes = [integers.to(plane_dtype(bits)) for _ in range(3)]
    out = torch.empty(1, 3, 1, maximum + 1)
    kernels.unpack(
        [plane.to(device) for plane in planes], got := out.to(device, copy=True), maximum
    )
    kernels.unpack_plain(planes, out, maximum)
    assert torch.equal(got.cpu(), out)
    middle = ((integers[:, :-1] + 0.5) / maximum).float()
    for values in (middle, middle.nextafter(torch.zeros(())), middle.nextafter(torch.ones(()))):
        want = strided(plane_dtype(bits), 1, maximum)
        on_device = moved(strided(plane_dtype(bits), 1, maximum), device)
        kernels.pack([values.to(device)] * 3, on_device, maximum)
        kernels.pack_plain([values] * 3, want, maximum)
        assert_same(on_device, want)


def test_neighbours_in_a_row_may_lie_apart(device: torch.device) -> None:
    # Each plane and row is aligned as for wide reads.
    picture = [torch.rand(4, 128)[:, ::4] for _ in range(3)]
    planes, want = strided(torch.uint16, 4, 32, gap=0), strided(torch.uint16, 4, 32, gap=0)
    on_device = moved(planes, device)
    kernels.pack(moved(picture, device), on_device, 65535)
    kernels.pack_plain(picture, want, 65535)
    assert_same(on_device, want)


def test_planes_that_the_kernels_do_not_take(device: torch.device) -> None:
    # Strides that differ, and float64.
    wide = torch.rand(4, 12, device=device)
    planes = [wide[:, :6], wide[:, 6:].contiguous(), wide[:, ::2]]
    out, want = torch.empty(2, 1, 3, 4, 6, device=device)
    kernels.unpack(planes, out, None)
    kernels.unpack_plain(planes, want, None)
    assert torch.equal(out, want)
    targets = [torch.empty(4, 6, device=device) for _ in range(3)]
    for picture in (planes, [plane.double() for plane in planes]):
        kernels.pack(picture, targets, None)
        assert all(torch.equal(got, plane) for got, plane in zip(targets, planes, strict=True))
