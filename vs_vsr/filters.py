"""The filters: arguments in, network and stream wired up, frames out.

`create` and the workers serve the compiled plugin, so that `core.vsr.BasicVSR(clip)` needs no
import. The functions below are its typed twins for scripts that import `vs_vsr`.
"""

import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from vs_vsr.bridge import ClipInfo, Job, Spec
from vs_vsr.errors import ArgumentError, BridgeError, DeviceError
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.options import Options, Precision
from vs_vsr.streaming.plan import Step
from vs_vsr.streaming.runner import Runner
from vs_vsr.streaming.scenes import Scenes
from vs_vsr.streaming.tiles import tiles
from vs_vsr.transfer import host
from vs_vsr.weights import store
from vs_vsr.weights.detect import load_model

if TYPE_CHECKING:
    from vapoursynth import VideoNode

__all__ = ["basicvsr", "create"]

# The networks that exist as filters, and the weights each takes when none are named.
_NETWORKS = {"BasicVSR": (BasicVSR, "reds4")}

_RGBH, _RGBS = 2 << 28 | 1 << 24 | 16 << 16, 2 << 28 | 1 << 24 | 32 << 16

# Built networks stay for the process: a script that is loaded again (mpv does it at every seek)
# starts at once.
_built: dict[tuple[Path, int, torch.device, torch.dtype], BasicVSR] = {}
_build_lock = threading.Lock()
# One thread works on each device, one chunk after another, whichever clip or core they are for. Two
# at once would fight for cores and memory; and the frame server's threads, each with an OpenMP team
# and a heap of its own, would take more of both (measured: docs/measurements.md).
_threads: dict[torch.device, ThreadPoolExecutor] = {}


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
    network, weights = _NETWORKS[function]
    options = Options.read(
        function,
        args,
        width=clip.width,
        height=clip.height,
        frames=clip.num_frames,
        scale=network.scale,
        weights=weights,
    )
    model = _model(options)
    plan = options.plan
    spec = Spec(
        work_format=_RGBH if clip.format == _RGBH else _RGBS,
        width=network.scale * clip.width,
        height=network.scale * clip.height,
        num_frames=clip.num_frames,
        chunk=min(plan.chunk, plan.frames),
        # What one chunk reads and the next one reads again, and the frames fetched ahead.
        cache_frames=min(
            plan.chunk * (1 + options.prefetch) + 2 * plan.lookahead + plan.preroll, plan.frames
        ),
        matrix=options.matrix,
        prefetch=options.prefetch,
        fps_num=clip.fps_num,
        fps_den=clip.fps_den,
        message=options.message,
    )
    parts = tiles(clip.height, clip.width, options.tile, options.overlap, network.scale)
    runner = Runner(model, plan, options.scenes, parts)
    return spec, StreamWorker(function, runner, options.device)


class StreamWorker:
    """One filter's side of the bridge: frames to tensors, the runner, and back."""

    def __init__(self, function: str, runner: Runner, device: torch.device) -> None:
        """Run `runner` on `device` for the filter `function`."""
        self._function = function
        self._runner = runner
        self._device = device
        with _build_lock:
            if device not in _threads:
                _threads[device] = ThreadPoolExecutor(1, thread_name_prefix=f"vs_vsr {device}")
            self._thread = _threads[device]

    def next(self, chunk: int, *, initial: bool) -> Step:
        """The step to do now for `chunk`; at first, what it is if its turn comes in order."""
        return self._runner.expected(chunk) if initial else self._runner.next(chunk)

    def run(self, job: Job) -> None:
        """Do the step of `job` on its frames."""
        try:
            self._thread.submit(self._run, job).result()
        except (torch.OutOfMemoryError, MemoryError) as e:
            raise DeviceError(
                f"{self._function}: device must have the memory for a chunk, got {e} on "
                f"{self._device}. Use a smaller chunk, or tile=256."
            ) from e

    def _run(self, job: Job) -> None:
        marks = [(frame.scene_prev, frame.scene_next) for frame in job.inputs]
        frames = [host.upload(frame.planes, self._device) for frame in job.inputs]
        planes = [frame.planes for frame in job.outputs]
        with host.writing(planes, self._device) as out:
            self._runner.run(job.step, frames, marks, out)
        del frames, out
        host.give_back()

    def failed(self, step: Step) -> None:
        """Take note that the source could not give the frames of `step`."""
        self._runner.failed(step)


def _model(options: Options) -> BasicVSR:
    """The network of these options, built once for the process."""
    path = store.find(options.weights, options.function)
    key = (path, path.stat().st_mtime_ns, options.device, options.dtype)
    if options.device.type == "cuda":
        # For the process, as threads of several devices share it: float32 convolutions in float32,
        # and the same algorithm every time.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    with _build_lock:
        model = _built.get(key)
        if model is None:
            loaded = load_model(path, model=options.function).to(options.device)
            model = cast(BasicVSR, loaded)
            # Buffers stay float32: the means of SPyNet's input are not worth rounding.
            for parameter in model.parameters():
                parameter.data = parameter.data.to(options.dtype)
            _built[key] = model
    return model


def basicvsr(
    clip: "VideoNode",
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str | None = None,
    precision: Precision | None = None,
    chunk: int | None = None,
    lookahead: int | None = None,
    segment: int | None = None,
    preroll: int | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    scenes: Scenes | None = None,
    matrix: str | None = None,
    prefetch: bool | None = None,
) -> "VideoNode":
    """Upscale a clip four times with BasicVSR; the same as `clip.vsr.BasicVSR(...)`.

    Args:
        clip: Any constant format and size, progressive. What is not RGBS or RGBH is converted and
            converted back; values are clamped to [0, 1] of the RGB range.
        weights: A name of the registry ("reds4", the default, "vimeo90k-bi", "vimeo90k-bd", …) or
            a file.
        device: "auto" (a GPU where there is one), "cpu", "cuda:0", …
        precision: "auto" (fp16 on a GPU; on a CPU bf16 where the processor has it), "fp32", "bf16"
            or "fp16".
        chunk: Frames computed together, default 30, less where the pictures are large; 0 is the
            whole clip at once, as the paper's numbers are made.
        lookahead: Frames after a chunk that its backward pass sees, default 15.
        segment: Frames over which the forward state is carried, a multiple of `chunk`, default 4
            chunks. A seek computes from the segment's start.
        preroll: Frames before a segment that warm its state up, default 10.
        tile: Side in pixels of the spatial tiles, at least 64; 0, the default, is whole frames.
        overlap: Pixels that neighbouring tiles share and fade over, default 32, or a quarter of
            `tile` where that is less.
        scenes: Where the state stops: at the frames' own marks ("props", the default:
            `_SceneChangePrev` and `_SceneChangeNext`), at cuts found in the pictures
            ("detect"), or nowhere ("off").
        matrix: Matrix of a YUV or GRAY frame whose `_Matrix` does not say: "709", "170m", "470bg",
            "2020ncl", "240m", "fcc" or "ycgco"; by default it follows from the frame's size.
        prefetch: Ask the source for the next chunk's frames while one is computed; default off.

    Returns:
        The clip at four times the width and height, in its own format, with its properties.

    Raises:
        vapoursynth.Error: An argument breaks its rule, or weights or device are not to be had.

    Source: BasicVSR, arXiv:2012.02181.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    if weights is not None:
        given["weights"] = os.fspath(weights)
    return _plugin(given.pop("clip")).BasicVSR(**given)


def _plugin(clip: "VideoNode") -> Any:
    """The plugin, bound to the clip; loaded where VapourSynth did not find it itself."""
    try:
        return clip.vsr
    except AttributeError:
        import vapoursynth as vs

        # VapourSynth looks beside its own package only; this one may be installed elsewhere.
        for file in files("vs-vsr") or ():
            if file.stem == "libvsr":
                vs.core.std.LoadPlugin(str(file.locate()))
                return clip.vsr
    raise BridgeError(
        "bridge: the compiled plugin must be installed with vs_vsr, got none. Reinstall vs-vsr."
    )
