"""Frames of any size, brought to a size that a network takes."""

from functools import lru_cache

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
            x = x.index_select(dim, _mirrored(size, wanted, repeat_edge, x.device))
    return x


@lru_cache(64)
def _mirrored(size: int, wanted: int, repeat_edge: bool, device: torch.device) -> Tensor:
    """The first `wanted` of the indices 0, 1, ... that run back and forth over `size`.

    They are kept, as copying them to a GPU would make the program wait.
    """
    forth = torch.arange(size)
    back = forth.flip(0) if repeat_edge else forth[1:-1].flip(0)
    period = torch.cat((forth, back))
    return period.repeat(-(-wanted // len(period)))[:wanted].to(device)
