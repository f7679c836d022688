"""How much of a GPU's memory a filter takes, and the chunk and tile that fit in it.

What fits follows from the device's whole memory, never from what happens to be free: two runs of a
script must choose the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

__all__ = ["Footprint", "fitting", "needed", "shorter_chunks", "smaller_tiles"]

# The rest is for the driver, other programs and the core's own GPU frames.
_SHARE = 0.75
# Over what tensors take: workspaces of convolutions, and gaps in the allocator's blocks.
_MARGIN = 1.2
# Chunks whose pictures may be on the device: one is handed out, one is computed, and one is pushed
# out by the next (MOST_LATE in native/carriers.h).
_CHUNKS = 3
# Smaller chunks cost less than tiles, down to this part of the default; then tiles are cheaper.
_LEAST_PART = 4
_TILES = (0, 768, 512, 384, 256, 128)


@dataclass(frozen=True)
class Footprint:
    """Memory that a network's tensors take, in half precision, for each pixel of input."""

    fixed: int
    """Bytes beside those of the frames of a chunk."""
    frame: int
    """Bytes for each frame of a chunk, without its picture."""


def needed(
    footprint: Footprint,
    *,
    width: int,
    height: int,
    chunk: int,
    tile: int,
    inputs: int,
    picture_bytes: int,
    sample: int,
    itemsize: int,
) -> int:
    """Bytes on the device that a filter needs.

    Args:
        footprint: That of its network.
        width: Of the input.
        height: Of the input.
        chunk: Frames of a chunk.
        tile: Side of the tiles, which are computed one after another; 0 is whole frames.
        inputs: Frames beside those of a chunk that are kept.
        picture_bytes: Of the output frames for one input frame.
        sample: Bytes of a sample of these.
        itemsize: Bytes of a feature's value.
    """
    area = width * height
    part = min(tile, width) * min(tile, height) if tile else area
    work = part * itemsize // 2 * (footprint.fixed + chunk * footprint.frame)
    # Tiles are added up in float32, whose pictures are beside those of the frames.
    sums = chunk * 4 * picture_bytes // sample if part < area else 0
    frames = 12 * area * (inputs + chunk)
    return int(_MARGIN * work) + sums + frames + _CHUNKS * chunk * picture_bytes


def fitting(
    footprint: Footprint,
    total: int,
    *,
    width: int,
    height: int,
    chunks: Sequence[int],
    tiles: Sequence[int],
    **sizes: int,
) -> tuple[int, int] | None:
    """The first of `tiles`, with the first of `chunks`, that fit; None if nothing does.

    Args:
        footprint: That of the network.
        total: The device's whole memory in bytes.
        width: Of the input.
        height: Of the input.
        chunks: Lengths of a chunk to choose from, the best first.
        tiles: Sides of tiles likewise.
        sizes: The other arguments of `needed`.
    """
    for tile, chunk in product(tiles, chunks):
        size = needed(footprint, width=width, height=height, chunk=chunk, tile=tile, **sizes)
        if size <= _SHARE * total:
            return chunk, tile
    return None


def shorter_chunks(chunk: int) -> list[int]:
    """Lengths to choose from where the default is `chunk`."""
    parts = (chunk * k // (2 * _LEAST_PART) for k in range(2 * _LEAST_PART, 1, -1))
    return list(dict.fromkeys(max(1, part) for part in parts))


def smaller_tiles(width: int, height: int) -> list[int]:
    """Sides to choose from for a frame of this size; whole frames first."""
    return [tile for tile in _TILES if tile < max(width, height)]
