"""Spatial tiles: a frame cut into overlapping parts, each a stream, blended where they meet."""

from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor

__all__ = ["Tile", "tiles"]


@dataclass(frozen=True)
class Tile:
    """A part of the frame, and its share of each output pixel."""

    rows: slice
    """In input pixels."""
    columns: slice
    row_weights: Tensor
    """(s*h,); the tile's share of an output pixel is its row's weight times its column's."""
    column_weights: Tensor
    """(s*w,)."""

    def crop(self, frame: Tensor) -> Tensor:
        """The tile's part of (..., H, W)."""
        return frame[..., self.rows, self.columns]

    def add(self, picture: Tensor, plane: Tensor, scale: int) -> None:
        """Add the tile's share of `picture`, (..., s*h, s*w), to its place in the whole plane."""
        rows, columns = (
            slice(scale * part.start, scale * part.stop) for part in (self.rows, self.columns)
        )
        share = self.row_weights[:, None] * self.column_weights
        plane[..., rows, columns] += picture * share


def tiles(
    height: int,
    width: int,
    size: int,
    overlap: int,
    scale: int,
    device: torch.device | None = None,
) -> list[Tile]:
    """Cover a frame of height x width with tiles of at most `size` a side.

    Neighbours share at least `overlap` pixels, and fade into each other over all that they share.
    The shares of a pixel sum to 1. With size 0, one tile is the whole frame. The pictures that the
    tiles are for lie on `device`, by default the CPU.
    """
    rows, columns = (_spans(length, size, overlap, scale) for length in (height, width))
    return [
        # Moved now: in a step, the program would wait for the copy.
        Tile(row, column, row_weights.to(device), column_weights.to(device))
        for (row, row_weights), (column, column_weights) in product(rows, columns)
    ]


def _spans(length: int, size: int, overlap: int, scale: int) -> list[tuple[slice, Tensor]]:
    """The tiles along one axis: which input pixels each covers, and its output pixels' weights."""
    if not size or size >= length:
        return [(slice(0, length), _ones(scale * length))]
    count = -(-(length - overlap) // (size - overlap))
    # All tiles have one size, so they are spread evenly.
    starts = [i * (length - size) // (count - 1) for i in range(count)]
    shared = [scale * (a + size - b) for a, b in pairwise(starts)]
    total = 0 * _ones(scale * length)
    weights = []
    for start, fade_in, fade_out in zip(starts, [0, *shared], [*shared, 0], strict=True):
        weight = _ones(scale * size)
        weight[:fade_in] *= _ramp(fade_in)
        weight[scale * size - fade_out :] *= _ramp(fade_out).flip(0)
        total[scale * start : scale * (start + size)] += weight
        weights.append(weight)
    # Divided by their total, so that the shares of a pixel sum to 1.
    return [
        (slice(start, start + size), weight / total[scale * start : scale * (start + size)])
        for start, weight in zip(starts, weights, strict=True)
    ]


def _ones(length: int) -> Tensor:
    return torch.ones(length, dtype=torch.float32)


def _ramp(length: int) -> Tensor:
    """Weights that rise from 0 to 1 over `length` pixels, taken at the pixels' centres."""
    return (torch.arange(length, dtype=torch.float32) + 0.5) / max(length, 1)
