"""The published numbers, through VapourSynth: Vid4 "walk" with the released weights."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import vapoursynth as vs
from PIL import Image

from vs_vsr.evaluation.clips import find_clips
from vs_vsr.evaluation.measure import low_resolution, pair, scores
from vs_vsr.evaluation.scores import luma, psnr
from vs_vsr.evaluation.separable import Array
from vs_vsr.plugin import worker
from vs_vsr.plugin.plans import formats

core = vs.core

# PSNR and SSIM on Y of the whole clip in float32, which over all of Vid4 give the paper's numbers.
KNOWN = [
    ("vimeo90k-bd", "BDx4", 31.5316, 0.9264),
    ("vimeo90k-bi", "BIx4", 30.9555, 0.9148),
    ("reds4", "BIx4", 31.1132, 0.9189),
]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("real_weights")]


def read(folder: Path) -> list[Array]:
    files = sorted(folder.glob("*.png"))
    return [np.asarray(Image.open(file)).transpose(2, 0, 1) for file in files]


@cache
def truth(shared: Path) -> list[Array]:
    return [luma(picture) for picture in read(shared / "vid4/GT/walk")]


def walk(shared: Path, kind: str) -> vs.VideoNode:
    pictures = read(shared / f"vid4/{kind}/walk")
    _, height, width = pictures[0].shape
    blank = core.std.BlankClip(format=vs.RGB24, width=width, height=height, length=len(pictures))

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        f = f.copy()
        for p in range(3):
            np.asarray(f[p])[:] = pictures[n][p]
        return f

    return blank.std.ModifyFrame(blank, draw)


def psnr_of_each(shared: Path, clip: vs.VideoNode) -> Array:
    """Of Y, in dB."""
    assert clip.format.id == vs.RGB24
    lumas = [
        luma(np.stack([np.asarray(frame[p]) for p in range(3)]))
        for frame in clip.frames(close=True)
    ]
    return np.array([psnr(a, b) for a, b in zip(lumas, truth(shared), strict=True)])


# float32 takes two minutes each, so once for each kind of input; bf16 costs less than 0.02 dB.
@pytest.mark.parametrize(
    ("weights", "kind", "want_psnr", "want_ssim", "precision", "within"),
    [
        (*KNOWN[0], "fp32", 0.002),
        (*KNOWN[1], "auto", 0.02),
        (*KNOWN[2], "fp32", 0.002),
    ],
)
def test_whole_clip_gives_the_known_numbers(
    shared: Path,
    weights: str,
    kind: str,
    want_psnr: float,
    want_ssim: float,
    precision: str,
    within: float,
) -> None:
    (clip,) = find_clips([shared / "vid4/GT"])
    low = low_resolution(clip.node, "BD" if kind == "BDx4" else "BI")
    arguments = {"weights": weights, "precision": precision, "chunk": 0}
    both = pair(clip.node, low, "BasicVSR", arguments)
    got_psnr, got_ssim = scores(both, "y", lambda: None).means
    assert got_psnr == pytest.approx(want_psnr, abs=within)
    assert got_ssim == pytest.approx(want_ssim, abs=within / 10)


def test_bfloat16_and_the_streaming_defaults_cost_little(shared: Path) -> None:
    weights, kind, want_psnr, _ = KNOWN[0]
    source = walk(shared, kind)
    whole = psnr_of_each(
        shared, core.vsr.BasicVSR(source, weights=weights, precision="bf16", chunk=0)
    )
    assert whole.mean() == pytest.approx(want_psnr, abs=0.02)
    # The default would take these 47 frames as one chunk.
    stream = psnr_of_each(
        shared, core.vsr.BasicVSR(source, weights=weights, precision="bf16", chunk=30)
    )
    assert not np.array_equal(stream, whole)
    assert (stream - whole).mean() > -0.02
    assert (stream - whole).min() > -0.1


@pytest.mark.parametrize(
    ("precision", "device"),
    # A GPU reads and writes half floats for clips of up to 10 bits, a processor only writes them.
    [("fp32", torch.device("cuda")), ("bf16", torch.device("cpu"))],
    ids=["gpu", "processor"],
)
def test_half_floats_between_the_nodes_cost_nothing(
    shared: Path, monkeypatch: pytest.MonkeyPatch, precision: str, device: torch.device
) -> None:
    source = walk(shared, "BDx4")[:5]
    got = []
    for both in ((vs.RGBS, vs.RGBS), formats(vs.RGB24, device)):
        monkeypatch.setattr(worker, "formats", lambda *_, both=both: tuple(map(int, both)))
        clip = core.vsr.BasicVSR(source, weights="vimeo90k-bd", precision=precision, chunk=0)
        pictures = [np.stack([np.asarray(f[p]) for p in range(3)]) for f in clip.frames(close=True)]
        got.append([psnr(luma(a), b) for a, b in zip(pictures, truth(shared), strict=False)])
    difference = np.subtract(got[0], got[1])
    assert difference.any()
    assert abs(difference.mean()) < 0.001
    assert abs(difference).max() < 0.005
