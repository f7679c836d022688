"""Which pairs of frames are cuts: by their marks, by the pictures, and by either."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from conftest import drifting
from launches import counted
from torch import Tensor

from vs_vsr.streaming import scenes
from vs_vsr.streaming.scenes import CUT_ABOVE, Marks, cuts, differences, thumbnails

SIZE = (72, 128)
NONE: Marks = (None, None)


def two_scenes() -> list[Tensor]:
    """Three frames of one scene, then three of another."""
    return [*drifting(3, *SIZE), *drifting(3, *SIZE, seed=9)]


def apart(before: Tensor, after: Tensor) -> bool:
    return float(differences(thumbnails([before]), thumbnails([after]))) > CUT_ABOVE


def test_without_marks_auto_is_detect() -> None:
    frames = two_scenes()
    for source, want in (("auto", {3}), ("detect", {3}), ("props", set()), ("off", set())):
        assert cuts(frames, [NONE] * 6, source, before=None) == want  # type: ignore[arg-type]


@pytest.mark.parametrize("where", [(3, 0), (2, 1)], ids=["on the later", "on the earlier"])
@pytest.mark.parametrize("value", [False, True])
def test_a_mark_judges_its_pair_whatever_it_is(where: tuple[int, int], value: bool) -> None:
    frame, side = where
    marks = [NONE] * 6
    marks[frame] = (value, None) if side == 0 else (None, value)
    assert cuts(two_scenes(), marks, "auto", before=None) == ({3} if value else set())
    assert cuts(two_scenes(), marks, "props", before=None) == ({3} if value else set())
    assert cuts(two_scenes(), marks, "detect", before=None) == {3}
    assert cuts(two_scenes(), marks, "off", before=None) == set()
    # Where the pictures go on, the mark judges too.
    still = [two_scenes()[0]] * 6
    assert cuts(still, marks, "auto", before=None) == ({3} if value else set())


def test_of_two_marks_one_that_is_set_is_enough() -> None:
    still = [two_scenes()[0]] * 2
    for marks in ([(None, True), (False, None)], [(None, False), (True, None)]):
        assert cuts(still, marks, "auto", before=None) == {1}
        assert cuts(still, marks, "props", before=None) == {1}


def test_marks_of_the_other_sides_say_nothing_about_a_pair() -> None:
    marks = [NONE] * 6
    # Frame 2 says it of the pair 1, 2, and frame 3 of the pair 3, 4.
    marks[2], marks[3] = (False, None), (None, True)
    assert cuts(two_scenes(), marks, "auto", before=None) == {3, 4}


def test_the_frame_before_counts_like_any_other() -> None:
    frames, marks = two_scenes(), [NONE] * 6
    assert cuts(frames[3:], marks[3:], "auto", before=(frames[2], NONE)) == {0}
    assert cuts(frames[3:], marks[3:], "auto", before=(frames[2], (True, None))) == {0}
    assert cuts(frames[3:], marks[3:], "auto", before=(frames[2], (None, False))) == set()
    assert cuts(frames[:3], marks[:3], "auto", before=(frames[0], (None, True))) == {0}


def test_no_picture_is_looked_at_where_marks_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vs_vsr.streaming.scenes.thumbnails", None)
    marks: list[Marks] = [(False, None)] * 6
    assert cuts(two_scenes(), marks, "auto", before=None) == set()
    assert cuts(two_scenes(), [NONE] * 6, "props", before=None) == set()


def test_a_frame_is_reduced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reduced: list[Tensor] = []

    def noted(frames: Sequence[Tensor]) -> Tensor:
        reduced.extend(frames)
        return thumbnails(frames)

    monkeypatch.setattr("vs_vsr.streaming.scenes.thumbnails", noted)
    cuts(two_scenes(), [NONE] * 6, "detect", before=(two_scenes()[0], NONE))
    assert len(reduced) == 7


@pytest.mark.parametrize("size", [(72, 128), (128, 72), (180, 320), (33, 57), (8, 100)])
def test_another_scene_is_a_cut_at_every_size(size: tuple[int, int]) -> None:
    a, b = drifting(2, *size), drifting(2, *size, seed=9)
    assert not apart(*a)
    assert apart(a[1], b[0])


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (3, 65)])
def test_no_size_is_too_small(size: tuple[int, int]) -> None:
    frame = torch.rand(1, 3, *size)
    assert not apart(frame, frame)


def test_light_motion_and_noise_are_no_cuts() -> None:
    big = drifting(1, 90, 240)[0]
    a = big[..., :90, :160]
    for share in (0.05, 0.15, 0.3):
        move = round(share * 160)
        assert not apart(a, big[..., :90, move : move + 160]), share
    for gain in (0.3, 0.6, 1.4):
        assert not apart(a, (gain * a).clamp(0, 1)), gain
    assert not apart(a, 0.4 * a + 0.6)
    assert not apart(a, (a + 0.1 * torch.randn_like(a)).clamp(0, 1))
    black = torch.zeros_like(a)
    noisy = [(black + 0.01 * torch.randn_like(a)).clamp(0, 1) for _ in "ab"]
    assert not apart(*noisy)


def test_to_black_and_between_black_bars_is_a_cut() -> None:
    a, b = drifting(1, 54, 128)[0], drifting(1, 54, 128, seed=9)[0]
    boxed = [F.pad(x, (0, 0, 9, 9)) for x in (a, b)]
    assert apart(boxed[0], torch.zeros_like(boxed[0]))
    assert apart(torch.zeros_like(boxed[0]), boxed[0])
    assert apart(*boxed)
    assert not apart(boxed[0], boxed[0])


@pytest.mark.parametrize("at_once", [1, 2, 16])
@pytest.mark.parametrize("size", [SIZE, (33, 57), (1, 90)])
def test_a_pair_is_judged_alike_wherever_it_lies(
    monkeypatch: pytest.MonkeyPatch, at_once: int, size: tuple[int, int]
) -> None:
    """The number itself is the same to the bit, so no threshold tells where a chunk began."""
    frames = [*drifting(10, *size), *drifting(10, *size, seed=9)]
    alone = [differences(*(thumbnails([x]) for x in pair)) for pair in pairwise(frames)]
    monkeypatch.setitem(scenes._PAIRS, "cpu", at_once)
    for first, last in ((0, 20), (3, 20), (9, 11), (10, 14)):
        small = thumbnails([x.clone() for x in frames[first:last]])
        assert torch.equal(differences(small[:-1], small[1:]), torch.cat(alone[first : last - 1]))


def test_on_a_gpu_few_operations_judge_a_whole_chunk() -> None:
    frames = list(torch.empty(46, 1, 3, 180, 320, device="meta"))
    with counted() as found:
        small = thumbnails(frames)
        differences(small[:-1], small[1:])
    # One for each frame, and these.
    assert found.total <= len(frames) + 45
    assert not found.breaks
