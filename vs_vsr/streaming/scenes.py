"""Scene cuts: from the frames' own marks, or from the pictures."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["CUT_ABOVE", "Marks", "Scenes", "cuts", "difference", "thumbnail"]

Scenes = Literal["auto", "props", "detect", "off"]

# Of one frame: `_SceneChangePrev` and `_SceneChangeNext`; None where the frame does not have it.
Marks = tuple[bool | None, bool | None]

# Measured, as all of these are: docs/measurements.md. Two frames whose `difference` is more are of
# two scenes.
CUT_ABOVE = 0.4
# Cells of a thumbnail along the frame's longer side, and of the square whose mean is left out.
_CELLS, _AROUND = 32, 11
# Luma of what is black, as the bars above and below a picture: two scenes may share them.
_BLACK = 0.01
# Squared, what a cell varies by where there is nothing to see but noise.
_NOISE = 0.01**2


def thumbnail(frame: Tensor) -> Tensor:
    """What tells the scene of a frame: how much lighter or darker each part is than those around.

    Averages of a few hundred cells, so that noise counts little. What they differ by from their
    surroundings changes little in a flash or a fade. Black cells are 0, and no one's surroundings.

    Args:
        frame: (1, 3, H, W), RGB, [0, 1].

    Returns:
        (h, w) of luma, 32 along the longer side.
    """
    longer = max(frame.shape[-2:])
    height, width = (max(1, round(_CELLS * side / longer)) for side in frame.shape[-2:])
    small = F.adaptive_avg_pool2d(frame, (height, width))
    red, green, blue = small.unbind(1)
    # Plain numbers, as a tensor of weights would be waited for on its way to a GPU.
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    lit = luma > _BLACK
    light, cells = (
        F.avg_pool2d(x, _AROUND, 1, _AROUND // 2) for x in (luma * lit, lit.to(luma.dtype))
    )
    return torch.where(lit, luma - light / cells, 0)[0]


def difference(before: Tensor, after: Tensor) -> Tensor:
    """How little two frames show the same, from about 0 to over 1, without waiting for a GPU.

    It is 1 less the correlation of their thumbnails. These are shifted against each other by up to
    a third of the picture each way, as a fast pan does, and the best shift counts.

    Args:
        before: Of `thumbnail`, (h, w).
        after: Of the same shape.

    Returns:
        One number, on the device of the frames.
    """
    height, width = before.shape
    rows, columns = height // 3, width // 3
    ones = torch.ones_like(before)
    still = torch.stack((before, before.square(), ones))[:, None]
    moving = F.pad(torch.stack((after, ones, after.square())), (columns, columns, rows, rows))
    # Sums over what the two share at each shift; each (2 * rows + 1, 2 * columns + 1).
    product, energy_before, energy_after = F.conv2d(moving[None], still, groups=3)[0]
    shared = F.conv2d(moving[None, 1:2], ones[None, None])[0, 0]
    noise = _NOISE * shared
    correlation = (product + noise) / ((energy_before + noise) * (energy_after + noise)).sqrt()
    worst: Tensor = 1 - correlation.max()
    return worst


def cuts(
    frames: Sequence[Tensor],
    marks: Sequence[Marks],
    scenes: Scenes,
    *,
    before: tuple[Tensor, Marks] | None,
) -> set[int]:
    """Every t where a scene cut lies between frames t-1 and t.

    Each pair of frames is judged by itself, in operations of the same shapes wherever it lies, so
    that the answer is one of the clip and not of the chunk.

    Args:
        frames: Each (1, 3, H, W), RGB, [0, 1].
        marks: Of each frame.
        scenes: Where cuts come from; "auto" is the marks of the pairs that have one, whether it is
            set or not, and the pictures of the others.
        before: The frame before the first one and its marks; None if there is none.
    """
    if scenes == "off":
        return set()
    pictures, seen = list(frames), list(marks)
    shift = 0 if before is None else 1
    if before is not None:
        pictures.insert(0, before[0])
        seen.insert(0, before[1])
    found, unknown = set(), []
    for t in range(1, len(pictures)):
        pair = [mark for mark in (seen[t - 1][1], seen[t][0]) if mark is not None]
        if scenes == "detect" or (scenes == "auto" and not pair):
            unknown.append(t)
        elif any(pair):
            found.add(t)
    found.update(_look(pictures, unknown))
    return {t - shift for t in found}


def _look(frames: Sequence[Tensor], where: Sequence[int]) -> list[int]:
    """Those t of `where` at which the pictures t-1 and t are of two scenes."""
    if not where:
        return []
    small = {t: thumbnail(frames[t]) for t in {i for t in where for i in (t - 1, t)}}
    # Read together, as each reading waits for the GPU.
    found = torch.stack([difference(small[t - 1], small[t]) for t in where]).tolist()
    return [t for t, value in zip(where, found, strict=True) if value > CUT_ABOVE]
