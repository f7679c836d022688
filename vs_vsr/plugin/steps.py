"""Does the steps of one filter: frames to tensors, the runner, and back."""

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import torch

from vs_vsr import devices
from vs_vsr.errors import DeviceError
from vs_vsr.plugin.contract import Frame, Job, Outcome
from vs_vsr.streaming.plan import Step
from vs_vsr.streaming.runner import Runner
from vs_vsr.transfer.host import HostTransfer
from vs_vsr.transfer.resident import ResidentTransfer
from vs_vsr.transfer.staged import StagedTransfer
from vs_vsr.transfer.vulkan import GpuFrame

__all__ = ["FilterWorker", "GpuFilterWorker", "memory_errors"]

# One thread works on each device, one chunk after another, whichever clip or core they are for. Two
# at once would fight for cores and memory. The frame server's threads would take more of both, as
# each would have an OpenMP team and a heap (measured: docs/measurements.md). When this module is
# loaded anew, it keeps the threads.
_threads: dict[torch.device, ThreadPoolExecutor] = globals().get("_threads", {})
_thread_lock = threading.Lock()

# A chunk that takes longer is announced in the log: until it is done, nothing else shows progress.
_SLOW_S = 10.0
# Frames that steps read from one trim of the heap to the next. After a trim the system has to give
# the memory of the next step anew, which took a twentieth of the time of a chunk of one frame.
_TRIM_FRAMES = 30


class _StepWorker[Transfer: HostTransfer | StagedTransfer | ResidentTransfer](ABC):
    """The Python side of one filter: frames to tensors, the runner, and back."""

    def __init__(
        self,
        filter_name: str,
        runner: Runner,
        device: torch.device,
        transfer: Transfer,
        *,
        hint: str = "",
        wider: Callable[[], Runner] | None = None,
    ) -> None:
        """Serve one filter.

        Args:
            filter_name: As in `core.vsr`.
            runner: Computes the pictures.
            device: Where it computes.
            transfer: Moves frames there and back.
            hint: What to do if there is too little memory.
            wider: Makes a runner with the same plan and gaps whose values do not overflow, for
                chunks in which those of `runner` do; None if they cannot.
        """
        self._filter_name = filter_name
        self._runner = runner
        self._device = device
        self._transfer = transfer
        self._hint = hint
        self._wider = wider
        self._wide_runner: Runner | None = None
        self._wide_lock = threading.Lock()
        # Chunks whose pictures were not finite. Which these are depends on the clip alone, as each
        # chunk is tried first, and goes on from the state of those before as it was tried.
        self._overflowed: set[int] = set()
        self._chunks_of_late: dict[int, int] = {}
        self._said_wider = False
        # The runner of the last step that was planned, which is the next one that is run.
        self._current = runner
        # Whether pictures made so far are stale and the plugin does not know it yet.
        self._stale = False
        # The last step: on a CPU it may still make pictures when the next one is planned.
        self._last_step: Future[None] = Future()
        self._last_step.set_result(None)
        with _thread_lock:
            if device not in _threads:
                thread = ThreadPoolExecutor(1, thread_name_prefix=f"vs_vsr {device}")
                # Started here, so that a system with no thread to spare fails the creation of the
                # filter. A job queued without a thread would run later, on frames that are gone.
                thread.submit(int).result()
                _threads[device] = thread
            self._thread = _threads[device]

    def next(self, chunk: int, *, initial: bool) -> Step:
        """The step to do now for `chunk`; if `initial`, the one to expect when its turn comes."""
        runner = self._runner
        if chunk in self._overflowed and self._wider is not None:
            with self._wide_lock:
                runner = self._wide_runner = self._wide_runner or self._wider()
        if initial:
            return runner.expected(chunk)
        wait([self._last_step])
        self._current = runner
        return runner.next(chunk)

    def run(self, job: Job) -> Outcome:
        """Do the step of `job`, or give it to the device, as `Worker.run`."""
        if self._current is not self._runner and not self._said_wider:
            self._said_wider = True
            first, last = job.step.first, job.step.last - 1
            job.log(
                f"{self._filter_name}: float16 overflowed in frames {first} to {last}. Chunks "
                "where that happens are computed again in a wider type, which takes longer. Use "
                'precision="bf16" or "fp32" for all.'
            )
        began: Future[Outcome] = Future()
        self._last_step = self._thread.submit(self._run, job, began)
        try:
            if not wait([began], _SLOW_S).done:
                first, last = job.step.first, job.step.last - 1
                job.log(
                    f"{self._filter_name}: frames {first} to {last} have been computing on "
                    f"{self._device} for {_SLOW_S:g} s, and no picture is made yet."
                )
        finally:
            # Whatever happens here, the frames are in use until then.
            wait([began])
        try:
            with self._memory_errors():
                outcome = began.result()
        finally:
            # An exception holds this stack frame, and `began` holds the exception: the memory of
            # a step that failed would stay until the garbage is collected.
            del began
        if outcome.lost:
            return outcome
        stale, self._stale = self._stale, False
        return replace(outcome, stale=stale)

    def _memory_errors(self) -> AbstractContextManager[None]:
        return memory_errors(self._filter_name, self._device, "a chunk", self._hint)

    def _run(self, job: Job, began: Future[Outcome]) -> None:
        """Do a step, or give it to the device.

        `began` gets what came of it as soon as the frames of the job are no longer used, except
        late ones; `run` adds whether pictures are stale.
        """
        try:
            try:
                outcome = self._step(job, began)
            except RuntimeError as e:
                # A CPU has nothing to give back, unless torch itself says so.
                is_gpu = self._device.type != "cpu" or isinstance(e, torch.OutOfMemoryError)
                if began.done() or not is_gpu or not _is_of_memory(e):
                    raise
                outcome = None
            if outcome is None:
                # Outside of the handler, whose exception holds the memory of what failed. torch
                # keeps freed memory in pieces, and there may be enough once they are given back.
                torch.cuda.empty_cache()
                outcome = self._step(job, began)
        except BaseException as e:
            # Without the traceback, whose stack frames hold the memory of the step, and `began`.
            e.with_traceback(None)
            # Once it began, those who wait for its pictures are told by `deliver`.
            if not began.done():
                began.set_exception(e)
        else:
            if not began.done():
                began.set_result(outcome)

    @abstractmethod
    def _step(self, job: Job, began: Future[Outcome]) -> Outcome:
        """Do a step once. It may set `began` before it ends."""

    def _check(self) -> bool:
        """Whether pictures of the step that is being done may overflow."""
        return self._wider is not None and self._current is self._runner

    def _noted(self, job: Job, late: int, stale: bool) -> None:
        if late:
            self._chunks_of_late[late] = job.step.chunk
        # Kept: if anything fails from here on, the next job that succeeds reports it.
        self._stale |= stale

    def wait(self, late: int) -> None:
        """Wait until late pictures are computed, as `Worker.wait`."""
        self._transfer.wait(late)

    def deliver(self, late: int, index: int) -> bool:
        """Fill one output frame, as `Worker.deliver`."""
        with self._memory_errors():
            good = self._transfer.deliver(late, index)
        if not good:
            self._overflowed.add(self._chunks_of_late[late])
        return good

    def drop(self, late: int) -> None:
        """Forget late pictures, as `Worker.drop`."""
        self._transfer.drop(late)
        self._chunks_of_late.pop(late, None)

    def ended(self, chunk: int, missing: Step | None) -> None:
        """Take note that the request for `chunk` is over, as `Worker.ended`."""
        runners = [runner for runner in (self._runner, self._wide_runner) if runner is not None]
        try:
            if missing is not None:
                wait([self._last_step])
                self._runner.failed(missing)
        finally:
            for runner in runners:
                runner.ended(chunk)


class FilterWorker(_StepWorker[HostTransfer | StagedTransfer]):
    """A worker of a filter whose clip is in the host's memory."""

    _read_since_trim = 0

    def arrived(self, n: int, frame: Frame) -> None:
        """Let input frame `n` be on its way to the device, as `HostWorker.arrived`."""
        self._transfer.arrived(n, frame.planes)

    def _step(self, job: Job, began: Future[Outcome]) -> Outcome:
        marks = [(frame.scene_prev, frame.scene_next) for frame in job.inputs]
        frames = self._transfer.inputs(job.step.first, [frame.planes for frame in job.inputs])
        runner = self._current
        span = self._transfer.look(lambda: runner.span(job.step, frames, marks))

        def first(late: int) -> None:
            began.set_result(Outcome(late=late))

        # With gaps, what is stale is known only when the step has ended.
        stale, late = self._transfer.render(
            [frame.planes for frame in job.outputs],
            lambda out: runner.run(job.step, frames, marks, out, span),
            check=self._check(),
            first=None if runner.has_gaps else first,
        )
        # Late pictures of a CPU are never refused.
        self._noted(job, 0 if began.done() else late, stale)
        if self._device.type == "cpu":
            self._read_since_trim += len(frames)
            del frames
            if self._read_since_trim >= _TRIM_FRAMES:
                self._read_since_trim = 0
                devices.trim_heap()
        return Outcome(late=late)

    def close(self) -> None:
        """Nothing: memory goes with what refers to it."""


class GpuFilterWorker(_StepWorker[ResidentTransfer]):
    """A worker of a filter whose clip is on a GPU."""

    def taken(self, n: int, frame: GpuFrame) -> int:
        """Read input frame `n`, as `GpuWorker.taken`."""
        with memory_errors(self._filter_name, self._device, "a frame", self._hint):
            return self._transfer.taken(n, frame)

    def has(self, n: int) -> bool:
        """Whether input frame `n` is there, as `GpuWorker.has`."""
        return self._transfer.has(n)

    def _step(self, job: Job, began: Future[Outcome]) -> Outcome:
        frames = self._transfer.inputs(job.step.first, len(job.inputs))
        if frames is None:
            return Outcome(lost=True)
        marks = [(frame.scene_prev, frame.scene_next) for frame in job.inputs]
        runner = self._current
        span = self._transfer.look(lambda: runner.span(job.step, frames, marks))
        stale, late, value = self._transfer.render(
            job.gpu_outputs,
            lambda out: runner.run(job.step, frames, marks, out, span),
            check=self._check(),
        )
        self._noted(job, late, stale)
        return Outcome(late=late, value=value)

    def ended(self, chunk: int, missing: Step | None) -> None:
        """Take note that the request for `chunk` is over, as `Worker.ended`."""
        if missing is not None:
            self._transfer.give_up(missing.first)
        super().ended(chunk, missing)

    def close(self) -> None:
        """Give the core's memory back, as `Worker.close`."""
        self._transfer.close()


@contextmanager
def memory_errors(filter_name: str, device: torch.device, what: str, hint: str) -> Iterator[None]:
    """Turn errors about memory into one that says what `device` has no memory left for.

    Raises:
        DeviceError: `device` has no memory left for `what`.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as e:
        if not _is_of_memory(e):
            raise
        asked = re.search(r"tried to allocate ([\d.]+ \w+)", str(e), re.IGNORECASE)
        more = f" (it needs {asked[1]} more)" if asked else ""
        # Without the traceback, whose stack frames hold the very memory that is missing.
        raise DeviceError(
            f"{filter_name}: {device} has no memory left for {what}{more}. {hint}"
        ) from e.with_traceback(None)


# Of a CPU; of pinned memory; of cuBLAS; and of cuDNN, which says so where no algorithm has the
# memory that it works in (pytorch/pytorch#108645).
_NO_MEMORY = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "GET was unable to find an engine",
)


def _is_of_memory(e: Exception) -> bool:
    """Whether an error says that there is no memory left."""
    # torch has an exception for the memory that it manages itself.
    is_own = isinstance(e, MemoryError | torch.OutOfMemoryError)
    return is_own or any(text in str(e) for text in _NO_MEMORY)
