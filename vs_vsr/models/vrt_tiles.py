"""Clips too large for memory, cut into tiles and blended as for VRT's published figures."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from vs_vsr.errors import ArgumentError
from vs_vsr.models.stream import Span, shots

__all__ = ["WindowSums", "add_window", "check_tile", "in_space", "in_time"]

WindowSums = Mapping[int, tuple[Tensor, int]]
"""By frame number, the sum of the pictures that windows have made of the frame, (B, 3, s*H, s*W),
and their number."""


def check_tile(tile: int, overlap: int) -> None:
    """Refuse a tile that is not larger than its overlap.

    Raises:
        ArgumentError: `tile` is negative, or `overlap` is not less than it.
    """
    if tile < 0:
        raise ArgumentError(
            f"VRT: tile must be 0 or more, got {tile}. Give 0 for no tiles, or its size in pixels."
        )
    if tile and not 0 <= overlap < tile:
        raise ArgumentError(
            f"VRT: overlap must be 0 or more and less than tile ({tile}), got {overlap}. Make the "
            "tile larger or the overlap smaller."
        )


def _starts(size: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin; the last one ends at `size`.

    size 10, tile 4, overlap 1:  ----......
                                 ...----...
                                 ......----
    """
    # What is smaller than a tile has one tile.
    last = max(0, size - tile)
    return [*range(0, last, tile - overlap), last]


def in_time(
    restore: Callable[[Tensor], Tensor], frames: Tensor, *, tile: int, overlap: int, multiple: int
) -> Tensor:
    """Restore a clip in shorter clips, averaged where they overlap.

    Args:
        restore: Turns (B, t, 3, H, W) into (B, t, 3, s*H, s*W).
        frames: (B, T, 3, H, W).
        tile: Frames of a clip; 0 takes all of them at once, mirrored at the end.
        overlap: Frames that neighbouring clips share.
        multiple: Mirroring extends the clip to a multiple of this, as far as its frames suffice.

    Returns:
        (B, T, 3, s*H, s*W).
    """
    check_tile(tile, overlap)
    count = frames.shape[1]
    if not tile:
        # The clip, then its mirror image, which begins with the last frame again.
        order = [*range(count), *reversed(range(count))][: -(-count // multiple) * multiple]
        return restore(frames[:, order])[:, :count]
    if tile >= count:
        return restore(frames)
    total: Tensor | None = None
    counts = frames.new_zeros(count, 1, 1, 1)
    for start in _starts(count, tile, overlap):
        part = restore(frames[:, start : start + tile])
        if total is None:
            total = part.new_zeros(part.shape[0], count, *part.shape[2:])
        total[:, start : start + tile] += part
        counts[start : start + tile] += 1
    assert total is not None
    return total.div_(counts)


def in_space(
    restore: Callable[[Tensor], Tensor], frames: Tensor, *, tile: int, overlap: int, scale: int
) -> Tensor:
    """Restore frames in square tiles.

    Each of two neighbours gives up half the overlap, counted in pixels of the *output*. What is
    still covered twice, in super-resolution, is averaged. The published figures were made this way.

    Args:
        restore: Turns (B, T, 3, h, w) into (B, T', 3, s*h, s*w).
        frames: (B, T, 3, H, W).
        tile: Side of a tile in pixels of `frames`; 0 takes whole frames.
        overlap: Pixels that neighbouring tiles share.
        scale: s.

    Returns:
        (B, T', 3, s*H, s*W).
    """
    check_tile(tile, overlap)
    height, width = frames.shape[-2:]
    if not tile or (tile >= height and tile >= width):
        return restore(frames)
    kept_rows = _kept(height, tile, overlap, scale)
    kept_columns = _kept(width, tile, overlap, scale)
    # Made from the first part, which shows how many frames come out: one for interpolation.
    total: Tensor | None = None
    counts = frames.new_zeros(scale * height, scale * width)
    for top, rows in kept_rows:
        for left, columns in kept_columns:
            part = restore(frames[..., top : top + tile, left : left + tile])
            if total is None:
                total = part.new_zeros(*part.shape[:3], scale * height, scale * width)
            y, x = scale * top, scale * left
            inner = part[..., rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
            total[..., rows, columns] += inner
            counts[rows, columns] += 1
    assert total is not None
    return total.div_(counts)


def _kept(size: int, tile: int, overlap: int, scale: int) -> list[tuple[int, slice]]:
    """Where each tile begins, and which pixels of the output are kept from it."""
    starts = _starts(size, tile, overlap)
    parts = []
    for start in starts:
        first, last = scale * start, scale * min(start + tile, size)
        if start > starts[0]:
            first += overlap // 2
        if start < starts[-1]:
            # The larger half of an odd overlap.
            last -= overlap - overlap // 2
        parts.append((start, slice(first, last)))
    return parts


def add_window(
    restore: Callable[[Tensor], Tensor],
    frames: Sequence[Tensor],
    window: range,
    span: Span,
    sums: dict[int, tuple[Tensor, int]],
) -> None:
    """Add the pictures of one window to `sums`; a cut splits it into two windows.

    Args:
        restore: Turns (B, t, 3, H, W) into (B, t, 3, s*H, s*W).
        frames: The frames of the span, each (B, 3, H, W).
        window: Positions of the window.
        span: Which frames these are.
        sums: As `WindowSums`; it is changed.
    """
    for shot in shots(window, span.cuts):
        pictures = restore(torch.stack([frames[i] for i in shot], dim=1))
        for i, picture in zip(shot, pictures.unbind(1), strict=True):
            total, count = sums.get(span.first + i, (0, 0))
            sums[span.first + i] = total + picture, count + 1
