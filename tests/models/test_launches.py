"""What each network asks of a GPU: how many operations, and nothing that a CUDA graph refuses.

Counted at 320x180 in half precision, along the default plan of the filter, in a chunk in the middle
of a segment. `tests/launches.py` says what counts. A bound is what was counted, rounded up: when a
change needs fewer operations, lower it.

The rules are those of a capture: no wait for a number or for a size, no copy of the host's memory
and no constant made inside a step, so no shape or branch that depends on values. A constant that is
made once for a size is made in the chunk before, which is not counted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from conftest import drifting, small_network
from launches import Launches, chunk, counted, on_meta
from networks import NETWORKS, STREAMED, network, vrt
from torch import Tensor, nn

from vs_vsr.models.animesr import AnimeSR
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.basicvsrpp import BasicVSRPP
from vs_vsr.models.edvr import EDVR
from vs_vsr.models.iconvsr import IconVSR
from vs_vsr.models.layers import Upsampler
from vs_vsr.models.realbasicvsr import RealBasicVSR
from vs_vsr.models.sampling import prepared
from vs_vsr.models.spynet import SPyNet
from vs_vsr.models.stream import Span
from vs_vsr.streaming.plan import Plan, WindowPlan
from vs_vsr.streaming.windows import WindowStream


def _carried(context: int = 0) -> Plan:
    return Plan(
        frames=76,
        chunk=30,
        lookahead=15,
        segment=120,
        preroll=10,
        context=context,
        coupled=bool(context),
    )


_WINDOWS = Plan(frames=22, chunk=10, segment=10, context=4, state_is_cache=True)


@dataclass(frozen=True)
class Bound:
    """The most that a frame of a network may ask for."""

    make: Callable[[], nn.Module]
    plan: Plan
    operations: int
    launches: int
    deformable: int = 0
    """Calls of the deformable operator in the chunk."""
    number: int = 1
    """The chunk that is counted."""


BOUNDS = {
    "BasicVSR": Bound(BasicVSR, _carried(), 334, 494),
    "IconVSR": Bound(IconVSR, _carried(4), 414, 605, 36),
    "RealBasicVSR": Bound(RealBasicVSR, _carried(), 319, 471),
    "EDVR M": Bound(EDVR, _WINDOWS, 207, 275, 40),
    "EDVR L": Bound(lambda: EDVR(128, reconstruction_blocks=40), _WINDOWS, 330, 458, 60),
    "BasicVSR++": Bound(
        BasicVSRPP,
        Plan(frames=100, chunk=60, lookahead=15, segment=60, preroll=15),
        400,
        550,
        8 * 89,
        number=0,
    ),
    "AnimeSR": Bound(
        AnimeSR,
        Plan(frames=4, chunk=1, segment=120, preroll=8, context=1, coupled=True),
        71,
        96,
    ),
}


def assert_a_graph_can_hold_it(found: Launches) -> None:
    assert found.breaks == []
    assert found.arange == 0
    assert found.strided == []


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDS)
def test_a_frame_takes_no_more_than_this(name: str) -> None:
    bound = BOUNDS[name]
    found = chunk(on_meta(bound.make()), bound.plan, bound.number)
    frames = len(bound.plan.output(bound.number))
    assert found.total <= bound.operations * frames
    assert found.launches <= bound.launches * frames
    assert_a_graph_can_hold_it(found)
    deformable = found.operations["deform_conv2d"]
    assert deformable <= bound.deformable
    # torchvision's operator takes float32 for all of: its input, the head that makes offsets and
    # mask, the mask after the sigmoid (and the offsets after tanh), the result. Nothing else is.
    assert found.wide.total() <= 6 * deformable


@pytest.mark.slow
@pytest.mark.parametrize("name", STREAMED)
def test_in_both_precisions_a_graph_can_hold_a_step(name: str) -> None:
    """Of networks of all forms, at a size that is a multiple of nothing."""
    plan = NETWORKS[name].plan
    assert plan is not None
    for dtype in (torch.float16, torch.float32):
        found = chunk(on_meta(network(name), dtype), plan, 1, height=45, width=70)
        assert_a_graph_can_hold_it(found)


def features(channels: int) -> Tensor:
    """Of one frame, channels_last."""
    x = torch.empty(1, 180, 320, channels, dtype=torch.float16, device="meta")
    return x.permute(0, 3, 1, 2)


def test_what_a_step_of_a_branch_asks_for() -> None:
    """A warp, a concat, and of each convolution itself and what follows it: 124 operations."""
    model: Any = on_meta(BasicVSR())
    flows = torch.empty(44, 2, 180, 320, device="meta")
    prepared(flows, 44, torch.float16)
    with counted() as found:
        # What the warps of a chunk read is found for all of them at once.
        ready = prepared(flows, 44, torch.float16)
    assert found.total <= 18
    for flow, operations in ((ready[0], 124), (None, 124)):
        model._propagate(model.forward_trunk, features(3), features(64), flow)
        with counted() as found:
            model._propagate(model.forward_trunk, features(3), features(64), flow)
        assert found.total == operations
        assert found.launches == operations + 61
        assert not found.wide
        assert_a_graph_can_hold_it(found)


@pytest.mark.parametrize("planes", ["one tensor", "three"])
def test_what_the_upsampler_asks_for(planes: str) -> None:
    upsampler = on_meta(Upsampler(64))
    base = torch.empty(1, 3, 720, 1280, device="meta")
    out = torch.empty(3, 1, 720, 1280, device="meta")
    with counted() as found:
        upsampler(features(64), base, out if planes == "one tensor" else out.unbind())
    assert found.total == (10 if planes == "one tensor" else 12)
    assert_a_graph_can_hold_it(found)


@pytest.mark.slow
def test_all_flows_of_a_chunk_are_one_batch_of_flow_networks() -> None:
    spynet = on_meta(SPyNet())
    frames = torch.empty(44, 3, 180, 320, device="meta")
    spynet(frames[:1], frames[:1])
    with counted() as found:
        spynet(frames, frames)
    assert found.operations["convolution"] == 30
    assert found.total <= 122
    assert_a_graph_can_hold_it(found)
    # A frame of 960x540 has few pairs at once, so that memory stays what it is.
    frames = torch.empty(44, 3, 540, 960, device="meta")
    with counted() as found:
        spynet(frames, frames)
    assert found.operations["convolution"] == 30 * -(-44 // 8)


@pytest.mark.parametrize("cuts", [(), (5,)])
def test_a_state_that_is_made_again_asks_for_flows_in_the_same_batches(
    cuts: tuple[int, ...],
) -> None:
    """A GPU chooses how to compute by the shapes, so others would be other bits."""
    model = small_network()
    sizes: list[int] = []
    model.spynet.register_forward_hook(lambda net, inputs, flows: sizes.append(len(inputs[0])))
    frames = drifting(12, 24, 28)
    span = Span(12, range(3, 8), range(12), cuts=cuts)
    out = list(torch.empty(5, 3, 1, 96, 112))
    rendered: Any = model.step(frames, span, None, out)
    with_pictures = sizes.copy()
    sizes.clear()
    again: Any = model.step(frames[:8], Span(8, range(3, 8), range(8), cuts=cuts), None, None)
    backward = [6, 1] if cuts else [8]
    first = len(with_pictures) - len(sizes)
    assert [*sizes[:1], *with_pictures[1 : 1 + first], *sizes[1:]] == with_pictures
    assert first == len(backward)
    assert torch.equal(rendered.feature, again.feature)


@pytest.mark.slow
def test_transformer() -> None:
    """A small one, along its windows; its stages are those of the published ones."""
    model: Any = on_meta(vrt(upscale=4))
    plan = WindowPlan(frames=12, chunk=5, lookahead=1, segment=5)
    stream = WindowStream(model, plan, tile=0, overlap=0)
    found = chunk(stream, plan, 1, height=64, width=64)
    assert found.total <= 1492 * len(plan.output(1))
    assert found.breaks == []
    assert found.strided == []


def test_what_the_count_finds() -> None:
    """Each kind of what a graph refuses, and what is left out."""
    x = torch.empty(2, 64, 8, 8, device="meta")
    with counted() as found:
        x.half().float()
        x[:, :3].permute(0, 2, 3, 1).unbind()
        torch.empty_like(x)
    assert found.operations == {"_to_copy": 2}
    assert found.wide == {"_to_copy": 1}
    for act in (
        lambda: x.new_tensor((1.0, 2.0)),
        lambda: x + torch.ones(1, 64, 8, 8).to("meta"),
        lambda: x.index_select(1, torch.arange(3).to("meta")),
        lambda: torch.tensor([1, 2], device="meta"),
    ):
        with counted() as found:
            act()
        assert len(found.breaks) >= 1
    weight = torch.empty(4, 64, 3, 3, device="meta")
    with counted() as found:
        torch.conv2d(x, weight, torch.empty(4, device="meta"))
    assert (found.total, found.launches, len(found.strided)) == (1, 2, 2)
