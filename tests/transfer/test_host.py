"""Frames to tensors and back: in the host's memory, and by copies on any other device."""

from typing import Any

import numpy as np
import pytest
import torch

from vs_vsr.transfer import host

META = torch.device("meta")


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
    got = host.upload(frame, torch.device("cpu"))
    want = np.stack([np.clip(np.nan_to_num(plane), 0, 1) for plane in frame])
    assert (got.shape, got.dtype) == ((1, 3, 3, 5), torch.float32)
    np.testing.assert_array_equal(got[0].numpy(), want)


def test_a_frame_goes_to_its_device() -> None:
    got = host.upload(planes(), META)
    assert (got.shape, got.dtype, got.device.type) == ((1, 3, 3, 5), torch.float32, "meta")


def test_on_a_cpu_pictures_are_written_where_they_go() -> None:
    frame = planes()
    with host.writing([frame], torch.device("cpu")) as out:
        for target, plane in zip(out[0], frame, strict=True):
            assert target.data_ptr() == plane.ctypes.data
            target.fill_(0.5)
            target[0, 1, 2] = 3
    for plane in frame:
        assert plane[1, 2] == 1
        assert plane.sum() == 14 * 0.5 + 1
        # The padding of the rows is not ours.
        assert plane.base is not None and (plane.base[:, 5:] == 7).all()


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A device that is not the CPU, whose memory is not that of the frames."""
    empty_like = torch.empty_like

    def on_it(plane: torch.Tensor, *, device: torch.device) -> torch.Tensor:
        assert device == META
        return empty_like(plane)

    monkeypatch.setattr(torch, "empty_like", on_it)
    return META


@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_from_another_device_pictures_are_copied_at_the_end(
    pretended: torch.device, dtype: str
) -> None:
    frames = [planes(dtype), planes(dtype)]
    before = [[plane.copy() for plane in frame] for frame in frames]
    with host.writing(frames, pretended) as out:
        assert [len(targets) for targets in out] == [3, 3]
        for n, targets in enumerate(out):
            for p, target in enumerate(targets):
                assert target.shape == (1, 3, 5)
                assert str(target.dtype) == {"f4": "torch.float32", "f2": "torch.float16"}[dtype]
                target.fill_(0.25 * n + 0.125 * p)
                target[0, 0, 0] = 4
        # Until the end nothing has come.
        np.testing.assert_array_equal(frames, before)
    for n, frame in enumerate(frames):
        for p, plane in enumerate(frame):
            assert plane[0, 0] == 1
            assert (plane.ravel()[1:] == 0.25 * n + 0.125 * p).all()


def test_what_fails_leaves_the_frames_of_another_device_alone(pretended: torch.device) -> None:
    frame = planes()
    before: Any = [plane.copy() for plane in frame]
    with pytest.raises(ZeroDivisionError), host.writing([frame], pretended) as out:
        out[0][0].fill_(0.5)
        raise ZeroDivisionError
    np.testing.assert_array_equal(frame, before)
