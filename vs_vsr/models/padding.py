"""Frames of any size, brought to a size that a network takes."""

import torch
from torch import Tensor

__all__ = ["mirror_pad"]


def mirror_pad(x: Tensor, *, multiple: int, least: int = 1, repeat_edge: bool = False) -> Tensor:
    """Extend the right and the bottom by mirroring, up to a size that the network takes.

    Args:
        x: (..., H, W), of any size.
        multiple: Height and width become multiples of this.
        least: Height and width become at least this.
        repeat_edge: Whether the mirror repeats the last row and column ("symmetric") or not
            ("reflect").

    Returns:
        (..., H', W'); `x` itself if its size fits already.
    """
    # Not by F.pad, whose reflection cannot extend a side by more than its own length.
    for dim in (-2, -1):
        size = x.shape[dim]
        wanted = -(-max(size, least) // multiple) * multiple
        if wanted != size:
            x = x.index_select(dim, _mirrored(size, wanted, repeat_edge).to(x.device))
    return x


def _mirrored(size: int, wanted: int, repeat_edge: bool) -> Tensor:
    """The first `wanted` of the indices 0, 1, ... that run back and forth over `size`."""
    forth = torch.arange(size)
    back = forth.flip(0) if repeat_edge else forth[1:-1].flip(0)
    period = torch.cat((forth, back))
    return period.repeat(-(-wanted // len(period)))[:wanted]
