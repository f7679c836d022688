"""One answer per frame, cuts, seeks, broken sources and tiles, on plain tensors."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch
from conftest import drifting, small_network
from torch import Tensor

from vs_vsr.models.stream import Span
from vs_vsr.streaming.clip import Clip
from vs_vsr.streaming.plan import Plan, Step
from vs_vsr.streaming.runner import Runner
from vs_vsr.streaming.scenes import Marks, Scenes
from vs_vsr.streaming.tiles import Tile, tiles

SIZE = (40, 52)
NO_MARKS: Marks = (None, None)


def clip(
    plan: Plan,
    frames: Sequence[Tensor],
    marks: Sequence[Marks] | None = None,
    scenes: Scenes = "props",
    parts: Sequence[Tile] | None = None,
) -> Clip:
    return Clip(small_network(), plan, frames, scenes=scenes, marks=marks, parts=parts)


def pictures(
    plan: Plan,
    frames: Sequence[Tensor],
    order: Iterable[int] | None = None,
    marks: Sequence[Marks] | None = None,
    scenes: Scenes = "props",
) -> Tensor:
    through = clip(plan, frames, marks, scenes)
    done = {k: through.chunk(k) for k in (order if order is not None else range(plan.chunks))}
    return torch.cat([done[k] for k in sorted(done)])


PLAN = Plan(frames=27, chunk=4, lookahead=3, segment=16, preroll=5)


@pytest.mark.slow
def test_any_order_gives_the_same_bits() -> None:
    frames = drifting(PLAN.frames, *SIZE)
    in_order = pictures(PLAN, frames)
    assert not in_order.isnan().any()
    for order in (range(PLAN.chunks - 1, -1, -1), random.Random(5).sample(range(7), 7)):
        assert torch.equal(pictures(PLAN, frames, order), in_order)


def test_a_seek_runs_the_forward_branch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    through = clip(PLAN, drifting(PLAN.frames, *SIZE))
    steps: list[Step] = []
    plain = through.runner.run

    def noted(step: Step, *args: Any) -> bool:
        steps.append(step)
        return plain(step, *args)

    monkeypatch.setattr(through.runner, "run", noted)
    through.chunk(6)
    assert [(step.chunk, step.render) for step in steps] == [(4, False), (5, False), (6, True)]


def test_one_chunk_is_the_whole_clip() -> None:
    frames = drifting(9, *SIZE)
    whole = small_network()(torch.stack(frames, dim=1))[0]
    assert torch.equal(pictures(Plan(frames=9, chunk=9, segment=9), frames), whole)


@pytest.mark.slow
def test_more_context_comes_nearer_to_the_whole_clip() -> None:
    frames = drifting(24, *SIZE)
    whole = small_network()(torch.stack(frames, dim=1))[0]
    errors = [
        (
            pictures(
                Plan(frames=24, chunk=6, lookahead=context, segment=12, preroll=context), frames
            )
            - whole
        )
        .abs()
        .mean()
        .item()
        for context in (0, 2, 6, 24)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0
    assert errors[-1] < 1e-6


@pytest.mark.slow
# At the borders of chunks and segments and beside them; by either mark.
@pytest.mark.parametrize(
    ("cut", "mark"),
    [*((cut, (True, False)) for cut in (8, 9, 16, 18, 25)), (16, (False, True))],
)
def test_nothing_crosses_a_cut(cut: int, mark: Marks) -> None:
    frames = drifting(PLAN.frames, *SIZE)
    marks = [NO_MARKS] * PLAN.frames
    marks[cut if mark[0] else cut - 1] = mark
    want = pictures(PLAN, frames, marks=marks)
    noise = [torch.rand_like(frame) for frame in frames]
    after = pictures(PLAN, [*noise[:cut], *frames[cut:]], marks=marks)
    assert torch.equal(after[cut:], want[cut:])
    before = pictures(PLAN, [*frames[:cut], *noise[cut:]], marks=marks)
    assert torch.equal(before[:cut], want[:cut])
    assert not torch.equal(pictures(PLAN, frames)[cut], want[cut])


@pytest.mark.slow
def test_whole_clip_sides_of_a_cut_equal_separate_clips() -> None:
    frames = drifting(15, *SIZE)
    marks = [NO_MARKS] * 15
    marks[6] = (True, False)
    whole = pictures(Plan(frames=15, chunk=15, segment=15), frames, marks=marks)
    left = pictures(Plan(frames=6, chunk=6, segment=6), frames[:6])
    right = pictures(Plan(frames=9, chunk=9, segment=9), frames[6:])
    assert torch.equal(whole, torch.cat((left, right)))


@pytest.mark.slow
def test_any_order_gives_the_same_bits_with_cuts_found_in_the_pictures() -> None:
    frames = [*drifting(14, *SIZE), *drifting(13, *SIZE, seed=9)]
    in_order = pictures(PLAN, frames, scenes="detect")
    shuffled = random.Random(6).sample(range(PLAN.chunks), PLAN.chunks)
    assert torch.equal(pictures(PLAN, frames, shuffled, scenes="detect"), in_order)
    marks = [NO_MARKS] * PLAN.frames
    marks[14] = (True, False)
    assert torch.equal(in_order, pictures(PLAN, frames, marks=marks))
    assert torch.equal(pictures(PLAN, frames), pictures(PLAN, frames, marks=marks, scenes="off"))


@pytest.mark.slow
def test_pairs_with_marks_and_without_in_any_order() -> None:
    # The scene changes at a chunk's border, at a segment's, where a mark says that it does not, and
    # inside a chunk.
    parts = [drifting(PLAN.frames, *SIZE, seed=seed) for seed in (3, 9, 5, 7)]
    scene = [0] * 8 + [1] * 8 + [2] * 5 + [3] * 6
    frames = [parts[scene[n]][n] for n in range(PLAN.frames)]
    marks = [NO_MARKS] * PLAN.frames
    marks[15] = (None, False)
    # Two cuts that no picture shows, the second at a border.
    marks[5], marks[23] = (True, False), (None, True)
    only = [NO_MARKS] * PLAN.frames
    for cut in (5, 8, 21, 24):
        only[cut] = (True, None)
    want = pictures(PLAN, frames, marks=only, scenes="props")
    orders = (range(7), range(6, -1, -1), random.Random(7).sample(range(7), 7))
    for order in orders:
        assert torch.equal(pictures(PLAN, frames, order, marks, "auto"), want)
    assert not torch.equal(pictures(PLAN, frames, marks=marks, scenes="detect"), want)


@pytest.mark.slow
def test_after_a_chunk_the_source_could_not_give_the_next_starts_cold() -> None:
    frames = drifting(PLAN.frames, *SIZE)
    through = clip(PLAN, frames)
    through.chunk(0)
    through.runner.failed(through.runner.next(1))
    cut = [NO_MARKS] * PLAN.frames
    cut[8] = (True, False)
    alone = pictures(PLAN, frames, marks=cut)
    assert torch.equal(through.chunk(2), alone[8:12])
    assert torch.equal(through.chunk(3), alone[12:16])
    # Once the source gives the chunk after all, what was made without it is made again.
    want = pictures(PLAN, frames)
    assert torch.equal(through.chunk(1), want[4:8])
    assert torch.equal(through.chunk(3), want[12:16])


@pytest.mark.slow
def test_a_preroll_that_comes_after_all() -> None:
    plan = Plan(frames=24, chunk=4, lookahead=1, segment=8, preroll=3)
    frames = drifting(plan.frames, *SIZE)
    through = clip(plan, frames)
    want = clip(plan, frames).chunk(3)
    through.runner.failed(plan.render(2))
    through.chunk(2)
    assert not torch.equal(through.chunk(3), want)
    # The frames before the segment come: what began without them is made again.
    through.chunk(1)
    assert torch.equal(through.chunk(3), want)


def test_a_preroll_over_several_chunks_comes_after_all() -> None:
    plan = Plan(frames=16, chunk=2, segment=8, preroll=5)
    frames = drifting(plan.frames, *SIZE)
    through = clip(plan, frames)
    want = clip(plan, frames).chunk(5)
    through.runner.failed(plan.render(4))
    through.chunk(4)
    # The preroll is frames 3 to 7, which lie in chunks 1, 2 and 3.
    for chunk in (1, 2):
        through.chunk(chunk)
        assert not torch.equal(through.chunk(5), want)
    through.chunk(3)
    assert torch.equal(through.chunk(5), want)


class _Counting:
    """A network of which only the steps matter: its state is the number of frames so far."""

    scale = 1
    frames_per_input = 1

    def step(self, frames: Sequence[Tensor], span: Span, state: Any, out: Any) -> int:
        for i, planes in zip(span.output, out or (), strict=out is not None):
            for plane in planes:
                plane.fill_((state or 0) + i + 1)
        return (state or 0) + len(span.output)


@pytest.mark.parametrize(("seeks", "chunk", "segment"), [(24, 4, 64), (24, 2, 8), (24, 30, 120)])
def test_seeks_side_by_side_take_the_steps_that_are_needed(
    seeks: int, chunk: int, segment: int
) -> None:
    plan = Plan(frames=24 * 1000, chunk=chunk, segment=segment)
    runner = Runner(_Counting(), plan, "off", tiles(1, 1, 0, 0, 1))
    # The last chunk of a segment each; every request does one step and lets others go before.
    last = segment // chunk
    wanted = [i * 990 // segment * last + last - 1 for i in range(seeks)]
    for k in wanted:
        assert runner.expected(k) == plan.render(k)
    steps, turns = 0, list(wanted)
    while turns:
        assert steps <= 2 * seeks * last
        k = turns.pop(0)
        step = runner.next(k)
        frames = [torch.zeros(1, 3, 1, 1)] * (step.last - step.first)
        out = torch.zeros(chunk if step.render else 0, 3, 1, 1, 1)
        planes = [picture.unbind() for picture in out]
        runner.run(step, frames, [NO_MARKS] * len(frames), planes)
        steps += 1
        if step.render:
            assert float(out[-1, 0]) == segment
            runner.ended(k)
        else:
            turns.append(k)
    assert steps == seeks * last
    assert len(runner._states._entries) == 4


def test_requests_that_end_early_keep_no_states() -> None:
    plan = Plan(frames=1000, chunk=1, segment=10)
    runner = Runner(_Counting(), plan, "off", tiles(1, 1, 0, 0, 1))
    wanted = range(9, 200, 10)
    for k in wanted:
        runner.expected(k)
        runner.run(runner.next(k), [torch.zeros(1, 3, 1, 1)], [NO_MARKS], [])
    assert len(runner._states._entries) == len(wanted)
    # The source has failed them all.
    for k in wanted:
        runner.ended(k)
    assert len(runner._states._entries) == 4


def test_a_segment_longer_than_any_clip_takes_no_longer() -> None:
    plan = Plan(frames=24, chunk=4, segment=2**60)
    runner = Runner(_Counting(), plan, "off", tiles(1, 1, 0, 0, 1))
    frames = [torch.zeros(1, 3, 1, 1)] * 4

    def run(step: Step) -> bool:
        out = torch.zeros(4 if step.render else 0, 3, 1, 1, 1)
        return runner.run(step, frames, [NO_MARKS] * 4, [picture.unbind() for picture in out])

    assert not run(runner.next(0))
    missing = runner.next(1)
    runner.failed(missing)
    assert not run(runner.next(2))
    # It comes after all: what was made without it is reported as stale.
    assert run(runner.next(1))
    assert not run(runner.next(3))


def test_the_number_of_states_does_not_grow_with_the_clip() -> None:
    plan = Plan(frames=12, chunk=1, segment=6)
    frames = drifting(12, *SIZE)
    through = clip(plan, frames)
    for chunk in range(plan.chunks):
        through.chunk(chunk)
    assert len(through.runner._states._entries) == 4


def test_tiles_that_see_enough_equal_the_whole_frame() -> None:
    plan = Plan(frames=2, chunk=2, segment=2)
    still = [drifting(1, *SIZE)[0]] * 2
    whole = clip(plan, still).chunk(0)
    tiled = clip(plan, still, parts=tiles(*SIZE, 44, 36, 4)).chunk(0)
    # The flow of a still picture is not quite zero, and it sees the edge of the tile.
    assert (tiled - whole).abs().mean() < 0.01 * whole.abs().mean()
