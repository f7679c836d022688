"""A worker for the bridge without a network: it repeats pixels four times.

Its frames show what they were made from: R is the input, G counts the frames of the segment up to
this one (the state that is carried), B is the number of frames read after the chunk.
The argument `weights` says what else should happen; see Worker.
"""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vs_vsr.errors import ArgumentError
from vs_vsr.plugin.contract import ClipInfo, Frame, Job, Outcome, Spec
from vs_vsr.streaming.plan import Plan, Step

_FORMATS = {"RGBS": 2 << 28 | 1 << 24 | 32 << 16, "RGBH": 2 << 28 | 1 << 24 | 16 << 16}

workers: list["Worker"] = []


def create(
    filter_name: str, args: Mapping[str, int | float | str], clip: ClipInfo
) -> tuple[Spec, "Worker"]:
    mode, _, value = str(args.get("weights", "")).partition(" ")
    if mode == "refuse":
        raise ArgumentError(f"{filter_name}: weights must be kind, got {value!r}. Ask again.")
    if mode == "interrupt":
        raise KeyboardInterrupt
    if mode == "long":
        raise ValueError("ä" * 5000)
    chunk = int(args.get("chunk", 4))
    plan = Plan(
        frames=clip.num_frames,
        chunk=chunk,
        lookahead=int(args.get("lookahead", 2)),
        segment=int(args.get("segment", 4 * chunk)),
        preroll=int(args.get("preroll", 0)),
    )
    worker = Worker(plan, mode, value)
    reads = writes = "RGBH" if clip.format == _FORMATS["RGBH"] else "RGBS"
    if mode == "formats":
        reads, writes = value.split()
    workers.append(worker)
    spec = Spec(
        input_format=_FORMATS[reads],
        output_format=_FORMATS[writes],
        width=4 * clip.width,
        height=4 * clip.height,
        num_frames=clip.num_frames,
        # Not in lowest terms.
        fps_num=2 * clip.fps_num,
        fps_den=2 * clip.fps_den,
        frames_per_input=1,
        chunk=chunk,
        cache_frames=2 * chunk + 4,
        matrix=1,
        hdr_matrix=9,
        prefetch=bool(args.get("prefetch", 0)),
        arrivals=mode == "late",
        message="the stand-in is here" if mode == "log" else "",
    )
    return spec, worker


class Worker:
    """Works along a plan; remembers the two newest states, so that seeks must rebuild them."""

    def __init__(self, plan: Plan, mode: str, value: str) -> None:
        self.plan, self.mode, self.value = plan, mode, value
        self.states: dict[int, int] = {}
        self.done: list[Step] = []
        self.failures: list[Step] = []
        self.read: set[str] = set()
        self.written: set[str] = set()
        self.ends: list[int] = []
        self.busy, self.busy_late = threading.Lock(), threading.Lock()
        # With "late": which frames arrived, and what is not delivered or dropped yet.
        self.arrivals: list[int] = []
        self.late: dict[int, dict[int, tuple[Frame, list[np.ndarray[Any, Any]]]]] = {}
        self.delivered: list[tuple[int, int]] = []
        self.dropped: list[int] = []
        self.undeliverable: set[int] = set()
        self.useless: set[int] = set()
        # Chunks that a test holds up; which were waited for.
        self.computed: dict[int, threading.Event] = {}
        self.waited: list[int] = []

    def next(self, chunk: int, *, initial: bool) -> Step:
        if self.mode == "next" and chunk == int(self.value):
            raise RuntimeError("no next step")
        if self.mode == "empty" and chunk == int(self.value):
            return Step(chunk, True, 5, 5)
        start = self.plan.segment_start(chunk)
        known = max((k for k in self.states if start < k <= chunk), default=start)
        return self.plan.render(chunk) if initial or known == chunk else self.plan.advance(known)

    def arrived(self, n: int, frame: Frame) -> None:
        if frame.planes[0].flags.writeable:
            raise RuntimeError("an input that may be written")
        self.arrivals.append(n)

    def close(self) -> None:
        pass

    def wait(self, late: int) -> None:
        self.waited.append(late)
        event = self.computed.get(late)
        if event is not None:
            event.wait(30)

    def deliver(self, late: int, index: int) -> bool:
        with self.busy_late:
            if late in self.useless:
                return False
            if index in self.late[late]:
                if late in self.undeliverable:
                    raise ValueError("the device is lost")
                frame, pictures = self.late[late].pop(index)
                for plane, picture in zip(frame.planes, pictures, strict=True):
                    plane[:] = picture
                self.delivered.append((late, index))
        return True

    def drop(self, late: int) -> None:
        del self.late[late]
        self.dropped.append(late)

    def run(self, job: Job) -> Outcome:
        # VapourSynth must not run two steps of one filter at once.
        if not self.busy.acquire(blocking=False):
            raise RuntimeError("run at the same time as another step")
        try:
            return self._run(job)
        finally:
            self.busy.release()

    def _run(self, job: Job) -> Outcome:
        step = job.step
        if self.mode == "sleep":
            Path(self.value).touch()
            time.sleep(0.4)
        if self.mode == "run" and step.chunk == int(self.value):
            raise ValueError("the network exploded")
        if len(job.inputs) != step.last - step.first:
            raise RuntimeError("not the frames of the step")
        out = self.plan.output(step.chunk)
        before = 0 if self.plan.segment_start(step.chunk) == step.chunk else self.states[step.chunk]
        inputs = job.inputs[out.start - step.first :]
        # Each output frame gives its number in the segment.
        for i, frame in enumerate(job.outputs):
            for plane, source in zip(frame.planes, inputs[i].planes, strict=True):
                plane[:] = source.repeat(4, 0).repeat(4, 1)
            if self.mode in ("count", "late"):
                frame.planes[1][:] = before + i + 1
                frame.planes[2][:] = step.last - out.stop
        if self.mode != "forgetful":
            self.states[step.chunk + 1] = before + len(out)
            self.states = dict(list(self.states.items())[-2:])
        self.done.append(step)
        self.read |= {str(frame.planes[0].dtype) for frame in job.inputs}
        self.written |= {str(frame.planes[0].dtype) for frame in job.outputs}
        if self.mode != "late" or not step.render:
            return Outcome()
        number = len(self.done)
        self.late[number] = {}
        for i, frame in enumerate(job.outputs):
            self.late[number][i] = (frame, [plane.copy() for plane in frame.planes])
            for plane in frame.planes:
                plane[:] = np.nan
        return Outcome(late=number)

    def ended(self, chunk: int, missing: Step | None) -> None:
        self.ends.append(chunk)
        if missing is not None:
            self.failures.append(missing)
