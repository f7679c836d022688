"""VRT's streams on a stand-in network that is cheap: windows, cuts, orders and broken sources."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vs_vsr.models.stretch import shots
from vs_vsr.streaming.plan import Plan, WindowPlan
from vs_vsr.streaming.runner import Runner
from vs_vsr.streaming.scenes import Marks
from vs_vsr.streaming.tiles import tiles
from vs_vsr.streaming.windows import InterpolationStream, WindowStream

SIDE = 2
BASE = 100.0


class StandIn:
    """As VRT is called; what it makes of a frame depends on all of the clip and on the place."""

    scale = 1

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
    """Tells of which four frames an interpolated one is made: digits of the frames' numbers."""

    def in_space(self, clip: Tensor, *, tile: int, overlap: int) -> Tensor:
        assert clip.shape[1] == 4
        digits = BASE ** torch.arange(4.0, dtype=torch.float64).view(1, 4, 1, 1, 1)
        return (clip * digits).sum(1, keepdim=True)


def clip_of(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.rand(1, 3, SIDE, SIDE, generator=generator) for _ in range(count)]


def marked(count: int, cuts: Iterable[int]) -> list[Marks]:
    return [(n in set(cuts), False) for n in range(count)]


class Source:
    """Runs what the runner asks for, on frames of which some may be broken."""

    def __init__(self, stream: Any, plan: Plan, frames: Sequence[Tensor], cuts: Iterable[int]):
        self._plan = plan
        self._frames = frames
        self._marks = marked(len(frames), cuts)
        self._runner = Runner(stream, plan, "props", tiles(SIDE, SIDE, 0, 0, 1))
        self.broken: set[int] = set()

    def pictures(self, chunk: int, rate: int = 1) -> Tensor | None:
        """The pictures of a chunk; None where the source could not give a frame."""
        while True:
            step = self._runner.next(chunk)
            if self.broken & set(range(step.first, step.last)):
                self._runner.failed(step)
                return None
            part = slice(step.first, step.last)
            count = rate * len(self._plan.output(chunk)) if step.render else 0
            out = torch.full((count, 3, 1, SIDE, SIDE), torch.nan, dtype=self._frames[0].dtype)
            planes = [picture.unbind() for picture in out]
            self._runner.run(step, self._frames[part], self._marks[part], planes)
            if step.render:
                return out[:, :, 0]


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
        WindowPlan(frames, chunk, lookahead, chunk, 0),
        draw(st.sets(st.integers(0, frames - 1), max_size=4)),
    )


def windowed(plan: WindowPlan, cuts: Iterable[int]) -> Source:
    network: Any = StandIn()
    stream = WindowStream(network, plan, tile=0, overlap=0, sigma=0.5)
    return Source(stream, plan, clip_of(plan.frames), cuts)


@given(window_plans(), st.randoms(use_true_random=False))
def test_windows_are_averaged_as_the_reference_does_in_any_order(
    drawn: tuple[WindowPlan, set[int]], chance: Any
) -> None:
    plan, cuts = drawn
    source = windowed(plan, cuts)
    in_order = [source.pictures(chunk) for chunk in range(plan.chunks)]
    whole = torch.cat([part for part in in_order if part is not None])
    torch.testing.assert_close(whole, averaged(clip_of(plan.frames), plan, cuts))
    source = windowed(plan, cuts)
    for chunk in chance.choices(range(plan.chunks), k=2 * plan.chunks):
        got, want = source.pictures(chunk), in_order[chunk]
        assert got is not None and want is not None
        assert torch.equal(got, want)


def test_a_whole_clip_is_taken_at_once_and_a_short_one_is_not() -> None:
    plan, frames, network = WindowPlan(5, 5, 0, 5, 0), clip_of(5), StandIn()
    clip = torch.stack(frames, dim=1)
    for whole, factor in ((True, 2), (False, 1)):
        stand_in: Any = network
        stream = WindowStream(stand_in, plan, tile=0, overlap=0, sigma=0.5, whole=whole)
        want = factor * network.in_space(clip, tile=0, overlap=0, sigma=0.5)[0]
        assert torch.equal(Source(stream, plan, frames, ()).pictures(0), want)


@given(window_plans(), st.data())
def test_after_a_broken_source_is_whole_again_all_pictures_are_as_ever(
    drawn: tuple[WindowPlan, set[int]], data: st.DataObject
) -> None:
    plan, cuts = drawn
    want = windowed(plan, cuts)
    source = windowed(plan, cuts)
    chunks = st.integers(0, plan.chunks - 1)
    failed = set()
    for chunk in data.draw(st.lists(chunks, max_size=12)):
        source.broken = data.draw(st.sets(st.integers(0, plan.frames - 1), max_size=2))
        pictures = source.pictures(chunk)
        own = plan.render(chunk)
        if pictures is not None:
            # Whatever could not be had, frames that can be are never left empty.
            assert not source.broken & set(range(own.first, own.last))
            assert not pictures.isnan().any()
        failed.add(chunk)
    source.broken = set()
    # Each chunk mends those after it once it is asked for itself.
    for chunk in range(plan.chunks):
        got, right = source.pictures(chunk), want.pictures(chunk)
        assert got is not None and right is not None
        assert torch.equal(got, right)


@given(
    st.integers(1, 30), st.integers(1, 9), st.sets(st.integers(1, 29), max_size=4),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_a_new_frame_is_made_of_two_on_either_side_within_the_shot(
    count: int, chunk: int, cuts: set[int], chance: Any
) -> None:
    plan = Plan(count, chunk, 0, chunk, 0, context=2)
    network: Any = Positional()
    # The number of a frame is its picture.
    frames = [torch.full((1, 3, SIDE, SIDE), float(n), dtype=torch.float64) for n in range(count)]
    stream = InterpolationStream(network, tile=0, overlap=0)
    source = Source(stream, plan, frames, {cut for cut in cuts if cut < count})
    for k in chance.sample(range(plan.chunks), plan.chunks):
        pictures = source.pictures(k, rate=2)
        assert pictures is not None
        for n in plan.output(k):
            shot = next(s for s in shots(range(count), cuts) if n in s)
            old, new = pictures[2 * (n - plan.output(k).start) :][:2]
            assert torch.equal(old, frames[n][0])
            around = [min(max(i, shot.start), shot.stop - 1) for i in range(n - 1, n + 3)]
            made = sum(BASE**digit * i for digit, i in enumerate(around))
            assert (new == (made if n + 1 in shot else n)).all()
