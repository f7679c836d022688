"""What the compiled plugin and a filter's worker say to each other: plain data, without ctypes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vs_vsr.streaming.plan import Step

__all__ = ["ClipInfo", "Frame", "Job", "Spec", "Worker"]


@dataclass(frozen=True)
class ClipInfo:
    """The user's clip; a size or format of 0 is variable."""

    width: int
    height: int
    num_frames: int
    format: int
    fps_num: int
    fps_den: int


@dataclass(frozen=True)
class Spec:
    """What a filter turns the clip into, and how its work is laid out; as VsrSpec in abi.h."""

    work_format: int
    width: int
    height: int
    num_frames: int
    fps_num: int
    fps_den: int
    frames_per_input: int
    chunk: int
    cache_frames: int
    matrix: int
    prefetch: bool
    message: str = ""


@dataclass(frozen=True)
class Frame:
    """One frame in the frame server's memory."""

    planes: Sequence[np.ndarray[Any, Any]]
    """R, G, B: (H, W), float32 or float16, with the frame's row stride; inputs are read-only."""
    scene_prev: bool | None = None
    """Whether a scene begins with this frame; None where it does not say."""
    scene_next: bool | None = None
    """Whether a scene ends with this frame; None where it does not say."""


@dataclass(frozen=True)
class Job:
    """A step and its frames; outputs are there for rendering steps."""

    step: Step
    inputs: Sequence[Frame]
    outputs: Sequence[Frame]
    log: Callable[[str], None]
    """Writes a line to the core's log, for the user to see; only while the job runs."""


class Worker(Protocol):
    """What runs one filter."""

    def next(self, chunk: int, *, initial: bool) -> Step:
        """What to do now for `chunk`; `initial`: before its turn has come."""

    def run(self, job: Job) -> bool:
        """Do one step.

        Returns when its outputs are written, and raises when nothing uses its frames any longer.

        Returns:
            Whether pictures that were made before are no longer right.
        """

    def ended(self, chunk: int, missing: Step | None) -> None:
        """Take note that a request for `chunk`, which `next` has been asked about, is over.

        Args:
            chunk: The chunk that was asked for.
            missing: The step whose frames the source could not give, if that is why.
        """
