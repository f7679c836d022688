"""Reading frames and features at displaced positions."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vs_vsr.kernels import warps

__all__ = ["flow_warp", "nearest4_warp", "position_dtype"]


def position_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of flows and positions for values of `dtype`: at least float32.

    In half precision they would be off by pixels in a large frame.
    """
    return torch.promote_types(dtype, torch.float32)


def flow_warp(x: Tensor, flow: Tensor, *, padding: Literal["zeros", "border"] = "zeros") -> Tensor:
    """Read `x` where `flow` points, bilinearly: out[y, x] = x[y + dy, x + dx].

    Args:
        x: Features or frames, (B, C, H, W), floating point.
        flow: Displacement in pixels of `x`, (B, 2, H, W); channel 0 is dx (right), 1 is dy (down).
            On a CPU, and by the kernel, a NaN reads NaN, so that it shows in the picture.
        padding: What a position outside `x` reads: "zeros" or "border".

    Returns:
        (B, C, H, W), with the dtype and device of `x`, channels_last.

    Source: BasicVSR, arXiv:2012.02181, W in eq. 2; as grid_sample with align_corners=True.
    """
    if warps.can_warp(x, flow):
        return warps.warp(x, flow, padding=padding)
    height, width = x.shape[-2:]
    flow = flow.to(position_dtype(flow.dtype))
    column = flow[:, 0] + torch.arange(width, device=x.device, dtype=flow.dtype)
    row = flow[:, 1] + torch.arange(height, device=x.device, dtype=flow.dtype)[:, None]
    warp = _warp_rows if x.device.type == "cpu" else _warp_grid
    return warp(x, row, column, border=padding == "border")


def _warp_grid(x: Tensor, row: Tensor, column: Tensor, *, border: bool) -> Tensor:
    """Warp by grid_sample, which takes values and positions of one dtype only."""
    height, width = x.shape[-2:]
    # A side of one pixel has no length to divide by.
    grid = torch.stack(
        (2 * column / max(width - 1, 1) - 1, 2 * row / max(height - 1, 1) - 1), dim=-1
    )
    padding = "border" if border else "zeros"
    y = F.grid_sample(x.to(grid.dtype), grid, padding_mode=padding, align_corners=True)
    return y.to(x.dtype, memory_format=torch.channels_last)


def _warp_rows(x: Tensor, row: Tensor, column: Tensor, *, border: bool) -> Tensor:
    """Warp on a CPU: each output pixel is a weighted sum of four pixels of a table (B*H*W, C).

    embedding_bag computes exactly that, and it reads and writes channels_last: 2.9 ms in all, where
    grid_sample with its changes of layout took 16 ms (64 channels of bfloat16, 320x180).
    """
    b, c, height, width = x.shape
    if border:
        row = row.clamp(0, height - 1)
        column = column.clamp(0, width - 1)
    # Clamped, as a wild flow must not overflow the index: two pixels outside already reads zeros.
    row0 = row.clamp(-2, height + 1).floor()
    column0 = column.clamp(-2, width + 1).floor()
    down, right = (row - row0).clamp(0, 1), (column - column0).clamp(0, 1)
    rows = torch.stack((row0, row0 + 1), dim=-1)  # (B, H, W, 2)
    columns = torch.stack((column0, column0 + 1), dim=-1)
    row_weights = torch.stack((1 - down, down), dim=-1)
    column_weights = torch.stack((1 - right, right), dim=-1)
    # Pixels outside get no weight; after that their index only has to be valid. That of a NaN is
    # when it is an int; its weight stays NaN.
    row_weights *= (rows >= 0) & (rows < height)
    column_weights *= (columns >= 0) & (columns < width)
    rows = rows.int().clamp_(0, height - 1)
    columns = columns.int().clamp_(0, width - 1)
    if b > 1:
        rows += height * torch.arange(b, dtype=torch.int32)[:, None, None, None]
    index = rows[..., :, None] * width + columns[..., None, :]  # (B, H, W, 2, 2)
    weights = row_weights[..., :, None] * column_weights[..., None, :]
    y = F.embedding_bag(
        index.view(-1, 4),
        x.permute(0, 2, 3, 1).reshape(-1, c),
        per_sample_weights=weights.view(-1, 4).to(x.dtype),
        mode="sum",
    )
    return y.view(b, height, width, c).permute(0, 3, 1, 2)


def nearest4_warp(x: Tensor, flow: Tensor) -> Tensor:
    """Read `x` at the four pixels around where `flow` points, without weights.

    This is not continuous: a position that is a rounding error away from a whole number reads other
    pixels. So positions are float64, which makes them as exact as the flow.

    Args:
        x: Frames, (B, C, H, W), floating point.
        flow: Displacement in pixels of `x`, (B, 2, H, W); channel 0 is dx (right), 1 is dy (down).

    Returns:
        (B, 4*C, H, W), with the dtype and device of `x`, channels_last: the pixels above left,
        below left, above right and below right, in this order; zeros for those outside `x`.

    Source: VRT, arXiv:2201.12288.
    """
    b, c, height, width = x.shape
    flow = flow.double()
    column = flow[:, 0] + torch.arange(width, device=x.device)
    row = flow[:, 1] + torch.arange(height, device=x.device)[:, None]
    columns = torch.stack((column.floor(), column.ceil()), dim=-1)[..., :, None]
    rows = torch.stack((row.floor(), row.ceil()), dim=-1)[..., None, :]
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    index = rows.clamp(0, height - 1).long() * width + columns.clamp(0, width - 1).long()
    if b > 1:
        batch = torch.arange(b, device=x.device)
        index += height * width * batch[:, None, None, None, None]
    pixels = x.permute(0, 2, 3, 1).reshape(-1, c)
    y = pixels[index.flatten()] * inside.view(-1, 1)  # (B*H*W*4, C)
    return y.view(b, height, width, 4 * c).permute(0, 3, 1, 2)
