"""One filter on several devices, which take its segments in turn."""

from collections.abc import Sequence
from dataclasses import replace

from vs_vsr.plugin.contract import Frame, HostWorker, Job, Outcome
from vs_vsr.streaming.plan import Plan, Step

__all__ = ["SegmentsInTurn"]


class SegmentsInTurn:
    """Workers on devices of their own, as one: segment s goes to worker s modulo their number.

    So no state has to go from one device to another, and which device makes a picture follows from
    the frame number alone.
    """

    def __init__(self, workers: Sequence[HostWorker], plan: Plan) -> None:
        """Share the chunks of `plan` out among `workers`, whose runners share their gaps."""
        self._workers = workers
        self._plan = plan
        # The worker of the last step that was planned, which is the next one that is run.
        self._current = workers[0]
        # What late pictures are called here, and by their worker: numbers must grow over all.
        self._late: dict[int, tuple[HostWorker, int]] = {}
        self._rendered = 0

    def next(self, chunk: int, *, initial: bool) -> Step:
        """What to do next for `chunk`, as `Worker.next`."""
        worker = self._of_chunk(chunk)
        if not initial:
            # Not found by the step: VRT's steps may be for a chunk of another segment before it.
            self._current = worker
        return worker.next(chunk, initial=initial)

    def run(self, job: Job) -> Outcome:
        """Do the step of `job`, as `Worker.run`."""
        outcome = self._current.run(job)
        if not outcome.late:
            return outcome
        self._rendered += 1
        self._late[self._rendered] = self._current, outcome.late
        return replace(outcome, late=self._rendered)

    def arrived(self, n: int, frame: Frame) -> None:
        """Let input frame `n` be on its way to all that read it, as `HostWorker.arrived`."""
        plan = self._plan
        first = max(n - plan.lookahead - plan.context, 0)
        last = min(n + plan.preroll + plan.context, plan.frames - 1)
        segments = range(first // plan.segment, last // plan.segment + 1)
        # No more than each worker once.
        for segment in segments[: len(self._workers)]:
            self._of_segment(segment).arrived(n, frame)

    def wait(self, late: int) -> None:
        """Wait until late pictures are computed, as `Worker.wait`."""
        worker, number = self._late[late]
        worker.wait(number)

    def deliver(self, late: int, index: int) -> bool:
        """Fill one output frame, as `Worker.deliver`."""
        worker, number = self._late[late]
        return worker.deliver(number, index)

    def drop(self, late: int) -> None:
        """Forget late pictures, as `Worker.drop`."""
        worker, number = self._late.pop(late)
        worker.drop(number)

    def ended(self, chunk: int, missing: Step | None) -> None:
        """Take note that the request for `chunk` is over, as `Worker.ended`."""
        self._of_chunk(chunk).ended(chunk, missing)

    def close(self) -> None:
        """The filter is gone, as `Worker.close`."""
        for worker in self._workers:
            worker.close()

    def _of_chunk(self, chunk: int) -> HostWorker:
        return self._of_segment(chunk * self._plan.chunk // self._plan.segment)

    def _of_segment(self, segment: int) -> HostWorker:
        return self._workers[segment % len(self._workers)]
