"""Frames to tensors and back in the host's memory."""

import threading
from collections.abc import Sequence

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


@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_on_a_cpu_pictures_are_written_where_they_go(dtype: str) -> None:
    frame = planes(dtype)

    def work(out: Sequence[Sequence[torch.Tensor]]) -> str:
        for target, plane in zip(out[0], frame, strict=True):
            assert target.data_ptr() == plane.ctypes.data
            target.fill_(0.5)
            # More than a half float can be, and less.
            target[0, 1, 2] = 1e6
            target[0, 2, 3] = -1e6
        return "state"

    assert host.HostTransfer().render([frame], work) == ("state", 0)
    for plane in frame:
        assert plane[1, 2] == 1
        assert plane[2, 3] == 0
        assert plane.sum() == 13 * 0.5 + 1
        # The padding of the rows is not ours.
        assert plane.base is not None and (plane.base[:, 5:] == 7).all()


class Step:
    """Three pictures in a thread of their own; each is made when it is allowed."""

    def __init__(self, fails_at: int = 3) -> None:
        self.frames = [planes() for _ in range(3)]
        self.transfer = host.HostTransfer()
        self.fails_at = fails_at
        self.allowed = [threading.Event() for _ in range(3)]
        self.begun = threading.Event()
        self.late = 0
        self.failure: BaseException | None = None
        self.made = 0
        self.thread = threading.Thread(target=self._render, daemon=True)
        self.thread.start()

    def _render(self) -> None:
        try:
            self.result = self.transfer.render(self.frames, self._work, first=self._first)
        except BaseException as e:
            self.failure = e

    def _first(self, late: int) -> None:
        self.late = late
        self.begun.set()

    def _work(self, out: Sequence[Sequence[torch.Tensor]]) -> str:
        for n, places in enumerate(out):
            assert self.allowed[n].wait(20)
            if n == self.fails_at:
                raise ValueError("no memory")
            for place in places:
                place.fill_(n + 2)
            self.made += 1
        return "state"


def test_pictures_are_handed_out_while_the_others_are_made() -> None:
    step = Step()
    assert not step.begun.wait(0.05)
    step.allowed[0].set()
    assert step.begun.wait(20)
    assert step.transfer.deliver(step.late, 0)
    # Clamped already.
    assert all((plane == 1).all() for plane in step.frames[0])
    waiting = threading.Thread(target=step.transfer.deliver, args=(step.late, 1), daemon=True)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    for allowed in step.allowed:
        allowed.set()
    waiting.join(20)
    assert not waiting.is_alive()
    step.transfer.wait(step.late)
    step.thread.join(20)
    assert step.result == ("state", step.late)
    assert all((plane == 1).all() for frame in step.frames for plane in frame)
    step.transfer.drop(step.late)
    step.transfer.drop(step.late)


def test_what_ends_a_step_is_told_to_those_who_wait_for_its_pictures() -> None:
    step = Step(fails_at=1)
    for allowed in step.allowed:
        allowed.set()
    step.thread.join(20)
    assert isinstance(step.failure, ValueError)
    assert step.transfer.deliver(step.late, 0)
    for _ in range(2):
        with pytest.raises(ValueError, match="no memory"):
            step.transfer.deliver(step.late, 2)
    step.transfer.drop(step.late)


def test_a_step_whose_pictures_nobody_wants_ends_at_the_next_one() -> None:
    step = Step()
    step.allowed[0].set()
    assert step.begun.wait(20)
    dropping = threading.Thread(target=step.transfer.drop, args=(step.late,), daemon=True)
    dropping.start()
    # The frames are in use until the step has ended.
    dropping.join(0.05)
    assert dropping.is_alive()
    step.allowed[1].set()
    dropping.join(20)
    assert not dropping.is_alive()
    step.thread.join(20)
    assert step.made == 2


def test_one_picture_is_never_late() -> None:
    told: list[int] = []
    frame = planes()
    result = host.HostTransfer().render([frame], lambda out: out[0], first=told.append)
    assert (result[1], told) == (0, [])
