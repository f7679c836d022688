"""What replaces a plain form of torch, beside that form: checked by `right`, timed by `parts`.

A new kernel is one row of `cases`. The package's own kernels are on for their own forms alone,
whatever is on by default.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vs_vsr.bench.gpu.setting import Setting, own_kernels
from vs_vsr.kernels.planes import pack, pack_plain, unpack, unpack_plain
from vs_vsr.kernels.selection import describe, enabled
from vs_vsr.kernels.warps import join
from vs_vsr.models import sampling
from vs_vsr.models.deformable import ModulatedDeformConv
from vs_vsr.models.layers import ResidualBlock, Upsampler, convolve, upsampled
from vs_vsr.models.sampling import Flow, flow_warp
from vs_vsr.models.spynet import SPyNet

__all__ = ["KERNEL", "NOT_ALONE", "Case", "cases"]

# The form of a case that is an own kernel.
KERNEL = "kernel"
# Ends the name of a form that leaves out work which the others do.
NOT_ALONE = ", corners given"

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
    kernel: str = ""
    """The name of the own kernel that is the candidate `KERNEL`, where the device can run it."""

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
        yield _warp(setting, f"flow warp, {channels} channels, {kind}", channels, flows)
    yield _join(setting)
    yield _deformable(setting, channels)
    yield _unpack(setting)
    yield _pack(setting)
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


def _without(form: _Call) -> _Call:
    """A form with no own kernel in it."""

    def call(*inputs: Tensor) -> Tensor:
        with own_kernels("none"):
            return form(*inputs)

    return call


def _kernel(setting: Setting, name: str, form: _Call) -> dict[str, _Call]:
    """A form with one own kernel in it, as candidates; none on a processor, which has none."""

    def call(*inputs: Tensor) -> Tensor:
        device = setting.torch_device
        with own_kernels(name), torch.inference_mode():
            if not enabled(name, device):
                raise LookupError(f"the kernel {name} cannot run: {describe(device)}")
            return form(*inputs)

    return {KERNEL: call} if setting.is_cuda else {}


def _warp(setting: Setting, name: str, channels: int, flows: Callable[[int, int], Tensor]) -> Case:
    """By embedding_bag in the features' dtype, by grid_sample in float32, and by the kernel."""
    found: list[tuple[Tensor, Flow]] = []

    def inputs(h: int, w: int) -> tuple[Tensor, ...]:
        return _random(channels, h, w), flows(h, w)

    def found_now(x: Tensor, flow: Tensor) -> Tensor:
        return flow_warp(x, sampling._made_ready(flow, len(flow), x.dtype)[0])

    def given(x: Tensor, flow: Tensor) -> Tensor:
        # Found once, as for a chunk: the first call is never the one that is timed.
        if not found or found[0][0] is not flow:
            found[:] = [(flow, sampling._made_ready(flow, len(flow), x.dtype)[0])]
        return flow_warp(x, found[0][1])

    candidates: dict[str, _Call] = {
        "grid_sample": _without(_by_grid),
        f"embedding_bag{NOT_ALONE}": _without(given),
        **_kernel(setting, "warp", flow_warp),
    }
    return Case(name, inputs, flow_warp, _without(found_now), candidates, kernel="warp")


def _by_grid(x: Tensor, flow: Tensor) -> Tensor:
    if 1 in x.shape[-2:]:
        raise LookupError("grid_sample has no position outside a side of one pixel")
    return sampling._warp_grid(x, flow, border=False)


def _join(setting: Setting) -> Case:
    """What a level of SPyNet sees: two frames, one of them warped, and the flow."""

    def inputs(h: int, w: int) -> tuple[Tensor, ...]:
        # Not channels_last, as frames are not.
        return *_random(6, h, w)[0].split(3), _flows(h, w)

    def reference(one: Tensor, other: Tensor, flow: Tensor) -> Tensor:
        warped = flow_warp(other[None], flow, padding="border")
        return torch.cat((one[None], warped, flow), dim=1)

    def plain(one: Tensor, other: Tensor, flow: Tensor) -> Tensor:
        x = reference(one, other, flow)
        return x.to(setting.dtype, memory_format=torch.channels_last)

    def kernel(one: Tensor, other: Tensor, flow: Tensor) -> Tensor:
        return join(one[None], other[None], flow, setting.dtype)

    candidates = _kernel(setting, "spynet", kernel)
    name = "input of a level of SPyNet"
    return Case(name, inputs, reference, _without(plain), candidates, halves=0, kernel="spynet")


def _unpack(setting: Setting) -> Case:
    """Planes of halves to a picture, as frames arrive."""

    def form(unpacking: Callable[..., None]) -> _Call:
        def call(planes: Tensor) -> Tensor:
            out = torch.empty((1, *planes.shape), dtype=torch.float32, device=planes.device)
            unpacking(planes, out, None)
            return out

        return call

    plain, candidates = form(unpack_plain), _kernel(setting, "unpack", form(unpack))
    return Case("planes to a picture", _wild_picture, plain, plain, candidates, kernel="unpack")


def _pack(setting: Setting) -> Case:
    """A picture to planes of bytes."""

    def form(packing: Callable[..., None]) -> _Call:
        def call(picture: Tensor) -> Tensor:
            out = torch.empty(picture.shape, dtype=torch.uint8, device=picture.device)
            packing(picture, out, 255)
            return out

        return call

    def inputs(h: int, w: int) -> tuple[Tensor, ...]:
        # As large as the pictures that are made.
        return _wild_picture(4 * h, 4 * w)

    plain, candidates = form(pack_plain), _kernel(setting, "pack", form(pack))
    return Case("picture to planes", inputs, plain, plain, candidates, kernel="pack")


def _wild_picture(height: int, width: int) -> tuple[Tensor]:
    """(3, H, W), with values outside [0, 1] and a NaN."""
    picture = _random(3, height, width)[0]
    picture[1, 0, width // 2] = torch.nan
    return (picture,)


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
    groups = channels // 8
    there, here = _both(setting, ModulatedDeformConv(channels, channels, groups))

    def inputs(h: int, w: int) -> tuple[Tensor, ...]:
        offsets = 3 * _random(18 * groups, h, w, seed=1)
        return _random(channels, h, w), offsets, _random(9 * groups, h, w, seed=2).sigmoid()

    candidates = _kernel(setting, "deform", there.deform)
    name = f"deformable convolution, {groups} groups"
    return Case(name, inputs, here.deform, _without(there.deform), candidates, kernel="deform")


def _flow(setting: Setting) -> Case:
    torch.manual_seed(0)
    there, here = _both(setting, SPyNet())

    def inputs(h: int, w: int) -> tuple[Tensor, ...]:
        return _random(3, h, w).sigmoid(), _random(3, h, w, seed=1).sigmoid()

    # Not the kernel's own case, as it is a small part of this one.
    forms = _kernel(setting, "spynet", there)
    candidates = {"with the kernel spynet": forms[KERNEL]} if forms else {}
    return Case("flow of a pair", inputs, here, _without(there), candidates, halves=0)


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
