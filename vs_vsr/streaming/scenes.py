"""Scene cuts: from the frames' own marks, or from the pictures."""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

__all__ = ["Marks", "Scenes", "cuts", "is_cut"]

Scenes = Literal["props", "detect", "off"]

# Of one frame: whether `_SceneChangePrev` and `_SceneChangeNext` are set.
Marks = tuple[bool, bool]

_WIDTH = 64
# Mean difference of luma on a scale of 0 to 1, brightness of the whole picture left out.
# Measured: docs/measurements.md.
_THRESHOLD = 0.07


def is_cut(before: Tensor, after: Tensor) -> bool:
    """Whether two neighbouring frames look like different scenes.

    Both are reduced to about 64 columns and freed of their mean, so that noise, small motion and
    flashes count little; what is left must differ by 7 % of the range on average.

    Args:
        before: (1, 3, H, W), RGB, [0, 1].
        after: The same shape.
    """
    return float((_small_luma(after) - _small_luma(before)).abs().mean()) > _THRESHOLD


def _small_luma(frame: Tensor) -> Tensor:
    cell = max(1, frame.shape[-1] // _WIDTH)
    height, width = frame.shape[-2:]
    small = F.avg_pool2d(frame, (min(cell, height), min(cell, width)), ceil_mode=True)
    luma = (small * small.new_tensor((0.2126, 0.7152, 0.0722)).view(1, 3, 1, 1)).sum(1)
    return luma - luma.mean()


def cuts(
    frames: Sequence[Tensor],
    marks: Sequence[Marks],
    scenes: Scenes,
    *,
    before: tuple[Tensor, Marks] | None,
) -> set[int]:
    """Every t where a scene cut lies between frames t-1 and t.

    Args:
        frames: Each (1, 3, H, W), RGB, [0, 1].
        marks: Of each frame.
        scenes: Where cuts come from.
        before: The frame before the first one and its marks; None if there is none.
    """
    if scenes == "off":
        return set()
    pictures, seen = list(frames), list(marks)
    shift = 0 if before is None else 1
    if before is not None:
        pictures.insert(0, before[0])
        seen.insert(0, before[1])
    found = set()
    for t in range(1, len(pictures)):
        if scenes == "props":
            cut = seen[t][0] or seen[t - 1][1]
        else:
            cut = is_cut(pictures[t - 1], pictures[t])
        if cut:
            found.add(t - shift)
    return found
