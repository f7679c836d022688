"""What a filter plans for a clip, and what it says about the memory it takes."""

import re
from typing import Any

import pytest
import torch
import vapoursynth as vs
from networks import vrt
from torch import nn

from vs_vsr import devices
from vs_vsr.errors import ArgumentError
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.basicvsrpp import BasicVSRPP
from vs_vsr.models.edvr import EDVR
from vs_vsr.plugin.arguments import Arguments, Options
from vs_vsr.plugin.contract import ClipInfo
from vs_vsr.plugin.plans import FILTERS, Setup, formats, plan_for


def planned(
    width: int,
    height: int,
    length: int,
    *,
    filter_name: str = "BasicVSRPP",
    network: nn.Module | None = None,
    clip_format: int = vs.RGBS,
    **values: Any,
) -> Setup:
    """By default BasicVSR++ of the published size, in float32 on a machine of 32 GiB."""
    arguments = Arguments(filter_name, {"precision": "fp32", "device": "cpu", **values})
    options = Options.read(arguments, FILTERS[filter_name].defaults, width, height)
    info = ClipInfo(width, height, length, int(clip_format), 25, 1)
    return plan_for(network or BasicVSRPP(), arguments, options, info)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "memory_bytes", lambda device=None: 32 << 30)


@pytest.mark.parametrize(
    ("clip_format", "on_a_processor", "on_a_gpu"),
    [
        (vs.YUV420P8, (vs.RGBS, vs.RGBH), (vs.RGBH, vs.RGBH)),
        (vs.GRAY8, (vs.RGBS, vs.RGBH), (vs.RGBH, vs.RGBH)),
        (vs.RGB24, (vs.RGBS, vs.RGBH), (vs.RGBH, vs.RGBH)),
        (vs.YUV444P10, (vs.RGBS, vs.RGBH), (vs.RGBH, vs.RGBH)),
        (vs.RGBH, (vs.RGBH, vs.RGBH), (vs.RGBH, vs.RGBH)),
        (vs.YUV420P12, (vs.RGBS, vs.RGBS), (vs.RGBS, vs.RGBS)),
        (vs.RGB48, (vs.RGBS, vs.RGBS), (vs.RGBS, vs.RGBS)),
        (vs.YUV444PH, (vs.RGBS, vs.RGBS), (vs.RGBS, vs.RGBS)),
        (vs.RGBS, (vs.RGBS, vs.RGBS), (vs.RGBS, vs.RGBS)),
    ],
)
def test_half_floats_where_they_cost_nothing(
    clip_format: int, on_a_processor: tuple[int, int], on_a_gpu: tuple[int, int]
) -> None:
    assert formats(int(clip_format), torch.device("cpu")) == on_a_processor
    assert formats(int(clip_format), torch.device("cuda", 1)) == on_a_gpu


def test_a_chunk_that_fits_is_the_default() -> None:
    setup = planned(160, 90, 500)
    assert (setup.plan.chunk, setup.message) == (60, "")
    # A short clip fits where a whole chunk would not.
    assert planned(480, 270, 5).message == ""


def test_what_a_chunk_sees_counts_too() -> None:
    # 12 * 16 bytes a pixel for a picture, of which there are three; 5 * 64 float32 for features; 30
    # frames around the chunk have only features.
    setup = planned(520, 290, 500)
    pixels = 520 * 290
    frame, around = pixels * (3 * 12 * 16 + 5 * 64 * 4), 30 * pixels * 5 * 64 * 4
    assert setup.plan.chunk == (int(0.6 * (32 << 30)) - around) // frame
    assert 15 < setup.plan.chunk < 60
    assert f"chunk is {setup.plan.chunk} instead of 60 frames, because each takes" in setup.message


@pytest.mark.parametrize(("gib", "chunk"), [(32, 60), (3, 51)])
def test_a_small_machine_takes_a_smaller_chunk(
    monkeypatch: pytest.MonkeyPatch, gib: int, chunk: int
) -> None:
    monkeypatch.setattr(devices, "memory_bytes", lambda device=None: gib << 30)
    setup = planned(160, 90, 500)
    assert setup.plan.chunk == chunk
    assert ("under 1.8 GiB" in setup.message) == (gib == 3)


@pytest.mark.parametrize(
    ("filter_name", "added"),
    # Of EDVR the frame and one tile, of VRT the frame and the same frame of a window.
    [("EDVR", 2400 * 1800 + 512 * 512), ("VRT", 2 * 2400 * 1800)],
)
@pytest.mark.parametrize(("clip_format", "picture"), [(vs.YUV420P8, 6), (vs.RGBS, 12)])
def test_pictures_that_are_added_up_in_float32_count_too(
    filter_name: str, added: int, clip_format: int, picture: int
) -> None:
    network = EDVR(8, 5, 1, 1) if filter_name == "EDVR" else vrt(upscale=4)
    setup = planned(
        *(2400, 1800, 500),
        filter_name=filter_name,
        network=network,
        clip_format=clip_format,
        tile=512,
        weights="any",
    )
    frame = 16 * (3 * picture * 2400 * 1800 + 12 * added)
    assert setup.plan.chunk == int(0.6 * (32 << 30)) // frame < 10


def test_the_fewest_frames_say_what_they_take() -> None:
    setup = planned(720, 576, 500)
    held = 720 * 576 * (15 * (12 * 16 + 5 * 64 * 4) + 30 * 5 * 64 * 4) / 2**30
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
    # In tiles, fewer frames than the smallest default are better than none.
    setup = planned(2880, 1620, 500, tile=256)
    frame = 12 * 16 * (4 * 2880 * 1620 + 256**2) + 5 * 64 * 4 * 256**2
    assert setup.plan.chunk == (int(0.6 * (32 << 30)) - 30 * 5 * 64 * 4 * 256**2) // frame < 15
    assert "should stay under 19.2 GiB" in setup.message
    # Pictures this large do not fit with any tile.
    message = (
        "BasicVSRPP: clip must be such that three chunks of 15 frames (862.0 GiB) fit in memory "
        '(32.0 GiB here), got "10000x8000". Crop it'
    )
    with pytest.raises(ArgumentError, match=re.escape(message)):
        planned(10000, 8000, 500, tile=256)


@pytest.mark.parametrize(("chunk", "fits"), [(30, True), (31, False)])
def test_three_chunks_must_fit(chunk: int, fits: bool) -> None:
    # A frame's pictures and features: 30 frames are 31.9 GiB.
    width, height = 1880, 1000
    frame = width * height * (3 * 16 * 12 + 8 * 4)
    assert 30 * frame < 32 << 30 < 31 * frame

    def plan() -> Setup:
        network = BasicVSR(8, 1)
        return planned(width, height, 500, filter_name="BasicVSR", network=network, chunk=chunk)

    if fits:
        assert plan().plan.chunk == chunk
        return
    message = (
        "BasicVSR: chunk must be small enough that three chunks (33.0 GiB) fit in memory "
        "(32.0 GiB here), got 31. Leave it out"
    )
    with pytest.raises(ArgumentError, match=re.escape(message)):
        plan()


@pytest.mark.parametrize(
    ("width", "height", "precision", "steps"),
    # Backward steps a frame. The last one has the least lookahead.
    [(1920, 1080, "bf16", 1.6), (1920, 1080, "fp32", 1.6), (2560, 1440, "bf16", 1.8)],
)
def test_large_frames_do_little_work_twice(
    monkeypatch: pytest.MonkeyPatch, width: int, height: int, precision: str, steps: float
) -> None:
    monkeypatch.setattr(devices, "memory_bytes", lambda device=None: 24 << 30)
    setup = planned(
        *(width, height, 5000),
        filter_name="BasicVSR",
        network=BasicVSR(),
        clip_format=vs.YUV420P8,
        precision=precision,
    )
    plan = setup.plan
    assert plan.chunk < 30
    assert f"chunk is {plan.chunk} instead of 90 frames" in setup.message
    assert f"lookahead is {plan.lookahead} instead of 15" in setup.message
    # Not so few that a worst frame would lose much.
    assert plan.lookahead >= 7
    assert (plan.chunk + plan.lookahead) / plan.chunk <= steps
    # The preroll costs no more than with the default chunk.
    assert plan.segment >= 120


def test_what_the_user_names_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "memory_bytes", lambda device=None: 24 << 30)

    def plan(width: int = 1920, **values: int) -> tuple[int, int, int]:
        network = BasicVSR(8, 1)
        setup = planned(width, 1080, 5000, filter_name="BasicVSR", network=network, **values)
        assert setup.message == ""
        return setup.plan.chunk, setup.plan.lookahead, setup.plan.segment

    assert plan(chunk=10, segment=240) == (10, 15, 240)
    assert plan(chunk=5) == (5, 15, 120)
    assert plan(64, chunk=80) == (80, 15, 160)
