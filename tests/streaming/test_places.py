"""Every network takes the places of its pictures in order, when those before are written."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from conftest import drifting
from networks import NETWORKS, network
from torch import Tensor

from vs_vsr.streaming.plan import Plan
from vs_vsr.streaming.runner import Runner
from vs_vsr.streaming.tiles import tiles
from vs_vsr.streaming.windows import WindowStream

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


@pytest.mark.parametrize(
    ("name", "tile"), [*((name, 0) for name in NETWORKS), ("BasicVSR", 16), ("AnimeSR", 16)]
)
def test_places_are_taken_in_order(name: str, tile: int) -> None:
    model: Any = network(name)
    side = 64 if NETWORKS[name].filter == "VRT" else 32
    count = 4 if NETWORKS[name].filter == "VRT" else 5
    frames = drifting(count, side, side)
    stream = model
    if NETWORKS[name].filter == "VRT":
        sigma = NETWORKS[name].arguments.get("sigma")
        stream = WindowStream(model, None, tile=0, overlap=0, sigma=sigma)
    context = 2 * getattr(model, "radius", 0)
    runner = Runner(
        stream, Plan.whole(count, context=context), "off", tiles(side, side, tile, 4, model.scale)
    )
    pictures = torch.full(
        (model.frames_per_input * count, 3, 1, model.scale * side, model.scale * side), torch.nan
    )
    places = Places(pictures)
    runner.run(runner.next(0), frames, [(None, None)] * count, places)
    assert places.taken == list(range(len(pictures)))
    for early, late in zip(places.complete, pictures, strict=False):
        assert torch.equal(early, late)
    check_finite(list(pictures))
