"""The filters: arguments in, network and stream wired up, frames out.

`create` and the workers serve the compiled plugin, so that `core.vsr.BasicVSR(clip)` needs no
import. `vs_vsr.functions` has the typed twins for scripts that import `vs_vsr`.
"""

import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

import torch
from torch import nn

from vs_vsr.bridge import ClipInfo, Job, Spec
from vs_vsr.errors import ArgumentError, DeviceError
from vs_vsr.options import Options, Reader
from vs_vsr.streaming.plan import Step
from vs_vsr.streaming.runner import Runner
from vs_vsr.streams import DEFAULT_WEIGHTS, network_options, streaming
from vs_vsr.transfer import host
from vs_vsr.weights import store
from vs_vsr.weights.detect import load_model
from vs_vsr.weights.registry import ROWS

__all__ = ["StreamWorker", "create"]

# The largest numerator of a frame rate.
_LARGEST = 2**63 - 1
_RGBH, _RGBS = 2 << 28 | 1 << 24 | 16 << 16, 2 << 28 | 1 << 24 | 32 << 16

# Built networks stay for the process: a script that is loaded again (mpv does it at every seek)
# starts at once.
_built: dict[tuple[object, ...], nn.Module] = {}
_build_lock = threading.Lock()
# One thread works on each device, one chunk after another, whichever clip or core they are for. Two
# at once would fight for cores and memory; and the frame server's threads, each with an OpenMP team
# and a heap of its own, would take more of both (measured: docs/measurements.md). A module that is
# loaded anew keeps the thread.
_threads: dict[torch.device, ThreadPoolExecutor] = globals().get("_threads", {})

# A chunk that takes longer is told of: until it is done nothing else shows that there is progress.
_SLOW_S = 10.0


def create(
    function: str, args: Mapping[str, int | float | str], clip: ClipInfo
) -> tuple[Spec, "StreamWorker"]:
    """Check the arguments of a filter and build what runs it.

    Raises:
        VsrError: An argument breaks its rule, or weights or device are not to be had.
    """
    if not clip.width or not clip.height or not clip.format:
        raise ArgumentError(
            f"{function}: clip must be of constant format and size, got a variable one. Bring its "
            "parts to one with clip.resize, or filter them one by one."
        )
    read = Reader(function, args)
    options = Options.read(read, clip.width, clip.height)
    model = _model(read, options)
    made = streaming(model, read, options, clip)
    plan, rate = made.plan, made.rate
    if rate * clip.fps_num > _LARGEST:
        rule = f"of at most {_LARGEST // rate} fps"
        raise read.error("clip", rule, clip.fps_num, "Set its rate with std.AssumeFPS.")
    scale = made.stream.scale
    around = 2 * (plan.lookahead + plan.context) + plan.preroll
    spec = Spec(
        work_format=_RGBH if clip.format == _RGBH else _RGBS,
        width=scale * clip.width,
        height=scale * clip.height,
        num_frames=rate * plan.frames,
        chunk=rate * min(plan.chunk, plan.frames),
        # What one chunk reads and the next one reads again, and the frames fetched ahead.
        cache_frames=min(plan.chunk * (1 + options.prefetch) + around, plan.frames),
        matrix=options.matrix,
        prefetch=options.prefetch,
        fps_num=rate * clip.fps_num,
        fps_den=clip.fps_den,
        rate=rate,
        message=made.message,
    )
    runner = Runner(made.stream, plan, options.scenes, made.tiles)
    return spec, StreamWorker(function, runner, options.device)


class StreamWorker:
    """One filter's side of the bridge: frames to tensors, the runner, and back."""

    def __init__(self, function: str, runner: Runner, device: torch.device) -> None:
        """Run `runner` on `device` for the filter `function`."""
        self._function = function
        self._runner = runner
        self._device = device
        # Whether pictures made so far are stale, which nobody has been told.
        self._stale = False
        with _build_lock:
            if device not in _threads:
                thread = ThreadPoolExecutor(1, thread_name_prefix=f"vs_vsr {device}")
                # Started here, where a system without threads to spare fails the filter's creation:
                # a job that is queued without one would run later, on frames that are long gone.
                thread.submit(int).result()
                _threads[device] = thread
            self._thread = _threads[device]

    def next(self, chunk: int, *, initial: bool) -> Step:
        """The step to do now for `chunk`; at first, what it is if its turn comes in order."""
        return self._runner.expected(chunk) if initial else self._runner.next(chunk)

    def run(self, job: Job) -> bool:
        """Do the step of `job` on its frames; whether pictures made before are stale now."""
        future = self._thread.submit(self._run, job)
        try:
            if not wait([future], _SLOW_S).done:
                first, last = job.step.first, job.step.last - 1
                job.log(
                    f"{self._function}: frames {first} to {last} have been computing on "
                    f"{self._device} for {_SLOW_S:g} s. Their pictures come all at once."
                )
        finally:
            # Whatever happens here, the frames are in use until then.
            wait([future])
        hint = "Use a smaller chunk, or tile=256."
        try:
            with _memory_errors(self._function, self._device, "a chunk", hint):
                future.result()
        finally:
            # An exception holds this frame, and `future` the exception: the memory of a step that
            # failed would stay until the garbage is collected.
            del future
        stale, self._stale = self._stale, False
        return stale

    def _run(self, job: Job) -> None:
        marks = [(frame.scene_prev, frame.scene_next) for frame in job.inputs]
        frames = [host.upload(frame.planes, self._device) for frame in job.inputs]
        planes = [frame.planes for frame in job.outputs]
        with host.writing(planes, self._device) as out:
            # Told once the job is done, also where its own end fails.
            self._stale |= self._runner.run(job.step, frames, marks, out)
        del frames, out
        host.give_back()

    def ended(self, chunk: int, missing: Step | None) -> None:
        """A request for `chunk` is over; `missing` is what the source could not give for it."""
        try:
            if missing is not None:
                self._runner.failed(missing)
        finally:
            self._runner.ended(chunk)


@contextmanager
def _memory_errors(function: str, device: torch.device, what: str, what_now: str) -> Iterator[None]:
    """Say in a sentence that `device` has no memory left for `what`.

    Raises:
        DeviceError: It has none.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as e:
        # Of a GPU torch has an exception for it, of a CPU it says so in a plain RuntimeError.
        of_memory = isinstance(e, MemoryError | torch.OutOfMemoryError)
        if not of_memory and "can't allocate memory" not in str(e):
            raise
        asked = re.search(r"tried to allocate ([\d.]+ \w+)", str(e), re.IGNORECASE)
        got = f"none for {asked[1]} more" if asked else "none"
        # Not from its traceback, whose frames hold the very memory that is wanting.
        raise DeviceError(
            f"{function}: device must have the memory for {what}, got {got} on {device}. {what_now}"
        ) from e.with_traceback(None)


def _model(read: Reader, options: Options) -> nn.Module:
    """The network of these options, built once for the process."""
    function = read.function
    own = network_options(read)
    path = store.find(read.text("weights", _default_weights(read)), function)
    # The filter is in it, as what a file holds is checked when it is built.
    file = (function, store.identity(path))
    key = (*file, options.device, options.dtype, *sorted(own.items()))
    if options.device.type == "cuda":
        # For the process, as threads of several devices share it: float32 convolutions in float32,
        # and the same algorithm every time.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    with _build_lock:
        model = _built.get(key)
        if model is None:
            with _memory_errors(function, options.device, "the network", "Choose another device."):
                model = load_model(path, model=function, **own).to(options.device)
                # Buffers stay float32: the means of SPyNet's input are not worth rounding.
                for parameter in model.parameters():
                    parameter.data = parameter.data.to(options.dtype)
            _built[key] = model
    return model


def _default_weights(read: Reader) -> str:
    default = DEFAULT_WEIGHTS[read.function]
    if default is None and not read.given("weights"):
        names = ", ".join(row.name for row in ROWS if row.model == read.function)
        raise read.error(
            "weights",
            "named, as the published ones may not be used commercially (CC BY-NC 4.0)",
            None,
            f"Name a file or one of {names}.",
        )
    return default or ""
