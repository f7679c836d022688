"""What is missing of a clip, and what is stale once it comes: integers only."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vs_vsr.streaming.gaps import Gaps
from vs_vsr.streaming.plan import Plan

# Chunks 0 to 3 of frames 0..3, 4..7, 8..11, 12..15; segments start at chunks 0 and 2.
PLAN = Plan(frames=16, chunk=4, lookahead=1, segment=8, preroll=6)


def state(gaps: Gaps) -> list[tuple[int, bool]]:
    return [(gaps.start(k), gaps.is_cold(k)) for k in range(PLAN.chunks)]


WHOLE = [(0, False), (0, False), (2, False), (2, False)]


def test_with_nothing_missing_states_begin_at_segments() -> None:
    gaps = Gaps(PLAN)
    assert state(gaps) == WHOLE
    assert gaps.done(PLAN.advance(0)) == gaps.done(PLAN.render(1)) == []


def test_after_a_chunk_that_is_missing_the_state_begins_anew() -> None:
    gaps = Gaps(PLAN)
    gaps.failed(PLAN.render(0))
    assert state(gaps) == [(0, False), (1, True), (2, False), (2, False)]
    # What comes of other chunks does not mend it.
    assert gaps.done(PLAN.render(1, cold=True)) == []
    # The chunk comes: the state after it is new, that after the next one was made without it.
    assert gaps.done(PLAN.render(0)) == [range(2, 3)]
    assert state(gaps) == WHOLE


def test_a_preroll_that_is_missing_comes_in_parts() -> None:
    gaps = Gaps(PLAN)
    assert PLAN.render(2).first == 2
    # Either it or the chunk itself is missing.
    gaps.failed(PLAN.render(2))
    assert state(gaps) == [(0, False), (0, False), (2, True), (3, True)]
    assert gaps.done(PLAN.render(2, cold=True)) == [range(4, 5)]
    assert state(gaps) == [(0, False), (0, False), (2, True), (2, False)]
    # Of frames 2 to 7 chunk 0 has a part and chunk 1 the rest.
    assert gaps.done(PLAN.advance(0)) == []
    assert gaps.is_cold(2)
    assert gaps.done(PLAN.render(1)) == [range(3, 5)]
    assert state(gaps) == WHOLE


def test_a_preroll_that_came_just_now_is_not_what_is_missing() -> None:
    plan = Plan(frames=16, chunk=4, segment=4, preroll=2)
    gaps = Gaps(plan)
    gaps.done(plan.render(1))
    # Frames 6 and 7 were among those.
    gaps.failed(plan.render(2))
    assert not gaps.is_cold(2)


# Each frame a chunk, as AnimeSR has it: frame 5 fails, which chunks 4 and 6 look at too.
SHORT = Plan(frames=12, chunk=1, segment=12, context=1, coupled=True)


@pytest.mark.parametrize("order", list(permutations((4, 5, 6))))
def test_requests_side_by_side_leave_what_requests_in_turn_leave(order: tuple[int, ...]) -> None:
    in_turn, side_by_side = Gaps(SHORT), Gaps(SHORT)
    for k in (4, 5):
        in_turn.failed(SHORT.render(k, cold=in_turn.is_cold(k)))
    assert in_turn.is_cold(6)
    in_turn.done(SHORT.render(6, cold=True))
    # Planned before any of them has failed.
    for k in order:
        side_by_side.failed(SHORT.render(k))
    # That frame 5 is missing is not known yet: it may be 4 alone. Each failure says more.
    assert (side_by_side.start(9), side_by_side.is_cold(5)) == (5, True)
    side_by_side.failed(SHORT.advance(5, cold=True))
    assert (side_by_side.start(9), side_by_side.is_cold(6)) == (6, True)
    side_by_side.done(SHORT.advance(6, cold=True))
    for k in range(12):
        assert side_by_side.start(k) == in_turn.start(k)
        assert side_by_side.is_cold(k) == in_turn.is_cold(k)


@given(st.data())
def test_once_all_has_come_nothing_is_left_of_it(data: st.DataObject) -> None:
    chunk = data.draw(st.integers(1, 5))
    plan = Plan(
        frames=data.draw(st.integers(1, 40)),
        chunk=chunk,
        lookahead=data.draw(st.integers(0, 6)),
        segment=chunk * data.draw(st.integers(1, 4)),
        preroll=data.draw(st.integers(0, 12)),
        context=data.draw(st.integers(0, 3)),
    )
    gaps = Gaps(plan)
    for k, fails in data.draw(st.lists(st.tuples(st.integers(0, plan.chunks - 1), st.booleans()))):
        step = plan.render(k, cold=gaps.is_cold(k))
        if fails:
            gaps.failed(step)
        else:
            gaps.done(step)
        # A state never begins after its chunk, nor before its segment.
        assert all(plan.segment_start(n) <= gaps.start(n) <= n for n in range(plan.chunks))
    for k in range(plan.chunks):
        gaps.done(plan.render(k, cold=gaps.is_cold(k)))
    for k in range(plan.chunks):
        assert (gaps.start(k), gaps.is_cold(k)) == (plan.segment_start(k), False)
        assert gaps.done(plan.render(k)) == []


def test_all_who_listen_hear_what_is_stale() -> None:
    gaps = Gaps(PLAN)
    heard: tuple[list[range], list[range]] = ([], [])
    for listener in heard:
        gaps.on_stale(listener.append)
    gaps.failed(PLAN.render(0))
    gaps.done(PLAN.render(1, cold=True))
    assert heard == ([], [])
    gaps.done(PLAN.render(0))
    assert heard == ([range(2, 3)], [range(2, 3)])
