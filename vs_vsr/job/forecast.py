"""What a job will take, from a short sample of it."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from vs_vsr.job.exact import kind_here
from vs_vsr.job.plan import JobPlan
from vs_vsr.job.progress import WorkMeter, memory_in_use

__all__ = ["Forecast", "sample", "work_per_picture"]

_FILE = "forecast.json"
# The sample is a hundredth of the pictures, but no fewer and no more than these.
_SHARE, _LEAST, _MOST = 100, 2, 8
# Pictures from one key frame to the next, by x264 and x265 themselves; a cut has one too.
_KEY_EVERY = 250


@dataclass(frozen=True)
class Forecast:
    """What one picture takes."""

    device: str
    """What it was made on: the name of the GPU or of the processor."""
    seconds: float
    """Time of one device."""
    bytes: float
    """In the file."""
    work: float
    """Multiplications, as `WorkMeter` counts them."""
    memory: int
    """Bytes of main memory of the process after the sample; a job takes more, for its chunks are
    longer."""


def sample(folder: Path, device: str) -> Forecast:
    """Compute and encode a few pictures from the middle of a job; kept in its folder.

    Args:
        folder: The job's.
        device: Where the network runs, as the filters' `device`.

    Raises:
        VsrError: As for a part.
    """
    kind = kind_here(device).device
    known = _read(folder)
    if known is not None and known.device == kind:
        return known
    from vs_vsr.job.clips import pictures, planes
    from vs_vsr.job.encode import PartWriter

    plan = JobPlan.load(folder)
    whole = plan.last - plan.first
    rate = plan.recipe.frames_per_input
    # In frames of the source. The lengths around the chunk shrink as it does, so that as much is
    # computed for each picture as in the job.
    count = min(max(whole // rate // _SHARE, _LEAST), _MOST)
    given = plan.recipe.arguments
    share = count / (int(given.get("chunk", 0)) or plan.source.frames)
    changes: dict[str, int] = {"chunk": count}
    for name in ("lookahead", "preroll"):
        if name in given:
            changes[name] = round(share * int(given[name]))
    if "segment" in given:
        # As if it were within a segment: there the preroll costs nothing.
        changes |= {"segment": count, "preroll": 0}
    clip = pictures(plan, folder, device, **changes)
    middle = (plan.first + plan.last) // 2 // (rate * count) * rate * count
    last = min(middle + rate * count, len(plan.times))
    meter, began = WorkMeter(), time.monotonic()
    path = folder / f".sample{plan.encoder.suffix}"
    try:
        with meter.counting(), PartWriter(path, plan, middle) as writer:
            for frame in clip[middle:last].frames(close=True):
                writer.write(planes(frame))
        seconds = time.monotonic() - began
        key, others = _sizes(path)
    finally:
        path.unlink(missing_ok=True)
    found = Forecast(
        device=kind,
        seconds=seconds / (last - middle),
        bytes=key / _KEY_EVERY + others,
        work=meter.done / (last - middle),
        memory=memory_in_use(),
    )
    (folder / _FILE).write_text(json.dumps(asdict(found)))
    return found


def _sizes(path: Path) -> tuple[float, float]:
    """Bytes of the first packet, which is a key frame, and of the others in the mean."""
    import av

    with av.open(str(path), options={"protocol_whitelist": "file"}) as file:
        sizes = [packet.size for packet in file.demux(video=0) if packet.size]
    others = sizes[1:] or sizes
    return sizes[0], sum(others) / len(others)


def work_per_picture(folder: Path) -> float:
    """What the sample has found; 0 if there was none."""
    known = _read(folder)
    return 0.0 if known is None else known.work


def _read(folder: Path) -> Forecast | None:
    try:
        return Forecast(**json.loads((folder / _FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
