"""What a filter plans for a clip, and what it says of the memory it takes."""

import re
from pathlib import Path
from typing import Any

import pytest

from vs_vsr import streams
from vs_vsr.bridge import ClipInfo
from vs_vsr.errors import ArgumentError
from vs_vsr.models.basicvsr import BasicVSR
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


@pytest.mark.parametrize(("gib", "chunk"), [(32, 60), (6, 49)])
def test_a_small_machine_takes_a_smaller_chunk(
    monkeypatch: pytest.MonkeyPatch, gib: int, chunk: int
) -> None:
    monkeypatch.setattr(streams, "_memory_bytes", lambda: gib << 30)
    made = planned(160, 90, 500)
    assert made.plan.chunk == chunk
    assert ("under 1.5 GiB" in made.message) == (gib == 6)


def test_the_fewest_frames_say_what_they_take() -> None:
    made = planned(480, 270, 500)
    held = 480 * 270 * (15 * (12 * 16 + 5 * 64 * 4) + 30 * 5 * 64 * 4) / 2**30
    assert made.plan.chunk == 15
    assert f"and holds {held:.1f} GiB. Name a tile or a smaller chunk" in made.message


def test_what_the_machine_cannot_hold_is_refused_but_in_tiles() -> None:
    message = (
        "BasicVSRPP: tile must be such that chunks of 15 fit in 32.0 GiB (127.9 GiB here), got"
    )
    with pytest.raises(ArgumentError, match=re.escape(message)):
        planned(1920, 1080, 500)
    assert planned(1920, 1080, 500, tile=256).plan.chunk == 15
    # Of pictures that large no tile makes less.
    message = (
        "BasicVSRPP: clip must be such that chunks of 15 fit in 32.0 GiB (647.2 GiB here), got"
    )
    with pytest.raises(ArgumentError, match=re.escape(message)):
        planned(10000, 8000, 500, tile=256)


@pytest.mark.parametrize(("chunk", "fits"), [(30, True), (31, False)])
def test_three_chunks_must_fit(chunk: int, fits: bool) -> None:
    # Pictures of 380 MB: 3 * 30 of them are 31.9 GiB.
    width, height = 1980, 1000
    assert 90 * width * height * 16 * 12 < 32 << 30 < 93 * width * height * 16 * 12
    read = Reader("BasicVSR", {"device": "cpu", "chunk": chunk})
    options = Options.read(read, width, height)
    info = ClipInfo(width, height, 500, 0, 25, 1)
    if fits:
        assert streaming(BasicVSR(8, 1), read, options, info).plan.chunk == chunk
        return
    message = (
        "BasicVSR: chunk must be so low that three chunks fit in 32.0 GiB (32.9 GiB here), got 31."
    )
    with pytest.raises(ArgumentError, match=re.escape(message)):
        streaming(BasicVSR(8, 1), read, options, info)


@pytest.mark.parametrize(
    ("lines", "limits", "want"),
    [
        # A container sees its own group as the root.
        ("0::/\n", {"memory.max": "1000\n"}, [1000]),
        (
            "0::/a/b\n",
            {"memory.max": "max\n", "a/memory.max": "700\n", "a/b/memory.max": "max\n"},
            [700],
        ),
        (
            "12:cpu,memory:/x\n3:cpu:/y\n",
            {"memory/memory.limit_in_bytes": "900\n", "memory/x/memory.limit_in_bytes": "800\n"},
            [800, 900],
        ),
        # Not every path of the outside can be seen in a container.
        ("12:memory:/docker/f00\n", {"memory/memory.limit_in_bytes": "900\n"}, [900]),
        ("0::/\n", {}, []),
    ],
)
def test_the_limits_of_control_groups(
    tmp_path: Path, lines: str, limits: dict[str, str], want: list[int]
) -> None:
    own = tmp_path / "cgroup"
    own.write_text(lines)
    for name, text in limits.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    assert list(streams._control_group_limits(own, tmp_path / "root")) == want


def test_what_cannot_be_read_is_no_limit(tmp_path: Path) -> None:
    assert list(streams._control_group_limits(tmp_path / "none", tmp_path)) == []
    # A folder in place of a file cannot be read either.
    (tmp_path / "memory.max").mkdir()
    (tmp_path / "cgroup").write_text("0::/\n")
    assert list(streams._control_group_limits(tmp_path / "cgroup", tmp_path)) == []
    assert list(streams._control_group_limits(tmp_path, tmp_path)) == []


@pytest.mark.parametrize(("limits", "gib"), [((), 64), ((8 << 30, 4 << 30), 4)])
def test_the_memory_is_the_least_of_all(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, ...], gib: int
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(streams, "_control_group_limits", lambda: iter(limits))
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": (64 << 30) // 4096}
    monkeypatch.setattr(streams.os, "sysconf", sizes.__getitem__)
    assert streams._memory_bytes() == gib << 30
