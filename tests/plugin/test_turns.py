"""Segments given to several workers in turn: who gets which call, and what numbers mean."""

from typing import Any

import pytest

from vs_vsr.plugin.contract import Frame, Job, Outcome
from vs_vsr.plugin.turns import SegmentsInTurn
from vs_vsr.streaming.plan import Plan, Step, WindowPlan

FRAME = Frame(())


class Noting:
    """A worker that notes its calls and numbers its own late pictures from 1."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.rendered = 0

    def next(self, chunk: int, *, initial: bool) -> Step:
        self.calls.append(("next", chunk, initial))
        return Step(chunk, True, 0, 1)

    def run(self, job: Job) -> Outcome:
        self.calls.append(("run", job.step.chunk))
        self.rendered += job.step.render
        return Outcome(late=self.rendered if job.step.render else 0)

    def arrived(self, n: int, frame: Frame) -> None:
        self.calls.append(("arrived", n))

    def wait(self, late: int) -> None:
        self.calls.append(("wait", late))

    def deliver(self, late: int, index: int) -> bool:
        self.calls.append(("deliver", late, index))
        return index == 0

    def drop(self, late: int) -> None:
        self.calls.append(("drop", late))

    def ended(self, chunk: int, missing: Step | None) -> None:
        self.calls.append(("ended", chunk, missing))

    def close(self) -> None:
        self.calls.append(("close",))


def job(chunk: int, *, render: bool = True) -> Job:
    return Job(Step(chunk, render, 0, 1), (), (), print)


def turns(plan: Plan, count: int = 2) -> tuple[SegmentsInTurn, list[Noting]]:
    workers = [Noting() for _ in range(count)]
    return SegmentsInTurn(workers, plan), workers


# Segments of two chunks; the last one is short.
PLAN = Plan(frames=50, chunk=5, lookahead=2, segment=10, preroll=3)


@pytest.mark.parametrize("count", [2, 3])
def test_all_chunks_of_a_segment_go_to_one_worker(count: int) -> None:
    both, workers = turns(PLAN, count)
    for chunk in range(PLAN.chunks):
        both.next(chunk, initial=True)
        both.next(chunk, initial=False)
        both.run(job(chunk))
        both.ended(chunk, None)
    for i, worker in enumerate(workers):
        mine = [k for k in range(PLAN.chunks) if k // 2 % count == i]
        assert worker.calls == [
            call
            for k in mine
            for call in (("next", k, True), ("next", k, False), ("run", k), ("ended", k, None))
        ]


def test_a_step_goes_to_the_worker_that_planned_it() -> None:
    # VRT's chunks are segments, and the way to one goes over windows of the chunk before it.
    both, (first, second) = turns(WindowPlan(frames=30, chunk=5, lookahead=2, segment=5))
    both.next(1, initial=False)
    # Another request begins meanwhile.
    both.next(2, initial=True)
    both.run(job(0, render=False))
    assert second.calls == [("next", 1, False), ("run", 0)]
    assert first.calls == [("next", 2, True)]


def test_numbers_of_late_pictures_grow_over_all_workers() -> None:
    both, workers = turns(PLAN)
    numbers = []
    for chunk in (0, 2, 4, 3, 1):
        both.next(chunk, initial=False)
        assert both.run(job(chunk, render=False)).late == 0
        numbers.append(both.run(job(chunk)).late)
    assert numbers == [1, 2, 3, 4, 5]
    # The second of the second worker, and the third of the first.
    assert both.deliver(4, 0) and not both.deliver(5, 1)
    both.drop(5)
    both.drop(4)
    assert [w.calls[-2:] for w in workers] == [
        [("deliver", 3, 1), ("drop", 3)],
        [("deliver", 2, 0), ("drop", 2)],
    ]
    # What is dropped is forgotten.
    assert set(both._late) == {1, 2, 3}
    both.close()
    assert all(worker.calls[-1] == ("close",) for worker in workers)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        Plan(frames=33, chunk=4, segment=4, context=4, state_is_cache=True),
        Plan(frames=40, chunk=4, lookahead=9, segment=4, preroll=10),
        Plan(frames=31, chunk=2, lookahead=1, segment=6, preroll=2, context=3, coupled=True),
    ],
)
def test_a_frame_goes_once_to_each_worker_whose_steps_read_it(plan: Plan, count: int) -> None:
    both, workers = turns(plan, count)
    reads: list[set[int]] = [set() for _ in workers]
    for chunk in range(plan.chunks):
        step = plan.render(chunk)
        reads[chunk * plan.chunk // plan.segment % count].update(range(step.first, step.last))
    for n in range(plan.frames):
        both.arrived(n, FRAME)
    for worker, wanted in zip(workers, reads, strict=True):
        assert worker.calls == [("arrived", n) for n in sorted(wanted)]
