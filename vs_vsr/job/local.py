"""The engine of one machine: a process for each device, which makes one part after another.

A process that is killed, or that dies of too little memory, takes nothing else with it.
"""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vs_vsr.errors import JobError, StorageError, VsrError
from vs_vsr.job.exact import kind_here, settle
from vs_vsr.job.folder import is_done
from vs_vsr.job.plan import JobPlan
from vs_vsr.job.progress import Report

if TYPE_CHECKING:
    from vs_vsr.job.forecast import Forecast
    from vs_vsr.job.request import Request

__all__ = ["Events", "Workers"]

# A part whose process dies is tried this often in all.
_TRIES = 3
# How long to wait for a part before looking whether to stop.
_LOOK_S = 0.2
# What the core and the filters log that is of no use here: that a chunk takes long, as the display
# shows how far it is; and that BestSource gives back more than it has declared.
_NOT_SHOWN = re.compile("no picture is made yet|no return value")
_INDEXING = re.compile(r"index progress (\d+)%")

# ---- in the worker ----

_connection: Connection | None = None
_lock = threading.Lock()


def _begin(connection: Connection) -> None:
    """Set a new worker process up."""
    global _connection
    _connection = connection
    # The parent decides what Ctrl-C means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nothing but the command's own answer goes to standard output.
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
    os._exit(1)


def _send(*message: Any) -> None:
    with _lock, suppress(OSError):
        if _connection is not None:
            _connection.send(message)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    import vapoursynth as vs

    core = vs.core

    def log(kind: Any, text: str) -> None:
        indexed = _INDEXING.search(text)
        if indexed:
            _send("phase", "indexing the pictures", int(indexed[1]) / 100)
        elif kind != vs.MESSAGE_TYPE_DEBUG and not _NOT_SHOWN.search(text):
            _send("log", text)

    handler = core.add_log_handler(log)
    try:
        return function(*arguments)
    except vs.Error as e:
        # The plugin's own sentence, such as that it is of another version.
        raise JobError(str(e)) from None
    finally:
        core.remove_log_handler(handler)


def _devices(name: str) -> list[str]:
    import torch

    from vs_vsr.devices import find_devices

    if name == "auto" and torch.cuda.is_available():
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [str(device) for device in find_devices("upscale", name)]


def _plan(request: Any, device: str) -> Any:
    from vs_vsr.job.planning import make_plan

    return make_plan(request, device, lambda what, share: _send("phase", what, share))


def _sample(folder: Path, device: str) -> Any:
    from vs_vsr.job.forecast import sample

    return sample(folder, device)


def _preview(request: Any, times: Sequence[Fraction], device: str) -> Any:
    from vs_vsr.job.preview import preview

    return preview(request, times, device, lambda what, share: _send("phase", what, share))


def _settle(folder: Path, device: str) -> None:
    settle(JobPlan.load(folder), folder, kind_here(device))


def _part(folder: Path, number: int, device: str) -> None:
    from vs_vsr.job.part import part

    part(folder, number, lambda progress: _send("progress", progress), device=device)


# ---- in the command's process ----


@dataclass(frozen=True)
class Events:
    """Who is told what the workers send; called from a thread of its own."""

    phase: Callable[[str, float], None]
    """What is being done before the parts, and how much of it is, 0 to 1."""
    progress: Report
    ended: Callable[[int, bool], None]
    """A part has ended, and whether it is done."""
    log: Callable[[str], None]
    """A line for the user."""


class _Worker:
    """One process and what it is for; a new one takes the place of one that died."""

    def __init__(self, device: str, events: Events) -> None:
        self.device = device
        self._events = events
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        if self._pool is None:
            here, there = get_context("spawn").Pipe(duplex=False)
            self._pool = ProcessPoolExecutor(
                1, mp_context=get_context("spawn"), initializer=_begin, initargs=(there,)
            )
            threading.Thread(target=self._listen, args=(here,), daemon=True).start()
            with _no_interrupt():
                future = self._pool.submit(_call, function, arguments)
            # The worker has its own end by now: without it, this one would never see the other's.
            there.close()
            return future
        return self._pool.submit(_call, function, arguments)

    def _listen(self, connection: Connection) -> None:
        with suppress(EOFError, OSError):
            while True:
                kind, *message = connection.recv()
                # Whatever the display does, the pipe must not fill up: the worker would wait.
                with suppress(Exception, SystemExit):
                    getattr(self._events, kind)(*message)

    def close(self) -> None:
        if self._pool is not None:
            # Python takes a second to end a process that has torch, and this one would wait for it.
            with suppress(RuntimeError):
                self._pool.submit(os._exit, 0)
            self._pool.shutdown(wait=False)
            self._pool = None


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """A process that is started within this does not end at Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Workers:
    """The processes of this machine, one for each device."""

    def __init__(self, device: str, events: Events) -> None:
        """Start the first one.

        Args:
            device: As the filters' `device`; "auto" is every GPU, or the processor.
            events: Who is told what they send.

        Raises:
            VsrError: There is no such device.
        """
        self._events = events
        self._workers = [_Worker(device, events)]
        devices = self._call(_devices, device)
        self._workers[0].device = devices[0]
        self._workers += [_Worker(other, events) for other in devices[1:]]

    def __enter__(self) -> Self:
        """Use them."""
        return self

    def __exit__(self, *error: object) -> None:
        """Let them end."""
        self.close()

    def close(self) -> None:
        """Let them end, so that others can have their devices."""
        for worker in self._workers:
            worker.close()

    @property
    def devices(self) -> list[str]:
        """What they compute on."""
        return [worker.device for worker in self._workers]

    def plan(self, request: "Request") -> "tuple[JobPlan, Path, list[str]]":
        """As `planning.make_plan`."""
        made: tuple[JobPlan, Path, list[str]] = self._call(_plan, request, self.devices[0])
        return made

    def sample(self, folder: Path) -> "Forecast":
        """As `forecast.sample`."""
        found: Forecast = self._call(_sample, folder, self.devices[0])
        return found

    def preview(
        self, request: "Request", times: Sequence[Fraction]
    ) -> tuple[list[Path], list[str]]:
        """As `preview.preview`."""
        written: tuple[list[Path], list[str]] = self._call(
            _preview, request, times, self.devices[0]
        )
        return written

    def settle(self, folder: Path) -> None:
        """As `exact.settle`, for every device."""
        for device in self.devices:
            self._call(_settle, folder, device)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            future = self._workers[0].submit(function, *arguments)
            while not wait([future], _LOOK_S).done:
                pass  # so that signals are seen at once
            return future.result()
        except BrokenProcessPool:
            self._workers[0].close()  # the next call starts another
            raise JobError(
                "The process that computes was killed, maybe because memory ran out. Close other "
                "programs, or use a smaller chunk or tile."
            ) from None

    def run(self, folder: Path, parts: Sequence[int], stop: threading.Event) -> dict[int, str]:
        """Make parts, the longest first.

        Args:
            folder: The job's.
            parts: Their numbers.
            stop: If it is set, no part is begun, and those in hand are finished.

        Returns:
            The parts that failed, and why.
        """
        plan = JobPlan.load(folder)
        lengths = {k: plan.parts[k][1] - plan.parts[k][0] for k in parts}
        pending = sorted(parts, key=lambda k: (-lengths[k], k))
        tries = dict.fromkeys(parts, 0)
        free, running, failed = list(self._workers), dict[Any, tuple[_Worker, int]](), {}
        while running or (pending and not stop.is_set()):
            while free and pending and not stop.is_set():
                worker, number = free.pop(0), pending.pop(0)
                tries[number] += 1
                try:
                    future = worker.submit(_part, folder, number, worker.device)
                except BrokenProcessPool:  # it died while it had nothing to do
                    worker.close()
                    future = worker.submit(_part, folder, number, worker.device)
                running[future] = worker, number
            for future in wait(running, _LOOK_S, FIRST_COMPLETED).done:
                worker, number = running.pop(future)
                free.append(worker)
                try:
                    future.result()
                except BrokenProcessPool:
                    worker.close()
                    if tries[number] < _TRIES:
                        pending.insert(0, number)
                    else:
                        failed[number] = (
                            "The process that made it was killed each time, maybe because memory "
                            "ran out. Use a smaller chunk or tile."
                        )
                except Exception as e:
                    failed[number] = _sentence(e)
                    if isinstance(e, StorageError):
                        pending.clear()
                self._events.ended(number, is_done(plan, folder, number))
        return failed


def _sentence(error: Exception) -> str:
    """What to say of an error: a fault of this program's too must not stop the other parts."""
    return str(error) if isinstance(error, VsrError) else f"{type(error).__name__}: {error}"
