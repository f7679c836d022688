"""What each network does of its own along its plan, on plain tensors."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import drifting
from hypothesis import given
from hypothesis import strategies as st
from seeded import network
from torch import Tensor, nn

from vs_vsr.models.edvr_features import EDVRFeatures
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


def run(runner: Runner, plan: Plan, frames: list[Tensor], chunk: int, scale: int = 4) -> Tensor:
    """All steps on the way to a chunk."""
    while True:
        step = runner.next(chunk)
        count = len(plan.output(chunk)) if step.render else 0
        out = torch.full((count, 3, 1, scale * HEIGHT, scale * WIDTH), torch.nan)
        part = frames[step.first : step.last]
        runner.run(step, part, [(False, False)] * len(part), [p.unbind() for p in out])
        if step.render:
            return out


def streamed(name: str, plan: Plan, order: list[int]) -> dict[int, Tensor]:
    model: Any = network(name)
    runner = Runner(model, plan, "off", tiles(HEIGHT, WIDTH, 0, 0, model.scale))
    frames = drifting(LENGTH, HEIGHT, WIDTH)
    return {chunk: run(runner, plan, frames, chunk) for chunk in order}


def test_edvr_makes_the_features_of_each_frame_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch, EDVRFeatures, "pyramid")
    plan = Plan(LENGTH, 4, 0, 4, 0, context=4, spares=True)
    streamed("EDVR", plan, list(range(plan.chunks)))
    assert len(calls) == LENGTH


def test_keyframes_lie_on_the_clips_own_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = network("IconVSR")
    found: set[int] = set()
    plain = type(model)._refills

    def noted(self: Any, frames: list[Tensor], stretch: Stretch) -> Any:
        refills = plain(self, frames, stretch)
        found.update(stretch.first + i for i in refills)
        assert all(i in stretch.active for i in refills)
        return refills

    monkeypatch.setattr(type(model), "_refills", noted)
    plan = Plan(LENGTH, 3, 2, 6, 2, context=4, coupled=True)
    streamed("IconVSR", plan, list(range(plan.chunks)))
    # Every fifth by number, and the clip's last.
    assert sorted(found) == [0, 5, 10, 15, 20]
    found.clear()
    streamed("IconVSR", plan, [plan.chunks - 2])
    assert found <= {0, 5, 10, 15, 20}


def test_a_seek_of_iconvsr_looks_ahead_while_it_advances() -> None:
    plan = Plan(LENGTH, 3, 2, 9, 2, context=4, coupled=True)
    in_order = streamed("IconVSR", plan, list(range(plan.chunks)))
    for chunk in range(plan.chunks):
        assert torch.equal(streamed("IconVSR", plan, [chunk])[chunk], in_order[chunk])


def test_realbasicvsr_cleans_each_frame_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch, RealBasicVSR, "_residual")
    plan = Plan(LENGTH, 3, 2, 21, 0)
    streamed("RealBasicVSR", plan, list(range(plan.chunks)))
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
