"""The fast parts against plain torch: warp, convolution, upsampler, and the half precision."""

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from conftest import drifting, small_network
from torch import Tensor, nn

from vs_vsr.errors import ShapeError
from vs_vsr.models import layers, sampling
from vs_vsr.models.layers import InputConvBlocks, Upsampler, convolve, convolve_to_few
from vs_vsr.models.sampling import flow_warp


def plain_warp(x: Tensor, flow: Tensor, padding: str) -> Tensor:
    height, width = x.shape[-2:]
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    column = 2 * (column + flow[:, 0]) / max(width - 1, 1) - 1
    row = 2 * (row + flow[:, 1]) / max(height - 1, 1) - 1
    grid = torch.stack((column, row), dim=-1)
    return F.grid_sample(x, grid, padding_mode=padding, align_corners=True)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("reach", [0.0, 2.5, 400.0])
@pytest.mark.parametrize("size", [(2, 5, 13, 17), (1, 3, 2, 40), (2, 18, 7, 9)])
def test_warp(
    padding: Literal["zeros", "border"],
    reach: float,
    size: tuple[int, ...],
) -> None:
    x = torch.randn(size)
    flow = reach * torch.randn(size[0], 2, *size[2:])
    flow[..., 0, 0] = torch.tensor([1e9, -1e9])
    want = plain_warp(x, flow, padding)
    torch.testing.assert_close(flow_warp(x, flow, padding=padding), want, atol=2e-4, rtol=0)
    # What other devices run.
    got = sampling._warp_grid(x, flow, border=padding == "border")
    torch.testing.assert_close(got, want, atol=2e-4, rtol=0)
    half = flow_warp(x.half(), flow, padding=padding)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), want, atol=5e-3, rtol=0)


@pytest.mark.parametrize("b", [1, 2])
def test_flows_made_ready_together_warp_as_one_by_one(
    monkeypatch: pytest.MonkeyPatch, b: int
) -> None:
    count, height, width = 5, 7, 9
    flows = 3 * torch.randn(count * b, 2, height, width)
    flows[0, 0, 0, 0], flows[1, 1, 2, 3] = 1e30, -torch.inf
    features = torch.randn(count, b, 16, height, width)
    for dtype in (torch.float32, torch.float16):
        for pixels in (1, 2 * b * height * width, 1 << 22):
            monkeypatch.setattr(sampling, "_GROUP_PIXELS", pixels)
            ready = sampling._made_ready(flows, b, dtype)
            assert len(ready) == count
            for x, flow, vectors in zip(features.to(dtype), ready, flows.split(b), strict=True):
                assert flow.corners is not None
                assert torch.equal(flow_warp(x, flow), flow_warp(x, vectors))
                assert torch.equal(flow.vectors, vectors)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("channels", [3, 16])
def test_a_flow_that_is_not_a_number_spoils_its_own_pixel_only(
    padding: Literal["zeros", "border"], channels: int
) -> None:
    x, flow = torch.rand(1, channels, 6, 8), torch.zeros(1, 2, 6, 8)
    flow[0, :, 2, 3] = torch.nan
    got = flow_warp(x, flow, padding=padding)
    if channels == 16 and padding == "zeros":
        assert got[..., 2, 3].isnan().all()
    got[..., 2, 3] = x[..., 2, 3]
    torch.testing.assert_close(got, x, atol=1e-6, rtol=0)


def test_a_flow_that_is_not_a_number_reads_nothing_outside() -> None:
    x, flow = torch.rand(1, 3, 6, 8), torch.zeros(1, 2, 6, 8)
    want = sampling.nearest4_warp(x, flow)
    for value in (torch.nan, torch.inf, -torch.inf, 1e30):
        flow[0, :, 2, 3] = value
        got = sampling.nearest4_warp(x, flow)
        assert not got[..., 2, 3].any()
        got[..., 2, 3] = want[..., 2, 3]
        assert torch.equal(got, want)


def test_in_half_precision_a_warp_is_as_exact_as_the_format_lets_it() -> None:
    """The weights of its four pixels are rounded too, which adds little to rounding the result."""
    x, flow = torch.randn(1, 16, 40, 50).half(), 4 * torch.randn(1, 2, 40, 50)
    want = plain_warp(x.double(), flow.double(), "zeros")
    (ready,) = sampling._made_ready(flow, 1, torch.float16)
    by_rows = (flow_warp(x, ready).double() - want).norm()
    by_grid = (sampling._warp_grid(x, flow, border=False).double() - want).norm()
    assert 0 < by_rows < 2 * by_grid


@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu"])
@pytest.mark.parametrize("padding", [None, (0, 1)])
def test_convolution_with_its_activation(
    activation: layers.Activation, padding: tuple[int, int] | None
) -> None:
    x, weight, bias = torch.randn(2, 8, 9, 11), torch.randn(6, 8, 3, 3), torch.randn(6)
    want = F.conv2d(x, weight, bias, padding=padding or 1)
    if activation != "none":
        want = F.leaky_relu(want, 0.0 if activation == "relu" else 0.1)
    torch.testing.assert_close(convolve(x, weight, bias, activation, padding=padding), want)


@pytest.mark.parametrize("width", [1, 2, 3, 16])
def test_convolution_with_a_stride(width: int) -> None:
    # In bfloat16: on some processors oneDNN makes a single column wrongly.
    x = torch.randn(2, 8, 17, width).to(torch.bfloat16, memory_format=torch.channels_last)
    weight, bias = torch.randn(8, 8, 3, 3).bfloat16(), torch.randn(8).bfloat16()
    want = F.conv2d(x.float(), weight.float(), bias.float(), stride=2, padding=1)
    got = convolve(x, weight, bias, stride=(2, 2))
    torch.testing.assert_close(got.float(), want, atol=0.01, rtol=0.01)


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize(("size", "padding"), [(3, None), (7, None), (3, (0, 1))])
@pytest.mark.parametrize("width", [1, 4, 8, 11, 16, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolution_to_few_channels(
    channels: int, size: int, padding: tuple[int, int] | None, width: int, dtype: torch.dtype
) -> None:
    x = torch.randn(2, 16, 9, width).to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(channels, 16, size, size).to(dtype)
    atol, rtol = (1e-4, 0.0) if dtype == torch.float32 else (0.01, 0.01)
    want = F.conv2d(x.float(), weight.float(), padding=padding or size // 2)
    got = convolve_to_few(x, weight, None, padding=padding)
    torch.testing.assert_close(got.float(), want, atol=atol, rtol=rtol)
    bias = torch.randn(channels).to(dtype)
    got = convolve_to_few(x, weight, bias, padding=padding)
    torch.testing.assert_close(
        got.float(), want + bias.float().view(-1, 1, 1), atol=atol, rtol=rtol
    )


def plain_upsample(up: Upsampler, x: Tensor) -> Tensor:
    # In the order of files, which is that of torch's shuffle.
    state = up.state_dict()
    for name in ("upconv1", "upconv2"):
        y = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)
        x = F.leaky_relu(F.pixel_shuffle(y, 2), 0.1)
    out: Tensor = up.conv_last(F.leaky_relu(up.conv_hr(x), 0.1))
    return out


@pytest.mark.parametrize("strip_bytes", [0, 200_000, 1 << 30])
def test_upsampler_in_strips(monkeypatch: pytest.MonkeyPatch, strip_bytes: int) -> None:
    monkeypatch.setitem(layers._STRIP_BYTES, "cpu", strip_bytes)
    up, x, base = Upsampler(24), torch.randn(2, 24, 13, 10), torch.randn(2, 3, 52, 40)
    out = torch.full((2, 3, 52, 40), torch.nan)
    up(x, base, out.unbind(1))
    torch.testing.assert_close(out, base + plain_upsample(up, x), atol=1e-5, rtol=0)
    # Into one tensor the same, and into smaller planes what they hold of it.
    once = torch.full_like(out, torch.nan)
    up(x, base, once.transpose(0, 1))
    assert torch.equal(once, out)
    part = torch.full((3, 2, 50, 37), torch.nan)
    up(x, base, part)
    assert torch.equal(part.transpose(0, 1), out[..., :50, :37])


def test_without_onednn_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.stack(drifting(3, 33, 40), dim=1)
    fused = small_network()(x)
    monkeypatch.setattr(layers, "_fused_convolution", lambda: False)
    torch.testing.assert_close(small_network()(x), fused, atol=1e-5, rtol=0)


def test_derivatives_pass_through() -> None:
    with torch.inference_mode(False):
        trunk = InputConvBlocks(5, 8, 2)
        trunk(torch.randn(1, 5, 9, 9)).sum().backward()
        first = trunk.main[0]
        assert isinstance(first, nn.Conv2d)
        assert first.weight.grad is not None
        assert first.weight.grad.abs().sum() > 0


def test_bfloat16_is_as_near_as_the_format_lets_it() -> None:
    x = torch.stack(drifting(4, 40, 52), dim=1)
    want = small_network()(x)
    model = small_network()
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    got = model(x)
    assert got.dtype == torch.float32
    rounded = small_network()
    for parameter in rounded.parameters():
        parameter.data = parameter.data.bfloat16().float()
    # The error of rounding only the weights; the activations are rounded several times too.
    limit = 4 * (rounded(x) - want).abs().mean()
    assert 0 < (got - want).abs().mean() < limit


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 2, 4, 8, 8), (1, 0, 3, 8, 8)])
def test_frames_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"^BasicVSR: frames must be \(B, T, 3, H, W\), got"):
        small_network()(torch.zeros(shape))


def test_stream_is_the_chunked_form() -> None:
    x = torch.stack(drifting(9, 33, 40), dim=1)
    model = small_network()
    whole = model(x)
    first, state = model.stream(x, lookahead=5)
    second, _ = model.stream(x[:, 4:], state)
    assert torch.equal(torch.cat((first, second), dim=1), whole)
    with pytest.raises(ShapeError, match="T above the 9 frames before and after"):
        model.stream(x, lookahead=9)
