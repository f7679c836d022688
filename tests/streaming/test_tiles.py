"""Tiles cover the frame, and their shares sum to one."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from vs_vsr.streaming.tiles import tiles


@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    size=st.integers(8, 160),
    data=st.data(),
)
def test_shares_sum_to_one(height: int, width: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size // 2))
    total = torch.zeros(2 * height, 2 * width)
    for tile in tiles(height, width, size, overlap, 2):
        picture = torch.ones(tile.crop(torch.zeros(height, width)).shape).repeat(2, 2)
        assert picture.shape[0] <= 2 * size
        assert picture.shape[1] <= 2 * size
        tile.add(picture, total, 2)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_size_zero_is_the_whole_frame() -> None:
    (tile,) = tiles(30, 40, 0, 0, 4)
    assert tile.crop(torch.zeros(1, 3, 30, 40)).shape == (1, 3, 30, 40)
