"""Scene cuts through the real filter: the pictures show which pairs of frames are cuts."""

from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs
from conftest import drifting, small_checkpoint

pytestmark = pytest.mark.slow

LENGTH, CUT, SIZE = 12, 6, (36, 64)
# The scenes change inside a chunk, at its border, and at a segment's.
CHUNKS = [{"chunk": 4, "segment": 12}, {"chunk": 3, "segment": 12}, {"chunk": 3, "segment": 6}]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_checkpoint(tmp_path_factory.mktemp("weights"), channels=8, blocks=1))


Properties = dict[str, dict[int, int]]


def clip(seeds: tuple[int, int] = (3, 9), marks: Properties | None = None) -> vs.VideoNode:
    """Frames of two scenes; `marks` are properties, each by frame number."""
    with torch.inference_mode():
        halves = [drifting(LENGTH, *SIZE, seed=seed) for seed in seeds]
    pictures = [*halves[0][:CUT], *halves[1][CUT:]]

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        out = f.copy()
        for p in range(3):
            np.asarray(out[p])[:] = pictures[n][0, p].numpy()
        for name, values in (marks or {}).items():
            if n in values:
                out.props[name] = values[n]
        return out

    blank = vs.core.std.BlankClip(
        format=vs.RGBS, width=SIZE[1], height=SIZE[0], length=LENGTH, keep=True
    )
    return blank.std.ModifyFrame(blank, draw)


def pictures(source: vs.VideoNode, weights: str, order: Any = range(LENGTH), **options: Any) -> Any:
    given = {"precision": "fp32", "lookahead": 2, "preroll": 3, **CHUNKS[0], **options}
    out = vs.core.vsr.BasicVSR(source, weights=weights, **given)
    frames = {n: np.asarray(out.get_frame(n)[0]).copy() for n in order}
    return np.stack([frames[n] for n in range(LENGTH)])


@pytest.mark.parametrize("chunks", CHUNKS)
def test_a_change_of_scene_without_marks_is_a_cut(weights: str, chunks: dict[str, int]) -> None:
    got = pictures(clip(), weights, **chunks)
    np.testing.assert_array_equal(got, pictures(clip(), weights, **chunks, scenes="detect"))
    marked = clip(marks={"_SceneChangePrev": {CUT: 1}})
    np.testing.assert_array_equal(got, pictures(marked, weights, **chunks, scenes="props"))
    # Nothing of the other scene is in it.
    np.testing.assert_array_equal(got[:CUT], pictures(clip((3, 5)), weights, **chunks)[:CUT])
    np.testing.assert_array_equal(got[CUT:], pictures(clip((5, 9)), weights, **chunks)[CUT:])
    assert (got != pictures(clip(), weights, **chunks, scenes="off")).any()


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize(("name", "frame"), [("_SceneChangePrev", CUT), ("_SceneChangeNext", 5)])
def test_a_mark_of_0_says_that_there_is_no_cut(
    weights: str, chunks: dict[str, int], name: str, frame: int
) -> None:
    got = pictures(clip(marks={name: {frame: 0}}), weights, **chunks)
    np.testing.assert_array_equal(got, pictures(clip(), weights, **chunks, scenes="off"))
    assert (got != pictures(clip(), weights, **chunks)).any()


@pytest.mark.parametrize(("name", "frame"), [("_SceneChangePrev", 8), ("_SceneChangeNext", 7)])
def test_a_mark_that_is_set_is_a_cut_and_the_other_pairs_are_looked_at(
    weights: str, name: str, frame: int
) -> None:
    got = pictures(clip(marks={name: {frame: 1}}), weights)
    both = clip(marks={"_SceneChangePrev": {CUT: 1, 8: 1}})
    np.testing.assert_array_equal(got, pictures(both, weights, scenes="props"))
    assert (got != pictures(clip(), weights)).any()


def test_the_order_of_requests_changes_nothing(weights: str) -> None:
    source = clip(marks={"_SceneChangePrev": {CUT: 0, 9: 1}})
    for chunks in CHUNKS:
        want = pictures(source, weights, **chunks)
        for order in (range(LENGTH - 1, -1, -1), [7, 2, 11, 5, 0, 9, 6, 1, 10, 3, 8, 4]):
            np.testing.assert_array_equal(pictures(source, weights, order, **chunks), want)


def test_cuts_that_are_found_are_not_written_to_the_frames(weights: str) -> None:
    frame = vs.core.vsr.BasicVSR(clip(), weights=weights).get_frame(0)
    assert not [name for name in frame.props if name.startswith("_SceneChange")]
