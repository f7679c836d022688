"""Stages in boxes: each runs in its own process for its own time, so none can end the visit."""

import faulthandler
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from vs_vsr.bench.gpu.record import Record, described, read, write
from vs_vsr.bench.gpu.setting import Setting

__all__ = ["Stage", "run"]

# A child that was ended is gone by then.
_KILLED_S = 10.0


@dataclass(frozen=True)
class Stage:
    """One stage of a visit."""

    name: str
    box_s: float
    """Seconds it may take, the start of its process included."""
    measure: Callable[[Setting, Record], None]
    """Measures and adds rows; a function of a module, as another process calls it."""


def run(stage: Stage, setting: Setting, box_s: float) -> dict[str, Any]:
    """Run one stage in its own process.

    Args:
        stage: The stage.
        setting: What it measures with.
        box_s: Seconds it may take.

    Returns:
        What it wrote: "stage", "box_s", "took_s", "state" ("done", "failed" or "overran"),
        "error" and "rows". The rows are those it had when it ended, however it ended.
    """
    path = setting.folder / "stages" / f"{stage.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    start = time.monotonic()
    # Not forked: a process that has used CUDA cannot be.
    process = multiprocessing.get_context("spawn").Process(
        target=_measure, args=(stage, setting, path, box_s)
    )
    process.start()
    try:
        process.join(box_s)
        overran = process.is_alive()
    finally:
        _end(process)
    result: dict[str, Any] = {"stage": stage.name, "box_s": box_s, "rows": [], **read(path)}
    if overran:
        result |= {"state": "overran", "error": f"it was ended after {box_s:.0f} s, its box"}
    elif result.get("state") in (None, "running"):
        code = process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        result |= {"state": "failed", "error": f"its process ended with {how}"}
    result["took_s"] = round(time.monotonic() - start, 1)
    write(path, result)
    return result


def _end(process: BaseProcess) -> None:
    """End the child and all that it started."""
    assert process.pid is not None
    for kill in (lambda pid: os.killpg(pid, signal.SIGKILL), lambda pid: process.kill()):
        with suppress(ProcessLookupError, PermissionError):
            kill(process.pid)
    process.join(_KILLED_S)


def _measure(stage: Stage, setting: Setting, path: Path, box_s: float) -> None:
    # A group, so that its own children end with it; of the same session, so that what ends the
    # visit from outside ends it too.
    os.setpgid(0, 0)
    faulthandler.enable()
    # Where a stage hung is known only before it is ended.
    faulthandler.dump_traceback_later(max(box_s - 0.5, 0.1), exit=False)
    record = Record(path, stage.name, box_s)
    try:
        stage.measure(setting, record)
    except BaseException as e:
        record.finish(described(e))
        raise
    record.finish()
    sys.stderr.flush()
    # Threads that a failed part left behind must not keep it: everything is written.
    os._exit(0)
