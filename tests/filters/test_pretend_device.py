"""Every filter on a pretend device: the same bits as on the processor, whatever the order."""

import gc
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs
from conftest import small_checkpoint
from pretend import Eager
from test_every_filter import CUT, LENGTH, filtered, moving, pixels, small

from vs_vsr import devices
from vs_vsr.models.layers import Upsampler
from vs_vsr.plugin import bridge, worker
from vs_vsr.transfer.host import HostTransfer
from vs_vsr.transfer.staged import StagedTransfer

core = vs.core
SLOW = ("IconVSR", "EDVR", "VRT interpolate")


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
@pytest.mark.parametrize(
    "name",
    ["BasicVSR", "AnimeSR", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)],
)
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


@pytest.mark.slow
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


@pytest.mark.slow
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
