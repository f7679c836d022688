"""Every network takes the places of its pictures in order, when those before are written."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from conftest import drifting
from networks import NETWORKS, network
from torch import Tensor

from vs_vsr.models.stream import Planes
from vs_vsr.streaming.plan import Plan
from vs_vsr.streaming.runner import Runner
from vs_vsr.streaming.tiles import tiles
from vs_vsr.streaming.windows import WindowStream
from vs_vsr.transfer.host import HostTransfer

pytestmark = pytest.mark.slow


class Places(Sequence[Tensor]):
    """Notes each place that is taken, and what the one before held then."""

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures
        self.taken: list[int] = []
        self.complete: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: Any) -> Any:
        # A loop over a sequence asks for one more than there are.
        if index < len(self):
            self.taken.append(index)
        self.complete = [picture.clone() for picture in self.pictures[:index]]
        check_finite(self.complete)
        return self.pictures[index]


def check_finite(pictures: Sequence[Tensor]) -> None:
    assert all(torch.isfinite(picture).all() for picture in pictures)


EVERY_WAY = pytest.mark.parametrize(
    ("name", "tile"), [*((name, 0) for name in NETWORKS), ("BasicVSR", 16), ("AnimeSR", 16)]
)


class Clip:
    """A short clip, and a runner that makes all its pictures."""

    def __init__(self, name: str, tile: int, dtype: torch.dtype = torch.float32) -> None:
        model: Any = network(name).to(dtype)
        side = 64 if NETWORKS[name].filter == "VRT" else 32
        count = 4 if NETWORKS[name].filter == "VRT" else 5
        self.frames = drifting(count, side, side)
        stream = model
        if NETWORKS[name].filter == "VRT":
            sigma = NETWORKS[name].arguments.get("sigma")
            stream = WindowStream(model, None, tile=0, overlap=0, sigma=sigma)
        plan = Plan.whole(count, context=2 * getattr(model, "radius", 0))
        self.runner = Runner(stream, plan, "off", tiles(side, side, tile, 4, model.scale))
        self.pictures = model.frames_per_input * count
        self.side = model.scale * side

    def run(self, out: Sequence[Planes]) -> None:
        self.runner.run(self.runner.next(0), self.frames, [(None, None)] * len(self.frames), out)


@EVERY_WAY
def test_places_are_taken_in_order(name: str, tile: int) -> None:
    clip = Clip(name, tile)
    pictures = torch.full((clip.pictures, 3, 1, clip.side, clip.side), torch.nan)
    places = Places(pictures)
    clip.run(places)
    assert places.taken == list(range(len(pictures)))
    for early, late in zip(places.complete, pictures, strict=False):
        assert torch.equal(early, late)
    check_finite(list(pictures))


@EVERY_WAY
def test_half_floats_are_the_float32_pictures_rounded_once(name: str, tile: int) -> None:
    """As a processor writes them: from bfloat16 features into planes with padded rows."""
    clip = Clip(name, tile, torch.bfloat16)
    got = []
    for kind in ("f4", "f2"):
        planes = np.full((clip.pictures, 3, clip.side, clip.side + 8), np.nan, kind)
        frames = [list(frame) for frame in planes[..., : clip.side]]
        HostTransfer().render(frames, clip.run)
        got.append(planes)
    exact, halves = got
    np.testing.assert_array_equal(halves, exact.astype("f2"))
    assert np.isnan(halves[..., clip.side :]).all() and not np.isnan(halves[..., : clip.side]).any()
