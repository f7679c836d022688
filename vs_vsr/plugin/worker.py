"""Makes what serves one call of a filter, from its arguments."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from vs_vsr import devices
from vs_vsr.errors import ArgumentError
from vs_vsr.plugin.arguments import Arguments, Options
from vs_vsr.plugin.contract import RGBH, ClipInfo, GpuWorker, HostWorker, Spec
from vs_vsr.plugin.gpu import GpuDevice
from vs_vsr.plugin.plans import FILTERS, Setup, defaults_for, formats, plan_for
from vs_vsr.plugin.steps import FilterWorker, GpuFilterWorker, memory_errors
from vs_vsr.plugin.turns import SegmentsInTurn
from vs_vsr.streaming.gaps import Gaps
from vs_vsr.streaming.runner import Runner
from vs_vsr.transfer.host import HostTransfer
from vs_vsr.transfer.resident import ResidentTransfer
from vs_vsr.transfer.staged import StagedTransfer
from vs_vsr.transfer.vulkan import GpuFrames, plane_tensor
from vs_vsr.weights import store
from vs_vsr.weights.loader import load_model
from vs_vsr.weights.rows import ROWS

__all__ = ["Resolved", "create", "resolve"]

# The largest numerator of a frame rate.
_LARGEST = 2**63 - 1
# Networks that keep little for each frame: on a CPU, in bfloat16, tiles save nothing with chunks of
# some frames, as they are added up in float32 (measured).
_NO_TILES = ("BasicVSR", "RealBasicVSR")

# Built networks are kept until the process ends, so that a script that is loaded again (mpv does
# that at every seek) starts at once.
_built: dict[tuple[object, ...], nn.Module] = {}
_build_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What one call of a filter comes to on this machine."""

    weights: Path
    arguments: dict[str, int | str]
    """What gives the same pictures on any machine, where the filter has an argument of this name;
    arguments that only one filter has are as the user gave them."""
    scale: int
    frames_per_input: int
    segment: int
    """Input frames, from a multiple of which on pictures do not depend on a state before them."""
    message: str
    """About defaults that were changed for this machine; may be empty."""


def resolve(filter_name: str, values: Mapping[str, int | float | str], clip: ClipInfo) -> Resolved:
    """What the arguments of a filter come to, with those that are left out.

    Args:
        filter_name: As in `core.vsr`.
        values: The arguments that the user gave, by name, without the clip.
        clip: The clip.

    Raises:
        VsrError: As for `create`.
    """
    arguments = Arguments(filter_name, values)
    options = Options.read(arguments, defaults_for(arguments), clip.width, clip.height)
    setup = plan_for(_network(arguments, options), arguments, options, clip)
    plan = setup.plan
    precisions = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    found: dict[str, int | str] = {
        "precision": precisions[options.dtype],
        "chunk": plan.chunk if arguments.at_least("chunk", 1, 0) else 0,
        "segment": plan.segment,
        "preroll": plan.preroll,
        "tile": setup.tile,
        "overlap": setup.overlap,
        "matrix": str(options.matrix),
    }
    if setup.frames_per_input == 1:
        found["lookahead"] = plan.lookahead
    return Resolved(
        weights=_weights(arguments),
        arguments=found,
        scale=setup.stream.scale,
        frames_per_input=setup.frames_per_input,
        segment=plan.segment,
        message=setup.message,
    )


def create(
    filter_name: str, values: Mapping[str, int | float | str], clip: ClipInfo
) -> tuple[Spec, HostWorker | GpuWorker]:
    """Check the arguments of a filter and build what runs it.

    Args:
        filter_name: As in `core.vsr`.
        values: The arguments that the user gave, by name, without the clip.
        clip: The clip.

    Raises:
        VsrError: An argument breaks its rule, or the weights or the device cannot be used.
    """
    if not clip.width or not clip.height or not clip.format:
        raise ArgumentError(
            f"{filter_name}: clip must have a constant format and size, got a variable one. "
            "Convert its parts to one with clip.resize, or filter each by itself."
        )
    arguments = Arguments(filter_name, values)
    defaults = defaults_for(arguments)
    options = Options.read(arguments, defaults, clip.width, clip.height, clip.gpu)

    def set_up(device: torch.device, dtype: torch.dtype, *, fit: bool = True) -> Setup:
        here = replace(options, device=device, dtype=dtype)
        return plan_for(_network(arguments, here), arguments, here, clip, fit=fit)

    setups = {device: set_up(device, options.dtype) for device in options.devices}
    setup = setups[options.device]
    plan, frames_per_input = setup.plan, setup.frames_per_input
    if frames_per_input * clip.fps_num > _LARGEST:
        rule = f"at a rate whose numerator is at most {_LARGEST // frames_per_input}"
        raise arguments.error("clip", rule, clip.fps_num, "Set its rate with std.AssumeFPS.")
    scale = setup.stream.scale
    # What one chunk reads and the next one reads again, and the frames fetched ahead.
    around = 2 * (plan.lookahead + plan.context) + plan.preroll
    cache_frames = min(plan.chunk * (1 + options.prefetch) + around, plan.frames)
    transfers = [] if clip.gpu else [_transfer(device, cache_frames) for device in setups]
    input_format, output_format = formats(clip.format, options.device)
    spec = Spec(
        input_format=input_format,
        output_format=output_format,
        width=scale * clip.width,
        height=scale * clip.height,
        num_frames=frames_per_input * plan.frames,
        chunk=frames_per_input * min(plan.chunk, plan.frames),
        cache_frames=cache_frames,
        matrix=options.matrix,
        hdr_matrix=options.hdr_matrix,
        prefetch=options.prefetch,
        arrivals=any(transfer.arrivals for transfer in transfers),
        fps_num=frames_per_input * clip.fps_num,
        fps_den=clip.fps_den,
        frames_per_input=frames_per_input,
        message=setup.message,
    )

    gaps = Gaps(plan)
    wider_dtype = devices.wider_dtype(options.device, options.dtype)

    def runner(device: torch.device, dtype: torch.dtype) -> Runner:
        here = setups[device]
        stream = here.stream if dtype == options.dtype else set_up(device, dtype, fit=False).stream
        return Runner(stream, plan, options.scenes, here.tiles, gaps)

    def wider(device: torch.device) -> Callable[[], Runner] | None:
        return None if wider_dtype is None else partial(runner, device, wider_dtype)

    side = max(clip.width, clip.height)
    is_half_on_cpu = options.device.type == "cpu" and options.dtype != torch.float32
    tiles_help = plan.chunk == 1 or not (is_half_on_cpu and filter_name in _NO_TILES)
    hint = _less_memory(plan.chunk, min(options.tile or side, side) if tiles_help else 0)
    if transfers:
        workers = [
            FilterWorker(
                *(filter_name, runner(device, options.dtype), device, transfer),
                hint=hint,
                wider=wider(device),
            )
            for device, transfer in zip(setups, transfers, strict=True)
        ]
        return spec, SegmentsInTurn(workers, plan) if len(workers) > 1 else workers[0]
    assert clip.gpu is not None
    device, network = options.device, _network(arguments, options)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    clip.gpu.reserve(weights + setup.gpu_bytes)
    resident = _resident(filter_name, device, clip, clip.gpu, spec, setup.gpu_bytes)
    return spec, GpuFilterWorker(
        filter_name,
        runner(device, options.dtype),
        device,
        resident,
        hint=hint,
        wider=wider(device),
    )


def _less_memory(chunk: int, side: int) -> str:
    """What to do where memory runs out; `side` is that of the tiles, 0 where they do not help."""
    smaller = [f"chunk={chunk // 2}"] if chunk > 1 else []
    if side > 256:
        smaller.append("tile=256")
    return f"Use {', or '.join(smaller)}." if smaller else "Use another device, or crop the clip."


def _resident(
    filter_name: str,
    device: torch.device,
    clip: ClipInfo,
    gpu: GpuDevice,
    spec: Spec,
    needed: int,
) -> ResidentTransfer:
    """What reads and writes the frames of a clip on a GPU, of which the filter takes `needed`."""
    devices.check_cupy(filter_name)
    devices.check_gpu_room(filter_name, device, needed, gpu.limit, max(spec.chunk // 2, 1))
    # Imported here: only a machine with a GPU needs them.
    import cuda.bindings.runtime

    from vs_vsr.transfer.cuda import runtime

    with torch.cuda.device(device):
        frames = GpuFrames(cuda.bindings.runtime, filter_name, gpu.timelines)
    return ResidentTransfer(
        runtime(device),
        frames,
        plane_tensor,
        capacity=spec.cache_frames,
        in_shape=(clip.height, clip.width),
        out_shape=(spec.height, spec.width),
        dtype=torch.float16 if spec.output_format == RGBH else torch.float32,
    )


def _transfer(device: torch.device, cache_frames: int) -> HostTransfer | StagedTransfer:
    """What moves the frames of one filter to `device` and back."""
    if device.type == "cpu":
        return HostTransfer()
    # Imported here: only a machine with a GPU needs it.
    from vs_vsr.transfer.cuda import runtime

    return StagedTransfer(runtime(device), cache_frames)


def _network(arguments: Arguments, options: Options) -> nn.Module:
    """The network of these options, built once for the process."""
    filter_name = arguments.filter_name
    network_options = FILTERS[filter_name].network_options(arguments)
    path = _weights(arguments)
    # With the filter, because only building a network checks that the file holds this filter's.
    file = (filter_name, store.identity(path))
    key = (*file, options.device, options.dtype, *sorted(network_options.items()))
    devices.prepare(options.device)
    with _build_lock:
        network = _built.get(key)
        if network is None:

            def build() -> nn.Module:
                network = load_model(path, model=filter_name, **network_options)
                # Buffers stay float32: the means of SPyNet's input are not worth rounding.
                for parameter in network.parameters():
                    parameter.data = parameter.data.to(options.dtype)
                # Moved last. A move waits until it is done, but a change of dtype on a GPU would
                # be done in a stream that those of the steps do not wait for.
                return network.to(options.device)

            hint = "Choose another device."
            # On a thread that ends, and its OpenMP team with it. While libgomp has more threads
            # than cores, those that wait for one another sleep at once, and steps take an eighth
            # longer (docs/measurements.md).
            with (
                memory_errors(filter_name, options.device, "the network", hint),
                ThreadPoolExecutor(1, thread_name_prefix="vs_vsr network") as thread,
            ):
                network = thread.submit(build).result()
            _built[key] = network
    return network


def _weights(arguments: Arguments) -> Path:
    name = arguments.text("weights", _default_weights(arguments))
    return store.obtain(name, arguments.filter_name)


def _default_weights(arguments: Arguments) -> str:
    default = FILTERS[arguments.filter_name].defaults.weights
    if default is None and not arguments.given("weights"):
        names = ", ".join(row.name for row in ROWS if row.filter == arguments.filter_name)
        raise arguments.error(
            "weights",
            "named, as the published ones may not be used commercially (CC BY-NC 4.0)",
            None,
            f"Name a file or one of {names}.",
        )
    return default or ""
