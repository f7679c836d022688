"""Laws of the plan, for any clip and any setting."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vs_vsr.streaming.plan import Plan


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
