"""Through VapourSynth: pictures of a chunk are handed out while its others are still made."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs
from conftest import drifting, small_checkpoint
from torch import Tensor
from vapoursynth import core

from vs_vsr.models.layers import Upsampler
from vs_vsr.streaming.plan import Step
from vs_vsr.streaming.runner import Runner

CHUNK = 6
# A test that waits for what never comes must fail, not hang.
LONG_S = 60


class Gate:
    """Lets the upsampler make as many pictures as it is told."""

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)
        self.made = 0
        self.fails = False
        self.starved = False
        self.steps: list[Step] = []

    def pass_through(self) -> None:
        self.starved |= not self.allowed.acquire(timeout=LONG_S)
        if self.fails:
            raise RuntimeError("the third picture is bad")
        self.made += 1


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate, forward, run = Gate(), Upsampler.forward, Runner.run

    def counted(self: Runner, step: Step, *arguments: Any) -> bool:
        gate.steps.append(step)
        return run(self, step, *arguments)

    def gated(self: Upsampler, features: Tensor, base: Tensor, out: Any) -> None:
        gate.pass_through()
        forward(self, features, base, out)

    monkeypatch.setattr(Upsampler, "forward", gated)
    monkeypatch.setattr(Runner, "run", counted)
    yield gate
    gate.allowed.release(1000)
    assert not gate.starved


def source() -> vs.VideoNode:
    frames = [frame[0].numpy() for frame in drifting(2 * CHUNK, 20, 24)]
    blank = core.std.BlankClip(format=vs.RGBS, width=24, height=20, length=len(frames), keep=True)

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        out = f.copy()
        for plane, values in enumerate(frames[n]):
            np.asarray(out[plane])[:] = values
        return out

    return blank.std.ModifyFrame(blank, draw)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("weights"), channels=8, blocks=1)


def filtered(weights: Path, **arguments: Any) -> vs.VideoNode:
    return core.vsr.BasicVSR(
        source(), weights=str(weights), chunk=CHUNK, lookahead=2, device="cpu", **arguments
    )


def array(frame: vs.VideoFrame) -> np.ndarray[Any, Any]:
    return np.stack([np.asarray(frame[p]).copy() for p in range(3)])


def asked(clip: vs.VideoNode, n: int) -> "Future[np.ndarray[Any, Any]]":
    """Ask for frame n in a new thread: get_frame blocks its caller until the picture is made."""
    answer: Future[np.ndarray[Any, Any]] = Future()

    def get() -> None:
        try:
            answer.set_result(array(clip.get_frame(n)))
        except BaseException as e:
            answer.set_exception(e)

    threading.Thread(target=get, daemon=True).start()
    return answer


def test_a_picture_comes_when_it_is_made(weights: Path, gate: Gate) -> None:
    gate.allowed.release(1000)
    clip = filtered(weights)
    want = [array(clip.get_frame(n)) for n in range(len(clip))]
    assert gate.made == len(clip)
    del clip

    while gate.allowed.acquire(blocking=False):
        pass
    clip = filtered(weights)
    first, third = asked(clip, 0), asked(clip, 2)
    gate.allowed.release()
    np.testing.assert_array_equal(first.result(LONG_S), want[0])
    assert not third.done()
    gate.allowed.release(2)
    np.testing.assert_array_equal(third.result(LONG_S), want[2])
    # The next chunk waits for this one; its bits are the same.
    later = asked(clip, CHUNK + 1)
    gate.allowed.release(1000)
    np.testing.assert_array_equal(later.result(LONG_S), want[CHUNK + 1])
    for n in range(len(clip)):
        np.testing.assert_array_equal(array(clip.get_frame(n)), want[n])
    # Nothing was made twice, and no state made again.
    assert gate.made == 2 * len(clip)
    assert [(step.chunk, step.render) for step in gate.steps] == 2 * [(0, True), (1, True)]


def test_what_fails_in_the_middle_fails_alone_and_is_made_again(weights: Path, gate: Gate) -> None:
    gate.allowed.release(1000)
    want = [array(frame) for frame in filtered(weights).frames(close=True)]
    while gate.allowed.acquire(blocking=False):
        pass
    clip = filtered(weights)
    gate.allowed.release(2)
    np.testing.assert_array_equal(asked(clip, 1).result(LONG_S), want[1])
    gate.fails = True
    last = asked(clip, CHUNK - 1)
    gate.allowed.release(1000)
    with pytest.raises(vs.Error, match=r"^BasicVSR: RuntimeError: the third picture is bad$"):
        last.result(LONG_S)
    gate.fails = False
    for n, frame in enumerate(clip.frames(close=True)):
        np.testing.assert_array_equal(array(frame), want[n])


def test_a_filter_that_goes_ends_its_chunk_at_the_next_picture(weights: Path, gate: Gate) -> None:
    clip = filtered(weights)
    first = asked(clip, 0)
    gate.allowed.release()
    first.result(LONG_S)
    # For the picture that it is making, which the filter waits for before it goes.
    threading.Timer(0.2, gate.allowed.release).start()
    del clip, first
    assert not gate.starved
    follower = asked(filtered(weights), 0)
    gate.allowed.release()
    follower.result(LONG_S)
    assert gate.made <= 3


@pytest.mark.parametrize("threads", [1, 3])
def test_few_threads_are_enough(weights: Path, threads: int) -> None:
    clip = filtered(weights, prefetch=1)
    want = [array(clip.get_frame(n)) for n in range(len(clip))]
    before = core.num_threads
    try:
        core.num_threads = threads
        backwards = filtered(weights)
        requests = [backwards.get_frame_async(n) for n in reversed(range(len(clip)))]
        for n, request in zip(reversed(range(len(clip))), requests, strict=True):
            np.testing.assert_array_equal(array(request.result(LONG_S)), want[n])
    finally:
        core.num_threads = before
