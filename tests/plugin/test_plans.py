"""What a filter plans for a clip, and what it says about the memory it takes."""

import re
from typing import Any

import pytest
from torch import nn

from vs_vsr import devices
from vs_vsr.errors import ArgumentError
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.basicvsrpp import BasicVSRPP
from vs_vsr.plugin.arguments import Arguments, Options
from vs_vsr.plugin.contract import ClipInfo
from vs_vsr.plugin.plans import FILTERS, Setup, plan_for


def planned(
    width: int,
    height: int,
    length: int,
    *,
    filter_name: str = "BasicVSRPP",
    network: nn.Module | None = None,
    **values: Any,
) -> Setup:
    """By default BasicVSR++ of the published size, in float32 on a machine of 32 GiB."""
    arguments = Arguments(filter_name, {"precision": "fp32", "device": "cpu", **values})
    options = Options.read(arguments, FILTERS[filter_name].defaults, width, height)
    info = ClipInfo(width, height, length, 0, 25, 1)
    return plan_for(network or BasicVSRPP(), arguments, options, info)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "memory_bytes", lambda device=None: 32 << 30)


def test_a_chunk_that_fits_is_the_default() -> None:
    setup = planned(160, 90, 500)
    assert (setup.plan.chunk, setup.message) == (60, "")
    # A short clip fits where a whole chunk would not.
    assert planned(480, 270, 5).message == ""


def test_what_a_chunk_sees_counts_too() -> None:
    # 12 * 16 bytes a pixel for a picture, 5 * 64 float32 for features; 30 frames around the chunk
    # have only features.
    setup = planned(240, 135, 500)
    pixels = 240 * 135
    frame, around = pixels * (12 * 16 + 5 * 64 * 4), 30 * pixels * 5 * 64 * 4
    assert setup.plan.chunk == ((2 << 30) - around) // frame
    assert 15 < setup.plan.chunk < 60
    assert f"chunk is {setup.plan.chunk} instead of 60 frames, because each takes" in setup.message


@pytest.mark.parametrize(("gib", "chunk"), [(32, 60), (6, 49)])
def test_a_small_machine_takes_a_smaller_chunk(
    monkeypatch: pytest.MonkeyPatch, gib: int, chunk: int
) -> None:
    monkeypatch.setattr(devices, "memory_bytes", lambda device=None: gib << 30)
    setup = planned(160, 90, 500)
    assert setup.plan.chunk == chunk
    assert ("under 1.5 GiB" in setup.message) == (gib == 6)


def test_the_fewest_frames_say_what_they_take() -> None:
    setup = planned(480, 270, 500)
    held = 480 * 270 * (15 * (12 * 16 + 5 * 64 * 4) + 30 * 5 * 64 * 4) / 2**30
    assert setup.plan.chunk == 15
    assert f"and takes {held:.1f} GiB. Set tile or a smaller chunk" in setup.message


def test_what_the_machine_cannot_hold_is_refused_except_in_tiles() -> None:
    message = (
        "BasicVSRPP: tile must be such that three chunks of 15 frames (127.9 GiB) fit in memory "
        "(32.0 GiB here), got 0. Use tile=256."
    )
    with pytest.raises(ArgumentError, match=re.escape(message)):
        planned(1920, 1080, 500)
    assert planned(1920, 1080, 500, tile=256).plan.chunk == 15
    # Pictures this large need as much with any tile.
    message = (
        "BasicVSRPP: clip must be such that three chunks of 15 frames (647.2 GiB) fit in memory "
        '(32.0 GiB here), got "10000x8000". Crop it'
    )
    with pytest.raises(ArgumentError, match=re.escape(message)):
        planned(10000, 8000, 500, tile=256)


@pytest.mark.parametrize(("chunk", "fits"), [(30, True), (31, False)])
def test_three_chunks_must_fit(chunk: int, fits: bool) -> None:
    # Pictures of 380 MB: 3 * 30 of them are 31.9 GiB.
    width, height = 1980, 1000
    assert 90 * width * height * 16 * 12 < 32 << 30 < 93 * width * height * 16 * 12

    def plan() -> Setup:
        network = BasicVSR(8, 1)
        return planned(width, height, 500, filter_name="BasicVSR", network=network, chunk=chunk)

    if fits:
        assert plan().plan.chunk == chunk
        return
    message = (
        "BasicVSR: chunk must be small enough that three chunks (32.9 GiB) fit in memory "
        "(32.0 GiB here), got 31. Leave it out"
    )
    with pytest.raises(ArgumentError, match=re.escape(message)):
        plan()
