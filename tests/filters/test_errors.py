"""Bad input: each case gives a message that says what to do; afterwards all still works."""

import gc
import os
import re
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs
from conftest import small_checkpoint

from vs_vsr.devices import default_dtype
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.basicvsrpp import BasicVSRPP
from vs_vsr.plugin import steps
from vs_vsr.streaming.plan import Step
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
        ({"chunk": 0, "segment": 0}, "segment must be at least 1, got 0."),
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
            'scenes must be one of "auto", "props", "detect", "off", got "detct". '
            'Did you mean "detect"?',
        ),
        (
            {"precision": "fp64"},
            'precision must be one of "auto", "fp32", "bf16", "fp16", got "fp64',
        ),
        (
            {"precision": "fp16", "device": "cpu"},
            'precision must be "fp32" or "bf16" on this processor, got "fp16". Leave it',
        ),
        (
            {"matrix": "601"},
            'matrix must be one of "709" (1), "fcc" (4), "470bg" (5), "170m" (6), "240m" (7), '
            '"ycgco" (8), "2020ncl" (9), got "601". Use one of these.',
        ),
        ({"matrix": vs.MATRIX_BT2020_CL}, 'matrix must be one of "709" (1), "fcc" (4)'),
        ({"matrix": "170M"}, 'matrix must be one of "709" (1), "fcc" (4)'),
        ({"prefetch": 2}, "prefetch must be one of 0, 1, got 2. Use one of these."),
        ({"device": "gpu"}, 'device must be "auto", "cpu" or "cuda:N", got "gpu". Leave it out'),
        ({"device": "cuda:99"}, "device must be one that this machine has (cpu"),
    ],
)
def test_an_argument_that_breaks_its_rule(
    weights: str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(vs.Error, match="^BasicVSR: " + re.escape(message)):
        core.vsr.BasicVSR(blank(), weights=weights, **arguments)


def test_whole_clip_mode_of_a_clip_too_long_for_the_memory(weights: str) -> None:
    with pytest.raises(
        vs.Error, match=r"^BasicVSR: chunk must be at least 1 for a clip whose output"
    ):
        core.vsr.BasicVSR(blank(length=2**31 - 1), weights=weights, chunk=0)


@pytest.mark.parametrize("name", ["chunk", "lookahead", "preroll"])
def test_numbers_beyond_any_clip_mean_all_of_it(weights: str, name: str) -> None:
    want = core.vsr.BasicVSR(blank(), weights=weights, chunk=6).get_frame(5)
    got = core.vsr.BasicVSR(blank(), weights=weights, **{"chunk": 6, name: 2**40}).get_frame(5)
    assert [bytes(p) for p in got.readchunks()] == [bytes(p) for p in want.readchunks()]


GPU = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 1.00 GiB."


def test_a_device_without_the_memory(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError(GPU)

    clip = core.vsr.BasicVSR(blank(), weights=weights, device="cpu")
    monkeypatch.setattr(Runner, "run", full)
    message = (
        r"^BasicVSR: cpu has no memory left for a chunk \(it needs 20\.00 MiB more\)\. "
        r"Use chunk=45\.$"
    )
    with pytest.raises(vs.Error, match=message):
        clip.get_frame(0)
    monkeypatch.undo()
    clip.get_frame(0)


def test_a_device_that_has_the_memory_once_it_is_asked_again(
    weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = core.vsr.BasicVSR(blank(), weights=weights, device="cpu", chunk=1)
    want = [bytes(p) for frame in clip.frames() for p in frame.readchunks()]
    run, ran = Runner.run, []

    def full_at_first(self: Runner, step: Step, *arguments: Any) -> bool:
        ran.append(step)
        stale = run(self, step, *arguments)
        # Of each step, when its work is done, but nobody has its picture.
        if len(ran) % 2:
            raise torch.OutOfMemoryError(GPU)
        return stale

    clip = core.vsr.BasicVSR(blank(), weights=weights, device="cpu", chunk=1)
    monkeypatch.setattr(Runner, "run", full_at_first)
    assert [bytes(p) for frame in clip.frames() for p in frame.readchunks()] == want
    # As many steps as it takes: a frame that is asked for before an earlier one costs one more.
    assert len(ran) >= 2 * clip.num_frames
    assert ran[::2] == ran[1::2]


@pytest.mark.parametrize(
    ("name", "precision", "chunk", "hint"),
    [
        ("BasicVSR", "bf16", 8, "Use chunk=4."),
        ("BasicVSR", "fp32", 8, "Use chunk=4, or tile=256."),
        ("BasicVSR", "bf16", 1, "Use tile=256."),
        ("BasicVSRPP", "bf16", 8, "Use chunk=4, or tile=256."),
    ],
)
def test_what_takes_less_memory(
    name: str,
    precision: str,
    chunk: int,
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if precision == "bf16" and default_dtype(torch.device("cpu")) != torch.bfloat16:
        pytest.skip("this processor does not multiply bf16")

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError(GPU)

    network = {"BasicVSR": BasicVSR, "BasicVSRPP": BasicVSRPP}[name](8, 1)
    torch.save(network.state_dict(), tmp_path / "small.pth")
    clip = getattr(core.vsr, name)(
        blank(width=264),
        weights=str(tmp_path / "small.pth"),
        device="cpu",
        precision=precision,
        chunk=chunk,
    )
    monkeypatch.setattr(Runner, "run", full)
    with pytest.raises(vs.Error, match=f"{re.escape(hint)}$"):
        clip.get_frame(0)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(GPU), ValueError("odd")])
def test_a_step_that_fails_lets_go_of_its_memory(
    weights: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    seen = []

    def full(self: Runner, step: object, frames: list[torch.Tensor], *_: object) -> bool:
        seen.append(weakref.ref(frames[0]))
        raise type(error)(*error.args)

    clip = core.vsr.BasicVSR(blank(), weights=weights, device="cpu")
    monkeypatch.setattr(Runner, "run", full)
    gc.disable()
    try:
        with pytest.raises(vs.Error, match=r"no memory left for a chunk|ValueError: odd"):
            clip.get_frame(0)
        assert seen
        assert not any(frame() for frame in seen)
    finally:
        gc.enable()


NO_MEMORY = """
import os, resource, sys
import vapoursynth as vs
core = vs.core
clip = core.std.BlankClip(format=vs.RGBS, width=320, height=240, length=8)
options = {"weights": sys.argv[1], "precision": "fp32", "device": "cpu"}
core.vsr.BasicVSR(clip[:1], chunk=1, **options).get_frame(0)
out = core.vsr.BasicVSR(clip, chunk=8, **options)
now = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (now + (140 << 20), now + (140 << 20)))
try: out.get_frame(0)
except vs.Error as e: print(e, flush=True)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted as Linux does")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="another allocator is preloaded")
def test_a_cpu_without_the_memory(weights: str) -> None:
    command = [sys.executable, "-c", NO_MEMORY, weights]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert re.fullmatch(
        r"BasicVSR: cpu has no memory left for a chunk \(it needs \d+ bytes more\)\. "
        r"Use chunk=4, or tile=256\.\n",
        done.stdout,
    ), done.stdout + done.stderr


OLD_PROCESSOR = """
import sys
import vapoursynth as vs
core = vs.core
clip = core.std.BlankClip(format=vs.RGBS, width=32, height=24, length=2)
try: core.vsr.BasicVSR(clip, weights=sys.argv[1], precision="bf16", device="cpu")
except vs.Error as e: print(e)
core.vsr.BasicVSR(clip, weights=sys.argv[1], device="cpu").get_frame(0)
"""


@pytest.mark.slow
def test_a_processor_without_bfloat16(weights: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OLD_PROCESSOR, weights],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
    )
    assert done.stdout.startswith(
        'BasicVSR: precision must be "fp32" on this processor, got "bf16". Leave it out'
    ), done.stderr
    assert done.returncode == 0


def test_every_cpu_is_one_device(weights: str) -> None:
    before = set(steps._threads)
    for device in ("cpu", "cpu:0", "cpu:3"):
        core.vsr.BasicVSR(blank(), weights=weights, device=device).get_frame(0)
    assert set(steps._threads) - before <= {torch.device("cpu")}
    assert torch.device("cpu") in steps._threads


def test_a_slow_chunk_is_announced_in_the_log(
    weights: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clip = core.vsr.BasicVSR(blank(6), weights=weights, chunk=4, lookahead=1, device="cpu")
    monkeypatch.setattr(steps, "_SLOW_S", 0.001)
    with caplog.at_level("INFO", "vapoursynth"):
        clip.get_frame(0)
    message = "BasicVSR: frames 0 to 4 have been computing on cpu for 0.001 s, and no"
    assert any(record.getMessage().startswith(message) for record in caplog.records)


@pytest.mark.parametrize("arguments", [{"varsize": True}, {"varformat": True}])
def test_a_variable_clip(weights: str, arguments: dict[str, bool]) -> None:
    message = r"^BasicVSR: clip must have a constant format and size, got a variable one\. Convert"
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


def test_single_fields(weights: str) -> None:
    separated = blank(height=48).std.SeparateFields(tff=True)
    message = r"^BasicVSR: clip must be of whole pictures, got a single field \(_Field\) at frame"
    with pytest.raises(vs.Error, match=message):
        core.vsr.BasicVSR(separated, weights=weights).get_frame(0)
    pictures = separated.std.RemoveFrameProps("_Field")
    core.vsr.BasicVSR(pictures, weights=weights).get_frame(0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "vimeo90k",
            r'weights must be a file or one of reds4, .*got "vimeo90k"\. Did you mean vim',
        ),
        ("no/such.pth", r'weights must be a file that exists, got "no/such\.pth"\.'),
    ],
)
def test_weights_that_do_not_exist(name: str, message: str) -> None:
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
        (_truncated, r"^BasicVSR: weights must be a whole checkpoint .*Fetch it again, or"),
        (_edvr, r"^BasicVSR: weights must be a checkpoint of BasicVSR, got .*EDVR"),
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
    # The segment's start asks for frame 7 once; then it does without.
    with pytest.raises(vs.Error, match="the disk has no frame 7"):
        clip.get_frame(8)
    for n in (8, 12, 16, 23):
        clip.get_frame(n)


def _moving(bad: set[int], format: int) -> vs.VideoNode:
    """Frames that differ; those that are in `bad` when they are asked for fail."""
    clip = core.std.BlankClip(format=vs.RGBS, width=48, height=32, length=24)

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if n in bad:
            raise ValueError(f"the disk has no frame {n}")
        f = f.copy()
        y, x = np.mgrid[0:32, 0:48]
        for p in range(3):
            wave = np.sin((x + 1.5 * n) / (2 + p)) * np.cos((y - n / 2) / 3)
            np.asarray(f[p])[:] = 0.5 + 0.4 * wave
        return f

    clip = clip.std.ModifyFrame(clip, draw)
    return clip if format == vs.RGBS else clip.resize.Bicubic(format=format, matrix=1)


@pytest.mark.parametrize("format", [vs.RGBS, vs.YUV444P16], ids=["rgb", "yuv"])
def test_a_frame_has_one_answer_once_the_source_has_recovered(weights: str, format: int) -> None:
    options = {"weights": weights, "chunk": 4, "lookahead": 1, "segment": 24, "scenes": "off"}
    options |= {"precision": "fp32"}
    bad: set[int] = set()
    clip = core.vsr.BasicVSR(_moving(bad, format), **options)

    def pictures(clip: vs.VideoNode) -> list[bytes]:
        # The filter after it keeps a cache too.
        clip = clip.std.AverageFrames([1, 1, 1])
        return [b"".join(bytes(p) for p in clip.get_frame(n).readchunks()) for n in (13, 14)]

    want = pictures(core.vsr.BasicVSR(_moving(set(), format), **options))
    bad.add(9)
    with pytest.raises(vs.Error, match="the disk has no frame 9"):
        clip.get_frame(9)
    assert pictures(clip) != want
    bad.clear()
    clip.get_frame(9)
    assert pictures(clip) == want


@pytest.mark.timeout(60)
def test_a_source_that_recovers_in_a_segment_without_end(weights: str) -> None:
    bad = {9}
    clip = core.vsr.BasicVSR(
        _failing(bad), weights=weights, chunk=4, lookahead=1, segment=4 * 2**40
    )
    clip.get_frame(0)
    with pytest.raises(vs.Error, match="the disk has no frame 9"):
        clip.get_frame(9)
    bad.clear()
    clip.get_frame(9)


def test_a_frame_that_failed_once(weights: str) -> None:
    bad = {9}
    clip = core.vsr.BasicVSR(_failing(bad), weights=weights, chunk=4, lookahead=1, segment=24)
    with pytest.raises(vs.Error, match="the disk has no frame 9"):
        clip.get_frame(9)
    bad.clear()
    clip.get_frame(9)
