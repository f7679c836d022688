"""Networks whose states last, along their plans: cuts, context, seeks and broken sources."""

import random
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from conftest import Flaky, drifting, marked
from networks import NETWORKS, network
from torch import Tensor

from vs_vsr.models.stream import Span
from vs_vsr.streaming.clip import Clip
from vs_vsr.streaming.plan import Plan

pytestmark = pytest.mark.slow

HEIGHT, WIDTH, LENGTH = 24, 28, 14

PLANS = {name: small.plan for name, small in NETWORKS.items() if small.plan is not None}
# EDVR keeps nothing from frame to frame.
RECURRENT = [name for name, plan in PLANS.items() if not plan.state_is_cache]


@cache
def lasting(name: str) -> Any:
    """The seeded network, made to remember: what a frame shows reaches all others.

    A fresh network forgets a frame within three others, so a state that is wrong would be a picture
    that is right. Larger flows would move all that is remembered out of the picture.
    """
    small, net = NETWORKS[name], network(name)
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            if "spynet" in key and ".8." in key:
                parameter.mul_(0.25)
            elif re.search(small.state_weights, key):
                parameter[:, 3:].mul_(small.gain)
    return net


def clip(model: Any, plan: Plan, frames: Sequence[Tensor], cuts: Iterable[int] = ()) -> Clip:
    return Clip(model, plan, frames, scenes="props", marks=marked(len(frames), cuts))


def streamed(
    model: Any,
    plan: Plan,
    frames: Sequence[Tensor],
    cuts: Iterable[int] = (),
    order: Iterable[int] | None = None,
) -> Tensor:
    through = clip(model, plan, frames, cuts)
    done = {k: through.chunk(k) for k in (order or range(plan.chunks))}
    return torch.cat([done[k] for k in sorted(done)])


def pictures(name: str, frames: Sequence[Tensor], cuts: Iterable[int] = ()) -> Tensor:
    return streamed(lasting(name), PLANS[name], frames, cuts)


def whole(name: str, frames: Sequence[Tensor]) -> Tensor:
    out: Tensor = lasting(name)(torch.stack(list(frames), dim=1))[0]
    return out


@pytest.mark.parametrize("name", RECURRENT)
def test_these_networks_remember(name: str) -> None:
    frames = drifting(LENGTH, HEIGHT, WIDTH)
    other = [*frames[:6], 1 - frames[6], *frames[7:]]
    change = (whole(name, frames) - whole(name, other)).abs().amax((1, 2, 3))
    assert (change[0 if NETWORKS[name].sees_ahead else 6 :] > 1e-4).all()
    # It does not grow without end either, which would hide everything else.
    assert change.max() < 10


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("cut", [4, 6])
def test_nothing_crosses_a_cut(name: str, cut: int) -> None:
    frames = drifting(LENGTH, HEIGHT, WIDTH)
    other = drifting(LENGTH, HEIGHT, WIDTH, seed=11)
    want = pictures(name, frames, [cut])
    after = pictures(name, [*other[:cut], *frames[cut:]], [cut])
    assert torch.equal(after[cut:], want[cut:])
    before = pictures(name, [*frames[:cut], *other[cut:]], [cut])
    assert torch.equal(before[:cut], want[:cut])
    without = pictures(name, frames)
    assert not torch.equal(without[cut - 1], want[cut - 1])
    assert not torch.equal(without[cut], want[cut])


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("cuts", [(), (5, 9)])
def test_any_order_gives_the_same_bits(name: str, cuts: tuple[int, ...]) -> None:
    frames, plan = drifting(LENGTH, HEIGHT, WIDTH), PLANS[name]
    in_order = pictures(name, frames, cuts)
    for order in (
        [*range(plan.chunks)][::-1],
        random.Random(4).sample(range(plan.chunks), plan.chunks),
    ):
        assert torch.equal(streamed(lasting(name), plan, frames, cuts, order), in_order)
    for k in range(plan.chunks):
        alone = clip(lasting(name), plan, frames, cuts).chunk(k)
        assert torch.equal(alone, in_order[plan.output(k).start : plan.output(k).stop])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EDVR", "EDVR deblur"])
@pytest.mark.parametrize("cut", [1, 3, 12])
def test_windows_at_a_cut_are_those_at_the_ends_of_a_clip(name: str, cut: int) -> None:
    frames = drifting(LENGTH, HEIGHT, WIDTH)
    sides = torch.cat((whole(name, frames[:cut]), whole(name, frames[cut:])))
    assert torch.equal(pictures(name, frames, [cut]), sides)
    assert torch.equal(pictures(name, frames), whole(name, frames))


@pytest.mark.slow
@pytest.mark.parametrize("name", RECURRENT)
def test_what_sees_all_of_the_clip_is_the_whole_clip(name: str) -> None:
    frames, like = drifting(LENGTH, HEIGHT, WIDTH), PLANS[name]
    context, coupled = like.context, like.coupled
    # Within one segment (BasicVSR++ carries no state), and from one segment to the next.
    for segment in (3,) if name.startswith("BasicVSRPP") else (15, 3):
        plan = Plan(
            frames=LENGTH,
            chunk=3,
            lookahead=LENGTH,
            segment=segment,
            preroll=LENGTH,
            context=context,
            coupled=coupled,
        )
        got = streamed(lasting(name), plan, frames)
        torch.testing.assert_close(got, whole(name, frames), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECURRENT)
def test_more_context_comes_nearer_to_the_whole_clip(name: str) -> None:
    frames, like = drifting(LENGTH, HEIGHT, WIDTH), PLANS[name]
    errors = []
    for context in (0, 3, 8):
        plan = Plan(
            frames=LENGTH,
            chunk=3,
            lookahead=context,
            segment=like.segment,
            preroll=context,
            context=like.context,
            coupled=like.coupled,
        )
        got = streamed(lasting(name), plan, frames)
        errors.append((got - whole(name, frames)).abs().mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 2 * errors[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_a_chunk_that_fails_spoils_no_other_for_long(name: str) -> None:
    frames, plan = Flaky(drifting(LENGTH, HEIGHT, WIDTH)), PLANS[name]
    through = clip(lasting(name), plan, frames)
    frames.broken = {7}
    came = []
    # Each request may meet the frame anew, in a chunk before its own.
    for k in [*range(plan.chunks)] * 3:
        try:
            assert not through.chunk(k).isnan().any()
            came.append(k)
        except LookupError:
            continue
    around = plan.lookahead + plan.context
    ahead = [k for k in range(plan.chunks) if plan.output(k).stop + around <= 7]
    after = [k for k in range(plan.chunks) if plan.output(k).start > 7]
    assert set(came) == {*ahead, *after}


@pytest.mark.parametrize("name", ["EDVR", "BasicVSRPP restore", "IconVSR"])
@pytest.mark.parametrize("before", [[0, 1], []])
def test_a_source_that_fails_once_leaves_no_trace(name: str, before: list[int]) -> None:
    frames, plan = Flaky(drifting(LENGTH, HEIGHT, WIDTH)), PLANS[name]
    want = pictures(name, frames)
    through = clip(lasting(name), plan, frames)
    for k in before:
        through.chunk(k)
    # In chunk 2 itself: the frames that it looks back at can be read.
    frames.broken = {8}
    with pytest.raises(LookupError):
        through.chunk(2)
    frames.broken = set()
    if not before:
        # That is known only after those frames came.
        through.chunk(1)
    for k in (2, 3):
        assert torch.equal(through.chunk(k), want[3 * k : 3 * k + 3])


@pytest.mark.parametrize("name", ["EDVR", "BasicVSRPP restore", "IconVSR"])
def test_what_a_chunk_looks_back_at_stays_away_until_it_comes(name: str) -> None:
    frames, plan = Flaky(drifting(LENGTH, HEIGHT, WIDTH)), PLANS[name]
    through = clip(lasting(name), plan, frames)
    frames.broken = {5}
    with pytest.raises(LookupError):
        through.chunk(2)
    cold = through.chunk(2)
    assert torch.equal(through.chunk(2), cold)
    frames.broken = set()
    through.chunk(1)
    assert torch.equal(through.chunk(2), pictures(name, frames)[6:9])
    assert not torch.equal(through.chunk(2), cold)


def test_a_part_of_a_shot_is_not_taken_for_all_of_it() -> None:
    # Frames 2 to 7 of a longer shot, of which 4 and 5 are wanted: no end is near.
    frames = drifting(9, HEIGHT, WIDTH)
    model = lasting("EDVR")
    span = Span(6, range(2, 4), range(2, 4), first=2)
    out = torch.empty(2, 1, 3, 4 * HEIGHT, 4 * WIDTH)
    model.step(frames[2:8], span, None, [picture.unbind(1) for picture in out])
    assert torch.equal(out[:, 0], whole("EDVR", frames)[4:6])
