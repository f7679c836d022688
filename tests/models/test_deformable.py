"""The deformable convolution against a plain reading of its definition."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from vs_vsr.models import deformable
from vs_vsr.models.deformable import ModulatedDeformConv


def at(plane: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """`plane`, (C, H, W), at any positions, each (H, W): bilinear, zeros outside."""
    height, width = plane.shape[-2:]
    total = torch.zeros(len(plane), *y.shape, dtype=plane.dtype)
    for row in (y.floor(), y.floor() + 1):
        for column in (x.floor(), x.floor() + 1):
            share = (1 - (y - row).abs()) * (1 - (x - column).abs())
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            value = plane[:, row.clamp(0, height - 1).long(), column.clamp(0, width - 1).long()]
            total += value * (share * inside)
    return total


def plain(layer: ModulatedDeformConv, x: Tensor, offsets: Tensor, mask: Tensor) -> Tensor:
    """Tap by tap and group by group, float64."""
    x, offsets, mask = x.double(), offsets.double(), mask.double()
    b, channels, height, width = x.shape
    y0, x0 = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    weight = layer.weight.double()
    outputs, inputs = weight.shape[:2]
    runs = channels // inputs
    out = layer.bias.double().view(1, -1, 1, 1).repeat(b, 1, height, width)
    group = channels // layer.groups
    for n in range(b):
        for tap in range(9):
            seen = []
            for g in range(layer.groups):
                k = 9 * g + tap
                row = y0 + tap // 3 - 1 + offsets[n, 2 * k]
                column = x0 + tap % 3 - 1 + offsets[n, 2 * k + 1]
                part = x[n, g * group : (g + 1) * group]
                seen.append(at(part, row, column) * mask[n, k])
            columns = torch.cat(seen)
            for run in range(runs):
                own = slice(run * outputs // runs, (run + 1) * outputs // runs)
                sees = columns[run * inputs : (run + 1) * inputs]
                taps = weight[own, :, tap // 3, tap % 3]
                out[n, own] += torch.einsum("oi,ihw->ohw", taps, sees)
    return out


@pytest.mark.parametrize(
    ("channels", "outputs", "groups", "runs"), [(8, 6, 4, 1), (8, 4, 8, 2), (12, 6, 2, 3)]
)
@pytest.mark.parametrize("reach", [0.4, 3.0, 40.0])
def test_offsets_masks_groups_and_rims(
    channels: int, outputs: int, groups: int, runs: int, reach: float
) -> None:
    layer = ModulatedDeformConv(channels // runs, outputs, groups)
    layer.bias.copy_(torch.rand(outputs))
    x = torch.rand(2, channels, 7, 9)
    head = reach * torch.randn(2, 27 * groups, 7, 9)
    offsets, mask = layer.split(head)
    mask = mask.sigmoid()
    got = layer.deform(x, offsets, mask)
    torch.testing.assert_close(got.double(), plain(layer, x, offsets, mask), atol=2e-5, rtol=0)


def test_every_way_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for channels, outputs, groups, runs in ((8, 6, 4, 1), (8, 4, 8, 2), (12, 6, 6, 3)):
        layer = ModulatedDeformConv(channels // runs, outputs, groups)
        layer.bias.copy_(torch.rand(outputs))
        x = torch.rand(2, channels, 7, 9)
        offsets, mask = layer.split(4 * torch.randn(2, 27 * groups, 7, 9))
        mask = mask.sigmoid()
        want = plain(layer, x, offsets, mask)
        for strip_bytes in (1, 1 << 20):
            monkeypatch.setattr(deformable, "_STRIP_BYTES", strip_bytes)
            monkeypatch.setattr(deformable, "_SAMPLE_BYTES", strip_bytes)
            got = layer._by_rows(x, offsets, mask)
            torch.testing.assert_close(got.double(), want, atol=2e-5, rtol=0)
            got = layer._by_taps(x, offsets, mask)
            torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=0)
        # What other devices run.
        got = layer._by_operator(x, offsets, mask)
        torch.testing.assert_close(got.double(), want, atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", [(1, 5), (5, 1), (1, 1)])
def test_in_a_row_or_column(size: tuple[int, int]) -> None:
    layer = ModulatedDeformConv(4, 4, 2)
    x = torch.rand(1, 4, *size)
    offsets, mask = torch.zeros(1, 36, *size), torch.ones(1, 18, *size)
    want = torch.conv2d(x, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer.deform(x, offsets, mask), want, atol=1e-5, rtol=0)
    torch.testing.assert_close(layer._by_taps(x, offsets, mask), want, atol=1e-5, rtol=0)


def test_the_head_is_offsets_then_masks() -> None:
    layer = ModulatedDeformConv(4, 4, 2)
    head = torch.arange(54.0).view(1, 54, 1, 1)
    offsets, mask = layer.split(head)
    assert offsets.flatten().tolist() == list(range(36))
    assert mask.flatten().tolist() == list(range(36, 54))


def test_without_offsets_it_is_a_convolution() -> None:
    layer = ModulatedDeformConv(4, 5, 2)
    x = torch.rand(1, 4, 6, 6)
    got = layer.deform(x, torch.zeros(1, 36, 6, 6), torch.ones(1, 18, 6, 6))
    want = torch.conv2d(x, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("channels", [2, 16])
def test_half_precision_positions_stay_exact(channels: int) -> None:
    layer = ModulatedDeformConv(channels, 2, 1)
    x = torch.rand(1, channels, 4, 700)
    offsets = torch.zeros(1, 18, 4, 700)
    offsets[:, 1::2] = 300.25
    mask = torch.ones(1, 9, 4, 700)
    want = layer.deform(x.bfloat16().float(), offsets, mask)
    got = layer.deform(x.bfloat16(), offsets, mask)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), want, atol=0.02, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("runs", [1, 2])
def test_it_is_what_torchvision_gives(runs: int) -> None:
    from torchvision.ops import deform_conv2d

    layer = ModulatedDeformConv(8 // runs, 6, 4)
    layer.bias.copy_(torch.rand(6))
    x = torch.rand(2, 8, 7, 9)
    offsets, mask = layer.split(4 * torch.randn(2, 27 * 4, 7, 9))
    want = deform_conv2d(x, offsets, layer.weight, layer.bias, padding=1, mask=mask)
    torch.testing.assert_close(layer.deform(x, offsets, mask), want, atol=1e-5, rtol=0)
    assert torch.equal(layer._by_operator(x, offsets, mask), want)


@pytest.mark.slow
# The first is torchvision as it is; in the others its extension has another name, or does not load.
@pytest.mark.parametrize(
    ("change", "imports"),
    [
        ("", False),
        ("deformable.find_spec = lambda name: None", True),
        ("torch.ops.load_library = refuse", True),
    ],
)
def test_where_the_operator_comes_from(change: str, imports: bool) -> None:
    code = f"""
import sys, torch
from vs_vsr.models import deformable
load = torch.ops.load_library
def refuse(path):
    if "torchvision" not in sys.modules:
        raise OSError(path)
    load(path)
{change}
layer = deformable.ModulatedDeformConv(4, 5, 2)
x, offsets, mask = torch.rand(1, 4, 6, 6), torch.zeros(1, 36, 6, 6), torch.ones(1, 18, 6, 6)
with torch.inference_mode():
    got = layer.deform(x, offsets, mask)
    torch.testing.assert_close(got, torch.conv2d(x, layer.weight, layer.bias, padding=1))
assert ("torchvision" in sys.modules) is {imports}
"""
    subprocess.run([sys.executable, "-c", code], check=True)
