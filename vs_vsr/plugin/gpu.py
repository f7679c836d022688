"""The structs of frames on a GPU, as native/gpu_abi.h lays them out, and what is read from them."""

import ctypes as c
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vs_vsr.transfer.vulkan import GpuFrame, GpuPlane, Wait

__all__ = ["GpuDevice", "GpuDeviceStruct", "GpuFrameStruct", "read_device", "read_frame"]


class GpuDeviceStruct(c.Structure):
    """VsrGpuDevice."""

    _fields_ = (
        ("uuid", c.c_uint8 * 16),
        ("name", c.c_char * 256),
        *((name, c.c_int64) for name in ("memory", "limit")),
        ("timeline", c.c_int64 * 2),
        ("gpu", c.c_void_p),
    )


class _Plane(c.Structure):
    _fields_ = (
        *((name, c.c_uint64) for name in ("memory", "memory_size", "offset")),
        ("stride", c.c_int64),
        ("handle", c.c_int64),
    )


class _Wait(c.Structure):
    _fields_ = (("semaphore", c.c_uint64), ("value", c.c_uint64), ("handle", c.c_int64))


class GpuFrameStruct(c.Structure):
    """VsrGpuFrame."""

    _fields_ = (
        ("plane", _Plane * 3),
        ("wait", _Wait * 3),
        ("waits", c.c_int32),
    )


@dataclass(frozen=True)
class GpuDevice:
    """The GPU that a clip is on. Sizes are in bytes."""

    uuid: bytes
    name: str
    memory: int
    limit: int
    """What the core's frames may take."""
    timelines: tuple[int, int]
    """Handles of READS and WRITES, valid for the call that shows them; -1 both: none."""
    reserve: Callable[[int], None]
    """Tells the core, during that call, how many bytes in all the filter takes, before it does."""


def read_device(device: Any, reserve: Callable[[int], None]) -> GpuDevice:
    """What a GpuDeviceStruct says; `reserve` is not in it."""
    return GpuDevice(
        bytes(device.uuid),
        device.name.decode(errors="replace"),
        device.memory,
        device.limit,
        (device.timeline[0], device.timeline[1]),
        reserve,
    )


def read_frame(frame: Any) -> GpuFrame:
    """What a GpuFrameStruct says. Its handles are valid for the call that shows them."""
    planes = [GpuPlane(p.memory, p.memory_size, p.offset, p.stride, p.handle) for p in frame.plane]
    waits = [Wait(w.semaphore, w.value, w.handle) for w in frame.wait[: frame.waits]]
    return GpuFrame(planes, waits)
