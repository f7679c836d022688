"""Frames to tensors and back in the host's memory."""

import numpy as np
import pytest
import torch

from vs_vsr.transfer import host


def planes(dtype: str = "f4", stride: int = 8) -> list[host.Array]:
    """R, G, B of 3x5 with a row stride that is longer than the rows."""
    values = np.array([-1, 0.25, 0.5, 0.75, 2], dtype=dtype)
    memory = [np.full((3, stride), 7, dtype=dtype) for _ in range(3)]
    for p, plane in enumerate(memory):
        plane[:, :5] = values / (p + 1)
    return [plane[:, :5] for plane in memory]


@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_a_frame_becomes_one_clamped_float32_tensor(dtype: str) -> None:
    frame = planes(dtype)
    frame[1][2, 4] = np.nan
    got = host.upload(frame)
    want = np.stack([np.clip(np.nan_to_num(plane), 0, 1) for plane in frame])
    assert (got.shape, got.dtype) == ((1, 3, 3, 5), torch.float32)
    np.testing.assert_array_equal(got[0].numpy(), want)


def test_on_a_cpu_pictures_are_written_where_they_go() -> None:
    frame = planes()
    with host.writing([frame]) as out:
        for target, plane in zip(out[0], frame, strict=True):
            assert target.data_ptr() == plane.ctypes.data
            target.fill_(0.5)
            target[0, 1, 2] = 3
    for plane in frame:
        assert plane[1, 2] == 1
        assert plane.sum() == 14 * 0.5 + 1
        # The padding of the rows is not ours.
        assert plane.base is not None and (plane.base[:, 5:] == 7).all()
