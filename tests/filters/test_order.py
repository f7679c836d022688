"""One answer per frame through VapourSynth: any order, any number of threads and requests."""

import hashlib
import itertools
import random
import subprocess
import sys
from pathlib import Path

import pytest
import vapoursynth as vs
from conftest import environment, small_checkpoint

pytestmark = pytest.mark.slow

FRAMES = 200
# A clip that any process can make, whatever its order: each pixel is a function of frame and place.
CLIP = """
import numpy as np
import vapoursynth as vs
core = vs.core

def moving(frames, cuts=()):
    def draw(n, f):
        out = f.copy()
        y, x = np.mgrid[0:f.height, 0:f.width]
        scene = sum(n >= cut for cut in cuts)
        for p in range(3):
            np.asarray(out[p])[:] = 0.5 + 0.4 * np.sin((x + n % 40) / (2 + p) + scene) * np.cos(
                (y + n / 3) / (3 + scene)
            )
        if n in cuts:
            out.props["_SceneChangePrev"] = 1
        return out

    blank = core.std.BlankClip(format=vs.RGBS, width=32, height=20, length=frames)
    return blank.std.ModifyFrame(blank, draw)
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("weights"), channels=8, blocks=1)


def filtered(weights: Path, cuts: tuple[int, ...]) -> vs.VideoNode:
    names: dict[str, object] = {}
    exec(CLIP, names)
    clip = names["moving"](FRAMES, cuts)  # type: ignore[operator]
    return vs.core.vsr.BasicVSR(
        clip, weights=str(weights), chunk=12, lookahead=5, segment=36, preroll=4
    )


def digest(frame: vs.VideoFrame) -> str:
    return hashlib.sha256(b"".join(bytes(plane) for plane in frame.readchunks())).hexdigest()


@pytest.fixture(scope="module", params=[(), (17, 36, 100)], ids=["no cuts", "cuts"])
def in_order(request: pytest.FixtureRequest, weights: Path) -> tuple[tuple[int, ...], list[str]]:
    cuts: tuple[int, ...] = request.param
    clip = filtered(weights, cuts)
    return cuts, [digest(clip.get_frame(n)) for n in range(FRAMES)]


def test_frames_differ(in_order: tuple[tuple[int, ...], list[str]]) -> None:
    assert len(set(in_order[1])) == FRAMES


def test_backwards(in_order: tuple[tuple[int, ...], list[str]], weights: Path) -> None:
    cuts, want = in_order
    clip = filtered(weights, cuts)
    assert [digest(clip.get_frame(n)) for n in reversed(range(FRAMES))] == want[::-1]


@pytest.mark.parametrize("threads", [1, 8])
def test_shuffled_and_at_once(
    in_order: tuple[tuple[int, ...], list[str]], weights: Path, threads: int
) -> None:
    cuts, want = in_order
    before = vs.core.num_threads
    vs.core.num_threads = threads
    try:
        clip = filtered(weights, cuts)
        order = random.Random(threads).sample(range(FRAMES), 60)
        futures = [clip.get_frame_async(n) for n in order]
        assert [digest(future.result()) for future in futures] == [want[n] for n in order]
    finally:
        vs.core.num_threads = before


@pytest.mark.parametrize(("requests", "threads"), [(1, 1), (3, 8), (16, 8)])
def test_fresh_process(
    in_order: tuple[tuple[int, ...], list[str]],
    weights: Path,
    tmp_path: Path,
    requests: int,
    threads: int,
) -> None:
    cuts, want = in_order
    script = tmp_path / "script.vpy"
    script.write_text(
        CLIP
        + f"core.num_threads = {threads}\n"
        + f"clip = core.vsr.BasicVSR(moving({FRAMES}, {cuts}), weights={str(weights)!r}, "
        + "chunk=12, lookahead=5, segment=36, preroll=4)\nclip.set_output()\n"
    )
    vspipe = Path(sys.executable).with_name("vspipe")
    out = subprocess.run(
        [vspipe, "-r", str(requests), script, "-"],
        capture_output=True,
        check=True,
        env=environment(),
    ).stdout
    size = 128 * 80 * 4
    assert len(out) == FRAMES * 3 * size
    planes = [out[i : i + size] for i in range(0, len(out), size)]
    # vspipe writes RGB as G, B, R.
    frames = [b"".join((r, g, b)) for g, b, r in itertools.batched(planes, 3)]
    assert [hashlib.sha256(frame).hexdigest() for frame in frames] == want
