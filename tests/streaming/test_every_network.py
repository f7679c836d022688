"""What only some of the networks do along their plans, on plain tensors."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
from conftest import drifting, marked
from networks import network
from torch import Tensor, nn

from vs_vsr.models.edvr_features import EDVRFeatures
from vs_vsr.models.iconvsr import IconVSR
from vs_vsr.models.realbasicvsr import RealBasicVSR
from vs_vsr.models.stream import Span
from vs_vsr.streaming.clip import Clip
from vs_vsr.streaming.plan import Plan

HEIGHT, WIDTH, LENGTH = 24, 28, 21


def counted(
    monkeypatch: pytest.MonkeyPatch, kind: type[nn.Module], method: str
) -> list[tuple[Any, ...]]:
    """The arguments of every call of a method from now on."""
    calls: list[tuple[Any, ...]] = []
    plain: Callable[..., Any] = getattr(kind, method)

    def noted(self: nn.Module, *args: Any) -> Any:
        calls.append(args)
        return plain(self, *args)

    monkeypatch.setattr(kind, method, noted)
    return calls


def clip(name: str, plan: Plan, cuts: Iterable[int] = ()) -> Clip:
    frames = drifting(LENGTH, HEIGHT, WIDTH)
    model: Any = network(name)
    return Clip(model, plan, frames, scenes="props", marks=marked(LENGTH, cuts))


def streamed(
    name: str, plan: Plan, order: Iterable[int], cuts: Iterable[int] = ()
) -> dict[int, Tensor]:
    through = clip(name, plan, cuts)
    return {k: through.chunk(k) for k in order}


def test_edvr_makes_the_features_of_each_frame_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch, EDVRFeatures, "pyramid")
    plan = Plan(frames=LENGTH, chunk=4, segment=4, context=4, state_is_cache=True)
    streamed("EDVR", plan, range(plan.chunks), [6])
    assert len(calls) == LENGTH
    calls.clear()
    # A seek makes no more than what the windows of its chunk see, here two on either side.
    streamed("EDVR", plan, [3])
    assert len(calls) == 8


def refilled(
    monkeypatch: pytest.MonkeyPatch, order: Iterable[int], cuts: Iterable[int] = ()
) -> list[list[int]]:
    """Numbers of the keyframes that each step of IconVSR refills, in chunks of 4 with 3 ahead."""
    steps: list[list[int]] = []
    plain = IconVSR._refills

    def noted(self: IconVSR, frames: Sequence[Tensor], span: Span) -> Any:
        refills = plain(self, frames, span)
        steps.append([span.first + i for i in refills])
        return refills

    monkeypatch.setattr(IconVSR, "_refills", noted)
    plan = Plan(frames=LENGTH, chunk=4, lookahead=3, segment=8, preroll=2, context=4, coupled=True)
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


@pytest.mark.slow
def test_a_seek_of_iconvsr_looks_ahead_while_it_advances() -> None:
    plan = Plan(frames=LENGTH, chunk=3, lookahead=2, segment=9, preroll=2, context=4, coupled=True)
    in_order = streamed("IconVSR", plan, range(plan.chunks))
    for chunk in range(plan.chunks):
        assert torch.equal(streamed("IconVSR", plan, [chunk])[chunk], in_order[chunk])


def test_realbasicvsr_cleans_each_frame_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch, RealBasicVSR, "_residual")
    plan = Plan(frames=LENGTH, chunk=3, lookahead=2, segment=21)
    streamed("RealBasicVSR", plan, range(plan.chunks))
    assert len(calls) == LENGTH


@pytest.mark.slow
def test_realbasicvsr_decides_for_each_chunk_by_its_own_frames() -> None:
    model: Any = network("RealBasicVSR")
    changes = [
        float(model._residual(f).abs().mean()) * 255 for f in drifting(LENGTH, HEIGHT, WIDTH)
    ]
    plan = Plan(frames=LENGTH, chunk=3, lookahead=2, segment=6, preroll=2)
    pictures = {}
    for threshold in (255.0, min(changes) / 2):
        again: Any = network("RealBasicVSR")
        again.refine_threshold = threshold
        frames = drifting(LENGTH, HEIGHT, WIDTH)
        pictures[threshold] = list(Clip(again, plan, frames))
        assert torch.equal(Clip(again, plan, frames).chunk(5), pictures[threshold][5])
    one, more = pictures.values()
    assert not torch.allclose(one[5], more[5], atol=1e-4)
