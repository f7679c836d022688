"""A few pictures of a job, before and after, without making the job."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import vapoursynth as vs

from vs_vsr.job.clips import before, pictures
from vs_vsr.job.plan import JobPlan
from vs_vsr.job.planning import plan_preview
from vs_vsr.job.request import Request

__all__ = ["preview"]


def preview(
    request: Request, times: Sequence[Fraction], device: str, tell: Callable[[str, float], None]
) -> tuple[list[Path], list[str]]:
    """Write pictures as PNG files: left the source, right what a job makes of it.

    The right half is what the joined file will have before it is encoded, bit for bit, because a
    picture depends on the clip and the recipe alone.

    Args:
        request: The job.
        times: Of the pictures, as for `plan_preview`.
        device: Where the network runs, as the filters' `device`.
        tell: Told how far this is.

    Returns:
        The files, named after the output and their times, and what the user should know.

    Raises:
        VsrError: The source cannot be upscaled as it is asked.
    """
    plan, numbers, notes = plan_preview(request, times, device, tell)
    # The index of the source is there.
    folder, out = Path(request.folder) / plan.name, Path(request.out)
    after, source = pictures(plan, folder, device), before(plan, folder)
    written: list[Path] = []
    for number in numbers:
        tell("making the preview", len(written) / len(numbers))
        at = float((plan.times[number] - plan.times[plan.first]) * plan.unit)
        both = [_rgb(clip, plan, number) for clip in (source, after)]
        path = out.with_name(f"{out.stem}.preview.{at:.3f}s.png")
        _write(path, np.concatenate(both, axis=1))
        written.append(path)
    return written, notes


def _rgb(clip: vs.VideoNode, plan: JobPlan, number: int) -> "np.ndarray[Any, Any]":
    """A picture as (H, W, 3), uint8, or uint16 if it has more than 8 bits."""
    format = vs.RGB24 if clip.format.bits_per_sample == 8 else vs.RGB48
    changes = {} if clip.format.color_family == vs.RGB else {"matrix_in": plan.colour.matrix}
    with clip.resize.Bicubic(format=format, **changes).get_frame(number) as frame:
        return np.dstack([np.asarray(plane) for plane in frame])


def _write(path: Path, picture: "np.ndarray[Any, Any]") -> None:
    format = "rgb24" if picture.dtype == np.uint8 else "rgb48le"
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=format)
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as file:
        stream = file.add_stream("png", options={"pred": "mixed"})
        stream.width, stream.height = frame.width, frame.height
        stream.pix_fmt = "rgb24" if picture.dtype == np.uint8 else "rgb48be"
        for packet in (*stream.encode(frame), *stream.encode()):
            file.mux(packet)
