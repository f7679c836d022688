"""Reading frames and features at displaced positions."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vs_vsr.kernels import warps

__all__ = [
    "Flow",
    "corners",
    "flow_warp",
    "nearest4_warp",
    "position_dtype",
    "prepared",
    "weighted_rows",
]

# Flows are prepared together up to this many pixels, at most 128 bytes each while they are.
_GROUP_PIXELS = 1 << 22
# Sizes whose constants are kept; a network has seven: six levels of flow, and its features.
_SIZES = 64
# With fewer channels than this, as frames and flows have, a CPU reads faster by grid_sample.
_FEW_CHANNELS = 16


def position_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of flows and positions for values of `dtype`: at least float32.

    In half precision they would be off by pixels in a large frame.
    """
    return torch.promote_types(dtype, torch.float32)


@dataclass(frozen=True)
class Flow:
    """A flow between two frames, which `flow_warp` takes like its vectors alone.

    A warp by it reads four pixels for each pixel. On a GPU, where many small operations cost more
    than what they compute, which pixels these are is found for all flows of a chunk at once.
    """

    vectors: Tensor
    """The displacement in pixels, (B, 2, H, W), as `flow_warp` takes it."""
    corners: tuple[Tensor, Tensor] | None = None
    """The rows of the table (B*H*W, C) that a warp adds up, (B*H*W*4,), int32, and their weights,
    in the dtype of the features; None where each warp finds them by itself."""


def prepared(flows: Tensor, frames: int, dtype: torch.dtype) -> list[Flow]:
    """Flows for features of `dtype`, made ready for `flow_warp` where that saves time.

    Args:
        flows: Of `frames` pairs of frames, (frames*B, 2, H, W).
        frames: How many flows these are.
        dtype: The dtype of the features that will be warped.

    Returns:
        A flow of B vectors for each pair.
    """
    b = len(flows) // frames
    if flows.device.type == "cpu" or warps.is_on(flows.device):
        # A CPU starts operations at no cost, and what they made for a chunk would leave the cache.
        # The kernel finds its pixels by itself.
        return [Flow(vectors) for vectors in flows.split(b)]
    return _made_ready(flows, b, dtype)


def _made_ready(flows: Tensor, b: int, dtype: torch.dtype) -> list[Flow]:
    ready: list[Flow] = []
    height, width = flows.shape[-2:]
    # Groups depend on the number and the size of the frames alone.
    for group in flows.split(b * max(1, _GROUP_PIXELS // (b * height * width))):
        index, weights = (t.split(4 * b * height * width) for t in _corners(group, b, dtype))
        ready += map(Flow, group.split(b), zip(index, weights, strict=True))
    return ready


def flow_warp(
    x: Tensor, flow: Tensor | Flow, *, padding: Literal["zeros", "border"] = "zeros"
) -> Tensor:
    """Read `x` where `flow` points, bilinearly: out[y, x] = x[y + dy, x + dx].

    Args:
        x: Features or frames, (B, C, H, W), floating point.
        flow: Displacement in pixels of `x`, (B, 2, H, W); channel 0 is dx (right), 1 is dy (down).
        padding: What a position outside `x` reads: "zeros" or "border".

    Returns:
        (B, C, H, W), with the dtype and device of `x`; features are channels_last on a CPU, and
        where `flow` is a `Flow`.

    Source: BasicVSR, arXiv:2012.02181, W in eq. 2; as grid_sample with align_corners=True.
    """
    border = padding == "border"
    vectors, corners = (flow.vectors, flow.corners) if isinstance(flow, Flow) else (flow, None)
    vectors = vectors.to(position_dtype(vectors.dtype))
    if warps.can_warp(x, vectors):
        return warps.warp(x, vectors, padding=padding)
    by_rows = corners is not None or (x.device.type == "cpu" and x.shape[1] >= _FEW_CHANNELS)
    if border or not by_rows:
        return _warp_grid(x, vectors, border=border)
    return _warp_rows(x, *(corners or _corners(vectors, len(vectors), x.dtype)))


def _warp_grid(x: Tensor, flow: Tensor, *, border: bool) -> Tensor:
    """Warp by grid_sample, which takes values and positions of one dtype only."""
    # What is read is float32 already (frames, flows): then this is all of two operations.
    zero, step = _grid(*x.shape[-2:], flow.dtype, flow.device)
    grid = torch.addcmul(zero, flow, step).permute(0, 2, 3, 1)
    padding = "border" if border else "zeros"
    y = F.grid_sample(x.to(grid.dtype), grid, padding_mode=padding, align_corners=True)
    return y.to(x.dtype)


def _warp_rows(x: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Warp: each output pixel is a weighted sum of four pixels of a table (B*H*W, C).

    embedding_bag computes exactly that, and it reads and writes channels_last. On a CPU a warp took
    1.2 ms in all, where grid_sample with its changes of layout took 16 ms (64 channels of bfloat16,
    320x180). On a GPU it is one operation on half precision, and it adds up in float32.
    """
    b, c, height, width = x.shape
    y = weighted_rows(x.permute(0, 2, 3, 1).reshape(-1, c), index, weights)
    return y.view(b, height, width, c).permute(0, 3, 1, 2)


def weighted_rows(table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of four rows of a table each.

    Args:
        table: (R, C).
        index: Rows, four for each sum, (N*4,), int32.
        weights: Their weights, in the dtype of the table.

    Returns:
        (N, C).
    """
    starts = _starts(len(index) // 4, table.device)
    return torch.embedding_bag(table, index, starts, per_sample_weights=weights)[0]


def corners(at: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four pixels around each position in a frame, and their bilinear weights.

    Args:
        at: Columns and rows, (N, 2, h, w), at least float32. A wild position is outside; one that
            is not a number reads some pixel, with a weight that is not a number.
        height: Of the frame.
        width: Of the frame.

    Returns:
        For above and below, left and right: the pixel's number in the frame, (2, 2, N, h, w),
        int32, and its weight, in the dtype of `at`; 0 for a pixel outside.
    """
    pixels = _pixels(height, width, at.dtype, at.device)
    # Clamped, as a wild position must not overflow: two pixels outside already reads zeros.
    at = at.clamp(*pixels.outside)
    first = at.floor()
    share = at - first
    # To integers before they are clamped: then a position that is not a number reads some pixel.
    first = first.int()
    # Corners come first: so a CPU computes along rows of pixels, not on two at a time.
    around = torch.stack((first, first + 1))  # (2, N, 2, h, w)
    shares = torch.stack((1 - share, share))
    inside = around.clamp(*pixels.range)
    # Pixels outside get no weight; after that their number only has to be valid.
    shares *= around == inside
    columns, rows = inside.unbind(2)
    index = torch.add(columns, rows[:, None], alpha=width)
    return index, shares[:, :, 0] * shares[:, None, :, 1]


def _corners(flow: Tensor, frames: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The pixels that warps read and their weights, as in `Flow`.

    Args:
        flow: (N, 2, H, W); flow n is for frame n % `frames` of its table.
        frames: Frames in a table.
        dtype: That of the weights.
    """
    height, width = flow.shape[-2:]
    pixels = _pixels(height, width, flow.dtype, flow.device)
    index, weights = corners(flow + pixels.at, height, width)
    if frames > 1:
        frame = torch.arange(len(flow), dtype=torch.int32, device=flow.device) % frames
        index += height * width * frame[:, None, None]
    # The four of a pixel side by side, (N, H, W, 2, 2).
    index, weights = (t.permute(2, 3, 4, 0, 1) for t in (index, weights))
    weights = weights.to(dtype, memory_format=torch.contiguous_format)
    return index.flatten(), weights.flatten()


# The constants of a size, made once: on a GPU each costs a launch, and numbers of the host a wait,
# which no CUDA graph can hold. A graph reads them where they lie, so it must not outlive them: not
# be used after more than `_SIZES` other sizes.


class _Pixels(NamedTuple):
    """Where the pixels of a frame are: column first, then row."""

    at: Tensor
    """(1, 2, H, W), floating point."""
    last: Tensor
    """The last column and row, (2, 1, 1), floating point."""
    outside: tuple[Tensor, Tensor]
    """Two pixels before the first and after the last ones, likewise."""
    range: tuple[Tensor, Tensor]
    """The first and the last ones, each (2, 1, 1), int32."""


@lru_cache(_SIZES)
def _pixels(height: int, width: int, dtype: torch.dtype, device: torch.device) -> _Pixels:
    column = torch.arange(width, dtype=dtype, device=device).expand(height, width)
    row = torch.arange(height, dtype=dtype, device=device)[:, None].expand(height, width)
    last = torch.tensor((width - 1, height - 1), dtype=dtype, device=device).view(2, 1, 1)
    first = torch.zeros_like(last)
    return _Pixels(
        torch.stack((column, row))[None],
        last,
        (first - 2, last + 2),
        (first.int(), last.int()),
    )


@lru_cache(_SIZES)
def _grid(
    height: int, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Positions of grid_sample, from -1 to 1: of each pixel, (1, 2, H, W), and what a pixel is."""
    pixels = _pixels(height, width, dtype, device)
    # A side of one pixel has no length to divide by.
    step = 2 / pixels.last.clamp(min=1)
    return pixels.at * step - 1, step


@lru_cache(_SIZES)
def _starts(pixels: int, device: torch.device) -> Tensor:
    """Where the four rows of each pixel begin in an index."""
    return torch.arange(0, 4 * pixels, 4, dtype=torch.int32, device=device)


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
    # Clamped as whole numbers: that of a NaN, which stays one in a clamp, lies far outside.
    index = rows.long().clamp(0, height - 1) * width + columns.long().clamp(0, width - 1)
    if b > 1:
        batch = torch.arange(b, device=x.device)
        index += height * width * batch[:, None, None, None, None]
    pixels = x.permute(0, 2, 3, 1).reshape(-1, c)
    y = pixels[index.flatten()] * inside.view(-1, 1)  # (B*H*W*4, C)
    return y.view(b, height, width, 4 * c).permute(0, 3, 1, 2)
