"""Whole processes: memory, standard output, networks that stay built."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment, small_checkpoint

from vs_vsr.devices import memory_bytes

HEAD = "import vapoursynth as vs\nfrom vapoursynth import core\n"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("weights"), channels=8, blocks=1)


def run(*command: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, check=True, env=environment()
    )


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads /proc for its peak memory"
)
def test_memory_does_not_grow_with_the_clip(weights: Path, tmp_path: Path) -> None:
    script = tmp_path / "memory.py"
    script.write_text(
        HEAD
        + "import sys\n"
        + "clip = core.std.BlankClip(format=vs.YUV420P8, width=64, height=48, length=600)\n"
        + "clip = clip[: int(sys.argv[1])]\n"
        + f"clip = core.vsr.BasicVSR(clip, weights={str(weights)!r}, chunk=20)\n"
        + "for frame in clip.frames(close=True): pass\n"
        + "peak = [x for x in open('/proc/self/status') if x.startswith('VmHWM')][0].split()[1]\n"
        + "sys.stderr.write(peak)\n"
    )
    # After 200 frames, ten chunks, all that are kept take their memory.
    short, long = (int(run(sys.executable, script, n).stderr.split()[-1]) for n in ("200", "600"))
    assert long < 1.05 * short, f"{short} kB after 200 frames, {long} after 600"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit")
@pytest.mark.parametrize(("clip_format", "sample"), [("YUV420P8", 2), ("RGBS", 4)])
def test_the_formula_for_memory_on_the_page(
    weights: Path, tmp_path: Path, clip_format: str, sample: int
) -> None:
    width, height, chunk, lookahead, preroll = 160, 90, 40, 15, 10
    script = tmp_path / "memory.vpy"
    script.write_text(
        HEAD
        + f"clip = core.std.BlankClip(format=vs.{clip_format}, width={width}, height={height}, "
        + f"length={4 * chunk})\n"
        + f"core.vsr.BasicVSR(clip, weights={str(weights)!r}, chunk={chunk}, "
        + f"lookahead={lookahead}, preroll={preroll}).set_output()\n"
    )

    def peak(*arguments: str | Path) -> int:
        """The most memory of a process, in bytes."""
        program = (
            "import resource, subprocess, sys; "
            "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        return 1024 * int(run(sys.executable, "-c", program, *arguments).stdout)

    area = width * height
    # The network of this test has 8 channels of 4 bytes.
    frames = 12 * (2 * chunk + 3 * lookahead + preroll) + 8 * 4 * chunk + 400
    pictures = (32 // chunk + 4) * chunk * 48 * sample
    want = peak("vspipe", "--info", script) + (150 << 20) + area * (frames + pictures)
    assert peak("vspipe", script, "--") == pytest.approx(want, rel=0.15)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
def test_a_filter_that_is_made_leaves_no_team_of_threads(tmp_path: Path) -> None:
    # Large enough that torch converts its weights on several threads.
    weights = small_checkpoint(tmp_path, channels=64, blocks=1)
    script = tmp_path / "threads.py"
    script.write_text(
        HEAD
        + "import os, sys, time, torch\n"
        + "clip = core.std.BlankClip(format=vs.RGBS, width=32, height=32, length=2)\n"
        + "before = len(os.listdir('/proc/self/task'))\n"
        + f"clip = core.vsr.BasicVSR(clip, weights={str(weights)!r}, precision='bf16')\n"
        # A team ends a moment after its thread.
        + "for _ in range(200):\n"
        + "    more = len(os.listdir('/proc/self/task')) - before\n"
        + "    if more == 1: break\n"
        + "    time.sleep(0.05)\n"
        + "sys.stderr.write(str(more))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        check=True,
        env={**environment(), "OMP_NUM_THREADS": "4"},
    )
    # The thread of the device alone.
    assert done.stderr.split()[-1] == b"1"


@pytest.mark.slow
def test_standard_output_is_the_video_and_nothing_else(weights: Path, tmp_path: Path) -> None:
    script = tmp_path / "out.vpy"
    # Read backwards, so that states are rebuilt.
    script.write_text(
        HEAD
        + "clip = core.std.BlankClip(format=vs.YUV420P8, width=32, height=32, length=9)\n"
        + f"clip = core.vsr.BasicVSR(clip, weights={str(weights)!r}, chunk=2, segment=8)\n"
        + "clip.std.Reverse().set_output()\n"
    )
    piped = run("vspipe", "-c", "y4m", script, "-").stdout
    run("vspipe", "-c", "y4m", script, tmp_path / "file.y4m")
    assert piped.startswith(b"YUV4MPEG2 ")
    assert (
        hashlib.sha256(piped).digest()
        == hashlib.sha256((tmp_path / "file.y4m").read_bytes()).digest()
    )


@pytest.mark.slow
def test_a_capped_chunk_is_reported_beside_the_video(weights: Path, tmp_path: Path) -> None:
    script = tmp_path / "large.vpy"
    # Frames of which three chunks of 90 do not fit, and of a few do: 16 pixels out for each one.
    side = int((memory_bytes() / (3 * 90 * 16 * 12)) ** 0.5)
    script.write_text(
        HEAD
        + f"clip = core.std.BlankClip(format=vs.RGB48, width={side}, height={side}, length=270)\n"
        + f"core.vsr.BasicVSR(clip, weights={str(weights)!r}).set_output()\n"
    )
    done = run("vspipe", "--info", script, "-")
    assert f"Width: {4 * side}".encode() in done.stdout
    message = rb"BasicVSR: chunk is (5\d) instead of 90 frames, because each takes \d+ MiB"
    assert re.search(message, done.stderr)
    assert b"chunk is" not in done.stdout


def test_a_network_stays_built_when_the_script_is_loaded_again(weights: Path) -> None:
    import vapoursynth as vs

    from vs_vsr.plugin import worker

    clip = vs.core.std.BlankClip(format=vs.RGBS, width=32, height=32, length=3)
    vs.core.vsr.BasicVSR(clip, weights=str(weights))
    before = dict(worker._built)
    vs.core.vsr.BasicVSR(clip, weights=str(weights))
    assert worker._built == before
    vs.core.vsr.BasicVSR(clip, weights=str(weights), precision="fp32")
    vs.core.vsr.BasicVSR(clip, weights=str(weights), precision="bf16")
    assert len(worker._built) > len(before)


def test_creation_asks_for_no_frame(weights: Path) -> None:
    import vapoursynth as vs

    clip = vs.core.std.BlankClip(format=vs.YUV420P8, width=32, height=32, length=2**31 - 1)
    asked: list[int] = []

    def note(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        asked.append(n)
        return f

    out = vs.core.vsr.BasicVSR(clip.std.ModifyFrame(clip, note), weights=str(weights), chunk=4)
    assert out.num_frames == 2**31 - 1
    assert not asked
    out.get_frame(0)
    assert sorted(set(asked)) == list(range(4 + 15))


def test_the_typed_twin_is_the_same_filter(weights: Path) -> None:
    import numpy as np
    import vapoursynth as vs

    from vs_vsr import basicvsr

    clip = vs.core.std.BlankClip(
        format=vs.RGBS, width=32, height=32, length=3, color=[0.2, 0.5, 0.7]
    )
    twin = basicvsr(clip, weights=weights, chunk=2, prefetch=True).get_frame(2)
    own = vs.core.vsr.BasicVSR(clip, weights=str(weights), chunk=2).get_frame(2)
    for p in range(3):
        np.testing.assert_array_equal(np.asarray(twin[p]), np.asarray(own[p]))


@pytest.mark.slow
def test_prefetch_gives_the_same_and_reads_each_frame_once(weights: Path) -> None:
    import numpy as np
    import vapoursynth as vs

    clip = vs.core.std.BlankClip(format=vs.RGBS, width=32, height=32, length=40)
    read: list[int] = []

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        read.append(n)
        f = f.copy()
        np.asarray(f[0])[:] = n / 40
        return f

    # Without a cache after it, so that every frame that is asked for is counted.
    source = clip.std.ModifyFrame(clip, draw)
    source.std.SetVideoCache(mode=0)
    options = {"weights": str(weights), "chunk": 8, "lookahead": 3, "segment": 16, "preroll": 3}
    plain = [
        np.asarray(f[0]).tobytes()
        for f in clip.std.ModifyFrame(clip, draw).vsr.BasicVSR(**options).frames()
    ]
    read.clear()
    ahead = [
        np.asarray(f[0]).tobytes() for f in source.vsr.BasicVSR(**options, prefetch=1).frames()
    ]
    assert ahead == plain
    assert sorted(read) == list(range(40))
