"""`stream` of every network: a clip chunk by chunk, the state in and out."""

from typing import Any

import pytest
import torch
from conftest import drifting, marked
from networks import NETWORKS, STREAMED, network

from vs_vsr.errors import ShapeError
from vs_vsr.streaming.clip import Clip
from vs_vsr.streaming.plan import Plan, WindowPlan
from vs_vsr.streaming.windows import WindowStream

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 24, 28


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("cuts", [(), (5, 9)])
def test_it_gives_the_bits_of_the_plan(name: str, cuts: tuple[int, ...]) -> None:
    plan, model = NETWORKS[name].plan, network(name)
    assert plan is not None
    net: Any = model
    frames = drifting(plan.frames, HEIGHT, WIDTH)
    through = Clip(net, plan, frames, scenes="props", marks=marked(plan.frames, cuts))
    state = None
    for chunk, want in enumerate(through):
        step, output = plan.render(chunk), plan.output(chunk)
        active = plan.active(step)
        if chunk == plan.segment_start(chunk) and not plan.state_is_cache:
            state = None
        inside = {cut - step.first for cut in cuts if step.first <= cut < step.last}
        # The start of a step has a mark only where the frame before it is known.
        inside -= set() if state is not None and step.first == output.start else {0}
        pictures, state = net.stream(
            torch.stack(frames[step.first : step.last], dim=1),
            state,
            lookahead=active.stop - output.stop,
            preroll=output.start - active.start,
            context=(active.start - step.first, step.last - active.stop),
            first=step.first,
            cuts=inside | ({step.last - step.first} if step.last == plan.frames else set()),
        )
        assert torch.equal(pictures[0], want)


def test_the_simplest_call_is_the_next_chunk() -> None:
    model: Any = network("BasicVSR")
    frames = torch.stack(drifting(9, 33, 40), dim=1)
    first, state = model.stream(frames, lookahead=5)
    second, _ = model.stream(frames[:, 4:], state)
    assert torch.equal(torch.cat((first, second), dim=1), model(frames))


def test_windows_of_vrt_are_averaged_from_call_to_call() -> None:
    model: Any = network("VRT denoise")
    plan = WindowPlan(frames=8, chunk=3, lookahead=2, segment=3)
    frames = drifting(8, 64, 64)
    stream = WindowStream(model, plan, tile=0, overlap=0, sigma=20)
    want = torch.cat(list(Clip(stream, plan, frames)))
    stacked = torch.stack(frames, dim=1)
    first, state = model.stream(stacked[:, :5], lookahead=2, sigma=20)
    last, state = model.stream(stacked[:, 3:], state, first=3, sigma=20)
    assert torch.equal(torch.cat((first, last), dim=1)[0], want)
    assert not state


def test_interpolation_gives_two_pictures_a_frame() -> None:
    model: Any = network("VRT interpolate")
    plan = Plan(frames=5, chunk=3, segment=3, context=2)
    frames = drifting(5, 64, 64)
    want = torch.cat(list(Clip(WindowStream(model, None, tile=0, overlap=0), plan, frames)))
    stacked = torch.stack(frames, dim=1)
    first, state = model.stream(stacked, context=(0, 2))
    last, _ = model.stream(stacked[:, 1:], state, context=(2, 0), first=1)
    assert first.shape[1] == 6
    assert torch.equal(torch.cat((first, last), dim=1)[0], want)


def test_a_plan_is_for_the_clip() -> None:
    net: Any = network("BasicVSR")
    message = r"^Clip: frames must be as many as those of the plan \(4\), got 3\. Make a plan for"
    with pytest.raises(ShapeError, match=message):
        Clip(net, Plan.whole(4), drifting(3, HEIGHT, WIDTH))


@pytest.mark.parametrize("name", STREAMED)
def test_what_leaves_no_chunk_is_refused(name: str) -> None:
    model: Any = network(name)
    kind = name.split()[0]
    frames = torch.zeros(1, 5, 3, HEIGHT, WIDTH)
    message = rf"^{kind}: frames must be \(B, T, 3, H, W\) with T above the 5 frames before and aft"
    with pytest.raises(ShapeError, match=message):
        model.stream(frames, lookahead=2, preroll=2, context=(0, 1))
    with pytest.raises(ShapeError, match=rf"^{kind}: frames must be float32 in \[0, 1\]"):
        model.stream(frames.byte())
