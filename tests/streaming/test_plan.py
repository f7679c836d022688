"""Laws of the plan, for any clip and any setting."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vs_vsr.streaming.plan import Plan, WindowPlan


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    chunk = draw(st.integers(1, 40))
    return Plan(
        frames=draw(st.integers(1, 500)),
        chunk=chunk,
        lookahead=draw(st.integers(0, 60)),
        segment=chunk * draw(st.integers(1, 9)),
        preroll=draw(st.integers(0, 60)),
    )


@given(plans())
def test_every_frame_comes_out_once_in_order(plan: Plan) -> None:
    out = [n for chunk in range(plan.chunks) for n in plan.output(chunk)]
    assert out == list(range(plan.frames))


@given(plans())
def test_a_rendering_step_reads_its_frames_and_the_lookahead_that_exists(plan: Plan) -> None:
    for chunk in range(plan.chunks):
        step, out = plan.render(chunk), plan.output(chunk)
        assert step.render
        assert 0 <= step.first <= out.start
        assert step.last == min(out.stop + plan.lookahead, plan.frames)


@given(plans())
def test_steps_from_a_segment_start_read_each_frame_once_without_gaps(plan: Plan) -> None:
    for chunk in range(plan.chunks):
        start = plan.segment_start(chunk)
        steps = [*(plan.advance(k) for k in range(start, chunk)), plan.render(chunk)]
        first = start * plan.chunk
        assert steps[0].first == first - min(first, plan.preroll)
        assert all(not step.render for step in steps[:-1])
        for before, after in pairwise(steps):
            assert before.last == after.first


@given(plans())
def test_segments_start_at_multiples_and_hold_whole_chunks(plan: Plan) -> None:
    for chunk in range(plan.chunks):
        start = plan.segment_start(chunk) * plan.chunk
        assert start % plan.segment == 0
        assert start <= plan.output(chunk).start < start + plan.segment


@given(plans())
def test_a_cold_step_never_looks_back(plan: Plan) -> None:
    for chunk in range(plan.chunks):
        assert plan.render(chunk, cold=True).first == plan.output(chunk).start
        assert plan.advance(chunk, cold=True).first == plan.output(chunk).start


WINDOWS = st.builds(
    lambda frames, chunk, share: WindowPlan(
        frames=frames, chunk=chunk, lookahead=min(share, chunk), segment=chunk
    ),
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
        assert set(later) <= set(plan.dependents(chunk))


@given(
    st.integers(1, 200), st.integers(1, 30), st.integers(0, 20), st.integers(1, 4),
    st.integers(0, 20), st.integers(0, 6), st.booleans(), st.booleans(),
)  # fmt: skip
def test_steps_with_context_stay_in_the_clip(
    frames: int, chunk: int, lookahead: int, chunks: int, preroll: int, context: int,
    coupled: bool, cold: bool,
) -> None:  # fmt: skip
    plan = Plan(
        frames=frames,
        chunk=chunk,
        lookahead=lookahead,
        segment=chunks * chunk,
        preroll=preroll,
        context=context,
        coupled=coupled,
    )
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
