"""The folder of a job: who works in it, what is left over in it, and when it goes."""

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import filelock

from vs_vsr.errors import JobError, StorageError
from vs_vsr.job.plan import JobPlan

__all__ = [
    "check_room",
    "is_done",
    "locked",
    "own_name",
    "record_of",
    "remove",
    "remove_leftovers",
    "rename",
    "unfinished",
]

# Before a file that another program holds is tried again.
_WAITS_S = (0.1, 0.5, 2.0)


def own_name(path: Path) -> Path:
    """A name beside `path` for what this process alone is writing."""
    return path.with_name(f".{path.stem}.{platform.node()}.{os.getpid()}{path.suffix}")


def rename(one: Path, other: Path) -> None:
    """As os.replace. On Windows a scanner may hold a new file for a moment: then it tries again."""
    for wait_s in _WAITS_S if os.name == "nt" else ():
        try:
            os.replace(one, other)
            return
        except PermissionError:
            time.sleep(wait_s)
    os.replace(one, other)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep others from running the same job.

    Raises:
        JobError: Another process runs it.
    """
    try:
        with filelock.FileLock(folder / "lock", timeout=0):
            yield
    except filelock.Timeout:
        raise JobError(
            f"The job in {folder} is being run by another process. Wait for it, or stop it."
        ) from None


def is_done(plan: JobPlan, folder: Path, number: int) -> bool:
    """Whether a part is whole: its record is written last."""
    file, record = plan.part_file(folder, number), plan.part_record(folder, number)
    return record.is_file() and file.is_file()


def record_of(plan: JobPlan, folder: Path, number: int) -> dict[str, Any]:
    """What is known of a part that is done: its device, versions, seconds, bytes and hashes."""
    record: dict[str, Any] = json.loads(plan.part_record(folder, number).read_text())
    return record


def remove_leftovers(folder: Path) -> None:
    """Remove what processes of this machine were writing when they were killed."""
    for path in (folder / "parts").glob(f".*.{platform.node()}.*"):
        process = path.name.split(".")[-2]
        if process.isdecimal() and not _is_running(int(process)):
            with suppress(OSError):
                path.unlink()


def _is_running(process: int) -> bool:
    if os.name != "posix":
        return False  # there, an open file cannot be removed
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def unfinished(folder: Path, plan: JobPlan) -> Iterator[str]:
    """Sentences about other jobs beside this one that upscale the same source."""
    for other in sorted(folder.parent.glob("*/plan.json")):
        if other.parent == folder:
            continue
        try:
            found = JobPlan.load(other.parent)
        except JobError:
            continue
        if found.source.packets == plan.source.packets:
            done = sum(1 for _ in (other.parent / "parts").glob("*.json"))
            yield (
                f"Another job for this file is in {other.parent}, with {done} of "
                f"{len(found.parts)} parts done. It differs in {_differences(found, plan)}. It is "
                "left as it is: remove its folder if you do not want it."
            )


def _differences(one: JobPlan, other: JobPlan) -> str:
    """The options in which two jobs differ, by name, with both values where they are short."""
    mine, theirs = _flat(asdict(other)), _flat(asdict(one))
    names = [k for k in {**theirs, **mine} if mine.get(k) != theirs.get(k)]
    named = [k for k in names if not k.startswith(("times", "cuts", "parts", "out", "source."))]
    shown = []
    for name in named:
        values = [str(side.get(name, "none")) for side in (theirs, mine)]
        short = all(len(value) <= 24 for value in values)
        shown.append(f"{name.rpartition('.')[2]} ({' and '.join(values)})" if short else name)
    return ", ".join(shown) or "the range"


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else {f"{prefix}{key}": value}
        )
    return flat


def check_room(plan: JobPlan, folder: Path, needed: float) -> None:
    """Check that the disks have room for the parts and the joined file.

    Args:
        plan: The job.
        folder: Its folder.
        needed: Bytes of the pictures that are still to be made, by the forecast.

    Raises:
        StorageError: One has not.
    """
    out = Path(plan.out).parent
    whole = needed + sum(f.stat().st_size for f in (folder / "parts").glob("*") if f.is_file())
    on_one = folder.stat().st_dev == out.stat().st_dev
    for place, count in ((folder, needed + (whole if on_one else 0)), (out, whole)):
        free = shutil.disk_usage(place).free
        if free < count:
            raise StorageError(
                f"{place} must have about {count / 1e9:.1f} GB free for the parts and the joined "
                f"file, got {free / 1e9:.1f} GB. Make room, or use --job for a folder "
                "elsewhere."
            )


def remove(plan: JobPlan, folder: Path) -> None:
    """Remove a job that is joined, and the index of its source if no other job there uses it."""
    shutil.rmtree(folder, ignore_errors=True)
    parent = folder.parent
    packets = set()
    for other in parent.glob("*/plan.json"):
        with suppress(JobError):
            packets.add(JobPlan.load(other.parent).source.packets)
    if plan.source.packets not in packets:
        for path in parent.glob(f"{plan.source.packets[:16]}.*"):
            with suppress(OSError):
                path.unlink()
    if parent == Path(f"{plan.out}.job"):
        with suppress(OSError):
            parent.rmdir()  # only if it is empty
