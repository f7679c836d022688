"""Makes one part of a job: its pictures, encoded, checked, and named once they are whole."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from vs_vsr.errors import DeviceError, JobError, StorageError
from vs_vsr.job.exact import kind_here
from vs_vsr.job.folder import is_done, own_name, rename
from vs_vsr.job.forecast import work_per_picture
from vs_vsr.job.plan import JobPlan, Recipe
from vs_vsr.job.progress import Progress, Report, WorkMeter, memory_in_use
from vs_vsr.weights.store import identity, obtain, sha256_of

__all__ = ["part"]

# How often a part tells how far it is.
_REPORT_S = 0.5


def part(folder: Path, number: int, report: Report, device: str = "auto") -> None:
    """Make a part, unless it is done. A part that is made twice is the same.

    Args:
        folder: The job's.
        number: Of the part, from 0.
        report: Told how far it is, about twice a second, from another thread.
        device: Where the network runs, as the filters' `device`.

    Raises:
        JobError: There is no such job or part, its source or weights have changed, or its file
            cannot be written.
        VsrError: The filter cannot be made, or fails.
    """
    if not folder.is_dir():
        raise StorageError(
            f"The folder of the job, {folder}, is gone. Make it reachable again, and run the same "
            "command: it goes on."
        )
    plan = JobPlan.load(folder)
    if not 0 <= number < len(plan.parts):
        raise JobError(
            f"part must be from 0 to {len(plan.parts) - 1}, got {number}. The job in {folder} has "
            f"{len(plan.parts)} parts."
        )
    if is_done(plan, folder, number):
        return
    _check_source(plan)
    _check_weights(plan.recipe)
    # Another process may make the same part.
    target = plan.part_file(folder, number)
    temporary = own_name(target)
    began = time.monotonic()
    try:
        target.parent.mkdir(exist_ok=True)
        digest = _write(plan, folder, number, temporary, report, device)
        record = {
            "pictures": plan.parts[number][1] - plan.parts[number][0],
            "seconds": round(time.monotonic() - began, 3),
            "bytes": temporary.stat().st_size,
            "decoded_sha256": digest,
            **asdict(kind_here(device)),
        }
        rename(temporary, target)
        _write_text(plan.part_record(folder, number), json.dumps(record, indent=1))
    except OSError as e:
        raise StorageError(
            f"part {number} cannot be written to {target.parent} ({e.strerror}). Make room there, "
            "or make it reachable again, and run the same command: it goes on with this part."
        ) from None
    finally:
        _remove(temporary)


def _write(
    plan: JobPlan, folder: Path, number: int, path: Path, report: Report, device: str
) -> str:
    """Write the pictures of a part to `path`; return the hash of what they decode to."""
    import vapoursynth as vs

    from vs_vsr.job.clips import planes
    from vs_vsr.job.encode import PartWriter, check_part

    first, last = plan.parts[number]
    try:
        clip = _pictures(folder, plan.name, device)[first:last]
        with _reporting(plan, folder, number, report) as done:
            with PartWriter(path, plan, first) as writer:
                for frame in clip.frames(close=True):
                    writer.write(planes(frame))
                    done()
            return check_part(path, plan, number)
    except vs.Error as e:
        # The plugin's own sentence. What memory was short for may pass on another machine.
        kind = DeviceError if "no memory left" in str(e) else JobError
        raise kind(str(e)) from None


@lru_cache(1)
def _pictures(folder: Path, name: str, device: str) -> Any:
    # Kept for the parts that follow: the filter goes on with the network that it has.
    from vs_vsr.job.clips import pictures

    return pictures(JobPlan.load(folder), folder, device)


@contextmanager
def _reporting(
    plan: JobPlan, folder: Path, number: int, report: Report
) -> Iterator[Callable[[], None]]:
    """Report while this is open; what is given is to be called for each picture that is written."""
    first, last = plan.parts[number]
    chunk = int(plan.recipe.arguments.get("chunk", 0)) * plan.recipe.frames_per_input
    chunk = min(chunk or last - first, last - first)
    # What a picture takes: as for those that are written, before them as in the sample.
    count, of_picture = 0, work_per_picture(folder)
    meter, stop = WorkMeter(), threading.Event()

    def note() -> None:
        nonlocal count, of_picture
        count += 1
        if count % chunk == 0:
            of_picture = meter.done / count

    def tell() -> None:
        while not stop.wait(_REPORT_S):
            made = meter.done / of_picture if of_picture else count
            share = min(max(made - count, 0) / chunk, 1.0)
            report(Progress(number, count, share, memory_in_use()))

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    with meter.counting():
        thread.start()
        try:
            yield note
        finally:
            stop.set()
            thread.join()


def _check_source(plan: JobPlan) -> None:
    """Raise JobError if the source is not the file that the job was planned for."""
    from vs_vsr.job.source import packets_hash

    source = plan.source
    try:
        now = os.stat(source.path)
    except OSError as e:
        raise StorageError(
            f"{source.path} cannot be read ({e.strerror}). Put it back, or make it reachable, and "
            "run the same command: it goes on."
        ) from None
    # A copy of the file has another time.
    same = now.st_size == source.size and (
        now.st_mtime_ns == source.modified_ns
        or packets_hash(Path(source.path), source.track) == source.packets
    )
    if not same:
        raise JobError(
            f"{source.path} has changed since the job was planned. Run vs-vsr upscale again: it "
            "makes a new job."
        )


def _check_weights(recipe: Recipe) -> None:
    """Raise JobError if the weights of this name are not those of the plan."""
    path = obtain(recipe.weights, recipe.filter)
    found = _digest(path, identity(path))
    if found != recipe.weights_sha256:
        raise JobError(
            f"{path} must be the weights of the plan (sha256 {recipe.weights_sha256[:12]}), got "
            f"{found[:12]}. Put the same file there, or run vs-vsr upscale again: it makes a new "
            "job."
        )


@cache
def _digest(path: Path, file: tuple[object, ...]) -> str:
    """The hash of a file; `file` is its identity, so only a file that has changed is read again."""
    return sha256_of(path)


def _write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    temporary = own_name(path)
    try:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        rename(temporary, path)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
