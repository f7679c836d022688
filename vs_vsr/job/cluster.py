"""The engine of many machines: each part is a task of Ray, which runs it again if it is lost.

A part is named by its number, and its pictures go into the job's folder, which all machines see;
nothing but numbers, sentences and how far parts are goes through Ray. Which part comes next is
decided here, where it runs is decided by Ray.
"""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vs_vsr.errors import ArgumentError, DeviceError, JobError
from vs_vsr.job.exact import check_parts
from vs_vsr.job.folder import is_done
from vs_vsr.job.local import Events
from vs_vsr.job.node import Board, Work
from vs_vsr.job.plan import JobPlan

__all__ = ["run"]

# How often a lost task is run again, and one that failed in a way that may pass.
_RETRIES = 3
# Of a machine, not of the part: what its storage, memory or device did may not happen again. A
# JobError would be the same anywhere.
_MAY_PASS = [OSError, MemoryError, DeviceError]
# How long to wait for a part before looking whether to stop, and telling how far parts are.
_LOOK_S = 0.5
# How long a part may be unseen here when a machine has written it: clients of shared storage keep
# what they know of a folder for up to a minute (acdirmax of NFS).
_UNSEEN_S = 90.0
_CONNECT_S = 5.0
# How long a process takes to go that was given another GPU, amply.
_GONE_S = 1.0
# Where Ray's own "auto" looks (docstring of ray.init).
_CURRENT = Path("/tmp/ray/ray_current_cluster")
_START = (
    "Run ray start --head on one machine, ray start --address=HOST:6379 on the others, and this "
    "command on one of them."
)


def run(
    folder: Path,
    parts: Sequence[int],
    *,
    address: str,
    device: str,
    exact: bool,
    events: Events,
    stop: threading.Event,
    work: Work | None = None,
) -> dict[int, str]:
    """Make parts on the machines of a cluster, the longest first.

    Args:
        folder: The job's, on storage that all machines see under this path.
        parts: Their numbers.
        address: "auto" for the cluster that this machine is in, or HOST:PORT of its head.
        device: "auto" for GPUs if the cluster has any, "cpu", or "cuda".
        exact: Refuse machines of another kind or versions than the first one's.
        events: Who is told how far it is.
        stop: If it is set, no part is begun, and those in hand are finished.
        work: What makes a part; None for `part.part` of each machine.

    Returns:
        The parts that failed, and why. Parts that are begun when this is left by an exception are
        given up.

    Raises:
        JobError: There is no such cluster, or with `exact` parts of several kinds are there.
    """
    plan = JobPlan.load(folder)
    if exact:
        check_parts(plan, folder)
    with _connected(address) as ray:
        return _Run(ray, plan, folder, device=device, exact=exact, events=events, work=work).make(
            parts, stop
        )


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """The module `ray`, connected; running tasks of this process end with the connection."""
    # A process that Ray itself kills as memory runs out would be run again without end; Ray reads
    # this once, when it is imported.
    os.environ.setdefault("RAY_task_oom_retries", str(_RETRIES))
    try:
        import ray
    except ImportError:
        raise JobError(
            "A cluster needs Ray, which is not installed. Run pip install "
            '"vs-vsr[cluster]" on every machine.'
        ) from None
    _check_address(address)
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        try:
            # What workers write stays in their logs.
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as e:
            raise JobError(
                f"{address} must be a cluster of Ray that this machine is in, got {_line(e)}. "
                "If it has a login, ray get-auth-token must print the same on all machines. "
                f"{_START}"
            ) from None
        finally:
            # Ray has put its own in the place of the command's.
            if in_main_thread:
                signal.signal(signal.SIGTERM, handler)
        # Ray tells of each lost task on standard output, where only answers go.
        ray._private.worker._worker_logs_enabled = False
        yield ray
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Look whether somebody listens there, as Ray itself waits for minutes."""
    found = address
    if address == "auto":
        found = os.environ.get("RAY_ADDRESS", "") or (
            _CURRENT.read_text().strip() if _CURRENT.is_file() else ""
        )
        if not found:
            return  # Ray looks for processes of a cluster, which takes no time
    host, _, port = found.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ArgumentError(f"cluster must be auto or HOST:PORT, got {found}. {_START}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as e:
        raise JobError(f"No cluster of Ray answers at {found} ({e}). {_START}") from None


class _Run:
    """The parts of one job on a cluster."""

    def __init__(
        self,
        ray: Any,
        plan: JobPlan,
        folder: Path,
        *,
        device: str,
        exact: bool,
        events: Events,
        work: Work | None,
    ) -> None:
        self._ray, self._plan, self._folder, self._events = ray, plan, folder, events
        self._hand: dict[Any, int] = {}
        # Parts that a machine has written and that are not seen here yet, and until when to wait.
        self._unseen: dict[int, float] = {}
        # Parts that wait for another process, and until when.
        self._moved: dict[int, float] = {}
        self._failed: dict[int, str] = {}
        # Machines that take no parts, and why.
        self._refused: dict[str, str] = {}
        self._resource, self._amount = self._what_a_part_takes(device)
        context = ray.get_runtime_context()
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            context.get_node_id(), soft=False
        )
        # Where this process is, as without it the board is of no use anyway.
        self._board = ray.remote(
            num_cpus=0, scheduling_strategy=here, max_restarts=-1, max_task_retries=-1
        )(Board).remote()
        gpu = self._resource == "GPU"
        self._task = ray.remote(
            num_gpus=self._amount if gpu else 0,
            num_cpus=0 if gpu else self._amount,
            # Otherwise each part on a GPU gets a fresh process, which loads the network again.
            max_calls=0,
            max_retries=_RETRIES,
            retry_exceptions=_MAY_PASS,
        )(_task())
        self._arguments = {
            "name": plan.name,
            "exact": exact,
            "board": self._board,
            "work": work,
        }

    def _what_a_part_takes(self, device: str) -> tuple[str, int]:
        nodes = self._nodes()
        gpus = sum(int(resources.get("GPU", 0)) for resources in nodes.values())
        if device.startswith("cuda") and not gpus:
            raise JobError(
                f"device must be auto or cpu on a cluster without GPUs, got {device}. Give "
                "ray start --num-gpus=N where there are some."
            )
        if device != "cpu" and gpus:
            return "GPU", 1
        # One part a machine, with all its cores: several at once would take the memory of several,
        # and no more pictures would come out. Of machines that differ, the smallest counts, so
        # that each part has the same number of threads.
        counts = [int(resources.get("CPU", 0)) for resources in nodes.values()]
        return "CPU", min((count for count in counts if count), default=1)

    def _nodes(self) -> dict[str, dict[str, float]]:
        """The resources of each machine that takes parts."""
        return {
            node["NodeID"]: node["Resources"]
            for node in self._ray.nodes()
            if node["Alive"] and node["NodeID"] not in self._refused
        }

    def make(self, parts: Sequence[int], stop: threading.Event) -> dict[int, str]:
        """As `run`."""
        lengths = {k: self._plan.parts[k][1] - self._plan.parts[k][0] for k in parts}
        pending = sorted(parts, key=lambda k: (-lengths[k], k))
        while self._hand or self._unseen or self._moved or (pending and not stop.is_set()):
            for number in [k for k, when in self._moved.items() if when < time.monotonic()]:
                del self._moved[number]
                pending.insert(0, number)
            places = sum(
                int(resources.get(self._resource, 0)) // self._amount
                for resources in self._nodes().values()
            )
            if not places and (self._hand or pending):
                self._give_up(pending)
                continue
            # As many as run at once: what waits at Ray could not be kept back any more.
            while pending and len(self._hand) + len(self._moved) < places and not stop.is_set():
                self._submit(pending.pop(0))
            done, _ = self._wait()
            for progress in self._ray.get(self._board.take.remote()):
                if progress.part in self._hand.values():
                    self._events.progress(progress)
            for task in done:
                number = self._hand.pop(task)
                if self._settle(task, number):
                    pending.insert(0, number)
            self._look_for_parts()
        return self._failed

    def _submit(self, number: int) -> None:
        options: dict[str, Any] = {"name": f"{self._plan.name} part {number}"}
        if self._refused:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(self._refused)})"}
        task = self._task.options(**options)
        self._hand[task.remote(str(self._folder), number, **self._arguments)] = number

    def _wait(self) -> tuple[list[Any], list[Any]]:
        if not self._hand:
            time.sleep(_LOOK_S)
            return [], []
        done, rest = self._ray.wait(list(self._hand), timeout=_LOOK_S)
        return done, rest

    def _settle(self, task: Any, number: int) -> bool:
        """Take note of how a part has ended; return whether to make it again."""
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(task)
            if answer is None:
                # By another process, when this one has gone: given to it again, it would die of it.
                self._moved[number] = time.monotonic() + _GONE_S
                return False
            node, refused, failed = answer
        except errors.RayTaskError as e:
            failed = _line(e.cause or e)
        except (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError):
            failed = (
                "The process that made it was killed each time, maybe because memory ran out. Use "
                "a smaller chunk or tile."
            )
        except errors.RayError as e:
            failed = _line(e)
        else:
            if refused:
                if node not in self._refused:
                    self._events.log(refused)
                self._refused[node] = refused
                return True
            if not failed:
                self._unseen[number] = time.monotonic() + _UNSEEN_S
                return False
        self._fail(number, failed)
        return False

    def _look_for_parts(self) -> None:
        for number, until in list(self._unseen.items()):
            if is_done(self._plan, self._folder, number):
                del self._unseen[number]
                self._events.ended(number, True)
            elif time.monotonic() > until:
                del self._unseen[number]
                self._fail(
                    number,
                    f"A machine has made it, but it is not in {self._folder} here. Give --job a "
                    "folder that all machines share.",
                )

    def _fail(self, number: int, sentence: str) -> None:
        self._failed[number] = sentence
        self._events.ended(number, False)

    def _give_up(self, pending: list[int]) -> None:
        """No machine is left: what is in hand will not be done either."""
        of = "GPUs" if self._resource == "GPU" else f"{self._amount} processor cores"
        why = " ".join(self._refused.values()) or f"The cluster has none with {of} any more."
        for task in self._hand:
            self._ray.cancel(task, force=True)
        for number in [*self._hand.values(), *pending]:
            self._fail(number, f"No machine is left to make it. {why}")
        self._hand.clear()
        pending.clear()


def _task() -> Any:
    """What Ray runs; it is sent as a whole, so that it runs where this package is missing too."""

    # Annotations are sent too, so none may name what only this package has.
    def make_part(
        folder: str, number: int, *, name: str, exact: bool, board: Any, work: Any
    ) -> tuple[str, str, str] | None:
        import platform
        from pathlib import Path

        import ray

        node = ray.get_runtime_context().get_node_id()
        try:
            from vs_vsr.job.node import keep_to, take
        except ImportError as e:
            return (
                node,
                f"{platform.node()} takes no parts: this version of vs-vsr is not installed there "
                f"({e}). Install it in the environment in which ray start was run.",
                "",
            )
        gpus = [str(gpu) for gpu in ray.get_gpu_ids()]
        if not keep_to(gpus):
            return None
        refused, failed = take(
            Path(folder),
            number,
            name,
            gpus=gpus,
            exact=exact,
            work=work,
            report=lambda progress: board.put.remote(progress),
        )
        return node, refused, failed

    return make_part


def _line(error: BaseException) -> str:
    """The last line of an error, as Ray's hold a whole traceback."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1].strip().removesuffix('.')}"
