"""What replaces a plain form of torch, beside that form: checked by `right`, timed by `parts`.

A new kernel is one row of `cases`.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vs_vsr.bench.gpu.setting import Setting
from vs_vsr.models.deformable import ModulatedDeformConv
from vs_vsr.models.layers import ResidualBlock, Upsampler, convolve, upsampled
from vs_vsr.models.sampling import flow_warp
from vs_vsr.models.spynet import SPyNet

__all__ = ["Case", "cases"]

_Call = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """One operation in the forms that it has."""

    name: str
    inputs: Callable[[int, int], tuple[Tensor, ...]]
    """Random inputs for a height and width, on the CPU, float32."""
    reference: _Call
    """From the inputs on the CPU, float32."""
    plain: _Call
    """The form of plain torch, from the inputs on the device."""
    candidates: dict[str, _Call]
    """Forms that may replace it, by name; those that this device does not have are left out."""
    halves: int = 1
    """How many of the inputs, from the first one, are in half precision on the device."""

    def on_device(self, setting: Setting, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The inputs as `plain` and `candidates` take them."""
        device = setting.torch_device
        there = [x.to(device, setting.dtype) for x in inputs[: self.halves]]
        there += [x.to(device) for x in inputs[self.halves :]]
        last = torch.channels_last
        return tuple(x.contiguous(memory_format=last) if x.ndim == 4 else x for x in there)

    def rounded(self, setting: Setting, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The same values for `reference`: those on the device, in float32."""
        halves = [x.to(setting.dtype).float() for x in inputs[: self.halves]]
        return (*halves, *inputs[self.halves :])


def cases(setting: Setting) -> Iterator[Case]:
    """All of them."""
    channels = setting.small_or(64, 16)
    yield _convolution(setting, channels)
    yield _block(setting, channels)
    for kind, flows in (("flows of some pixels", _flows), ("some flows wild", _wild_flows)):
        yield _warp(f"flow warp, {channels} channels, {kind}", channels, flows)
    yield Case(
        "flow warp of frames, border",
        lambda h, w: (_random(3, h, w), _flows(h, w)),
        _border_warp,
        _border_warp,
        {},
        halves=0,
    )
    yield _deformable(setting, channels)
    yield _flow(setting)
    yield _upsampler(setting, channels)


def _random(channels: int, height: int, width: int, batch: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, height, width, generator=generator)


def _flows(height: int, width: int) -> Tensor:
    return 3 * _random(2, height, width, seed=1)


def _wild_flows(height: int, width: int) -> Tensor:
    """Every fifth pixel points far outside."""
    flows = _flows(height, width)
    flows.view(2, -1)[:, ::5] *= 1e6
    return flows


def _warp(name: str, channels: int, flows: Callable[[int, int], Tensor]) -> Case:
    def inputs(h: int, w: int) -> tuple[Tensor, ...]:
        return _random(channels, h, w), flows(h, w)

    return Case(name, inputs, flow_warp, flow_warp, {})


def _border_warp(x: Tensor, flow: Tensor) -> Tensor:
    return flow_warp(x, flow, padding="border")


def _convolution(setting: Setting, channels: int) -> Case:
    def inputs(h: int, w: int) -> tuple[Tensor, ...]:
        weight = _random(channels, 3, 3, channels, 1) / (9 * channels) ** 0.5
        return _random(channels, h, w), weight, _random(1, 1, 1, channels, 2).flatten()

    def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return convolve(x, weight, bias, "relu")

    def fused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.cudnn_convolution_relu(x, weight, bias, (1, 1), (1, 1), (1, 1), 1)

    candidates = {"cudnn_convolution_relu": fused} if setting.is_cuda else {}
    return Case("convolution and ReLU", inputs, plain, plain, candidates, halves=3)


def _block(setting: Setting, channels: int) -> Case:
    """A residual block; it may overwrite its input, so each form gets a copy."""
    torch.manual_seed(0)
    there, here = _both(setting, ResidualBlock(channels))

    def fused(x: Tensor) -> Tensor:
        one, two = there.conv1, there.conv2
        assert two.bias is not None
        sides = (1, 1)
        hidden = torch.cudnn_convolution_relu(x, one.weight, one.bias, sides, sides, sides, 1)
        y = F.conv2d(hidden, two.weight, None, padding=1)
        return y.add_(x).add_(two.bias.view(1, -1, 1, 1))

    return Case(
        "residual block",
        lambda h, w: (_random(channels, h, w),),
        lambda x: here(x.clone()),
        lambda x: there(x.clone()),
        {"cudnn_convolution_relu and two sums": fused} if setting.is_cuda else {},
    )


def _deformable(setting: Setting, channels: int) -> Case:
    torch.manual_seed(0)
    there, here = _both(setting, ModulatedDeformConv(channels, channels, 8))

    def inputs(h: int, w: int) -> tuple[Tensor, ...]:
        offsets, mask = 3 * _random(144, h, w, seed=1), _random(72, h, w, seed=2).sigmoid()
        return _random(channels, h, w), offsets, mask

    return Case("deformable convolution, 8 groups", inputs, here.deform, there.deform, {})


def _flow(setting: Setting) -> Case:
    torch.manual_seed(0)
    there, here = _both(setting, SPyNet())

    def inputs(h: int, w: int) -> tuple[Tensor, ...]:
        return _random(3, h, w).sigmoid(), _random(3, h, w, seed=1).sigmoid()

    return Case("flow of a pair", inputs, here, there, {}, halves=0)


def _upsampler(setting: Setting, channels: int) -> Case:
    torch.manual_seed(0)
    there, here = _both(setting, Upsampler(channels))

    def picture(upsampler: Upsampler, features: Tensor, frame: Tensor) -> Tensor:
        base = upsampled(frame, 4)
        out = torch.full_like(base, torch.nan)
        upsampler(features, base, out.unbind(1))
        return out

    return Case(
        "upsampler",
        lambda h, w: (_random(channels, h, w), _random(3, h, w, seed=1).sigmoid()),
        lambda features, frame: picture(here, features, frame),
        lambda features, frame: picture(there, features, frame),
        {},
    )


def _both[M: torch.nn.Module](setting: Setting, module: M) -> tuple[M, M]:
    """The module on the device, and with the same values on the CPU in float32."""
    module = module.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    for parameter in module.parameters():
        parameter.data = parameter.data.to(setting.dtype).float()
    there = copy.deepcopy(module).to(setting.torch_device)
    for parameter in there.parameters():
        parameter.data = parameter.data.to(setting.dtype)
    return there, module
