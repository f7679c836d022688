"""One answer per frame, cuts, seeks, broken sources and tiles, on plain tensors."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch
from conftest import drifting, small_network
from torch import Tensor

from vs_vsr.models.stretch import Stretch
from vs_vsr.streaming.plan import Plan, Step
from vs_vsr.streaming.runner import Runner
from vs_vsr.streaming.scenes import Marks, Scenes
from vs_vsr.streaming.tiles import tiles

SIZE = (40, 52)
NO_MARKS: Marks = (None, None)


def make_runner(plan: Plan, scenes: Scenes = "props", tile: int = 0, overlap: int = 0) -> Runner:
    return Runner(small_network(), plan, scenes, tiles(*SIZE, tile, overlap, 4))


def render(
    runner: Runner, plan: Plan, frames: Sequence[Tensor], chunk: int, marks: Sequence[Marks] = ()
) -> Tensor:
    """Do all steps for one chunk, as the compiled part does; (T, 3, 4*H, 4*W)."""
    marks = marks or [NO_MARKS] * len(frames)
    while True:
        step = runner.next(chunk)
        out = torch.full((len(plan.output(chunk)), 3, 1, 4 * SIZE[0], 4 * SIZE[1]), torch.nan)
        planes = [picture.unbind() for picture in out] if step.render else []
        part = slice(step.first, step.last)
        runner.run(step, frames[part], marks[part], planes)
        if step.render:
            assert step.chunk == chunk
            return out[:, :, 0]


def pictures(
    plan: Plan,
    frames: Sequence[Tensor],
    order: Iterable[int] | None = None,
    marks: Sequence[Marks] = (),
    scenes: Scenes = "props",
) -> Tensor:
    runner = make_runner(plan, scenes)
    done = {
        chunk: render(runner, plan, frames, chunk, marks)
        for chunk in (order if order is not None else range(plan.chunks))
    }
    return torch.cat([done[chunk] for chunk in sorted(done)])


PLAN = Plan(frames=27, chunk=4, lookahead=3, segment=16, preroll=5)


def test_any_order_gives_the_same_bits() -> None:
    frames = drifting(PLAN.frames, *SIZE)
    in_order = pictures(PLAN, frames)
    assert not in_order.isnan().any()
    for order in (range(PLAN.chunks - 1, -1, -1), random.Random(5).sample(range(7), 7)):
        assert torch.equal(pictures(PLAN, frames, order), in_order)


def test_a_seek_runs_the_forward_branch_alone() -> None:
    runner = make_runner(PLAN)
    steps = []
    frames = drifting(PLAN.frames, *SIZE)
    while not steps or not steps[-1].render:
        steps.append(runner.next(6))
        part = slice(steps[-1].first, steps[-1].last)
        out = torch.empty(3, 3, 1, 160, 208)
        planes = [picture.unbind() for picture in out] if steps[-1].render else []
        runner.run(steps[-1], frames[part], [NO_MARKS] * len(frames[part]), planes)
    assert [(step.chunk, step.render) for step in steps] == [
        (4, False),
        (5, False),
        (6, True),
    ]


def test_one_chunk_is_the_whole_clip() -> None:
    frames = drifting(9, *SIZE)
    whole = small_network()(torch.stack(frames, dim=1))[0]
    assert torch.equal(pictures(Plan(9, 9, 0, 9, 0), frames), whole)


def test_more_context_comes_nearer_to_the_whole_clip() -> None:
    frames = drifting(24, *SIZE)
    whole = small_network()(torch.stack(frames, dim=1))[0]
    errors = [
        (pictures(Plan(24, 6, context, 12, context), frames) - whole).abs().mean().item()
        for context in (0, 2, 6, 24)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0
    assert errors[-1] < 1e-6


@pytest.mark.parametrize("mark", [(True, False), (False, True)])
@pytest.mark.parametrize("cut", [8, 9, 16, 18, 25])
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


def test_whole_clip_sides_of_a_cut_equal_separate_clips() -> None:
    frames = drifting(15, *SIZE)
    marks = [NO_MARKS] * 15
    marks[6] = (True, False)
    whole = pictures(Plan(15, 15, 0, 15, 0), frames, marks=marks)
    left = pictures(Plan(6, 6, 0, 6, 0), frames[:6])
    right = pictures(Plan(9, 9, 0, 9, 0), frames[6:])
    assert torch.equal(whole, torch.cat((left, right)))


def test_any_order_gives_the_same_bits_with_cuts_found_in_the_pictures() -> None:
    frames = [*drifting(14, *SIZE), *drifting(13, *SIZE, seed=9)]
    in_order = pictures(PLAN, frames, scenes="detect")
    shuffled = random.Random(6).sample(range(PLAN.chunks), PLAN.chunks)
    assert torch.equal(pictures(PLAN, frames, shuffled, scenes="detect"), in_order)
    marks = [NO_MARKS] * PLAN.frames
    marks[14] = (True, False)
    assert torch.equal(in_order, pictures(PLAN, frames, marks=marks))
    assert torch.equal(pictures(PLAN, frames), pictures(PLAN, frames, marks=marks, scenes="off"))


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


def test_after_a_chunk_the_source_could_not_give_the_next_starts_cold() -> None:
    frames = drifting(PLAN.frames, *SIZE)
    runner = make_runner(PLAN)
    render(runner, PLAN, frames, 0)
    runner.failed(runner.next(1))
    cut = [NO_MARKS] * PLAN.frames
    cut[8] = (True, False)
    alone = pictures(PLAN, frames, marks=cut)
    assert torch.equal(render(runner, PLAN, frames, 2), alone[8:12])
    assert torch.equal(render(runner, PLAN, frames, 3), alone[12:16])
    # Once the source gives the chunk after all, what stood on its absence is made again.
    want = pictures(PLAN, frames)
    assert torch.equal(render(runner, PLAN, frames, 1), want[4:8])
    assert torch.equal(render(runner, PLAN, frames, 3), want[12:16])


def test_a_preroll_that_comes_after_all() -> None:
    plan = Plan(frames=24, chunk=4, lookahead=1, segment=8, preroll=3)
    frames = drifting(plan.frames, *SIZE)
    runner = make_runner(plan)
    want = render(make_runner(plan), plan, frames, 3)
    runner.failed(plan.render(2))
    render(runner, plan, frames, 2)
    assert not torch.equal(render(runner, plan, frames, 3), want)
    # The frames before the segment come: what began without them is made again.
    render(runner, plan, frames, 1)
    assert torch.equal(render(runner, plan, frames, 3), want)


def test_a_preroll_over_several_chunks_comes_after_all() -> None:
    plan = Plan(frames=16, chunk=2, lookahead=0, segment=8, preroll=5)
    frames = drifting(plan.frames, *SIZE)
    runner = make_runner(plan)
    want = render(make_runner(plan), plan, frames, 5)
    runner.failed(plan.render(4))
    render(runner, plan, frames, 4)
    # Frames 3 to 7 are looked back at: of chunks 1, 2 and 3.
    for chunk in (1, 2):
        render(runner, plan, frames, chunk)
        assert not torch.equal(render(runner, plan, frames, 5), want)
    render(runner, plan, frames, 3)
    assert torch.equal(render(runner, plan, frames, 5), want)


class _Counting:
    """A network of which only the steps matter: its state is the number of frames it has seen."""

    scale = 1

    def step(self, frames: Sequence[Tensor], stretch: Stretch, state: Any, out: Any) -> int:
        for i, planes in zip(stretch.own, out or (), strict=out is not None):
            for plane in planes:
                plane.fill_((state or 0) + i + 1)
        return (state or 0) + len(stretch.own)


@pytest.mark.parametrize(("seeks", "chunk", "segment"), [(24, 4, 64), (24, 2, 8), (24, 30, 120)])
def test_seeks_side_by_side_take_the_steps_that_are_needed(
    seeks: int, chunk: int, segment: int
) -> None:
    plan = Plan(frames=24 * 1000, chunk=chunk, lookahead=0, segment=segment, preroll=0)
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
    plan = Plan(frames=1000, chunk=1, lookahead=0, segment=10, preroll=0)
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
    plan = Plan(frames=24, chunk=4, lookahead=0, segment=2**60, preroll=0)
    runner = Runner(_Counting(), plan, "off", tiles(1, 1, 0, 0, 1))
    frames = [torch.zeros(1, 3, 1, 1)] * 4

    def run(step: Step) -> bool:
        out = torch.zeros(4 if step.render else 0, 3, 1, 1, 1)
        return runner.run(step, frames, [NO_MARKS] * 4, [picture.unbind() for picture in out])

    assert not run(runner.next(0))
    missing = runner.next(1)
    runner.failed(missing)
    assert not run(runner.next(2))
    # It comes after all: what was made without it is told to be stale.
    assert run(runner.next(1))
    assert not run(runner.next(3))


def test_the_number_of_states_does_not_grow_with_the_clip() -> None:
    plan = Plan(12, 1, 0, 6, 0)
    runner = make_runner(plan)
    frames = drifting(12, *SIZE)
    for chunk in range(plan.chunks):
        render(runner, plan, frames, chunk)
    assert len(runner._states._entries) == 4


def test_tiles_that_see_enough_equal_the_whole_frame() -> None:
    plan = Plan(2, 2, 0, 2, 0)
    still = [drifting(1, *SIZE)[0]] * 2
    whole = render(make_runner(plan), plan, still, 0)
    tiled = render(make_runner(plan, tile=44, overlap=36), plan, still, 0)
    # The flow of a still picture is not quite zero, and it sees the edge of the tile.
    assert (tiled - whole).abs().mean() < 0.01 * whole.abs().mean()
