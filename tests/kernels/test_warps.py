"""The warps against a plain reading, in every type of values, far outside and at NaN."""

import math
from typing import Literal

import hypothesis.strategies as st
import processor
import pytest
import reference
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor

from vs_vsr.kernels import warps
from vs_vsr.models import sampling, spynet

Padding = Literal["zeros", "border"]
DTYPES = [torch.float16, torch.bfloat16, torch.float32]
SIZES = [(1, 1), (1, 7), (6, 1), (5, 9)]
WILD = [1e9, -1e9, 3e38, torch.inf, -torch.inf, torch.nan]


def assert_rounded(got: Tensor, want: Tensor) -> None:
    """`got` is `want`, float64, up to one rounding to its type and sums in float32."""
    half_step = torch.finfo(got.dtype).eps / 2
    torch.testing.assert_close(
        got.double().cpu(), want, rtol=half_step + 1e-6, atol=2e-6, equal_nan=True
    )


def channels_last(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(size).to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_warp(
    device: torch.device, size: tuple[int, int], dtype: torch.dtype, padding: Padding
) -> None:
    x = channels_last(2, 24, *size, dtype=dtype)
    for reach in (0, 0.3, 3, 60):
        flow = reach * torch.randn(2, 2, *size)
        got = sampling.flow_warp(x.to(device), flow.to(device), padding=padding)
        assert (got.dtype, got.shape, got.device) == (dtype, x.shape, device)
        assert got.is_contiguous(memory_format=torch.channels_last)
        assert_rounded(got, reference.warp(x, flow, padding))


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("wild", WILD)
def test_warp_far_outside_and_nowhere(
    device: torch.device, wild: float, axis: int, padding: Padding
) -> None:
    x, flow = channels_last(1, 8, 4, 5), torch.zeros(1, 2, 4, 5)
    flow[0, axis, 1:3, 2] = wild
    got = warps.warp(x.to(device), flow.to(device), padding=padding)
    assert_rounded(got, reference.warp(x, flow, padding))
    # Nothing but these two pixels has changed, and a NaN is not hidden.
    lost = torch.zeros(4, 5, dtype=torch.bool)
    lost[1:3, 2] = True
    assert torch.equal(got.cpu()[..., ~lost], x[..., ~lost])
    assert bool(got.cpu()[..., lost].isnan().all()) is math.isnan(wild)


@given(
    st.lists(st.floats(width=32), min_size=12, max_size=12),
    st.sampled_from(["zeros", "border"]),
    st.sampled_from(DTYPES),
)
def test_warp_to_any_position(flows: list[float], padding: Padding, dtype: torch.dtype) -> None:
    with pytest.MonkeyPatch.context() as patched, torch.inference_mode():
        patched.setattr(warps, "launch", processor.launch)
        x = channels_last(1, 8, 2, 3, dtype=dtype)
        flow = torch.tensor(flows).view(1, 2, 2, 3)
        got = warps.warp(x, flow, padding=padding)
        assert_rounded(got, reference.warp(x, flow, padding))


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_warp_is_the_plain_form(device: torch.device, padding: Padding) -> None:
    x, flow = channels_last(2, 16, 11, 13), 4 * torch.randn(2, 2, 11, 13)
    flow[0, :, 1:3, 0] = torch.tensor((torch.inf, -1e9))
    if padding == "zeros":
        # At the border, the plain form reads some pixel for what is not a number.
        flow[0, 0, 0, 0] = flow[1, 1, 5, 5] = torch.nan
    got = sampling.flow_warp(x.to(device), flow.to(device), padding=padding)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(warps, "enabled", lambda name, device: False)
        plain = sampling.flow_warp(x, flow, padding=padding)
    torch.testing.assert_close(got.cpu(), plain, atol=1e-5, rtol=0, equal_nan=True)


def test_what_is_outside_does_not_count_even_if_infinite(device: torch.device) -> None:
    x = channels_last(1, 8, 1, 3)
    x[..., 0] = torch.inf
    flow = torch.zeros(1, 2, 1, 3)
    flow[:, 0] = -1.5
    got = warps.warp(x.to(device), flow.to(device), padding="zeros")
    # Column -1.5 is outside, -0.5 half outside; 0.5 lies between infinity and a number.
    assert torch.equal(got.cpu(), torch.tensor((0, torch.inf, torch.inf)).expand(1, 8, 1, 3))


def test_warp_takes_any_strides_and_reads_nothing_beside_its_features(
    device: torch.device,
) -> None:
    # Features and flow are parts of larger buffers, whose other values would show.
    flows = torch.full((2, 9, 10, 5), torch.nan, device=device)
    flows[:, 2:8, 1:8, 1:3] = 5 * torch.randn(2, 6, 7, 2, device=device)
    flow = flows.permute(0, 3, 1, 2)[:, 1:3, 2:8, 1:8]
    # Aligned for wide reads; not; aligned at the first pixel only.
    for channels, first in ((48, 8), (48, 3), (44, 8)):
        buffer = torch.full((2, 9, 10, channels), torch.nan, dtype=torch.float16, device=device)
        view = buffer.permute(0, 3, 1, 2)[:, first : first + 16, 2:8, 2:9]
        view[:] = torch.randn(2, 16, 6, 7, device=device)
        got = warps.warp(view, flow, padding="zeros")
        assert_rounded(got, reference.warp(view.cpu(), flow.cpu(), "zeros"))
    plain = torch.randn(2, 16, 6, 7, device=device)
    got = warps.warp(plain, flow, padding="border")
    assert_rounded(got, reference.warp(plain.cpu(), flow.cpu(), "border"))


@pytest.mark.parametrize(
    ("size", "dtype", "flow_dtype"),
    [
        ((1, 12, 4, 4), torch.float32, torch.float32),
        ((1, 8, 4, 4), torch.float64, torch.float32),
        ((1, 8, 4, 4), torch.float32, torch.float64),
        ((0, 8, 4, 4), torch.float32, torch.float32),
    ],
)
def test_what_the_warp_does_not_take_goes_through_torch(
    device: torch.device, size: tuple[int, ...], dtype: torch.dtype, flow_dtype: torch.dtype
) -> None:
    x = torch.randn(size, device=device).to(dtype)
    flow = torch.zeros(size[0], 2, *size[2:], dtype=flow_dtype, device=device)
    taken = warps.can_warp(x, flow)
    assert taken is (size[0] == 0)
    if size[0] or device.type == "cpu":
        torch.testing.assert_close(sampling.flow_warp(x, flow), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_what_a_level_of_spynet_sees(
    device: torch.device, size: tuple[int, int], dtype: torch.dtype
) -> None:
    frames = torch.randn(2, 2, 3, *size)
    for other in (frames[1], channels_last(2, 3, *size)):
        flow = 3 * torch.randn(2, 2, *size)
        flow[0, 0, 0, 0] = torch.nan
        flow[1, 1, -1, -1] = torch.inf
        got = warps.join(frames[0].to(device), other.to(device), flow.to(device), dtype)
        assert (got.dtype, got.shape) == (dtype, (2, 8, *size))
        assert got.is_contiguous(memory_format=torch.channels_last)
        warped = reference.warp(other, flow, "border")
        assert_rounded(got, torch.cat((frames[0].double(), warped, flow.double()), dim=1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_to_half_precision(device: torch.device, dtype: torch.dtype) -> None:
    # Every value of that type, the middle between two, the floats beside it, and what is too large.
    exact = torch.arange(65536).int().to(torch.uint16).view(dtype).float()
    middle = exact[:-1] / 2 + exact[1:] / 2
    below, above = (middle.nextafter(end * torch.ones(())) for end in (-torch.inf, torch.inf))
    values = torch.cat((exact, middle, below, above, torch.tensor((65519, 65520, 65535, 65536))))
    values = values[: len(values) // 3 * 3]
    if device.type == "cuda":
        values[values.abs() < 2.0**-126] = 0  # CuPy compiles with -ftz=true
    frame = values.view(1, 3, 1, -1)
    flow = torch.zeros(1, 2, 1, frame.shape[-1])
    got = warps.join(frame.to(device), frame.to(device), flow.to(device), dtype)[:, :3]
    torch.testing.assert_close(got.cpu(), frame.to(dtype), rtol=0, atol=0, equal_nan=True)


def test_spynet_is_the_same_with_the_kernel(device: torch.device) -> None:
    net = spynet.SPyNet().eval().requires_grad_(False)
    for name, parameter in net.named_parameters():
        if ".8." in name:
            parameter.mul_(20)
    pair = F.interpolate(torch.rand(4, 3, 9, 11), (70, 90), mode="bicubic").split(2)
    got = net.to(device)(*(x.to(device) for x in pair)).cpu()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(warps, "enabled", lambda name, device: False)
        want = net.cpu()(*pair)
    assert want.abs().max() > 1
    torch.testing.assert_close(got, want, atol=1e-3, rtol=0)
