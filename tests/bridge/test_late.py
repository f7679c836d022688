"""Pictures that a device has not finished: carriers come at once, frames are filled one by one."""

import gc
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs
from children import STAND_IN, python
from test_steps import FRAMES, eventually, expected, numbered, renders, values

core = vs.core


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(STAND_IN)
    import stand_in_filters

    monkeypatch.setitem(sys.modules, "vs_vsr.plugin.worker", stand_in_filters)
    monkeypatch.setattr(stand_in_filters, "workers", [])
    yield stand_in_filters


def late(format: int = vs.RGBS, **options: Any) -> vs.VideoNode:
    return core.vsr.BasicVSR(numbered(format=format), weights="late", **options)


def test_only_the_frames_that_are_handed_out_are_delivered(stand_in: ModuleType) -> None:
    out = late()
    assert values(out.get_frame(5)) == expected(5)
    (worker,) = stand_in.workers
    number = len(worker.done)
    assert worker.delivered == [(number, 1)]
    assert values(out.get_frame(6)) == expected(6)
    assert worker.delivered == [(number, 1), (number, 2)]
    assert not worker.dropped
    # The last ones: after that nothing is late, and Python is told so.
    for n in (4, 7):
        assert values(out.get_frame(n)) == expected(n)
    assert worker.dropped == [number]
    assert not worker.late


def test_in_order_backwards_and_at_random(stand_in: ModuleType) -> None:
    orders = [range(FRAMES), range(FRAMES)[::-1], np.random.default_rng(1).permutation(FRAMES)]
    for order in orders:
        out = late()
        for n in map(int, order):
            assert values(out.get_frame(n)) == expected(n)
            # A chunk whose frames nobody wants any longer does not stay on the device for ever.
            assert len(stand_in.workers[-1].late) <= 3


@pytest.mark.parametrize("format", [vs.RGBS, vs.RGBH], ids=["rgbs", "rgbh"])
def test_from_many_threads_each_frame_is_filled_once(stand_in: ModuleType, format: int) -> None:
    before, core.num_threads = core.num_threads, 8
    try:
        out = late(format, chunk=8)
        order = np.random.default_rng(2).permutation(np.repeat(np.arange(FRAMES), 3)).tolist()
        futures = [out.get_frame_async(n) for n in order]
        got = [values(future.result(60))[0] for future in futures]
        assert got == [n / 64 for n in order]
    finally:
        core.num_threads = before
    (worker,) = stand_in.workers
    assert len(set(worker.delivered)) == len(worker.delivered)


def test_pushed_out_pictures_are_delivered_first(stand_in: ModuleType) -> None:
    out = late(chunk=2, lookahead=0, segment=2)
    for n in range(0, 10, 2):
        out.get_frame(n)
    (worker,) = stand_in.workers
    first = min(number for number, _ in worker.delivered)
    # Frame 1 has not been asked for, and its carrier is still in the cache.
    assert (first, 1) in worker.delivered
    done = len(worker.done)
    assert values(out.get_frame(1)) == (1 / 64, 2, 0)
    assert len(worker.done) == done


def test_a_picture_that_cannot_be_had_is_computed_again(stand_in: ModuleType) -> None:
    out = late()
    out.get_frame(0)
    (worker,) = stand_in.workers
    worker.undeliverable.add(len(worker.done))
    with pytest.raises(vs.Error, match=r"^BasicVSR: ValueError: the device is lost$"):
        out.get_frame(1)
    assert worker.dropped == [1]
    # The carrier with empty frames is gone.
    assert values(out.get_frame(2)) == expected(2)
    assert values(out.get_frame(1)) == expected(1)
    assert renders(worker) == [0, 0]


def test_pictures_of_no_use_are_computed_again_at_once(stand_in: ModuleType) -> None:
    out = late()
    for n in range(5):
        out.get_frame(n)
    (worker,) = stand_in.workers
    worker.useless.add(len(worker.done))
    for n in range(5, FRAMES):
        assert values(out.get_frame(n)) == expected(n)
    assert renders(worker) == [0, 1, 1, *range(2, 10)]


def test_pushed_out_pictures_that_cannot_be_had_are_computed_again(stand_in: ModuleType) -> None:
    out = late(chunk=2, lookahead=0, segment=2)
    out.get_frame(0)
    (worker,) = stand_in.workers
    worker.undeliverable.add(1)
    for n in range(2, 10, 2):
        out.get_frame(n)
    assert 1 in worker.dropped
    assert values(out.get_frame(1)) == (1 / 64, 2, 0)
    assert renders(worker).count(0) == 2


def test_a_clip_that_is_let_go_drops_what_is_late(stand_in: ModuleType) -> None:
    out = late(prefetch=1)
    futures = [out.get_frame_async(n) for n in range(9)]
    wait(futures, 60)
    (worker,) = stand_in.workers
    del out, futures
    gc.collect()
    assert eventually(lambda: not worker.late)


def test_each_input_frame_is_shown_once_as_it_arrives(stand_in: ModuleType) -> None:
    for _ in late().frames():
        pass
    (worker,) = stand_in.workers
    assert sorted(worker.arrivals) == list(range(FRAMES))
    # Those that want no arrivals have no such node.
    for _ in core.vsr.BasicVSR(numbered()).frames():
        pass
    assert not stand_in.workers[1].arrivals


SILENT = """
from vs_vsr.plugin import bridge
clip = core.std.BlankClip(format=vs.RGBS, width=8, height=8, length=40)
core.vsr.BasicVSR(clip)
silent = {kind}(lambda *a: None)
bridge._callbacks.{name} = silent
out = core.vsr.BasicVSR(clip, weights="late")
try:
    print(out.get_frame(20)[1][0, 0])
except vs.Error as e:
    print(e)
"""


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (
            "deliver",
            "bridge._Deliver",
            "BasicVSR: fetching a picture from the device was interrupted. Ask for its frame "
            "again.",
        ),
        ("arrived", "bridge._Arrived", "5.0"),
    ],
)
def test_a_callback_that_does_not_answer(name: str, kind: str, message: str) -> None:
    """As when an interrupt ends it before its first instruction."""
    done = python(SILENT.format(name=name, kind=kind))
    assert done.stdout == f"{message}\n", done.stderr
    assert done.returncode == 0


# ---- going ahead ----


@pytest.mark.parametrize("weights", ["late", "count"])
def test_the_next_chunk_is_computed_while_one_is_handed_out(
    stand_in: ModuleType, weights: str
) -> None:
    out = core.vsr.BasicVSR(numbered(), weights=weights, prefetch=1)
    worker = stand_in.workers[0]
    for n in range(3):
        out.get_frame(n)
    time.sleep(0.1)
    # So far it may have been a preview of a few frames.
    assert renders(worker) == [0]
    out.get_frame(3)
    assert eventually(lambda: renders(worker) == [0, 1])
    time.sleep(0.1)
    assert values(out.get_frame(4)) == expected(4)
    # Its first frame is enough now, and it is never more than one chunk.
    assert eventually(lambda: renders(worker) == [0, 1, 2])
    time.sleep(0.1)
    assert renders(worker) == [0, 1, 2]
    for n in range(5, FRAMES):
        assert values(out.get_frame(n)) == expected(n)
    assert renders(worker) == list(range(10))


def test_after_a_seek_nothing_is_computed_ahead_until_frames_are_read(
    stand_in: ModuleType,
) -> None:
    out = core.vsr.BasicVSR(numbered(), weights="count", prefetch=1)
    for n in (30, 3, 17, 8, 26, 12):
        out.get_frame(n)
    time.sleep(0.1)
    (worker,) = stand_in.workers
    assert sorted(renders(worker)) == [0, 2, 3, 4, 6, 7]


def test_a_chunk_computed_ahead_survives_a_flush_of_the_caches(stand_in: ModuleType) -> None:
    out = core.vsr.BasicVSR(numbered(), weights="count", prefetch=1)
    (worker,) = stand_in.workers
    for n in range(FRAMES):
        out.get_frame(n)
        if n % 4 == 3 and n < FRAMES - 4:
            chunk = n // 4 + 1
            assert eventually(lambda: bool(renders(worker)[-1] == chunk))  # noqa: B023
            time.sleep(0.05)
        core.clear_cache()
    assert renders(worker) == list(range(10))


def test_many_requests_side_by_side_compute_each_chunk_once(stand_in: ModuleType) -> None:
    clip = core.std.BlankClip(format=vs.RGBS, width=32, height=24, length=400, keep=True)
    for weights in ("count", "late"):
        out = core.vsr.BasicVSR(clip, weights=weights, chunk=4, prefetch=1)
        for _ in out.frames(prefetch=16, backlog=16, close=True):
            pass
        assert sorted(renders(stand_in.workers[-1])) == list(range(100))


def test_without_prefetch_nothing_is_computed_ahead(stand_in: ModuleType) -> None:
    out = core.vsr.BasicVSR(numbered(), weights="late")
    for n in range(8):
        out.get_frame(n)
    time.sleep(0.1)
    assert renders(stand_in.workers[0]) == [0, 1]


def test_one_thread_waits_for_a_chunk_and_the_others_go_on(stand_in: ModuleType) -> None:
    before, core.num_threads = core.num_threads, 2
    try:
        out = late(prefetch=1)
        (worker,) = stand_in.workers
        held_up = worker.computed[2] = threading.Event()
        for n in range(4):
            out.get_frame(n)
        assert eventually(lambda: renders(worker) == [0, 1])
        # All of these want chunk 1, which is not computed; the device gets its next work.
        futures = [out.get_frame_async(n) for n in range(4, 8)]
        assert eventually(lambda: renders(worker) == [0, 1, 2])
        time.sleep(0.1)
        assert not any(future.done() for future in futures)
        assert worker.waited.count(2) == 1
        held_up.set()
        assert [values(f.result(60)) for f in futures] == [expected(n) for n in range(4, 8)]
    finally:
        core.num_threads = before


def test_a_carrier_that_comes_into_the_cache_after_it_became_stale(
    stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunk 3 is done, but not yet cached, when chunk 2 turns out to be of no use."""
    run, ended = stand_in.Worker.run, stand_in.Worker.ended

    def note(self: Any, job: Any) -> Any:
        outcome = run(self, job)
        if job.step.chunk == 2 and not self.useless:
            self.useless.add(outcome.late)
            self.computed[outcome.late] = ending
        return outcome

    ending = threading.Event()

    def slowly(self: Any, chunk: int, missing: Any) -> None:
        if chunk == 3:
            ending.set()
            time.sleep(0.3)
        ended(self, chunk, missing)

    monkeypatch.setattr(stand_in.Worker, "run", note)
    monkeypatch.setattr(stand_in.Worker, "ended", slowly)
    before, core.num_threads = core.num_threads, 4
    try:
        out = late(lookahead=0, segment=4)
        futures = [out.get_frame_async(n) for n in (8, 12)]
        assert [values(future.result(10))[0] for future in futures] == [8 / 64, 12 / 64]
    finally:
        core.num_threads = before


def test_a_chunk_that_fails_ahead_is_not_asked_for_again_and_again(stand_in: ModuleType) -> None:
    clip = numbered()

    def check(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if n == 9:
            raise OSError("no such frame")
        return f

    source = clip.std.ModifyFrame(clip, check)
    out = core.vsr.BasicVSR(source, weights="late", prefetch=1, lookahead=0, segment=4)
    (worker,) = stand_in.workers
    for n in range(8):
        out.get_frame(n)
        time.sleep(0.02)
    assert [step.chunk for step in worker.failures] == [2]
    with pytest.raises(vs.Error, match="no such frame"):
        out.get_frame(8)
    # Further on it goes ahead as ever.
    for n in range(12, 17):
        out.get_frame(n)
    assert eventually(lambda: renders(worker)[-1] == 5)
