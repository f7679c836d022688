"""What the plugin asks of a worker, and what it makes of its answers."""

import gc
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs
from children import STAND_IN

from vs_vsr.plugin.contract import Outcome
from vs_vsr.streaming.plan import Step

core = vs.core
FRAMES = 40


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(STAND_IN)
    import stand_in_filters

    monkeypatch.setitem(sys.modules, "vs_vsr.plugin.worker", stand_in_filters)
    monkeypatch.setattr(stand_in_filters, "workers", [])
    return stand_in_filters


def numbered(frames: int = FRAMES, format: int = vs.RGBS) -> vs.VideoNode:
    """Frame n is n / 64 all over."""
    blank = core.std.BlankClip(format=format, width=6, height=5, length=frames)

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        f = f.copy()
        for p in range(f.format.num_planes):
            np.asarray(f[p])[:] = n / 64
        return f

    return blank.std.ModifyFrame(blank, draw)


def values(frame: vs.VideoFrame) -> tuple[float, ...]:
    """The one value of each plane."""
    planes = [np.asarray(frame[p]) for p in range(3)]
    assert all((plane == plane[0, 0]).all() for plane in planes)
    return tuple(float(plane[0, 0]) for plane in planes)


def expected(n: int) -> tuple[float, float, float]:
    """Of "count" with the stand-in's defaults: chunk 4, lookahead 2, segment 16."""
    return n / 64, n % 16 + 1, min(2, FRAMES - 4 * (n // 4 + 1))


def test_streaming_in_order_takes_one_step_a_chunk(stand_in: ModuleType) -> None:
    out = core.vsr.BasicVSR(numbered(), weights="count")
    assert (out.width, out.height, out.num_frames) == (24, 20, FRAMES)
    assert (out.fps_num, out.fps_den) == (24, 1)
    assert [values(frame) for frame in out.frames()] == [expected(n) for n in range(FRAMES)]
    (worker,) = stand_in.workers
    assert worker.done == [worker.plan.render(k) for k in range(10)]


@pytest.mark.slow
@pytest.mark.parametrize("clip_format", [vs.RGBS, vs.RGBH, vs.YUV444PS, vs.YUV420P8])
@pytest.mark.parametrize("reads", ["RGBS", "RGBH"])
@pytest.mark.parametrize("writes", ["RGBS", "RGBH"])
def test_what_is_read_and_what_is_written_have_their_own_formats(
    stand_in: ModuleType, reads: str, writes: str, clip_format: int
) -> None:
    # Rows of 50 samples are padded otherwise in each type; each pixel has its own value.
    blank = core.std.BlankClip(format=vs.RGBS, width=50, height=4, length=6, keep=True)

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        f = f.copy()
        for p in range(3):
            np.asarray(f[p])[:] = np.linspace(0.1 * p, 1 - 0.1 * n, 200).reshape(4, 50)
        return f

    options = {"format": clip_format}
    if clip_format in (vs.YUV444PS, vs.YUV420P8):
        options["matrix"] = vs.MATRIX_BT709
    clip = blank.std.ModifyFrame(blank, draw).resize.Bicubic(**options)
    out = core.vsr.BasicVSR(clip, weights=f"formats {reads} {writes}")
    assert out.format.id == clip_format
    # The core's own conversions, on either side of the worker's.
    want = clip.resize.Bicubic(format=getattr(vs, reads))
    want = want.resize.Point(200, 16).resize.Point(format=getattr(vs, writes))
    want = want.resize.Bicubic(**options)
    for got, expected in zip(out.frames(), want.frames(), strict=True):
        for p in range(3):
            np.testing.assert_array_equal(np.asarray(got[p]), np.asarray(expected[p]))
        assert not [name for name in got.props if name.startswith("_Vsr")]
    (worker,) = stand_in.workers
    types = {"RGBS": {"float32"}, "RGBH": {"float16"}}
    assert (worker.read, worker.written) == (types[reads], types[writes])


def test_a_seek_advances_through_the_segment_first(stand_in: ModuleType) -> None:
    out = core.vsr.BasicVSR(numbered(), weights="count")
    assert values(out.get_frame(30)) == expected(30)
    (worker,) = stand_in.workers
    plan = worker.plan
    assert worker.done == [plan.advance(4), plan.advance(5), plan.advance(6), plan.render(7)]


def test_steps_that_share_frames_with_the_pictures(stand_in: ModuleType) -> None:
    # The preroll of a segment's start, and a chunk as long as the lookahead.
    options = {"weights": "count", "chunk": 2, "lookahead": 6, "segment": 4, "preroll": 3}
    out = core.vsr.BasicVSR(numbered(), **options)
    for n in (23, 3, 38, 22, 0, 39):
        assert values(out.get_frame(n))[:2] == (n / 64, n % 4 + 1)


def test_all_at_once_from_many_threads(stand_in: ModuleType) -> None:
    before = core.num_threads
    core.num_threads = 8
    try:
        # Two states are kept for ten seeks, which throw out each other's.
        out = core.vsr.BasicVSR(numbered(), weights="count")
        order = np.random.default_rng(0).permutation(FRAMES).tolist()
        futures = [out.get_frame_async(n) for n in order]
        assert [values(f.result(60)) for f in futures] == [expected(n) for n in order]
    finally:
        core.num_threads = before


@pytest.mark.parametrize("format", [vs.RGBS, vs.YUV420P8], ids=["rgb", "yuv"])
def test_a_worker_that_fails_fails_its_chunk_alone(stand_in: ModuleType, format: int) -> None:
    clip = core.std.BlankClip(format=format, width=8, height=8, length=FRAMES)
    out = core.vsr.BasicVSR(clip, weights="run 2")
    for n in (8, 11):
        with pytest.raises(vs.Error, match=r"^BasicVSR: ValueError: the network exploded$"):
            out.get_frame(n)
    for n in (0, 7, 16, 39):
        out.get_frame(n)
    # Chunk 3 needs the state that chunk 2 leaves.
    with pytest.raises(vs.Error, match="the network exploded"):
        out.get_frame(12)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("next 1", "^BasicVSR: RuntimeError: no next step$"),
        ("empty 1", r"^BasicVSR: a step was planned on frames 5\.\.5 of a clip of 40\. Report"),
    ],
)
def test_an_impossible_step(stand_in: ModuleType, weights: str, message: str) -> None:
    out = core.vsr.BasicVSR(numbered(), weights=weights)
    with pytest.raises(vs.Error, match=message):
        out.get_frame(5)
    out.get_frame(0)


def test_a_state_that_is_never_kept(stand_in: ModuleType) -> None:
    out = core.vsr.BasicVSR(numbered(), weights="forgetful")
    with pytest.raises(vs.Error, match=r"^BasicVSR: the state after chunk 0 was lost"):
        out.get_frame(5)
    out.get_frame(0)


def test_creation_that_fails(stand_in: ModuleType) -> None:
    with pytest.raises(vs.Error) as caught:
        core.vsr.BasicVSR(numbered(), weights="refuse")
    assert str(caught.value) == "BasicVSR: weights must be kind, got ''. Ask again."


def test_a_long_text_is_cut_between_characters(stand_in: ModuleType) -> None:
    with pytest.raises(vs.Error, match=r"^BasicVSR: ValueError: ä+$"):
        core.vsr.BasicVSR(numbered(), weights="long")


def test_a_source_that_fails(stand_in: ModuleType) -> None:
    clip = numbered()

    def check(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if n == 9:
            raise OSError("no such frame")
        return f

    out = core.vsr.BasicVSR(clip.std.ModifyFrame(clip, check), weights="count")
    with pytest.raises(vs.Error, match="no such frame"):
        out.get_frame(13)
    (worker,) = stand_in.workers
    # On the way to chunk 3 it was chunk 2 that could not be read.
    assert worker.failures == [Step(2, False, 8, 12)]
    # Frame 9 is in the lookahead of chunk 1.
    with pytest.raises(vs.Error, match="no such frame"):
        out.get_frame(4)
    assert worker.failures[1:] == [Step(1, True, 4, 10)]
    for n in (0, 16, 39):
        assert values(out.get_frame(n)) == expected(n)


def test_a_matrix_that_resize_cannot_do(stand_in: ModuleType) -> None:
    clip = core.std.BlankClip(format=vs.YUV444P10, width=8, height=8, length=4)
    out = core.vsr.BasicVSR(clip.std.SetFrameProps(_Matrix=14))
    with pytest.raises(
        vs.Error, match=r"^BasicVSR: clip must have a _Matrix of 1 or 4 to 9, got 1"
    ):
        out.get_frame(0)


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_prefetch_reads_ahead_of_what_is_asked_for(stand_in: ModuleType) -> None:
    read: list[int] = []

    def note(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        read.append(n)
        return f

    clip = numbered()
    plain = core.vsr.BasicVSR(clip.std.ModifyFrame(clip, note))
    plain.get_frame(0)
    assert max(read) == 5
    read.clear()
    ahead = core.vsr.BasicVSR(clip.std.ModifyFrame(clip, note), prefetch=1)
    ahead.get_frame(0)
    assert eventually(lambda: max(read) == 9)
    ahead.get_frame(4)
    assert eventually(lambda: max(read) == 13)
    # After a seek nothing is read ahead.
    ahead.get_frame(36)
    ahead.get_frame(20)
    time.sleep(0.1)
    assert not {26, 27, 28, 29} & set(read)


def test_a_clip_that_is_let_go_is_closed(stand_in: ModuleType) -> None:
    from vs_vsr.plugin import bridge

    out = core.vsr.BasicVSR(numbered(), prefetch=1)
    futures = [out.get_frame_async(n) for n in range(12)]
    (worker,) = stand_in.workers
    held = ("BasicVSR", worker)
    assert held in bridge._workers.values()
    del out
    for future in futures:
        future.result(60).close()
    del future, futures
    gc.collect()
    assert eventually(lambda: held not in bridge._workers.values())


def test_every_request_is_ended_once(stand_in: ModuleType) -> None:
    out = core.vsr.BasicVSR(numbered(), weights="run 2")
    for n in (0, 4, 39):
        out.get_frame(n)
    with pytest.raises(vs.Error, match="the network exploded"):
        out.get_frame(8)
    (worker,) = stand_in.workers
    assert worker.ends == [0, 1, 9, 2]


def renders(worker: Any) -> list[int]:
    return [step.chunk for step in worker.done if step.render]


@pytest.mark.parametrize("format", [vs.RGBS, vs.YUV444P8], ids=["rgb", "yuv"])
def test_a_chunk_that_is_being_handed_out_outlives_the_caches(
    stand_in: ModuleType, format: int
) -> None:
    """The core empties all caches when it has been over its memory limit for a while."""
    clip = core.std.BlankClip(format=format, width=8, height=8, length=FRAMES)
    out = core.vsr.BasicVSR(clip)
    for n in range(FRAMES):
        out.get_frame(n)
        core.clear_cache()
    (worker,) = stand_in.workers
    assert renders(worker) == list(range(10))


def three_places(clip: vs.VideoNode) -> vs.VideoNode:
    third = clip.num_frames // 3
    return core.std.Interleave([clip[third * i : third * (i + 1)] for i in range(3)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chunk", "length", "look"),
    [
        (10, 120, lambda clip: clip.std.AverageFrames([1] * 25)),
        (5, 60, lambda clip: clip.std.AverageFrames([1] * 25)),
        (1, 60, lambda clip: clip.std.AverageFrames([1] * 7)),
        (30, 360, three_places),
        (5, 180, three_places),
    ],
    ids=["25 of 10", "25 of 5", "7 of 1", "3 places of 30", "3 places of 5"],
)
@pytest.mark.parametrize("format", [vs.RGBS, vs.YUV444P16], ids=["rgb", "yuv"])
def test_each_chunk_is_computed_once_for_a_filter_that_looks_at_many_frames(
    stand_in: ModuleType,
    format: int,
    chunk: int,
    length: int,
    look: Callable[[vs.VideoNode], vs.VideoNode],
) -> None:
    clip = core.std.BlankClip(format=format, width=32, height=24, length=length, keep=True)
    out = core.vsr.BasicVSR(clip, chunk=chunk, lookahead=15, segment=4 * chunk, preroll=10)
    for _ in look(out).frames(prefetch=2, backlog=2, close=True):
        pass
    (worker,) = stand_in.workers
    assert sorted(renders(worker)) == list(range(length // chunk))


@pytest.mark.slow
@pytest.mark.parametrize("format", [vs.RGBS, vs.YUV444P16], ids=["rgb", "yuv"])
def test_pictures_that_become_stale_on_their_way(
    stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch, format: int
) -> None:
    """Chunk 3 is made without chunk 2, which comes after all before chunk 3 is handed out."""
    done: list[int] = []

    def run(self: Any, job: Any) -> Outcome:
        chunk, recovered = job.step.chunk, 2 in done
        if chunk == 3 and not recovered:
            # Meanwhile the frames of chunk 2 arrive: its turn is next, as it was asked for first.
            time.sleep(0.5)
        for frame in job.outputs:
            for plane in frame.planes:
                plane[:] = 0.5 if recovered or chunk != 3 else 0.25
        done.append(chunk)
        return Outcome(stale=chunk == 2 and not recovered)

    monkeypatch.setattr(stand_in.Worker, "run", run)
    monkeypatch.setattr(stand_in.Worker, "next", lambda self, k, initial: self.plan.render(k))
    blank = core.std.BlankClip(format=format, width=8, height=8, length=40)

    def slow(seconds: float) -> vs.VideoNode:
        def wait(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
            time.sleep(seconds)
            return f

        return blank[:1].std.ModifyFrame(blank[:1], wait)

    before, core.num_threads = core.num_threads, 2
    try:
        source = core.std.Splice([blank[:9], slow(0.2), blank[:20], slow(1.0), blank[:9]])
        out = core.vsr.BasicVSR(source, lookahead=0)
        futures = []
        # The last one keeps the second thread busy, so that nobody hands out chunk 3 at once.
        for n in (8, 12, 30):
            futures.append(out.get_frame_async(n))
            time.sleep(0.05)
        for future in futures:
            future.result(30)
        assert done.index(3) < done.index(2)
        want = np.asarray(out.get_frame(0)[0])[0, 0]
        assert [np.asarray(out.get_frame(n)[0])[0, 0] for n in (13, 14, 12)] == [want] * 3
    finally:
        core.num_threads = before


def test_rgb_output_is_cached_where_a_filter_looks_around(stand_in: ModuleType) -> None:
    clip = core.std.BlankClip(format=vs.RGBS, width=32, height=24, length=60, keep=True)
    before, core.max_cache_size = core.max_cache_size, 1
    try:
        # With so little memory there are two carriers, and the window needs three.
        out = core.vsr.BasicVSR(clip, chunk=5)
    finally:
        core.max_cache_size = before
    for _ in out.std.AverageFrames([1] * 15).frames(prefetch=1, backlog=1, close=True):
        pass
    (worker,) = stand_in.workers
    assert sorted(renders(worker)) == list(range(12))


@pytest.mark.parametrize("chunk", [1, 8])
def test_the_pictures_kept_are_those_of_few_chunks(stand_in: ModuleType, chunk: int) -> None:
    before, core.num_threads = core.num_threads, 2
    try:
        clip = core.std.BlankClip(format=vs.YUV444P8, width=64, height=64, length=400)
        empty = core.used_cache_size
        out = core.vsr.BasicVSR(clip, chunk=chunk, lookahead=0)
        out.std.SetVideoCache(mode=0)
        frames = out.frames(prefetch=8, backlog=8, close=True)
        peak = max(core.used_cache_size - empty for _ in frames)
    finally:
        core.num_threads = before
    # Pictures that the next filter may look back at, to the borders of their chunks; the chunk that
    # is computed; and pictures being converted back, which are a quarter of the size.
    assert peak < (32 + 2 * chunk + 2 * chunk + 8) * 3 * 4 * 256 * 256
