"""VRT's streams on a cheap stand-in network: windows, cuts, orders and broken sources."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from conftest import Flaky, marked
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vs_vsr.models.stream import shots
from vs_vsr.models.vrt import VRT
from vs_vsr.streaming.clip import Clip
from vs_vsr.streaming.plan import Plan, WindowPlan
from vs_vsr.streaming.windows import WindowStream

SIDE = 2
BASE = 100.0


class StandIn:
    """Called like VRT; its picture of a frame depends on the whole clip and on the place."""

    scale = 1
    frames_per_input = 1
    interpolates = False
    step = VRT.step

    def in_space(self, clip: Tensor, *, tile: int, overlap: int, sigma: float | None) -> Tensor:
        place = torch.arange(1.0, clip.shape[1] + 1).view(1, -1, 1, 1, 1)
        return clip * place + clip.mean(1, keepdim=True) + clip[:, -1:] * (sigma or 0)

    def tiled(
        self, clip: Tensor, *, tile: tuple[int, ...], overlap: tuple[int, ...], sigma: float | None
    ) -> Tensor:
        # Whole clips are restored in another way, which must not be taken for a window.
        assert tile[0] == overlap[0] == 0
        return 2 * self.in_space(clip, tile=tile[1], overlap=overlap[1], sigma=sigma)


class Positional:
    """Shows from which four frames a new one is made: their numbers are its digits."""

    scale = 1
    frames_per_input = 2
    interpolates = True
    step = VRT.step
    _interpolate = VRT._interpolate

    def in_space(self, clip: Tensor, *, tile: int, overlap: int) -> Tensor:
        assert clip.shape[1] == 4
        digits = BASE ** torch.arange(4.0, dtype=torch.float64).view(1, 4, 1, 1, 1)
        return (clip * digits).sum(1, keepdim=True)


def clip_of(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.rand(1, 3, SIDE, SIDE, generator=generator) for _ in range(count)]


def clip(stream: Any, plan: Plan, frames: Sequence[Tensor], cuts: Iterable[int]) -> Clip:
    return Clip(stream, plan, frames, scenes="props", marks=marked(len(frames), cuts))


def averaged(frames: Sequence[Tensor], plan: WindowPlan, cuts: set[int]) -> Tensor:
    """What the reference makes: windows a stride apart, the last one at the end, averaged."""
    count, length = len(frames), plan.chunk + plan.lookahead
    starts = [*range(0, count - length, plan.chunk), max(0, count - length)]
    total, times = torch.zeros(count, 3, SIDE, SIDE), torch.zeros(count, 1, 1, 1)
    network = StandIn()
    for start in starts:
        for shot in shots(range(start, min(start + length, count)), cuts):
            clip = torch.stack([frames[i] for i in shot], dim=1)
            picture = network.in_space(clip, tile=0, overlap=0, sigma=0.5)
            total[shot.start : shot.stop] += picture[0]
            times[shot.start : shot.stop] += 1
    return total / times


@st.composite
def window_plans(draw: st.DrawFn) -> tuple[WindowPlan, set[int]]:
    frames, chunk = draw(st.integers(1, 40)), draw(st.integers(1, 9))
    lookahead = draw(st.integers(0, chunk))
    return (
        WindowPlan(frames=frames, chunk=chunk, lookahead=lookahead, segment=chunk),
        draw(st.sets(st.integers(0, frames - 1), max_size=4)),
    )


def windowed(plan: WindowPlan, cuts: Iterable[int], frames: Sequence[Tensor] | None = None) -> Clip:
    network: Any = StandIn()
    stream = WindowStream(network, plan, tile=0, overlap=0, sigma=0.5)
    return clip(stream, plan, frames or clip_of(plan.frames), cuts)


@given(window_plans(), st.randoms(use_true_random=False))
def test_windows_are_averaged_as_the_reference_does_in_any_order(
    drawn: tuple[WindowPlan, set[int]], chance: Any
) -> None:
    plan, cuts = drawn
    in_order = list(windowed(plan, cuts))
    want = averaged(clip_of(plan.frames), plan, cuts)
    torch.testing.assert_close(torch.cat(in_order), want)
    through = windowed(plan, cuts)
    for chunk in chance.choices(range(plan.chunks), k=2 * plan.chunks):
        assert torch.equal(through.chunk(chunk), in_order[chunk])


def test_a_whole_clip_is_taken_at_once_and_a_short_one_is_not() -> None:
    plan, frames = WindowPlan(frames=5, chunk=5, segment=5), clip_of(5)
    network: Any = StandIn()
    for extend, factor in ((True, 2), (False, 1)):
        stream = WindowStream(network, plan, tile=0, overlap=0, sigma=0.5, extend=extend)
        stacked = torch.stack(frames, dim=1)
        want = factor * network.in_space(stacked, tile=0, overlap=0, sigma=0.5)[0]
        assert torch.equal(clip(stream, plan, frames, ()).chunk(0), want)


@given(window_plans(), st.data())
def test_after_a_broken_source_is_whole_again_all_pictures_are_as_ever(
    drawn: tuple[WindowPlan, set[int]], data: st.DataObject
) -> None:
    plan, cuts = drawn
    frames = Flaky(clip_of(plan.frames))
    through = windowed(plan, cuts, frames)
    chunks = st.integers(0, plan.chunks - 1)
    for chunk in data.draw(st.lists(chunks, max_size=12)):
        frames.broken = data.draw(st.sets(st.integers(0, plan.frames - 1), max_size=2))
        step = plan.render(chunk)
        try:
            pictures = through.chunk(chunk)
        except LookupError:
            continue
        # Whichever frames fail, the pictures of all others are filled.
        assert not frames.broken & set(range(step.first, step.last))
        assert not pictures.isnan().any()
    frames.broken = set()
    # A chunk that comes after all repairs those after it.
    for got, want in zip(through, windowed(plan, cuts), strict=True):
        assert torch.equal(got, want)


@given(
    st.integers(1, 30), st.integers(1, 9), st.sets(st.integers(1, 29), max_size=4),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_a_new_frame_is_made_of_two_on_either_side_within_the_shot(
    count: int, chunk: int, cuts: set[int], chance: Any
) -> None:
    plan = Plan(frames=count, chunk=chunk, segment=chunk, context=2)
    network: Any = Positional()
    # The number of a frame is its picture.
    frames = [torch.full((1, 3, SIDE, SIDE), float(n), dtype=torch.float64) for n in range(count)]
    stream = WindowStream(network, None, tile=0, overlap=0)
    through = clip(stream, plan, frames, cuts)
    for k in chance.sample(range(plan.chunks), plan.chunks):
        pictures = through.chunk(k)
        for n in plan.output(k):
            shot = next(s for s in shots(range(count), cuts) if n in s)
            old, new = pictures[2 * (n - plan.output(k).start) :][:2]
            assert torch.equal(old, frames[n][0])
            around = [min(max(i, shot.start), shot.stop - 1) for i in range(n - 1, n + 3)]
            made = sum(BASE**digit * i for digit, i in enumerate(around))
            assert (new == (made if n + 1 in shot else n)).all()
