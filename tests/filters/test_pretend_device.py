"""Every filter on a pretend device: the same bits as on the processor, whatever the order."""

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import pytest
import torch
import vapoursynth as vs
from conftest import small_checkpoint
from pretend import Eager
from test_every_filter import CUT, LENGTH, filtered, moving, pixels, size_for, small

from vs_vsr import devices
from vs_vsr.models.layers import Upsampler
from vs_vsr.plugin import arguments, bridge, worker
from vs_vsr.plugin.steps import FilterWorker
from vs_vsr.transfer.host import HostTransfer
from vs_vsr.transfer.staged import StagedTransfer

pytestmark = pytest.mark.slow

core = vs.core


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> list[StagedTransfer]:
    """Filters move their frames as to a device with streams."""
    made: list[StagedTransfer] = []

    def transfer(device: torch.device, cache_frames: int) -> StagedTransfer:
        made.append(StagedTransfer(Eager(Random(len(made))), cache_frames))
        return made[-1]

    monkeypatch.setattr(worker, "_transfer", transfer)
    return made


TWO = "cuda:0,cuda:1"


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch, pretend: list[StagedTransfer]) -> list[StagedTransfer]:
    """Two devices have the name TWO. To torch both are the processor, but not the same."""
    found, both = devices.find_devices, (torch.device("cpu", 0), torch.device("cpu", 1))
    find = lambda filter_name, name: both if name == TWO else found(filter_name, name)  # noqa: E731
    monkeypatch.setattr(arguments, "find_devices", find)
    return pretend


def plain(make: Callable[[], vs.VideoNode]) -> list[bytes]:
    """The frames of a filter on the processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "_transfer", lambda device, frames: HostTransfer())
        return [pixels(frame) for frame in make().frames()]


ORDERS: dict[str, Callable[[int], list[int]]] = {
    "in order": lambda count: list(range(count)),
    "backwards": lambda count: list(range(count))[::-1],
    "at random": lambda count: Random(count).sample(range(count), count),
}


# One of each kind of plan.
@pytest.mark.parametrize("name", ["BasicVSR", "AnimeSR", "IconVSR", "EDVR", "VRT interpolate"])
@pytest.mark.parametrize("prefetch", [0, 1])
def test_the_same_bits_in_any_order(
    name: str, prefetch: int, folder: Path, pretend: list[StagedTransfer]
) -> None:
    options: dict[str, Any] = small(name)
    clip = moving(cut=CUT)
    want = plain(lambda: filtered(name, folder, clip, **options))
    order = "at random" if prefetch else "in order"
    out = filtered(name, folder, clip, **options, prefetch=prefetch)
    futures = [(n, out.get_frame_async(n)) for n in ORDERS[order](len(want))]
    assert all(pixels(future.result(60)) == want[n] for n, future in futures)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("format", [vs.RGBS, vs.RGBH, vs.YUV420P8], ids=["rgbs", "rgbh", "yuv"])
def test_one_after_another(
    order: str, format: int, folder: Path, pretend: list[StagedTransfer]
) -> None:
    clip = moving(size=(40, 36)).resize.Bicubic(
        format=format, **({"matrix": 1} if format == vs.YUV420P8 else {})
    )
    options: dict[str, Any] = {**small("BasicVSR"), "tile": 0, "scenes": "detect"}
    want = plain(lambda: filtered("BasicVSR", folder, clip, **options))
    out = filtered("BasicVSR", folder, clip, **options)
    for n in ORDERS[order](LENGTH):
        assert pixels(out.get_frame(n)) == want[n]
    # Of a clip that was read to its end nothing is on the device but its last input frames.
    (transfer,) = pretend
    if order == "in order":
        assert not transfer._late
    assert len(transfer._inputs) <= transfer._capacity


def test_frames_are_on_their_way_before_their_step(
    folder: Path, pretend: list[StagedTransfer], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, arrived, missed = moving(), [], []
    real_arrived, real_upload = StagedTransfer.arrived, StagedTransfer._upload

    def note_arrived(self: StagedTransfer, n: int, planes: Any) -> None:
        real_arrived(self, n, planes)
        arrived.append(n)

    def note_upload(self: StagedTransfer, n: int, planes: Any) -> Any:
        if n in arrived:
            missed.append(n)
        return real_upload(self, n, planes)

    monkeypatch.setattr(StagedTransfer, "arrived", note_arrived)
    monkeypatch.setattr(StagedTransfer, "_upload", note_upload)
    for _ in filtered("BasicVSR", folder, clip, **small("BasicVSR")).frames():
        pass
    assert sorted(arrived) == list(range(LENGTH))
    assert not missed


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def workers() -> list[Any]:
    return list(bridge._workers.values())


def test_a_filter_that_is_let_go_leaves_nothing(
    folder: Path, pretend: list[StagedTransfer]
) -> None:
    out = filtered("BasicVSR", folder, moving(), **small("BasicVSR"), prefetch=1)
    futures = [out.get_frame_async(n) for n in range(5)]
    for future in futures:
        future.result(60).close()
    (transfer,) = pretend
    del out, future, futures
    gc.collect()
    # What is being computed ahead is finished first.
    assert eventually(lambda: all(w._transfer is not transfer for _, w in workers()))
    assert not transfer._late


# One of each kind of plan: segments of several chunks, with states of either kind, and of one.
@pytest.mark.parametrize(
    ("name", "order"),
    [
        *(("BasicVSR", order) for order in ORDERS),
        *((name, "at random") for name in ("IconVSR", "EDVR", "BasicVSRPP", "VRT interpolate")),
    ],
)
def test_two_devices_give_the_bits_of_one(
    name: str, order: str, folder: Path, two: list[StagedTransfer]
) -> None:
    options: dict[str, Any] = small(name)
    clip = moving(size=size_for(name), cut=CUT + 1)
    want = plain(lambda: filtered(name, folder, clip, **options))
    one_by_one = filtered(name, folder, clip, **options, device=TWO)
    assert all(pixels(one_by_one.get_frame(n)) == want[n] for n in ORDERS[order](len(want)))
    at_once = filtered(name, folder, clip, **options, device=TWO, prefetch=1)
    futures = [(n, at_once.get_frame_async(n)) for n in ORDERS[order](len(want))]
    assert all(pixels(future.result(60)) == want[n] for n, future in futures)
    assert len(two) == 4 and all(transfer._rendered for transfer in two)


def test_each_device_is_sent_the_frames_that_it_reads(
    folder: Path, two: list[StagedTransfer], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[StagedTransfer, list[int]] = {}
    real = StagedTransfer._upload

    def upload(self: StagedTransfer, n: int, planes: Any) -> Any:
        sent.setdefault(self, []).append(n)
        return real(self, n, planes)

    monkeypatch.setattr(StagedTransfer, "_upload", upload)
    for _ in filtered("BasicVSR", folder, moving(), **small("BasicVSR"), device=TWO).frames():
        pass
    # Segments of 6 frames, a lookahead and a preroll of 2.
    assert sorted(sent[two[0]]) == [*range(8), 10, 11, 12]
    assert sorted(sent[two[1]]) == list(range(4, 13))


@pytest.mark.parametrize("name", ["EDVR", "BasicVSR"])
def test_a_chunk_is_given_to_the_other_device_while_one_is_not_finished(
    name: str, folder: Path, two: list[StagedTransfer], monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"chunk": 4} | ({"segment": 4} if name == "BasicVSR" else {})
    given = {k: threading.Event() for k in range(6)}
    not_given = []
    real_run, real_deliver = FilterWorker.run, StagedTransfer.deliver

    def run(self: FilterWorker, job: Any) -> Any:
        outcome = real_run(self, job)
        assert two.index(cast(StagedTransfer, self._transfer)) == job.step.chunk % 2
        given[job.step.chunk].set()
        return outcome

    def deliver(self: StagedTransfer, late: int, index: int) -> bool:
        # Which chunk of this device it is: each was rendered once, in order.
        chunk = 2 * (late - 1) + two.index(self)
        # The first picture, for which the reader waits until the chunk is finished.
        if 0 < chunk < 5 and index == 0 and not given[chunk + 1].wait(20):
            not_given.append(chunk)
        return real_deliver(self, late, index)

    monkeypatch.setattr(FilterWorker, "run", run)
    monkeypatch.setattr(StagedTransfer, "deliver", deliver)
    out = filtered(name, folder, moving(24), **options, device=TWO, prefetch=1)
    for n in range(24):
        out.get_frame(n).close()
    assert all(event.is_set() for event in given.values()) and not not_given


def test_a_source_that_fails_and_recovers_is_the_same_for_two_devices(
    folder: Path, two: list[StagedTransfer]
) -> None:
    bad: set[int] = set()
    clip = moving(24)

    def check(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if n in bad:
            raise ValueError("torn tape")
        return f

    def answers(device: str) -> list[list[bytes | str]]:
        source = clip.std.ModifyFrame(clip, check)
        out = filtered("BasicVSR", folder, source, **small("BasicVSR"), device=device)

        def ask(frames: range) -> list[bytes | str]:
            answer: list[bytes | str] = []
            for n in frames:
                try:
                    answer.append(pixels(out.get_frame(n)))
                except vs.Error as e:
                    answer.append(str(e))
            return answer

        # Of the frames before the second segment, which the other device computes, one is missing.
        bad.add(5)
        seen = [ask(range(6, 12)), ask(range(24)), ask(range(24))]
        bad.clear()
        # It comes with a step of the first device.
        seen.append(ask(range(3, 4)))
        seen.append(ask(range(11, 5, -1)))
        seen.append(ask(range(24)))
        return seen

    one, both = answers("cpu"), answers(TWO)
    assert one == both
    whole = [
        pixels(frame) for frame in filtered("BasicVSR", folder, clip, **small("BasicVSR")).frames()
    ]
    assert both[-1] == whole and both[1][6:12] != whole[6:12]


def test_two_devices_that_are_let_go_leave_nothing(folder: Path, two: list[StagedTransfer]) -> None:
    out = filtered("BasicVSR", folder, moving(), **small("BasicVSR"), device=TWO, prefetch=1)
    futures = [out.get_frame_async(n) for n in (1, 5, 7)]
    for future in futures:
        future.result(60).close()
    assert all(transfer._late for transfer in two)
    mine = workers()[-1][1]
    del out, future, futures
    gc.collect()
    assert eventually(lambda: all(w is not mine for _, w in workers()))
    assert not any(transfer._late for transfer in two) and not mine._late


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch, pretend: list[StagedTransfer]) -> None:
    """As float16 and bfloat16 on a GPU: float32 overflows where a frame is bright, float64 not."""
    other = {torch.float32: torch.float64}
    monkeypatch.setattr(devices, "wider_dtype", lambda device, dtype: other.get(dtype))
    real = Upsampler.forward

    def forward(self: Upsampler, features: torch.Tensor, base: torch.Tensor, out: Any) -> None:
        real(self, features, base, out)
        if features.dtype == torch.float32 and base.amax() > 0.9:
            out[2][0, 3, 5] = -torch.inf

    monkeypatch.setattr(Upsampler, "forward", forward)


def bright(at: set[int]) -> vs.VideoNode:
    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        out = f.copy()
        for p in range(3):
            np.asarray(out[p])[:] = 1 if n in at else 0.001 * n
        return out

    blank = core.std.BlankClip(format=vs.RGBS, width=24, height=20, length=24)
    return blank.std.ModifyFrame(blank, draw)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("prefetch", [0, 1])
def test_chunks_that_overflow_are_computed_in_a_wider_type(
    order: str, prefetch: int, tmp_path: Path, wide: None
) -> None:
    clip, weights = bright({9, 10}), str(small_checkpoint(tmp_path))

    def make(**options: Any) -> tuple[vs.VideoNode, Any]:
        plan = {"chunk": 4, "lookahead": 0, "segment": 8, "preroll": 0, "scenes": "off"}
        options |= {"weights": weights, "precision": "fp32"}
        node = core.vsr.BasicVSR(clip, **plan, **options)
        return node, workers()[-1][1]

    out, filter_worker = make(prefetch=prefetch)
    lines: list[str] = []
    handler = core.add_log_handler(lambda kind, text: lines.append(text))
    got = {n: pixels(out.get_frame(n)) for n in ORDERS[order](clip.num_frames)}
    core.remove_log_handler(handler)
    assert filter_worker._overflowed == {2}
    assert all(np.isfinite(np.frombuffer(data, np.float32)).all() for data in got.values())
    assert sum("float16 overflowed in frames" in line for line in lines) == 1
    assert got == {n: pixels(frame) for n, frame in enumerate(make()[0].frames())}
    # What is computed in float64 differs, so the chunks beside it are as they were tried.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "wider_dtype", lambda device, dtype: None)
        plain = [pixels(frame) for frame in make()[0].frames()]
    same = [n for n in range(clip.num_frames) if got[n] == plain[n]]
    assert same == [n for n in range(clip.num_frames) if n // 4 != 2]


def test_a_chunk_that_overflows_on_one_of_two_devices(
    tmp_path: Path, wide: None, two: list[StagedTransfer]
) -> None:
    clip, weights = bright({9, 10, 17}), str(small_checkpoint(tmp_path))
    options: dict[str, Any] = {"weights": weights, "precision": "fp32", "scenes": "off"}
    options |= {"chunk": 4, "lookahead": 0, "segment": 8, "preroll": 0}
    one, both = (core.vsr.BasicVSR(clip, **options, device=device) for device in ("cpu", TWO))
    want = [pixels(frame) for frame in one.frames()]
    assert all(np.isfinite(np.frombuffer(data, np.float32)).all() for data in want)
    assert [pixels(frame) for frame in both.frames()] == want
    # Segment 1 is the second device's, segment 2 the first's.
    overflowed = [part._overflowed for part in workers()[-1][1]._workers]
    assert overflowed == [{4}, {2}]
