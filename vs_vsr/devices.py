"""The devices of this machine: their names, their precision, their memory.

A new backend needs a change here, and a file in transfer/ that moves frames to it.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from vs_vsr.errors import ArgumentError, DeviceError
from vs_vsr.kernels.selection import describe

__all__ = [
    "Precision",
    "check_cupy",
    "check_gpu_room",
    "default_dtype",
    "describe_all",
    "find_device_of_clip",
    "find_devices",
    "find_dtype",
    "kind",
    "memory_bytes",
    "prepare",
    "trim_heap",
    "wider_dtype",
]

Precision = Literal["auto", "fp32", "bf16", "fp16"]

# Settings of glibc (mallopt(3)): their numbers and bytes. Blocks below the first, the highest that
# it allows, come from a heap and not from the system. What is free at a heap's end goes back above
# the second. A thread's heap has 64 MiB; with a pad as large, an empty one is kept.
_MALLOC = {
    "mmap_threshold": (-3, 32 << 20),
    "trim_threshold": (-1, 256 << 20),
    "top_pad": (-2, 64 << 20),
}

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def find_devices(filter_name: str, name: str) -> tuple[torch.device, ...]:
    """The device of this name, or several GPUs; for "auto" a GPU if there is one.

    Args:
        filter_name: The filter they are for, for the messages.
        name: "auto", "cpu", "cuda" or "cuda:N", or names of different GPUs joined by commas.

    Raises:
        ArgumentError: This is not the name of a device, or the list holds something else than
            different GPUs.
        DeviceError: This machine does not have the device.
    """
    parts = [part.strip() for part in name.split(",")]
    found = tuple(_find_device(filter_name, part) for part in parts)
    gpus = {device for device in found if device.type == "cuda"}
    if len(parts) > 1 and ("auto" in parts or len(gpus) < len(parts)):
        raise ArgumentError(
            f"{filter_name}: device must be different GPUs if it is a list "
            f'("cuda:0,cuda:1"), got "{name}". Name each GPU once and nothing else.'
        )
    return found


def _find_device(filter_name: str, name: str) -> torch.device:
    """One device, as `find_devices`."""
    count = _gpu_count()
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ArgumentError(
            f'{filter_name}: device must be "auto", "cpu" or "cuda:N", got "{name}". '
            "Leave it out to use a GPU if there is one."
        )
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        if device.index >= count:
            available = ", ".join(["cpu", *(f"cuda:{i}" for i in range(count))])
            raise DeviceError(
                f"{filter_name}: device must be one that this machine has ({available}), got "
                f'"{name}". Choose one of these, or "auto".'
            )
    # There is only one CPU: "cpu:3" means "cpu".
    return device if device.type == "cuda" else torch.device("cpu")


def find_device_of_clip(filter_name: str, name: str, uuid: bytes, gpu_name: str) -> torch.device:
    """The device whose memory a clip is in.

    Args:
        filter_name: The filter it is for, for the messages.
        name: What the user asks for: "auto", "cpu", "cuda" or "cuda:N".
        uuid: The 16 bytes by which the clip's GPU is known.
        gpu_name: The name of the clip's GPU, for the messages.

    Raises:
        ArgumentError: This is not the name of a device, or another device than the clip's.
        DeviceError: This machine does not have the device, or CUDA does not have the clip's GPU.
    """
    of_clip = None
    for i in range(_gpu_count()):
        # torch's annotations say that it is a text.
        its_uuid: Any = torch.cuda.get_device_properties(i).uuid
        if bytes(its_uuid.bytes) == uuid:
            of_clip = torch.device("cuda", i)
    if of_clip is None:
        raise DeviceError(
            f"{filter_name}: clip must be on a GPU that CUDA can use, got one on {gpu_name}. Put "
            "std.GPUDownload before the filter, or choose another GPU with core.set_vulkan_device "
            "before any GPU filter."
        )
    if name == "auto":
        return of_clip
    if "," in name:
        raise ArgumentError(
            f"{filter_name}: device must be one GPU, as the clip is on one ({gpu_name}), got "
            f'"{name}". Leave it out, or put std.GPUDownload before the filter.'
        )
    device = _find_device(filter_name, name)
    if device != of_clip:
        kind = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
        raise ArgumentError(
            f"{filter_name}: device must be the GPU that the clip is on ({gpu_name}), got "
            f'"{name}" ({kind}). Leave it out, or choose the clip\'s with core.set_vulkan_device '
            "before any GPU filter."
        )
    return device


def check_cupy(filter_name: str) -> None:
    """Refuse a clip on a GPU where CuPy is missing, which reads the core's memory there.

    Raises:
        DeviceError: It is not installed.
    """
    if find_spec("cupy") is None:
        major = str(torch.version.cuda).partition(".")[0]
        raise DeviceError(
            f"{filter_name}: clip must be in host memory where CuPy is not installed, got a GPU "
            f'clip. Install "vs-vsr[cuda{major}]", or put std.GPUDownload before the filter.'
        )


def check_gpu_room(
    filter_name: str, device: torch.device, needed: int, frames_limit: int, smaller_chunk: int
) -> None:
    """Hold what a filter on a GPU clip needs against the memory that is left beside the frames.

    Args:
        filter_name: The filter it is for, for the messages.
        device: A CUDA device, on which `needed` has been reserved: the frames have made room.
        needed: Bytes that the filter will take.
        frames_limit: Bytes that the core's frames may take (core.max_vram_cache_size).
        smaller_chunk: The chunk to advise.

    Raises:
        DeviceError: They do not fit.
    """
    free, _ = torch.cuda.mem_get_info(device)
    # What torch keeps of filters that are gone, and gives to this one.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if free >= needed:
        return
    mib = 1 << 20
    limit = max(frames_limit - (needed - free), 0) // mib
    raise DeviceError(
        f"{filter_name}: device must have room for the network beside the frame cache "
        f"({-(-needed // mib)} MiB), got {free // mib} MiB free. Lower core.max_vram_cache_size to "
        f"{limit}, or chunk to {smaller_chunk}."
    )


def find_dtype(
    filter_name: str, precision: Precision, device: torch.device, default: torch.dtype | None
) -> torch.dtype:
    """The type of the network's weights and features.

    Args:
        filter_name: The filter it is for, for the messages.
        precision: What the user asks for.
        device: Where the network runs.
        default: What "auto" means; None is `default_dtype`.

    Raises:
        ArgumentError: The device cannot compute in that precision.
    """
    if precision == "auto":
        return default or default_dtype(device)
    allowed = ["fp32", "bf16"] if _multiplies_bf16() else ["fp32"]
    if device.type == "cpu" and precision not in allowed:
        names = " or ".join(f'"{name}"' for name in allowed)
        raise ArgumentError(
            f'{filter_name}: precision must be {names} on this processor, got "{precision}". '
            "Leave it out for the default."
        )
    return _DTYPES[precision]


def default_dtype(device: torch.device) -> torch.dtype:
    """What precision="auto" means: half precision if the hardware itself multiplies it."""
    if device.type == "cuda":
        return torch.float16
    # torch before 2.9 cannot tell, so it gets float32.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if fast and _multiplies_bf16() else torch.float32


def wider_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype | None:
    """The fastest type with the range of float32, for values that overflow `dtype`.

    None if those of `dtype` itself go that far.
    """
    if dtype != torch.float16:
        return None
    # GPUs before Ampere only imitate bfloat16.
    major, _ = torch.cuda.get_device_capability(device)
    return torch.bfloat16 if major >= 8 else torch.float32


def _multiplies_bf16() -> bool:
    """Whether convolutions in bfloat16 run on this processor at all, fast or not."""
    # Without oneDNN torch computes them itself, slowly.
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is None or not torch.backends.mkldnn.is_available() or bool(supported())


def prepare(device: torch.device) -> None:
    """Set a device up: float32 is computed in float32, to the same bits every time.

    On a processor, freed memory is kept for the next tensors.
    """
    if device.type == "cpu":
        _keep_freed_memory()
    if device.type == "cuda":
        # Settings of the process, which the threads of all devices share: float32 convolutions in
        # float32, and the same algorithm every time.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True


def describe_all() -> Iterator[tuple[str, str]]:
    """The name of each device, and a line about it; without a GPU a line that says why."""
    names = {"cpu": f"{platform.machine()}, {torch.get_num_threads()} threads"}
    for i in range(_gpu_count()):
        kernels = describe(torch.device("cuda", i))
        names[f"cuda:{i}"] = f"{torch.cuda.get_device_name(i)}; own kernels: {kernels}"
    for device, name in names.items():
        precision = str(default_dtype(torch.device(device))).removeprefix("torch.")
        yield device, f'{name}; precision="auto" is {precision}'
    if not _gpu_count():
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        yield "cuda", f"none: torch, built {built}, finds no NVIDIA GPU with a driver"


def kind(device: torch.device) -> str:
    """What a device is: the name of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = _text(Path("/proc/cpuinfo")).splitlines()
    # Of ARM, Linux tells numbers alone.
    wanted = ("model name", "CPU implementer", "CPU part")
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(wanted)]
    return " ".join(dict.fromkeys(names)) or platform.processor() or platform.machine()


def _gpu_count() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


class _MemoryStatus(ctypes.Structure):
    """Windows' MEMORYSTATUSEX, of which only the machine's memory is looked at."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 6),
    )


def memory_bytes(device: torch.device | None = None) -> int:
    """All memory of a GPU; by default of the machine or of the container.

    There is no limit if the system does not tell.
    """
    if device is not None and device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if sys.platform == "win32":
        status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
        told = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        return int(status.total) if told else sys.maxsize
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min((machine, *_control_group_limits()))


def _control_group_limits(
    membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """Memory limits in bytes of this process's control groups, of both versions (Linux).

    A group's limit holds for the groups inside it too. In a container the outer groups cannot be
    seen, and `root` is the container's group.

    Args:
        membership: Lines "ID:CONTROLLERS:PATH" (cgroups(7)).
        root: Where the groups are mounted.
    """
    for line in _text(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            groups, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            groups, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = groups / path.lstrip("/")
        while group.is_relative_to(groups):
            limit = _text(group / name).strip()
            if limit.isdecimal():
                yield int(limit)
            group = group.parent


def _text(path: Path) -> str:
    """The text of a file; empty if it does not exist or may not be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


@cache
def _keep_freed_memory() -> None:
    """Let the C library keep the memory of tensors that are freed for those that come next.

    glibc would give it back after each, and the system clears every page of it anew, which took a
    tenth of the upsampler's time or more. These are settings of the process; `trim_heap` gives back
    what is left.
    """
    if sys.platform != "linux":
        return
    # Only glibc has it.
    setting = getattr(ctypes.CDLL(None), "mallopt", None)
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    for name, (number, value) in _MALLOC.items():
        # Where the user has a setting, that holds.
        named = f"MALLOC_{name.upper()}_" in os.environ or f"glibc.malloc.{name}=" in tunables
        if setting is not None and not named:
            setting(number, value)


def trim_heap() -> None:
    """Give freed memory back to the system where the C library would keep it.

    glibc keeps the holes between tensors that live long. Over a film they add up: the peak of 2,000
    frames was a tenth above that of 200.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    # Only glibc has it.
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
