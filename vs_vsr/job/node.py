"""What a machine of a cluster does: it looks whether it can take parts, and makes one."""

import os
import platform
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from vs_vsr.errors import DeviceError, JobError, StorageError, VsrError, WeightsError
from vs_vsr.job.exact import kind_here, settle
from vs_vsr.job.part import part
from vs_vsr.job.plan import JobPlan
from vs_vsr.job.progress import Progress, Report

__all__ = ["Board", "Work", "keep_to", "take"]

# As `part`: the job's folder, the part's number, who is told how far it is, and the device.
Work = Callable[[Path, int, Report, str], None]

# How long Ray has to take an answer.
_ANSWER_S = 0.2

# The GPUs that this process has computed on.
_bound: list[str] = []


class Board:
    """How far parts are that are made elsewhere: what was last told of each."""

    def __init__(self) -> None:
        """Start with none."""
        self._latest: dict[int, Progress] = {}

    def put(self, progress: Progress) -> None:
        """Note how far a part is."""
        self._latest[progress.part] = progress

    def take(self) -> list[Progress]:
        """What was noted since this was last asked."""
        latest, self._latest = self._latest, {}
        return list(latest.values())


def keep_to(gpus: list[str]) -> bool:
    """Whether this process has computed on no other GPU than these; if it has, it ends soon.

    Ray chooses by setting CUDA_VISIBLE_DEVICES, which CUDA reads once: the part would be made on
    the GPU of the part before, where another process may be at work now. Ray has no way to ask for
    another process, so this one answers that it is of no use, and goes.
    """
    if _bound and _bound != gpus:
        _bound[:] = ["none"]
        _end_soon()
        return False
    _bound[:] = gpus
    return True


def _end_soon() -> None:
    """End this process when its answer is sent; exiting at once, it would count as a crash."""
    timer = threading.Timer(_ANSWER_S, os._exit, (0,))
    timer.daemon = True
    timer.start()


def take(
    folder: Path,
    number: int,
    name: str,
    *,
    gpus: list[str],
    exact: bool,
    work: Work | None,
    report: Report,
) -> tuple[str, str]:
    """Make a part on this machine, if it is one that can.

    Args:
        folder: The job's.
        number: Of the part.
        name: The job's name, which the plan in the folder must have.
        gpus: Those that Ray has lent to this task; none for the processor.
        exact: Whether the machine must be of the kind of all others.
        work: What makes the part; None for `part`.
        report: Told how far it is.

    Returns:
        Why this machine takes no parts, and why the part failed; "" where it is not so.

    Raises:
        DeviceError: The device failed or has too little memory, which may pass.
    """
    device = "cuda:0" if gpus else "cpu"
    try:
        try:
            _check(folder, name, device, exact=exact)
        except VsrError as e:
            return _refusal(e), ""
        (work or part)(folder, number, report, device)
    except DeviceError:
        raise
    except (StorageError, WeightsError) as e:
        # Of this machine: another one may see the source, or have the weights.
        return _refusal(e), ""
    except VsrError as e:
        return "", str(e)
    return "", ""


def _refusal(error: VsrError) -> str:
    return f"{platform.node()} takes no parts: {error}"


def _check(folder: Path, name: str, device: str, *, exact: bool) -> None:
    """Raise VsrError if this machine cannot make parts of the job."""
    if not (folder / "plan.json").is_file():
        raise JobError(
            f"it does not see the job's folder {folder}. Give --job a folder that all machines "
            "share under the same path."
        )
    plan = JobPlan.load(folder)
    if plan.name != name:
        raise JobError(
            f"another job is in {folder} there. Give --job a folder that all machines share."
        )
    wanted, found = plan.versions.get("vs-vsr"), version("vs-vsr")
    if found != wanted:
        raise JobError(
            f"vs-vsr must be {wanted} there, as in the plan, got {found}. Install "
            f"vs-vsr=={wanted} in the environment in which ray start was run."
        )
    if exact:
        settle(plan, folder, kind_here(device))
