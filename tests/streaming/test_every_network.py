"""What each network does of its own along its plan, on plain tensors."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import pytest
import torch
from conftest import drifting
from hypothesis import given
from hypothesis import strategies as st
from seeded import network
from torch import Tensor, nn

from vs_vsr.models.edvr_features import EDVRFeatures
from vs_vsr.models.iconvsr import IconVSR
from vs_vsr.models.realbasicvsr import RealBasicVSR
from vs_vsr.models.stretch import Stretch
from vs_vsr.streaming.plan import Plan, WindowPlan
from vs_vsr.streaming.runner import Runner
from vs_vsr.streaming.tiles import tiles

HEIGHT, WIDTH, LENGTH = 24, 28, 21


def counted(
    monkeypatch: pytest.MonkeyPatch, kind: type[nn.Module], method: str
) -> list[tuple[Any, ...]]:
    """Arguments of every call of a method from now on."""
    calls: list[tuple[Any, ...]] = []
    plain: Callable[..., Any] = getattr(kind, method)

    def noted(self: nn.Module, *args: Any) -> Any:
        calls.append(args)
        return plain(self, *args)

    monkeypatch.setattr(kind, method, noted)
    return calls


def run(
    runner: Runner, plan: Plan, frames: list[Tensor], chunk: int, cuts: Collection[int] = ()
) -> Tensor:
    """All steps on the way to a chunk."""
    while True:
        step = runner.next(chunk)
        count = len(plan.output(chunk)) if step.render else 0
        out = torch.full((count, 3, 1, 4 * HEIGHT, 4 * WIDTH), torch.nan)
        numbers = range(step.first, step.last)
        marks = [(n in cuts, False) for n in numbers]
        runner.run(step, [frames[n] for n in numbers], marks, [p.unbind() for p in out])
        if step.render:
            return out


def streamed(
    name: str, plan: Plan, order: Iterable[int], cuts: Collection[int] = ()
) -> dict[int, Tensor]:
    model: Any = network(name)
    runner = Runner(model, plan, "props", tiles(HEIGHT, WIDTH, 0, 0, model.scale))
    frames = drifting(LENGTH, HEIGHT, WIDTH)
    return {chunk: run(runner, plan, frames, chunk, cuts) for chunk in order}


def test_edvr_makes_the_features_of_each_frame_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch, EDVRFeatures, "pyramid")
    plan = Plan(LENGTH, 4, 0, 4, 0, context=4, spares=True)
    streamed("EDVR", plan, range(plan.chunks), [6])
    assert len(calls) == LENGTH
    calls.clear()
    # A seek makes no more than what the windows of its chunk see, here two on either side.
    streamed("EDVR", plan, [3])
    assert len(calls) == 8


def refilled(
    monkeypatch: pytest.MonkeyPatch, order: Iterable[int], cuts: Collection[int] = ()
) -> list[list[int]]:
    """Numbers of the keyframes that each step of IconVSR refills, in chunks of 4 with 3 ahead."""
    steps: list[list[int]] = []
    plain = IconVSR._refills

    def noted(self: IconVSR, frames: Sequence[Tensor], stretch: Stretch) -> Any:
        refills = plain(self, frames, stretch)
        steps.append([stretch.first + i for i in refills])
        return refills

    monkeypatch.setattr(IconVSR, "_refills", noted)
    plan = Plan(LENGTH, 4, 3, 8, 2, context=4, coupled=True)
    streamed("IconVSR", plan, order, cuts)
    return steps


def test_a_keyframe_is_one_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    # Segments of 8 warm up over 2; the clip's last frame is one by its place too.
    in_order = [[0, 5], [5, 10], [10], [15], [15, 20], [20]]
    assert refilled(monkeypatch, range(6)) == in_order


def test_a_seek_refills_what_going_in_order_did(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refilled(monkeypatch, [3]) == [[10], [15]]


def test_the_ends_of_a_shot_are_keyframes_and_the_grid_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    want = [[0, 5], [5, 7, 8, 10], [7, 8, 10], [15], [15, 20], [20]]
    assert refilled(monkeypatch, range(6), [8]) == want


def test_a_seek_of_iconvsr_looks_ahead_while_it_advances() -> None:
    plan = Plan(LENGTH, 3, 2, 9, 2, context=4, coupled=True)
    in_order = streamed("IconVSR", plan, range(plan.chunks))
    for chunk in range(plan.chunks):
        assert torch.equal(streamed("IconVSR", plan, [chunk])[chunk], in_order[chunk])


def test_realbasicvsr_cleans_each_frame_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch, RealBasicVSR, "_residual")
    plan = Plan(LENGTH, 3, 2, 21, 0)
    streamed("RealBasicVSR", plan, range(plan.chunks))
    assert len(calls) == LENGTH


def test_realbasicvsr_decides_for_each_chunk_by_its_own_frames() -> None:
    model: Any = network("RealBasicVSR")
    changes = [
        float(model._residual(f).abs().mean()) * 255 for f in drifting(LENGTH, HEIGHT, WIDTH)
    ]
    plan = Plan(LENGTH, 3, 2, 6, 2)
    pictures = {}
    for threshold in (255.0, min(changes) / 2):
        again: Any = network("RealBasicVSR")
        again.refine_threshold = threshold
        runner = Runner(again, plan, "off", tiles(HEIGHT, WIDTH, 0, 0, 4))
        frames = drifting(LENGTH, HEIGHT, WIDTH)
        order = list(range(plan.chunks))
        pictures[threshold] = {k: run(runner, plan, frames, k) for k in order}
        fresh = Runner(again, plan, "off", tiles(HEIGHT, WIDTH, 0, 0, 4))
        assert torch.equal(run(fresh, plan, frames, 5), pictures[threshold][5])
    one, more = pictures.values()
    assert not torch.allclose(one[5], more[5], atol=1e-4)


WINDOWS = st.builds(
    lambda frames, chunk, share: WindowPlan(frames, chunk, min(share, chunk), chunk, 0),
    st.integers(1, 200),
    st.integers(1, 40),
    st.integers(0, 40),
)


@given(WINDOWS)
def test_windows_lie_where_the_reference_puts_them(plan: WindowPlan) -> None:
    length, stride = plan.chunk + plan.lookahead, plan.chunk
    starts = [*range(0, plan.frames - length, stride), max(0, plan.frames - length)]
    found = [window for chunk in range(plan.chunks) for window in plan.windows(chunk)]
    assert [window.start for window in found] == starts
    assert all(len(window) == min(length, plan.frames) for window in found)


@given(WINDOWS)
def test_a_seek_makes_every_window_that_reaches_the_chunk(plan: WindowPlan) -> None:
    for chunk in range(plan.chunks):
        start = plan.segment_start(chunk)
        assert 0 <= start <= chunk
        made = [w for k in range(start, chunk + 1) for w in plan.windows(k)]
        own = plan.output(chunk)
        reaching = [
            w
            for k in range(plan.chunks)
            for w in plan.windows(k)
            if w.start < own.stop and w.stop > own.start
        ]
        assert [w for w in made if w in reaching] == reaching
        step = plan.render(chunk)
        assert 0 <= step.first <= own.start < own.stop <= step.last <= plan.frames
        assert all(step.first <= w.start and w.stop <= step.last for w in plan.windows(chunk))
        later = [k for k in range(chunk + 1, plan.chunks) if plan.segment_start(k) <= chunk]
        assert set(later) <= set(plan.reached(chunk))


@given(
    st.integers(1, 200), st.integers(1, 30), st.integers(0, 20), st.integers(1, 4),
    st.integers(0, 20), st.integers(0, 6), st.booleans(), st.booleans(),
)  # fmt: skip
def test_steps_with_context_stay_in_the_clip(
    frames: int, chunk: int, lookahead: int, chunks: int, preroll: int, context: int,
    coupled: bool, cold: bool,
) -> None:  # fmt: skip
    plan = Plan(frames, chunk, lookahead, chunks * chunk, preroll, context, coupled)
    for k in range(plan.chunks):
        out = plan.output(k)
        for step in (plan.render(k, cold=cold), plan.advance(k, cold=cold)):
            active = plan.active(step)
            assert 0 <= step.first <= active.start <= out.start
            assert out.stop <= active.stop <= step.last <= frames
            if step.render or coupled:
                assert active.stop == min(out.stop + lookahead, frames)
                assert step.last == min(out.stop + lookahead + context, frames)
            if cold:
                assert step.first == out.start
            else:
                assert active.start == out.start - plan.warm_up(k)
                assert step.first == max(active.start - context, 0)
