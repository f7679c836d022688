"""What the compiled plugin and a filter's worker say to each other: plain data, without ctypes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vs_vsr.plugin.gpu import GpuDevice
from vs_vsr.streaming.plan import Step
from vs_vsr.transfer.vulkan import GpuFrame

__all__ = [
    "RGBH",
    "RGBS",
    "ClipInfo",
    "Frame",
    "GpuWorker",
    "HostWorker",
    "Job",
    "Outcome",
    "Spec",
    "Worker",
]


# VapourSynth's numbers of the formats that the network's side reads or writes.
RGBH, RGBS = 2 << 28 | 1 << 24 | 16 << 16, 2 << 28 | 1 << 24 | 32 << 16


@dataclass(frozen=True)
class ClipInfo:
    """The user's clip. Width 0 or format 0 means variable."""

    width: int
    height: int
    num_frames: int
    format: int
    fps_num: int
    fps_den: int
    gpu: GpuDevice | None = None
    """Where its frames are; None: in the host's memory."""


@dataclass(frozen=True)
class Spec:
    """What a filter turns the clip into, and how its work is laid out.

    VsrSpec in native/abi.h says what the fields are.
    """

    input_format: int
    output_format: int
    width: int
    height: int
    num_frames: int
    fps_num: int
    fps_den: int
    frames_per_input: int
    chunk: int
    cache_frames: int
    matrix: int
    hdr_matrix: int
    prefetch: bool
    arrivals: bool = False
    message: str = ""


@dataclass(frozen=True)
class Frame:
    """One frame in the frame server's memory."""

    planes: Sequence[np.ndarray[Any, Any]]
    """R, G, B: (H, W), float32 or float16, with the frame's row stride; inputs are read-only.
    Empty for an input frame on a GPU."""
    scene_prev: bool | None = None
    """`_SceneChangePrev`: whether a scene begins with this frame; None if the frame has none."""
    scene_next: bool | None = None
    """`_SceneChangeNext`: whether a scene ends with this frame; None if the frame has none."""


@dataclass(frozen=True)
class Job:
    """A step and its frames; only steps that render have outputs."""

    step: Step
    inputs: Sequence[Frame]
    outputs: Sequence[Frame]
    log: Callable[[str], None]
    """Writes a line to the core's log; only while the job runs."""
    gpu_outputs: Sequence[GpuFrame] = ()
    """The output frames of a clip on a GPU, in place of `outputs`."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    stale: bool = False
    """Whether pictures made before this step are no longer correct."""
    late: int = 0
    """If the output frames are still empty, or not yet known to be good, the number by which
    `deliver` knows their pictures. It grows from job to job."""
    value: int = 0
    """For frames on a GPU: what the timeline WRITES reaches when they have their pictures."""
    lost: bool = False
    """If nothing was done, as input frames are no longer on the GPU: they must arrive once more."""


class Worker(Protocol):
    """What runs one filter: what `HostWorker` and `GpuWorker` have in common."""

    def next(self, chunk: int, *, initial: bool) -> Step:
        """What to do next for `chunk`; `initial`: asked before its turn (drawn in native/vsr.c)."""

    def run(self, job: Job) -> Outcome:
        """Do the step.

        Once this returns or raises, nothing uses the job's frames any longer, except late ones, and
        what is enqueued for those on a GPU.
        """

    def wait(self, late: int) -> None:
        """Wait until these late pictures are computed; called from many threads."""

    def deliver(self, late: int, index: int) -> bool:
        """Fill output frame `index` of the job with these late pictures, if it is still empty.

        Called from many threads, also for the same frame. One on a GPU is filled already.

        Returns:
            Whether it has its picture; False if the chunk must be computed anew.
        """

    def drop(self, late: int) -> None:
        """Forget these late pictures. Their frames' memory goes once this returns."""

    def ended(self, chunk: int, missing: Step | None) -> None:
        """Take note that the request for `chunk` is over.

        Args:
            chunk: The chunk that `next` was asked about.
            missing: The step whose frames the source could not give, or None.
        """

    def close(self) -> None:
        """The filter is gone. Calls in other threads may still be under way, and may fail."""


class HostWorker(Worker, Protocol):
    """What runs a filter whose clip is in the host's memory."""

    def arrived(self, n: int, frame: Frame) -> None:
        """Input frame `n` is there, and a step may ask for it soon; called from many threads.

        Once this returns or raises, nothing uses the frame's memory any longer.
        """


class GpuWorker(Worker, Protocol):
    """What runs a filter whose clip is on a GPU."""

    def taken(self, n: int, frame: GpuFrame) -> int:
        """Read input frame `n`, which a step may ask for soon; called from many threads.

        Once this raises, nothing uses the frame any longer.

        Returns:
            What the timeline READS reaches when the frame is read; 0 if it is read already.
        """

    def has(self, n: int) -> bool:
        """Whether input frame `n` is there, so that it need not be taken; from many threads."""
