"""What a filter plans for a clip, and what it says of the memory it takes."""

import re
from typing import Any

import pytest

from vs_vsr import streams
from vs_vsr.bridge import ClipInfo
from vs_vsr.errors import ArgumentError
from vs_vsr.models.basicvsrpp import BasicVSRPP
from vs_vsr.options import Options, Reader
from vs_vsr.streams import Streaming, streaming


def planned(width: int, height: int, length: int, **arguments: Any) -> Streaming:
    """BasicVSR++ of the published size, in float32 on a machine of 32 GiB."""
    read = Reader("BasicVSRPP", {"precision": "fp32", "device": "cpu", **arguments})
    options = Options.read(read, width, height)
    info = ClipInfo(width, height, length, 0, 25, 1)
    return streaming(BasicVSRPP(), read, options, info)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_memory_bytes", lambda: 32 << 30)


def test_a_chunk_that_fits_is_the_default() -> None:
    made = planned(160, 90, 500)
    assert (made.plan.chunk, made.message) == (60, "")
    # As does a clip that ends before a longer chunk would not.
    assert planned(480, 270, 5).message == ""


def test_what_a_chunk_sees_counts_too() -> None:
    # Pictures of 12 * 16 bytes a pixel, and 5 features of 64 float32, of which 30 beside the chunk.
    made = planned(240, 135, 500)
    pixels = 240 * 135
    frame, around = pixels * (12 * 16 + 5 * 64 * 4), 30 * pixels * 5 * 64 * 4
    assert made.plan.chunk == ((2 << 30) - around) // frame
    assert 15 < made.plan.chunk < 60
    assert f"chunk is {made.plan.chunk} instead of 60 frames, as each holds" in made.message


@pytest.mark.parametrize(("gib", "chunk"), [(32, 60), (2, 25)])
def test_a_small_machine_takes_a_smaller_chunk(
    monkeypatch: pytest.MonkeyPatch, gib: int, chunk: int
) -> None:
    monkeypatch.setattr(streams, "_memory_bytes", lambda: gib << 30)
    made = planned(160, 90, 500)
    assert made.plan.chunk == chunk
    assert ("under 0.5 GiB" in made.message) == (gib == 2)


def test_the_fewest_frames_say_what_they_take() -> None:
    made = planned(480, 270, 500)
    held = 480 * 270 * (15 * (12 * 16 + 5 * 64 * 4) + 30 * 5 * 64 * 4) / 2**30
    assert made.plan.chunk == 15
    assert f"and holds {held:.1f} GiB. Name a tile or a smaller chunk" in made.message


def test_what_the_machine_cannot_hold_is_refused_but_in_tiles() -> None:
    message = "BasicVSRPP: tile must be such that a chunk of 15 fits in 32 GiB (116 here), got"
    with pytest.raises(ArgumentError, match=re.escape(message)):
        planned(1920, 1080, 500)
    assert planned(1920, 1080, 500, tile=256).plan.chunk == 15
    # Of pictures that large no tile makes less.
    message = "BasicVSRPP: clip must be such that a chunk of 15 fits in 32 GiB (218 here), got"
    with pytest.raises(ArgumentError, match=re.escape(message)):
        planned(10000, 8000, 500, tile=256)
