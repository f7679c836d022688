"""From a file to a file: the pictures that are decoded show the colours of the source."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import vapoursynth as vs
from colours import COLOURS, WIDTH, fields, film_of, middles, plain_network, shown
from vapoursynth import core

from vs_vsr.cli.options import add_options, requests
from vs_vsr.job.join import join
from vs_vsr.job.part import part
from vs_vsr.job.planning import make_plan

pytestmark = pytest.mark.slow

PQ, HLG = 16, 18
FULL, LIMITED = 2, 1


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_network(tmp_path_factory.mktemp("weights"))


def upscaled(source: Path, weights: Path, *words: str) -> vs.VideoNode:
    """What the command makes of a file, in this process."""
    out = source.with_name("out.mkv")
    parser = argparse.ArgumentParser()
    add_options(parser)
    given = [str(source), str(out), "--weights", str(weights), "--encoder-preset", "ultrafast"]
    (request,) = requests(parser.parse_args([*given, "--threads", "1", *words]))
    plan, folder, _ = make_plan(request, "cpu", lambda what, share: None)
    for number in range(len(plan.parts)):
        part(folder, number, lambda progress: None, device="cpu")
    join(plan, folder, lambda share: None)
    return opened(out)


def opened(path: Path) -> vs.VideoNode:
    return core.bs.VideoSource(str(path), cachemode=0)


@pytest.mark.parametrize(
    ("format", "matrix", "codes"),
    [
        (vs.YUV420P8, 6, {"colorspace": 6, "color_range": LIMITED}),
        (vs.YUV422P8, 5, {"colorspace": 5, "color_range": FULL}),
        (vs.YUV420P10, 1, {"colorspace": 1, "color_primaries": 1, "color_trc": 1}),
        (vs.YUV420P10, 9, {"colorspace": 9, "color_primaries": 9, "color_trc": PQ}),
        (vs.YUV420P10, 9, {"colorspace": 9, "color_primaries": 9, "color_trc": HLG}),
    ],
)
def test_colours_and_their_tags(
    format: int, matrix: int, codes: dict[str, int], weights: Path, tmp_path: Path
) -> None:
    full = codes.get("color_range") == FULL
    clip = fields(format, matrix=matrix, range=vs.RANGE_FULL if full else vs.RANGE_LIMITED)
    codes = {"color_range": LIMITED, **codes}
    source = film_of(tmp_path / "in.mkv", clip, **codes, chroma_sample_location=1)
    np.testing.assert_allclose(shown(source), COLOURS, atol=3)
    out = upscaled(source, weights)
    assert (out.format.id, out.width) == (format, 4 * WIDTH)
    np.testing.assert_allclose(shown(tmp_path / "out.mkv"), shown(source), atol=3)
    with opened(source).get_frame(0) as want, out.get_frame(0) as got:
        names = ["_Matrix", "_Primaries", "_Transfer", "_Range"]
        # H.265 says where chroma is for 4:2:0 only.
        for name in (*names, *(["_ChromaLocation"] if format != vs.YUV422P8 else [])):
            assert got.props.get(name) == want.props.get(name), name


@pytest.mark.parametrize(
    ("matrix", "tags"),
    [(6, {}), (9, {"color_trc": PQ}), (9, {"color_trc": HLG, "color_primaries": 9})],
)
def test_a_source_that_names_no_matrix(
    matrix: int, tags: dict[str, int], weights: Path, tmp_path: Path
) -> None:
    # BT.601 is the guess for pictures of this size, BT.2020 for HDR. The new file says so.
    clip = fields(vs.YUV420P10, matrix=matrix)
    upscaled(film_of(tmp_path / "in.mkv", clip, **tags), weights)
    np.testing.assert_allclose(shown(tmp_path / "out.mkv"), COLOURS, atol=3)


def test_rgb_becomes_yuv_without_a_change_of_colour(weights: Path, tmp_path: Path) -> None:
    source = film_of(tmp_path / "in.mkv", fields(vs.RGB30))
    np.testing.assert_allclose(shown(source), COLOURS, atol=1)
    out = upscaled(source, weights)
    assert out.format.id == vs.YUV444P10
    np.testing.assert_allclose(shown(tmp_path / "out.mkv"), COLOURS, atol=3)


def test_rgb_stays_rgb_where_nothing_is_lost(weights: Path, tmp_path: Path) -> None:
    source = film_of(tmp_path / "in.mkv", fields(vs.RGB30))
    words = ["--encoder", "ffv1", "--encoder-preset", ""]
    out = upscaled(source, weights, *words)
    assert out.format.id == vs.RGB30
    np.testing.assert_allclose(shown(tmp_path / "out.mkv"), COLOURS, atol=3)


@pytest.mark.parametrize("range", [LIMITED, FULL])
def test_gray_stays_gray(range: int, weights: Path, tmp_path: Path) -> None:
    clip = fields(vs.YUV444P8, matrix=6, range=range - 1).std.ShufflePlanes(0, vs.GRAY)
    source = film_of(tmp_path / "in.mkv", clip, color_range=range)
    out = upscaled(source, weights)
    assert out.format.id == vs.GRAY8
    with clip.get_frame(1) as want, out.get_frame(1) as got:
        np.testing.assert_allclose(middles(got, 0), middles(want, 0), atol=3)
        assert got.props["_Range"] == range - 1
