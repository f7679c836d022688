"""Scene cuts: from the marks of the frames, or from what they show."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["CUT_ABOVE", "Marks", "Scenes", "cuts", "differences", "thumbnails"]

Scenes = Literal["auto", "props", "detect", "off"]

# `_SceneChangePrev` and `_SceneChangeNext` of a frame; None where the frame does not have it.
Marks = tuple[bool | None, bool | None]

# Two frames whose `differences` are above this are of two scenes. This number and those below are
# measured: docs/measurements.md.
CUT_ABOVE = 0.4
# Cells of a thumbnail along the frame's longer side, and of the square whose mean is subtracted.
_CELLS, _AROUND = 32, 11
# Up to this luma a cell is black, as bars above and below a film are: two scenes may share them.
_BLACK = 0.01
# Variance of a cell that shows nothing but noise.
_NOISE = 0.01**2


# Pairs that are compared in one operation. How a GPU computes depends on the shapes, so these are
# always the same: the last pairs are filled up. A CPU gains nothing by it.
_PAIRS = {"cpu": 1}
_PAIRS_DEFAULT = 16


def thumbnails(frames: Sequence[Tensor]) -> Tensor:
    """What tells a frame's scene: how much lighter or darker parts are than their surroundings.

    Each of a few hundred cells is an average, so noise counts little. The difference from the
    surroundings changes little in a flash or a fade. Black cells are 0, and count in no mean.

    Args:
        frames: Each (1, 3, H, W), RGB, [0, 1].

    Returns:
        For each frame (h, w) of luma, 32 along the longer side: (N, h, w).
    """
    sides = frames[0].shape[-2:]
    height, width = (max(1, round(_CELLS * side / max(sides))) for side in sides)
    small = torch.cat([F.adaptive_avg_pool2d(frame, (height, width)) for frame in frames])
    red, green, blue = small.unbind(1)
    # Plain numbers, as copying a tensor of weights to a GPU would make the program wait.
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    lit = luma > _BLACK
    light, cells = (
        F.avg_pool2d(x, _AROUND, 1, _AROUND // 2) for x in (luma * lit, lit.to(luma.dtype))
    )
    return torch.where(lit, luma - light / cells, 0)


def differences(before: Tensor, after: Tensor) -> Tensor:
    """How different the frames of pairs are, from about 0 to over 1, without waiting for a GPU.

    It is 1 minus the correlation of their thumbnails. These are shifted against each other by up to
    a third of the frame each way, as in a fast pan, and the best shift counts.

    Args:
        before: `thumbnails` of the first frame of each pair, (N, h, w).
        after: Those of the second ones.

    Returns:
        (N,), on the device of the frames.
    """
    count = len(before)
    height, width = before.shape[-2:]
    rows, columns = height // 3, width // 3
    rim = (columns, columns, rows, rows)
    ones = torch.ones_like(before[:1, None])
    # How many cells the two share at each shift, (2 * rows + 1, 2 * columns + 1).
    shared = F.conv2d(F.pad(ones, rim), ones)[0]
    at_once = _PAIRS.get(before.device.type, _PAIRS_DEFAULT)
    missing = -count % at_once
    if missing:
        before, after = (torch.cat((x, x[-1:].expand(missing, -1, -1))) for x in (before, after))
    ones = ones.expand(len(before), 1, height, width)[:, 0]
    still = torch.stack((before, before.square(), ones), dim=1).flatten(0, 1)[:, None]
    moving = F.pad(torch.stack((after, ones, after.square()), dim=1).flatten(0, 1), rim)
    # Sums over what they share.
    sums = torch.cat(
        [
            F.conv2d(part[None], weight, groups=len(part))[0]
            for part, weight in zip(
                moving.split(3 * at_once), still.split(3 * at_once), strict=True
            )
        ]
    )
    product, energy_before, energy_after = sums.unflatten(0, (-1, 3))[:count].unbind(1)
    # In numerator and denominator, so that two frames of nothing but noise are of one scene.
    noise = _NOISE * shared
    correlation = (product + noise) / ((energy_before + noise) * (energy_after + noise)).sqrt()
    least: Tensor = 1 - correlation.amax((1, 2))
    return least


def cuts(
    frames: Sequence[Tensor],
    marks: Sequence[Marks],
    scenes: Scenes,
    *,
    before: tuple[Tensor, Marks] | None,
) -> set[int]:
    """Every t where a scene cut lies between frames t-1 and t.

    Each pair of frames is judged by itself. How many others are judged with it changes no bit, so
    the answer depends on the clip and not on the chunk.

    Args:
        frames: Each (1, 3, H, W), RGB, [0, 1].
        marks: Marks of each frame.
        scenes: Where cuts come from. "auto" takes the marks of pairs that have one, whether it is
            set or not, and looks at the frames of the others.
        before: The frame before the first one and its marks; None if there is none.
    """
    if scenes == "off":
        return set()
    all_frames, all_marks = list(frames), list(marks)
    shift = 0 if before is None else 1
    if before is not None:
        all_frames.insert(0, before[0])
        all_marks.insert(0, before[1])
    cut_at, to_compare = set(), []
    for t in range(1, len(all_frames)):
        # A cut may be marked on the frame before it, on the frame after it, or on both.
        pair = [mark for mark in (all_marks[t - 1][1], all_marks[t][0]) if mark is not None]
        if scenes == "detect" or (scenes == "auto" and not pair):
            to_compare.append(t)
        elif any(pair):
            cut_at.add(t)
    cut_at.update(_look(all_frames, to_compare))
    return {t - shift for t in cut_at}


def _look(frames: Sequence[Tensor], where: Sequence[int]) -> list[int]:
    """Those t of `where` at which frames t-1 and t are of two scenes."""
    if not where:
        return []
    needed = sorted({i for t in where for i in (t - 1, t)})
    small = dict(zip(needed, thumbnails([frames[t] for t in needed]), strict=True))
    before, after = (torch.stack([small[t + d] for t in where]) for d in (-1, 0))
    # Read all at once, as each reading waits for the GPU.
    values = differences(before, after).tolist()
    return [t for t, value in zip(where, values, strict=True) if value > CUT_ABOVE]
