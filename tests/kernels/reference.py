"""Plain readings of what the kernels compute, in float64."""

import torch
from torch import Tensor


def bilinear(plane: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """`plane`, (C, H, W), at positions (h, w) each: zeros outside, also far outside; NaN at NaN."""
    height, width = plane.shape[-2:]
    total = torch.zeros(len(plane), *y.shape, dtype=torch.float64)
    lost = y.isnan() | x.isnan()
    y, x = (at.double().nan_to_num(-9, 1e12, -1e12) for at in (y, x))
    for row in (y.floor(), y.floor() + 1):
        for column in (x.floor(), x.floor() + 1):
            share = (1 - (y - row).abs()) * (1 - (x - column).abs())
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            value = plane[:, row.clamp(0, height - 1).long(), column.clamp(0, width - 1).long()]
            # Where it is outside, the value does not count even if it is infinite.
            total += torch.where(inside, value.double() * share, 0)
    return torch.where(lost, torch.nan, total)


def warp(x: Tensor, flow: Tensor, padding: str) -> Tensor:
    """flow_warp by `bilinear`; positions are sums in float32."""
    height, width = x.shape[-2:]
    row = flow[:, 1] + torch.arange(height, dtype=torch.float32)[:, None]
    column = flow[:, 0] + torch.arange(width, dtype=torch.float32)
    if padding == "border":
        row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
    return torch.stack([bilinear(*parts) for parts in zip(x, row, column, strict=True)])


def deform(
    x: Tensor, offsets: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, groups: int
) -> Tensor:
    """The deformable convolution, tap by tap and group by group."""
    height, width = x.shape[-2:]
    row0 = torch.arange(height, dtype=torch.float32)[:, None]
    column0 = torch.arange(width, dtype=torch.float32)
    pictures = []
    for features, offset, share in zip(x, offsets, mask, strict=True):
        total = bias.double().view(-1, 1, 1).expand(-1, height, width)
        for tap in range(9):
            seen = []
            for g, part in enumerate(features.chunk(groups)):
                k = 9 * g + tap
                row = row0 + (tap // 3 - 1) + offset[2 * k]
                column = column0 + (tap % 3 - 1) + offset[2 * k + 1]
                seen.append(bilinear(part, row, column) * share[k].double())
            taps = weight[:, :, tap // 3, tap % 3].double()
            total = total + torch.einsum("oi,ihw->ohw", taps, torch.cat(seen))
        pictures.append(total)
    return torch.stack(pictures)
