"""Every filter on a pretend device: the same bits as on the processor, whatever the order."""

import gc
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import vapoursynth as vs
from pretend import Eager
from test_every_filter import CUT, LENGTH, filtered, moving, pixels, small

from vs_vsr.plugin import bridge, worker
from vs_vsr.transfer.host import HostTransfer
from vs_vsr.transfer.staged import StagedTransfer

core = vs.core
SLOW = "VRT interpolate"


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


# One of each kind of plan; the slow one makes two pictures for each frame.
@pytest.mark.parametrize(
    "name",
    [*("BasicVSR", "IconVSR", "EDVR", "AnimeSR"), pytest.param(SLOW, marks=pytest.mark.slow)],
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
