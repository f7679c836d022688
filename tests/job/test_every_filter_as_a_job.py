"""A job of every filter: its pictures are those of a script, whatever a part begins with."""

import argparse
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import zoo
from networks import NETWORKS, checkpoint
from vapoursynth import core

from vs_vsr.cli.options import add_options, requests
from vs_vsr.job.join import join
from vs_vsr.job.part import part
from vs_vsr.job.plan import JobPlan
from vs_vsr.job.planning import make_plan
from vs_vsr.job.source import seconds

pytestmark = pytest.mark.slow

# Arguments that make several segments, and so several parts, of 20 frames.
WORDS = {
    "BasicVSR": "--chunk 2 --lookahead 2 --segment 4 --preroll 2",
    "IconVSR": "--chunk 2 --lookahead 2 --segment 4 --preroll 2 --keyframe 3",
    "EDVR": "--chunk 4",
    "RealBasicVSR": "--chunk 2 --lookahead 2 --segment 4 --preroll 2 --tile 64",
    "BasicVSRPP": "--chunk 4 --lookahead 2 --preroll 2",
    "AnimeSR": "--segment 4 --preroll 2",
    "VRT interpolate": "--chunk 4",
}


def two_scenes(folder: Path) -> Path:
    path = folder / "in.mkv"
    first, second = zoo.moving(11, 64, 64), zoo.moving(9, 64, 64)[:, ::-1, ::-1].copy()
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for n, picture in enumerate((*first, *second)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts = n
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def made(source: Path, out: Path, *words: str) -> JobPlan:
    """A job in this process, its parts backwards."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    (request,) = requests(parser.parse_args([str(source), str(out), "--encoder", "ffv1", *words]))
    plan, folder, _ = make_plan(request, "cpu", lambda what, share: None)
    for number in reversed(range(len(plan.parts))):
        part(folder, number, lambda progress: None, device="cpu")
    join(plan, folder, lambda share: None)
    return plan


def test_all_networks_are_here() -> None:
    assert {NETWORKS[name].filter for name in WORDS} == {
        small.filter for small in NETWORKS.values()
    }


@pytest.mark.parametrize("name", WORDS)
def test_the_pictures_of_a_script(name: str, tmp_path: Path) -> None:
    source, out = two_scenes(tmp_path), tmp_path / "out.mkv"
    weights, words = checkpoint(name, tmp_path), WORDS[name].split()
    filter_name = NETWORKS[name].filter
    plan = made(
        source,
        out,
        *("--filter", filter_name, "--weights", str(weights), "--precision", "fp32", *words),
    )
    assert plan.cuts == (11,) and len(plan.parts) > 2
    options = {key[2:]: value for key, value in zip(words[::2], words[1::2], strict=True)}
    given: dict[str, Any] = {key: int(value) for key, value in options.items()}
    clip = core.bs.VideoSource(str(source), cachemode=0)
    clip = getattr(core.vsr, filter_name)(
        clip, weights=str(weights), device="cpu", precision="fp32", **given
    )
    result = core.bs.VideoSource(str(out), cachemode=0)
    assert len(result) == len(clip) and result.format == clip.format
    for n, (want, got) in enumerate(zip(clip.frames(), result.frames(), strict=True)):
        for p in range(3):
            np.testing.assert_array_equal(np.asarray(got[p]), np.asarray(want[p]), err_msg=str(n))
    with av.open(str(out)) as file:
        unit = seconds(file.streams.video[0].time_base)
        times = sorted((p.pts or 0) * unit for p in file.demux(video=0) if p.size)
    rate = 25 * plan.recipe.frames_per_input
    assert all(abs(t - Fraction(n, rate)) <= Fraction(1, 2000) for n, t in enumerate(times))
