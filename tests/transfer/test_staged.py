"""Frames to a device and back through streams: every wait is there, and every one is needed."""

import threading
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretend import Eager, Place, Pretend, Queue

from vs_vsr.transfer.host import Array
from vs_vsr.transfer.staged import StagedTransfer

HEIGHT, WIDTH = 2, 3
CHUNK, LOOKAHEAD = 2, 2
FRAMES = 12


def planes(value: float, dtype: str = "f4") -> list[Array]:
    """R, G, B: the value, its half and its quarter; rows are longer than the picture."""
    memory = [np.full((HEIGHT, WIDTH + 2), value / 2**p, dtype=dtype) for p in range(3)]
    return [plane[:, :WIDTH] for plane in memory]


def value(n: int) -> float:
    return (n + 1) / 32


class Program:
    """A filter that reads a clip: each picture is the mean of its frame and those after it."""

    def __init__(self, device: Pretend, capacity: int, dtype: str = "f4") -> None:
        self.device = device
        self.dtype = dtype
        self.transfer = StagedTransfer(device, capacity)
        self.out: dict[int, tuple[int, list[list[Array]]]] = {}

    def lend(self, n: int) -> list[Array]:
        return planes(value(n), self.dtype)

    def arrive(self, n: int) -> None:
        lent = self.lend(n)
        self.transfer.arrived(n, lent)
        self.take_back([lent])

    def take_back(self, frames: list[list[Array]]) -> None:
        for frame in frames:
            for plane in frame:
                plane[:] = np.nan

    def render(self, chunk: int) -> None:
        first = CHUNK * chunk
        count = min(CHUNK + LOOKAHEAD, FRAMES - first)
        lent = [self.lend(n) for n in range(first, first + count)]
        tensors = self.transfer.inputs(first, lent)
        self.take_back(lent)
        # A network's kernels get addresses: they do not keep tensors alive, only the step does.
        memory = [self.device.alias(tensor) for tensor in tensors]

        def work(out: Any) -> None:
            for i, targets in enumerate(out):

                def compute(i: int = i, targets: Any = targets) -> None:
                    mean = torch.stack(memory[i:]).mean(0)
                    for p, target in enumerate(targets):
                        target.copy_(mean[:, p])

                self.device.enqueue(self.device.compute, compute)

        frames = [planes(np.nan, self.dtype) for _ in range(min(CHUNK, count))]
        _, number = self.transfer.render(frames, work)
        del tensors
        self.out[number] = (first, frames)

    def deliver(self, number: int, index: int) -> None:
        self.transfer.deliver(number, index)
        first, frames = self.out[number]
        read = range(first + index, min(first + CHUNK + LOOKAHEAD, FRAMES))
        want = np.mean([value(n) for n in read])
        for p, plane in enumerate(frames[index]):
            np.testing.assert_allclose(plane, want / 2**p, rtol=1e-3)

    def drop(self, number: int) -> None:
        self.transfer.drop(number)
        self.take_back(self.out.pop(number)[1])


def act(program: Program, random: Random, count: int = 40) -> None:
    """What a frame server may do, in any order."""
    for _ in range(count):
        kind = random.choice(("arrive", "arrive", "render", "deliver", "deliver", "drop"))
        if kind == "arrive":
            program.arrive(random.randrange(FRAMES))
        elif kind == "render":
            program.render(random.randrange(FRAMES // CHUNK))
        elif program.out:
            number = random.choice(list(program.out))
            if kind == "drop":
                program.drop(number)
            else:
                program.deliver(number, random.randrange(len(program.out[number][1])))
    program.device.finish()


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 8), st.sampled_from(["f4", "f2"]))
def test_pictures_are_right_in_every_order(random: Random, capacity: int, dtype: str) -> None:
    act(Program(Pretend(random), capacity, dtype), random)


class Unwaited(Place):
    """An event that nobody waits for."""

    def synchronize(self) -> None:
        pass


class Forgetful(Pretend):
    """A runtime that leaves out one of the waits."""

    def __init__(self, random: Random, without: str) -> None:
        super().__init__(random)
        self.without = without

    def record(self, stream: Queue) -> Place:
        name = {
            id(self.upload): "refill",
            id(self.compute): "computed",
            id(self.download): "read back",
        }[id(stream)]
        return Unwaited(self, stream) if name == self.without else super().record(stream)

    def wait(self, stream: Queue, event: Place) -> None:
        assert stream is self.compute
        if self.without != "uploaded":
            super().wait(stream, event)

    def keep(self, tensor: torch.Tensor, stream: Queue) -> None:
        if self.without != "keep":
            super().keep(tensor, stream)


@pytest.mark.parametrize("without", ["refill", "uploaded", "keep", "computed", "read back"])
def test_each_wait_is_needed(without: str) -> None:
    with pytest.raises(AssertionError, match="Not equal"):
        for seed in range(300):
            random = Random(seed)
            act(Program(Forgetful(random, without), 2), random)


def test_nothing_else_is_left_out_by_a_runtime_that_forgets_nothing() -> None:
    for seed in range(50):
        random = Random(seed)
        act(Program(Forgetful(random, "nothing"), 2), random)


class Busy(Pretend):
    """A device that computes nothing more until it may."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.may = threading.Event()
        self.may.set()

    def _can_go_on(self, queue: Queue) -> bool:
        return (queue is not self.compute or self.may.is_set()) and super()._can_go_on(queue)

    def record(self, stream: Queue) -> Place:
        with self._lock:
            return Computed(self, stream) if stream is self.compute else super().record(stream)


class Computed(Place):
    def synchronize(self) -> None:
        if not self.passed():
            assert isinstance(self._device, Busy)
            assert self._device.may.wait(60)
        super().synchronize()


def test_a_picture_that_is_ready_waits_for_none_that_is_not() -> None:
    device = Busy(Random(0))
    program = Program(device, FRAMES)
    program.render(0)
    device.finish()
    device.may.clear()
    for chunk in (1, 2):
        program.render(chunk)
    # As many as there are slots.
    late = [(number, i) for number in (2, 3) for i in range(CHUNK)]
    threads = [
        threading.Thread(target=program.deliver, args=each, daemon=True) for each in (*late, (1, 0))
    ]
    for thread in threads:
        thread.start()
    threads[-1].join(10)
    was_held_up = threads[-1].is_alive()
    assert was_held_up or all(thread.is_alive() for thread in threads[:-1])
    device.may.set()
    for thread in threads:
        thread.join(60)
    assert not was_held_up


class Counting(Pretend):
    uploads = downloads = pinned_bytes = 0

    def enqueue(self, stream: Queue, work: Any) -> None:
        self.uploads += stream is self.upload
        self.downloads += stream is self.download
        super().enqueue(stream, work)

    def pinned(self, shape: Any, dtype: torch.dtype) -> torch.Tensor:
        memory = super().pinned(shape, dtype)
        self.pinned_bytes += memory.nbytes
        return memory


@pytest.mark.parametrize("arrive", [True, False], ids=["as they arrive", "with their step"])
def test_each_frame_is_copied_once_each_way(arrive: bool) -> None:
    device = Counting(Random(0))
    program = Program(device, CHUNK + LOOKAHEAD)
    for chunk in range(FRAMES // CHUNK):
        for n in range(CHUNK * chunk, min(CHUNK * (chunk + 1) + LOOKAHEAD, FRAMES)):
            if arrive:
                program.arrive(n)
        program.render(chunk)
        for i in (0, 0, 1):
            program.deliver(chunk + 1, i)
    # A copy and an unpacking for each frame; those in the lookahead are still there.
    assert device.uploads == 2 * FRAMES
    assert device.downloads == FRAMES
    # Pinned memory does not grow with the clip.
    assert device.pinned_bytes <= 2 * 4 * 3 * HEIGHT * WIDTH * 4


def test_frames_are_clamped_and_have_no_nan() -> None:
    device = Pretend(Random(0))
    transfer = StagedTransfer(device, 4)
    frame = planes(0.5)
    frame[0][0] = -1, np.nan, np.inf
    frame[1][1] = 2, -np.inf, 0.25
    (tensor,) = transfer.inputs(7, [frame])
    device.finish()
    assert (tensor.shape, tensor.dtype) == ((1, 3, HEIGHT, WIDTH), torch.float32)
    np.testing.assert_array_equal(tensor[0, 0, 0], [0, 0, 1])
    np.testing.assert_array_equal(tensor[0, 1, 1], [1, 0, 0.25])


def test_pictures_are_clamped() -> None:
    device = Eager(Random(0))
    transfer = StagedTransfer(device, 4)
    frame = planes(np.nan, "f2")

    def work(out: Any) -> str:
        for target, number in zip(out[0], (-1, 0.5, 3), strict=True):
            assert (target.shape, target.dtype) == ((1, HEIGHT, WIDTH), torch.float16)
            target.fill_(number)
        return "done"

    assert transfer.render([frame], work) == ("done", 1)
    transfer.deliver(1, 0)
    assert [float(plane[0, 0]) for plane in frame] == [0, 0.5, 1]
    # The padding of the rows is not ours.
    assert frame[0].base is not None and np.isnan(frame[0].base[:, WIDTH:]).all()


def test_a_step_without_pictures_is_not_late() -> None:
    transfer = StagedTransfer(Eager(Random(0)), 4)
    assert transfer.render([], lambda out: len(out)) == (0, 0)


def test_a_failing_step_leaves_nothing_behind() -> None:
    transfer = StagedTransfer(Eager(Random(0)), 4)

    def work(out: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        transfer.render([planes(0)], work)
    assert not transfer._late


def test_many_threads_deliver_each_picture_once() -> None:
    device = Counting(Random(0))
    program = Program(device, 8)
    for chunk in range(FRAMES // CHUNK):
        program.render(chunk)
    errors: list[BaseException] = []

    def read() -> None:
        try:
            for number in range(1, FRAMES // CHUNK + 1):
                for i in range(CHUNK):
                    program.deliver(number, i)
                program.arrive(number)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert device.downloads == FRAMES
