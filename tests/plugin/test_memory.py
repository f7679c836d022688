"""A GPU's memory: footprints against what tensors take, and the chunk and tile that are chosen."""

import gc
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from launches import Counting, on_meta, tensors
from torch import Tensor, nn

from vs_vsr import devices
from vs_vsr.errors import DeviceError
from vs_vsr.models.animesr import AnimeSR
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.basicvsrpp import BasicVSRPP
from vs_vsr.models.edvr import EDVR
from vs_vsr.models.iconvsr import IconVSR
from vs_vsr.models.realbasicvsr import RealBasicVSR
from vs_vsr.plugin import plans
from vs_vsr.plugin.arguments import Arguments, Options
from vs_vsr.plugin.contract import ClipInfo
from vs_vsr.plugin.memory import Footprint, fitting, needed, shorter_chunks, smaller_tiles
from vs_vsr.plugin.plans import FILTERS, plan_for
from vs_vsr.streaming.clip import Clip
from vs_vsr.streaming.plan import Plan
from vs_vsr.streaming.tiles import tiles

WIDTH, HEIGHT = 320, 180


class Alive(Counting):
    """Counts the bytes of all meta tensors that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._users: Counter[int] = Counter()
        self._sizes: dict[int, int] = {}

    def note(self, name: str, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        for t in tensors(out):
            if t.is_meta:
                self._add(t)

    def _add(self, t: Tensor) -> None:
        storage = t.untyped_storage()
        key = storage._cdata
        if not self._users[key]:
            self._sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
        self._users[key] += 1
        weakref.finalize(t, self._remove, key)

    def _remove(self, key: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            self.now -= self._sizes.pop(key)


def taken(network: nn.Module, plan: Plan) -> float:
    """The most that the second chunk takes, without frames and pictures, in bytes a pixel."""
    frames = [torch.empty(1, 3, HEIGHT, WIDTH, device="meta") for _ in range(plan.frames)]
    clip = Clip(network, plan, frames)  # type: ignore[arg-type]
    with Alive() as alive:
        clip.chunk(0)
        gc.collect()
        alive.most = alive.now
        clip.chunk(1)
    pictures = plan.chunk * 3 * 4 * 16
    return float(alive.most / (WIDTH * HEIGHT) - pictures)


def recurrent(chunk: int, context: int = 0) -> Plan:
    return Plan(
        frames=2 * chunk + 15 + context,
        chunk=chunk,
        lookahead=15,
        segment=4 * chunk,
        preroll=10,
        context=context,
        coupled=bool(context),
    )


def around(chunk: int) -> Plan:
    return Plan(frames=2 * chunk + 15, chunk=chunk, lookahead=15, segment=chunk, preroll=15)


def windows(chunk: int) -> Plan:
    return Plan(frames=2 * chunk + 4, chunk=chunk, segment=chunk, context=4, state_is_cache=True)


def neighbours(chunk: int) -> Plan:
    return Plan(frames=2 * chunk + 1, chunk=chunk, segment=120, preroll=8, context=1, coupled=True)


# The filter, its largest published network, its plan, chunks, and what torchvision's deformable
# convolution takes inside: for each of 9 taps the features of a pixel in float32.
ROWS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Plan], tuple[int, ...], int]] = {
    "BasicVSR": (BasicVSR, recurrent, (8, 24), 0),
    "IconVSR": (IconVSR, lambda chunk: recurrent(chunk, 4), (8, 24), 9 * 64 * 4),
    "RealBasicVSR": (RealBasicVSR, recurrent, (8, 24), 0),
    "EDVR": (lambda: EDVR(128, reconstruction_blocks=40), windows, (5, 10), 9 * 128 * 4),
    "BasicVSRPP": (BasicVSRPP, around, (10, 30), 9 * 128 * 4),
    "AnimeSR": (AnimeSR, neighbours, (1, 4), 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_footprint_is_what_the_network_takes(name: str) -> None:
    make, plan, chunks, inside = ROWS[name]
    footprint = FILTERS[name].footprint
    assert footprint is not None
    network = on_meta(make())
    for chunk in chunks:
        counted = taken(network, plan(chunk)) + inside
        modelled = footprint.fixed + chunk * footprint.frame
        # Never too little; and not so much that memory lies idle.
        assert counted <= modelled <= 1.5 * counted


SIZES = {
    **{"width": 960, "height": 540, "inputs": 70, "itemsize": 2},
    **{"picture_bytes": 96 * 960 * 540, "sample": 2},
}
BASICVSR = Footprint(5500, 370)


@pytest.mark.parametrize(
    ("gib", "want"),
    # A frame of 960x540 has half a million pixels. Its features take 190 MB in a chunk, its picture
    # 50 MB, three times; beside them there are 2.9 GB. All with a margin, in three quarters.
    [(80, (30, 0)), (24, (30, 0)), (16, (22, 0)), (12, (15, 0)), (8, (7, 768)), (2, None)],
)
def test_the_largest_chunk_that_fits_then_tiles(gib: int, want: tuple[int, int] | None) -> None:
    chunks, sides = shorter_chunks(30), smaller_tiles(960, 540)
    assert fitting(BASICVSR, gib << 30, chunks=chunks, tiles=sides, **SIZES) == want


@given(st.integers(16, 4000), st.integers(16, 4000), st.integers(1, 90), st.integers(1, 200))
def test_what_is_chosen_fits_and_what_is_better_does_not(
    width: int, height: int, chunk: int, gib: int
) -> None:
    sizes = {
        **{"width": width, "height": height, "inputs": 40 + chunk, "itemsize": 2},
        **{"picture_bytes": 96 * width * height, "sample": 2},
    }
    chunks, sides = shorter_chunks(chunk), smaller_tiles(width, height)
    assert chunks[0] == chunk and chunks == sorted(chunks, reverse=True) and chunks[-1] >= 1
    assert sides[0] == 0
    order = [(frames, tile) for tile in sides for frames in chunks]
    fits = [
        needed(BASICVSR, chunk=frames, tile=tile, **sizes) <= 0.75 * (gib << 30)
        for frames, tile in order
    ]
    found = fitting(BASICVSR, gib << 30, chunks=chunks, tiles=sides, **sizes)
    assert found == (order[fits.index(True)] if any(fits) else None)


def planned(
    gib: int, width: int, height: int, *others: int, at: int = 0, frames: int = 1000, **values: Any
) -> plans.Setup:
    """BasicVSR on a GPU of this memory, or on device `at` of that one and others."""
    arguments = Arguments("BasicVSR", {"device": "cpu", **values})
    options = Options.read(arguments, FILTERS["BasicVSR"].defaults, width, height)
    gpus = tuple(torch.device("cuda", i) for i in range(1 + len(others)))
    options = replace(options, device=gpus[at], devices=gpus, dtype=torch.float16)
    with pytest.MonkeyPatch.context() as patch:
        memory = dict(zip((None, *gpus), (256, gib, *others), strict=True))
        patch.setattr(devices, "memory_bytes", lambda device=None: memory[device] << 30)
        patch.setattr(plans, "tiles", lambda *a: tiles(*a[:5]))
        yuv420p8 = 3 << 28 | 8 << 16 | 1 << 8 | 1
        info = ClipInfo(width, height, frames, yuv420p8, 25, 1)
        return plan_for(BasicVSR(8, 1), arguments, options, info)


def test_a_large_gpu_takes_the_defaults() -> None:
    setup = planned(80, 960, 540)
    assert (setup.plan.chunk, len(setup.tiles), setup.message) == (30, 1, "")


def test_a_small_gpu_takes_less_and_says_so() -> None:
    setup = planned(8, 960, 540)
    assert (setup.plan.chunk, setup.tiles[0].columns.stop) == (7, 768)
    assert setup.message == "BasicVSR: chunk is 7 and tile is 768, as cuda:0 has 8.0 GiB."
    assert planned(12, 960, 540).message.startswith("BasicVSR: chunk is 15 and tile is 0, as")


@pytest.mark.parametrize("at", [0, 1, 2])
def test_of_several_gpus_the_smallest_decides_for_all(at: int) -> None:
    alone, setup = planned(8, 960, 540), planned(80, 960, 540, 8, 24, at=at)
    assert setup.plan == alone.plan and len(setup.tiles) == len(alone.tiles)
    assert setup.message == alone.message.replace("cuda:0", "cuda:1")


def test_what_the_user_names_stays() -> None:
    assert planned(8, 960, 540, chunk=30, tile=0).message == ""
    assert planned(8, 960, 540, tile=128).tiles[0].rows.stop == 128
    setup = planned(8, 960, 540, chunk=12)
    assert (setup.plan.chunk, setup.tiles[0].rows.stop) == (12, 384)


def test_where_nothing_else_fits_few_frames_in_small_tiles_are_taken() -> None:
    setup = planned(8, 1920, 1080)
    assert 1 <= setup.plan.chunk < 7
    assert setup.tiles[0].rows.stop <= 768


def test_what_fits_is_a_part_of_the_segment_that_the_user_names() -> None:
    # A short clip does not shorten the default of a filter.
    assert planned(80, 320, 180, frames=25, segment=60).message == ""
    setup = planned(12, 960, 540, segment=44)
    assert (setup.plan.chunk, setup.plan.segment) == (11, 44)


def test_a_gpu_that_holds_nothing_is_refused() -> None:
    message = (
        "^BasicVSR: device must have the memory for a chunk of frames of 3840x2160, got cuda:0 "
        r"with 0.0 GiB. Crop the clip, or use device=\"cpu\".$"
    )
    with pytest.raises(DeviceError, match=message):
        planned(0, 3840, 2160)
    with pytest.raises(DeviceError, match=r"1.0 GiB. Leave out tile, crop the clip, or use"):
        planned(1, 3840, 2160, tile=0)
