"""Bad input: each case one sentence that names argument, rule and value; then all still works."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import vapoursynth as vs
from conftest import small_checkpoint

from vs_vsr.streaming.runner import Runner

core = vs.core


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_checkpoint(tmp_path_factory.mktemp("weights"), channels=8, blocks=1))


def blank(length: int = 6, **options: object) -> vs.VideoNode:
    options = {"format": vs.RGBS, "width": 32, "height": 24, **options}
    return core.std.BlankClip(length=length, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chunk": -1}, "chunk must be at least 1, or 0 for the whole clip at once, got -1. Leave"),
        ({"lookahead": -3}, "lookahead must be at least 0, got -3. Leave it out for 15."),
        ({"preroll": -1}, "preroll must be at least 0, got -1."),
        ({"segment": 0}, "segment must be at least 1, got 0."),
        (
            {"chunk": 7, "segment": 20},
            "segment must be a multiple of chunk (7), got 20. Use 14 or 21.",
        ),
        ({"chunk": 7, "segment": 5}, "segment must be a multiple of chunk (7), got 5. Use 7."),
        ({"tile": -64}, "tile must be at least 0, got -64."),
        ({"tile": 20}, "tile must be 0 (whole frames) or at least 64 pixels, got 20. Use 256."),
        ({"overlap": -1}, "overlap must be at least 0, got -1."),
        (
            {"tile": 64, "overlap": 40},
            "overlap must be at most half of tile (64), got 40. Use 16.",
        ),
        (
            {"scenes": "detct"},
            'scenes must be one of "props", "detect", "off", got "detct". Did you mean "detect"?',
        ),
        (
            {"precision": "fp64"},
            'precision must be one of "auto", "fp32", "bf16", "fp16", got "fp64',
        ),
        (
            {"precision": "fp16", "device": "cpu"},
            'precision must be "fp32" or "bf16" on a CPU, got "fp16". Leave it out to take',
        ),
        ({"matrix": "601"}, 'matrix must be one of "709", "fcc", "470bg", "170m", "240m", "ycgco"'),
        ({"prefetch": 2}, "prefetch must be one of 0, 1, got 2. Use one of these."),
        ({"device": "gpu"}, 'device must be "auto", "cpu" or "cuda:N", got "gpu". Leave it out'),
        ({"device": "cuda:99"}, "device must be one of those here (cpu"),
    ],
)
def test_an_argument_that_breaks_its_rule(
    weights: str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(vs.Error, match="^BasicVSR: " + re.escape(message)):
        core.vsr.BasicVSR(blank(), weights=weights, **arguments)


def test_whole_clip_mode_of_a_clip_too_long_for_the_memory(weights: str) -> None:
    with pytest.raises(vs.Error, match=r"BasicVSR: chunk must be at least 1 for a clip whose pict"):
        core.vsr.BasicVSR(blank(length=2**31 - 1), weights=weights, chunk=0)


@pytest.mark.parametrize("name", ["chunk", "lookahead", "preroll"])
def test_numbers_beyond_any_clip_mean_all_of_it(weights: str, name: str) -> None:
    want = core.vsr.BasicVSR(blank(), weights=weights, chunk=6).get_frame(5)
    got = core.vsr.BasicVSR(blank(), weights=weights, **{"chunk": 6, name: 2**40}).get_frame(5)
    assert [bytes(p) for p in got.readchunks()] == [bytes(p) for p in want.readchunks()]


def test_a_device_without_the_memory(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    clip = core.vsr.BasicVSR(blank(), weights=weights, device="cpu")
    monkeypatch.setattr(Runner, "run", full)
    message = r"^BasicVSR: device must have the memory .*got CUDA out of memory on cpu\. Use a smal"
    with pytest.raises(vs.Error, match=message):
        clip.get_frame(0)
    monkeypatch.undo()
    clip.get_frame(0)


@pytest.mark.parametrize("arguments", [{"varsize": True}, {"varformat": True}])
def test_a_variable_clip(weights: str, arguments: dict[str, bool]) -> None:
    message = r"^BasicVSR: clip must be of constant format and size, got a variable one\. Bring"
    with pytest.raises(vs.Error, match=message):
        core.vsr.BasicVSR(blank(**arguments), weights=weights)


def test_not_a_clip() -> None:
    with pytest.raises(vs.Error, match="clip"):
        core.vsr.BasicVSR(3)


def test_fields(weights: str) -> None:
    clip = core.vsr.BasicVSR(blank().std.SetFrameProps(_FieldBased=2), weights=weights)
    message = r"^BasicVSR: clip must be progressive, got _FieldBased=2 at frame \d\. Deinterlace"
    with pytest.raises(vs.Error, match=message):
        clip.get_frame(0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "vimeo90k",
            r'weights must be a file or one of reds4, .*got "vimeo90k"\. Did you mean vim',
        ),
        ("no/such.pth", r'weights must be a file that is there, got "no/such\.pth"\.'),
    ],
)
def test_weights_that_are_not_there(name: str, message: str) -> None:
    with pytest.raises(vs.Error, match="^BasicVSR: " + message):
        core.vsr.BasicVSR(blank(), weights=name)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def _edvr(path: Path) -> None:
    torch.save(
        {"params": {"pcd_align.x": torch.zeros(1), "conv_first.weight": torch.zeros(1)}}, path
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncated, r"must be a whole checkpoint .*Fetch it again\."),
        (_edvr, r"^BasicVSR: weights must be a BasicVSR checkpoint, got .*EDVR"),
    ],
)
def test_weights_that_are_damaged_or_of_another_network(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    path = small_checkpoint(tmp_path, channels=8, blocks=1)
    damage(path)
    with pytest.raises(vs.Error, match=message):
        core.vsr.BasicVSR(blank(), weights=str(path))


def _failing(bad: set[int], length: int = 24) -> vs.VideoNode:
    clip = blank(length)

    def check(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if n in bad:
            raise ValueError(f"the disk has no frame {n}")
        return f

    return clip.std.ModifyFrame(clip, check)


@pytest.mark.parametrize("seek", [False, True])
def test_a_frame_that_fails_in_the_source(weights: str, seek: bool) -> None:
    bad = {9}
    clip = core.vsr.BasicVSR(
        _failing(bad), weights=weights, chunk=4, lookahead=1, segment=24, preroll=2
    )
    if not seek:
        clip.get_frame(0)
    with pytest.raises(vs.Error, match="the disk has no frame 9"):
        clip.get_frame(9 if not seek else 23)
    # Frames of the same segment, before and after it, still come.
    for n in (0, 12, 23):
        clip.get_frame(n)
    with pytest.raises(vs.Error, match="the disk has no frame 9"):
        clip.get_frame(9)


@pytest.mark.parametrize("seek", [False, True])
def test_a_frame_that_fails_in_the_preroll_of_a_segment(weights: str, seek: bool) -> None:
    clip = core.vsr.BasicVSR(
        _failing({7}), weights=weights, chunk=4, lookahead=0, segment=8, preroll=3
    )
    if not seek:
        clip.get_frame(0)
    # The segment's start needs frame 7 once; then it does without.
    with pytest.raises(vs.Error, match="the disk has no frame 7"):
        clip.get_frame(8)
    for n in (8, 12, 16, 23):
        clip.get_frame(n)


def test_a_frame_that_failed_once(weights: str) -> None:
    bad = {9}
    clip = core.vsr.BasicVSR(_failing(bad), weights=weights, chunk=4, lookahead=1, segment=24)
    with pytest.raises(vs.Error, match="the disk has no frame 9"):
        clip.get_frame(9)
    bad.clear()
    clip.get_frame(9)
