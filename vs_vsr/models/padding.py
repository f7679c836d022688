"""Frames of any size brought to the sizes a network takes."""

import torch
from torch import Tensor

__all__ = ["mirror_pad"]


def mirror_pad(x: Tensor, *, multiple: int, least: int = 1, repeat_edge: bool = False) -> Tensor:
    """Extend the right and bottom by mirroring, up to a size that the network takes.

    Args:
        x: (..., H, W), of any size.
        multiple: What height and width become a multiple of.
        least: What height and width become at least.
        repeat_edge: Whether the mirror repeats the last row and column ("symmetric") or not
            ("reflect").

    Returns:
        (..., H', W'); `x` itself where it has such a size.
    """
    for dim in (-2, -1):
        size = x.shape[dim]
        wanted = -(-max(size, least) // multiple) * multiple
        if wanted != size:
            x = x.index_select(dim, _mirrored(size, wanted, repeat_edge).to(x.device))
    return x


def _mirrored(size: int, wanted: int, repeat_edge: bool) -> Tensor:
    """Indices 0, 1, ... that run back and forth between the ends of `size`."""
    there = torch.arange(size)
    back = there.flip(0) if repeat_edge else there[1:-1].flip(0)
    period = torch.cat((there, back))
    return period.repeat(-(-wanted // len(period)))[:wanted]
