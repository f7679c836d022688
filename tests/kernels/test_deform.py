"""The deformable convolution by a kernel and a matrix product, against a plain reading."""

import pytest
import reference
import torch
from torch import Tensor

from vs_vsr.kernels import deform as kernels
from vs_vsr.models.deformable import ModulatedDeformConv

DTYPES = [torch.float16, torch.bfloat16, torch.float32]
WILD = [1e9, -1e9, 3e38, torch.inf, -torch.inf, torch.nan]


def inputs(
    layer: ModulatedDeformConv, size: tuple[int, ...], reach: float
) -> tuple[Tensor, Tensor, Tensor]:
    head = reach * torch.randn(size[0], 27 * layer.groups, *size[2:])
    # As in the networks, where the head comes out of a convolution: parts of one channels_last map.
    offsets, mask = layer.split(head.contiguous(memory_format=torch.channels_last))
    return torch.randn(size), offsets, mask.sigmoid()


def layer_of(channels: int, outputs: int, groups: int) -> ModulatedDeformConv:
    layer = ModulatedDeformConv(channels, outputs, groups)
    layer.bias.copy_(torch.randn(outputs))
    return layer.requires_grad_(False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (5, 9)])
@pytest.mark.parametrize(("channels", "outputs", "groups"), [(16, 5, 2), (16, 8, 1), (32, 3, 2)])
def test_deform(
    device: torch.device,
    channels: int,
    outputs: int,
    groups: int,
    size: tuple[int, int],
    dtype: torch.dtype,
) -> None:
    layer = layer_of(channels, outputs, groups).to(dtype)
    for reach in (0.3, 3, 60):
        x, offsets, mask = inputs(layer, (2, channels, *size), reach)
        x = x.to(dtype)
        want = reference.deform(x, offsets, mask, layer.weight, layer.bias, groups)
        on_device = layer.to(device)
        got = on_device.deform(*(tensor.to(device) for tensor in (x, offsets, mask)))
        assert (got.dtype, got.shape) == (dtype, want.shape)
        assert got.is_contiguous(memory_format=torch.channels_last)
        # Each of 9 * channels values is rounded once before the product, and the sum once after it.
        tolerance = 1e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
        torch.testing.assert_close(
            got.double().cpu(), want, rtol=tolerance, atol=tolerance * float(want.abs().max())
        )
        layer.to("cpu")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_is_at_most_twice_as_far_off_as_torch_in_that_type(
    device: torch.device, dtype: torch.dtype
) -> None:
    layer = layer_of(32, 32, 4).to(dtype)
    x, offsets, mask = inputs(layer, (1, 32, 12, 14), 2)
    x = x.to(dtype)
    want = reference.deform(x, offsets, mask, layer.weight, layer.bias, 4)
    got = layer.to(device).deform(x.to(device), offsets.to(device), mask.to(device)).cpu()
    layer.to("cpu")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kernels, "enabled", lambda name, device: False)
        plain = layer.deform(x, offsets, mask)
    error, allowed = ((y.double() - want).square().mean().sqrt() for y in (got, plain))
    assert error <= 2 * allowed


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("wild", WILD)
def test_far_outside_and_nowhere(device: torch.device, wild: float, axis: int) -> None:
    layer = layer_of(8, 4, 1)
    x, offsets, mask = inputs(layer, (1, 8, 4, 5), 1)
    offsets = offsets.clone()
    offsets[0, 8 + axis, 1, 2] = wild
    want = reference.deform(x, offsets, mask, layer.weight, layer.bias, 1)
    got = layer.to(device).deform(*(tensor.to(device) for tensor in (x, offsets, mask)))
    torch.testing.assert_close(got.double().cpu(), want, rtol=0, atol=1e-4, equal_nan=True)
    assert int(got.isnan().any(dim=1).sum()) == (wild != wild)


def test_a_mask_that_is_no_number_shows(device: torch.device) -> None:
    layer = layer_of(8, 4, 1)
    x, offsets, mask = inputs(layer, (1, 8, 4, 5), 1)
    mask = mask.clone()
    mask[0, 3, 2, 2], offsets[0, 6, 2, 2] = torch.nan, 1e9
    got = layer.to(device).deform(*(tensor.to(device) for tensor in (x, offsets, mask)))
    assert int(got.isnan().any(dim=1).sum()) == 1


def test_strips_change_nothing(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of(16, 8, 2)
    tensors = [tensor.to(device) for tensor in inputs(layer, (3, 16, 7, 6), 2)]
    layer.to(device)
    whole = layer.deform(*tensors)
    row = 9 * 16 * 4 * 6
    # Less than a row, a row, strips that do not divide a picture, and strips over two pictures.
    for size in (1, row, 2 * row, 4 * row, 10 * row):
        monkeypatch.setattr(kernels, "_STRIP_BYTES", size)
        torch.testing.assert_close(layer.deform(*tensors), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("channels", "inputs_of_weight", "groups", "taken"),
    [(16, 16, 2, True), (16, 8, 2, False), (16, 16, 4, False), (240, 240, 16, False)],
)
def test_what_the_kernel_takes(
    device: torch.device, channels: int, inputs_of_weight: int, groups: int, taken: bool
) -> None:
    x = torch.zeros(1, channels, 4, 4, device=device)
    weight = torch.zeros(8, inputs_of_weight, 3, 3, device=device)
    assert kernels.can_deform(x, weight, groups) is taken
    assert not kernels.can_deform(x.double(), weight.double(), groups)
