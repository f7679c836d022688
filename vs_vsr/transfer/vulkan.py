"""Frames in the memory of the core's GPU, read and written in place by CUDA.

The plugin shows each plane as a place in a block of memory, and what must have happened before it
may be read as values of semaphores (native/gpu_abi.h). Blocks and semaphores are imported into CUDA
once. The handles that come with them belong to the plugin and are closed when the call is over, so
an import that keeps a descriptor is given a duplicate.

The order on a stream: wait for the frame's semaphores, work, signal a value of our own timeline.
The value may be published once its signal is enqueued: whoever waits for it may hold locks of the
core, so it must come without anything more from the host. Where semaphores cannot be exported, the
plugin waits before it shows a frame, and here the stream is waited for.

All of it must be called with the device of the clip current in the calling thread.
"""

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vs_vsr.errors import DeviceError

if TYPE_CHECKING:
    import cupy
    import torch

__all__ = [
    "READS",
    "WRITES",
    "Access",
    "Blocks",
    "GpuFrame",
    "GpuFrames",
    "GpuPlane",
    "Semaphores",
    "Timeline",
    "Wait",
    "plane_array",
    "plane_tensor",
]

READS, WRITES = 0, 1
"""Our two timelines (VsrTimeline): each is signalled on one stream, in order."""

# Each import keeps a block (128 MiB) alive after the core has freed it and no longer counts it. The
# pictures of three chunks and the input go round: of large ones more are kept.
_LEAST_KEPT, _TIMES_KEPT = 16, 4


@dataclass(frozen=True)
class GpuPlane:
    """One plane; VsrGpuPlane in native/gpu_abi.h says what the fields are."""

    memory: int
    memory_size: int
    offset: int
    stride: int
    handle: int


@dataclass(frozen=True)
class Wait:
    """A value that a semaphore of the core must have reached before a frame is read."""

    semaphore: int
    value: int
    handle: int


@dataclass(frozen=True)
class GpuFrame:
    """One frame on the GPU."""

    planes: Sequence[GpuPlane]
    """R, G, B."""
    waits: Sequence[Wait] = ()


def _answer(result: tuple[Any, ...]) -> Any:
    """What a function of the CUDA runtime gives beside its error code.

    Raises:
        RuntimeError: The code is an error; its text is the code's name.
    """
    error, *values = result
    if int(error):
        raise RuntimeError(error.name)
    return values[0] if values else None


def _lend(handle: Any, number: int) -> int | None:
    """Put a handle into a description for an import.

    Returns:
        The duplicate that the import takes for itself if it succeeds; None on Windows, where an
        import takes nothing.
    """
    if sys.platform == "win32":
        handle.win32.handle = number
        return None
    handle.fd = os.dup(number)
    return int(handle.fd)


def _import(
    result: tuple[Any, ...], duplicate: int | None, filter_name: str, what: str = "memory"
) -> Any:
    """What an import gives. If it has failed, the duplicate is still ours: it is closed."""
    error, imported = result
    if not int(error):
        return imported
    if duplicate is not None:
        os.close(duplicate)
    raise _not_imported(filter_name, error.name, what)


def _not_imported(filter_name: str, code: str, what: str = "memory") -> DeviceError:
    return DeviceError(
        f"{filter_name}: clip must be in {what} that CUDA can import, got {code}. Put "
        "std.GPUDownload before the filter, and report this with the driver's version."
    )


@dataclass
class _Block:
    memory: Any
    base: int
    users: int = 0


class Blocks:
    """The core's blocks of memory, imported into CUDA. For several threads."""

    def __init__(self, runtime: Any, filter_name: str) -> None:
        """Take `cuda.bindings.runtime`, and the filter's name for messages."""
        self._runtime = runtime
        self._filter_name = filter_name
        self._lock = threading.Lock()
        # By number; the last used one last.
        self._blocks: dict[int, _Block] = {}
        self._streams: set[int] = set()
        self._kept = _LEAST_KEPT

    @contextmanager
    def addresses(self, planes: Sequence[GpuPlane], stream: int) -> Iterator[list[int]]:
        """Give the address of each plane, for work that is enqueued on `stream` within the block.

        Of the blocks that nobody is within, those used last are kept: 16, or four times as many as
        these planes lie in.

        Raises:
            DeviceError: CUDA cannot import the memory.
        """
        used: list[_Block] = []
        try:
            with self._lock:
                self._streams.add(stream)
                blocks = len({plane.memory for plane in planes})
                self._kept = max(self._kept, _TIMES_KEPT * blocks)
                for plane in planes:
                    block = self._blocks.pop(plane.memory, None) or self._imported(plane)
                    self._blocks[plane.memory] = block
                    block.users += 1
                    used.append(block)
            yield [block.base + plane.offset for block, plane in zip(used, planes, strict=True)]
        finally:
            with self._lock:
                for block in used:
                    block.users -= 1
                unused = [number for number, block in self._blocks.items() if not block.users]
                self._drop(unused[: max(len(self._blocks) - self._kept, 0)])

    def synchronise(self) -> None:
        """Wait for all streams that have worked on the blocks."""
        for stream in list(self._streams):
            _answer(self._runtime.cudaStreamSynchronize(stream))

    def close(self) -> None:
        """Give all blocks back. Nobody may be within `addresses`."""
        with self._lock:
            self._drop(list(self._blocks))

    def _imported(self, plane: GpuPlane) -> _Block:
        rt = self._runtime
        kinds = rt.cudaExternalMemoryHandleType
        description = rt.cudaExternalMemoryHandleDesc()
        description.type = (
            kinds.cudaExternalMemoryHandleTypeOpaqueWin32
            if sys.platform == "win32"
            else kinds.cudaExternalMemoryHandleTypeOpaqueFd
        )
        description.size = plane.memory_size
        duplicate = _lend(description.handle, plane.handle)
        memory = _import(rt.cudaImportExternalMemory(description), duplicate, self._filter_name)
        whole = rt.cudaExternalMemoryBufferDesc()
        whole.offset, whole.size = 0, plane.memory_size
        error, base = rt.cudaExternalMemoryGetMappedBuffer(memory, whole)
        if int(error):
            rt.cudaDestroyExternalMemory(memory)
            raise _not_imported(self._filter_name, error.name)
        return _Block(memory, int(base))

    def _drop(self, numbers: Sequence[int]) -> None:
        if not numbers:
            return
        self.synchronise()
        for number in numbers:
            block = self._blocks.pop(number)
            # The mapping goes before what it maps.
            _answer(self._runtime.cudaFree(block.base))
            _answer(self._runtime.cudaDestroyExternalMemory(block.memory))


class _Imports:
    """Timeline semaphores, imported into CUDA."""

    def __init__(self, runtime: Any, filter_name: str) -> None:
        self._runtime = runtime
        self._filter_name = filter_name

    def _imported(self, handle: int) -> Any:
        rt = self._runtime
        kinds = rt.cudaExternalSemaphoreHandleType
        description = rt.cudaExternalSemaphoreHandleDesc()
        description.type = (
            kinds.cudaExternalSemaphoreHandleTypeTimelineSemaphoreWin32
            if sys.platform == "win32"
            else kinds.cudaExternalSemaphoreHandleTypeTimelineSemaphoreFd
        )
        duplicate = _lend(description.handle, handle)
        result = rt.cudaImportExternalSemaphore(description)
        return _import(result, duplicate, self._filter_name, "memory with semaphores")


class Semaphores(_Imports):
    """The core's semaphores, which streams wait for. For several threads."""

    def __init__(self, runtime: Any, filter_name: str) -> None:
        """Take `cuda.bindings.runtime`, and the filter's name for messages."""
        super().__init__(runtime, filter_name)
        self._lock = threading.Lock()
        self._known: dict[int, Any] = {}

    def wait(self, waits: Sequence[Wait], stream: int) -> None:
        """Make `stream` wait until each semaphore has reached the highest of its values.

        Raises:
            DeviceError: CUDA cannot import a semaphore.
        """
        highest: dict[int, int] = {}
        with self._lock:
            for wait in waits:
                if wait.semaphore not in self._known:
                    self._known[wait.semaphore] = self._imported(wait.handle)
                highest[wait.semaphore] = max(wait.value, highest.get(wait.semaphore, 0))
            semaphores = [self._known[number] for number in highest]
        if not semaphores:
            return
        rt = self._runtime
        values = []
        for value in highest.values():
            values.append(rt.cudaExternalSemaphoreWaitParams())
            values[-1].params.fence.value = value
        _answer(rt.cudaWaitExternalSemaphoresAsync(semaphores, values, len(values), stream))

    def close(self) -> None:
        """Give all semaphores back. No stream may still wait for one."""
        with self._lock:
            while self._known:
                _, semaphore = self._known.popitem()
                _answer(self._runtime.cudaDestroyExternalSemaphore(semaphore))


class Timeline(_Imports):
    """A semaphore of ours, signalled on one stream. For several threads."""

    def __init__(self, runtime: Any, filter_name: str, handle: int) -> None:
        """Import the semaphore, from a handle that stays the caller's.

        Raises:
            DeviceError: CUDA cannot import it.
        """
        super().__init__(runtime, filter_name)
        self._lock = threading.Lock()
        self._value = 0
        self._semaphore = self._imported(handle)

    def signal(self, stream: int) -> int:
        """Make the stream signal the next value when it has done all that was enqueued so far.

        Returns:
            The value, which may now be published.
        """
        rt = self._runtime
        parameters = rt.cudaExternalSemaphoreSignalParams()
        # Counting and enqueueing are one, or a later value could be signalled first.
        with self._lock:
            parameters.params.fence.value = self._value + 1
            signalled = rt.cudaSignalExternalSemaphoresAsync(
                [self._semaphore], [parameters], 1, stream
            )
            _answer(signalled)
            self._value += 1
            return self._value

    def close(self) -> None:
        """Give the semaphore back. No signal may be pending."""
        _answer(self._runtime.cudaDestroyExternalSemaphore(self._semaphore))


@dataclass
class Access:
    """Frames that a stream may read or write within a block."""

    planes: list[list[int]]
    """For each frame the addresses of R, G, B."""
    value: int = field(default=0, init=False)
    """After the block: the value to publish; 0 if the work is done already."""


class GpuFrames:
    """The frames of one filter on the GPU. For several threads."""

    def __init__(self, runtime: Any, filter_name: str, timelines: Sequence[int]) -> None:
        """Import the timelines.

        Args:
            runtime: `cuda.bindings.runtime`.
            filter_name: The filter it is for, for the messages.
            timelines: Handles of READS and WRITES, which stay the caller's; -1 both where
                semaphores cannot be exported.

        Raises:
            DeviceError: CUDA cannot import the timelines.
        """
        self._runtime = runtime
        self._blocks = Blocks(runtime, filter_name)
        self._semaphores = Semaphores(runtime, filter_name)
        self._timelines: list[Timeline] = []
        self._lock = threading.Lock()
        self._within = 0
        self._closing = False
        try:
            for handle in timelines:
                if handle != -1:
                    self._timelines.append(Timeline(runtime, filter_name, handle))
        except BaseException:
            self.close()
            raise

    @contextmanager
    def access(self, frames: Sequence[GpuFrame], stream: int, timeline: int) -> Iterator[Access]:
        """Let work on frames be enqueued on `stream` within the block.

        When the block ends without an error, `value` of what it gave is to be published. When it
        ends with one, the stream has been waited for: nothing uses the frames any longer.

        Args:
            frames: What is read or written.
            stream: The CUDA stream, as an address; always the same one for a timeline.
            timeline: READS or WRITES.

        Raises:
            DeviceError: CUDA cannot import the memory or a semaphore.
        """
        planes = [plane for frame in frames for plane in frame.planes]
        with self._open(), self._blocks.addresses(planes, stream) as addresses:
            places = iter(addresses)
            access = Access([[next(places) for _ in frame.planes] for frame in frames])
            done = False
            try:
                self._semaphores.wait([wait for f in frames for wait in f.waits], stream)
                yield access
                if self._timelines:
                    access.value = self._timelines[timeline].signal(stream)
                    done = True
            finally:
                if not done:
                    _answer(self._runtime.cudaStreamSynchronize(stream))

    def close(self) -> None:
        """Wait for the streams and give everything back, when nobody is within `access`.

        The last one who is does it on leaving. From now on `access` fails.
        """
        with self._lock:
            self._closing = True
        self._give_back_at_the_end()

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self._lock:
            if self._closing:
                raise RuntimeError("the filter is gone")
            self._within += 1
        try:
            yield
        finally:
            with self._lock:
                self._within -= 1
            self._give_back_at_the_end()

    def _give_back_at_the_end(self) -> None:
        with self._lock:
            if not self._closing or self._within:
                return
            self._blocks.synchronise()
            while self._timelines:
                self._timelines.pop().close()
            self._semaphores.close()
            self._blocks.close()


def plane_tensor(
    address: int, shape: tuple[int, int], stride: int, dtype: "torch.dtype"
) -> "torch.Tensor":
    """A plane as a tensor over the core's memory, on torch's current device and stream.

    Args:
        address: Where the plane is.
        shape: (H, W).
        stride: Bytes from one row to the next.
        dtype: Of the samples.
    """
    import torch

    name = str(dtype).removeprefix("torch.")
    array = plane_array(address, shape, stride, name, torch.cuda.current_device())
    # -1: nothing of CuPy's is under way there, so no order is to be made.
    return torch.utils.dlpack.from_dlpack(array.__dlpack__(stream=-1))


def plane_array(
    address: int, shape: tuple[int, int], stride: int, dtype: str, device: int
) -> "cupy.ndarray":
    """A plane as a CuPy array over the core's memory, without a copy.

    It owns nothing: it is for work that is enqueued within `access`.

    Args:
        address: Where the plane is.
        shape: (H, W).
        stride: Bytes from one row to the next.
        dtype: Of the samples, as numpy names it: "float32", "float16", "uint8" or "uint16".
        device: Number of the CUDA device.
    """
    import cupy

    size = stride * shape[0]
    memory = cupy.cuda.UnownedMemory(address, size, owner=None, device_id=device)
    samples = cupy.dtype(dtype)
    pointer = cupy.cuda.MemoryPointer(memory, 0)
    return cupy.ndarray(shape, samples, pointer, strides=(stride, samples.itemsize))
