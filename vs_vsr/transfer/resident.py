"""Frames of a clip on the GPU: the network's input is read from them, its pictures written to them.

    core's threads     frame n, as it arrives             new frames
                           |                                  |
    upload stream      wait -> float32, [0, 1] -> signal      |
                                     | event                  |
    compute stream                   network -> pictures in place -> signal

Nothing is copied to or from the host, and nothing waits there, with one exception: the core, when
it frees a frame that is still being read. Between the core's own work and these streams stand the
semaphores (vs_vsr.transfer.vulkan), between the streams an event.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vs_vsr.kernels.planes import unpack
from vs_vsr.transfer.staged import Event, Runtime, Stream
from vs_vsr.transfer.vulkan import READS, WRITES, GpuFrame, GpuFrames

__all__ = ["GpuRuntime", "PlaneTensor", "ResidentTransfer"]


class GpuRuntime(Runtime, Protocol):
    """A `Runtime` whose streams have addresses."""

    def address(self, stream: Stream) -> int:
        """By which `cuda.bindings.runtime` knows the stream."""


PlaneTensor = Callable[[int, tuple[int, int], int, torch.dtype], Tensor]
"""Makes a tensor (H, W) over a plane: of its address, (H, W), bytes from row to row, and type."""


@dataclass(frozen=True)
class _Input:
    """A frame as the network reads it."""

    tensor: Tensor
    read: Event
    number: int
    """Counts the frames in the order of the upload stream."""


@dataclass(frozen=True)
class _Checked:
    """What was found out about the pictures of one chunk."""

    extremes: Tensor
    """For each plane its smallest and largest value, (N, 2), in pinned memory."""
    computed: Event


class ResidentTransfer:
    """Frames of one filter whose clip is on the GPU."""

    def __init__(
        self,
        runtime: GpuRuntime,
        frames: GpuFrames,
        plane_tensor: PlaneTensor,
        capacity: int,
        in_shape: tuple[int, int],
        out_shape: tuple[int, int],
        dtype: torch.dtype,
    ) -> None:
        """Read and write frames on the device of `runtime`.

        Args:
            runtime: The device.
            frames: The core's frames there.
            plane_tensor: Makes tensors over their planes.
            capacity: How many input frames are kept. With as many as a chunk reads, those that the
                next chunk reads again need not be taken again.
            in_shape: (H, W) of input frames.
            out_shape: (H, W) of output frames.
            dtype: Of the samples: float32 or float16.
        """
        self._runtime = runtime
        self._frames = frames
        self._plane_tensor = plane_tensor
        self._capacity = capacity
        self._in_shape, self._out_shape, self._dtype = in_shape, out_shape, dtype
        self._inputs: OrderedDict[int, _Input] = OrderedDict()
        # Of steps that found some of their frames gone: these stay until the step has them.
        self._awaited: dict[int, range] = {}
        self._read = 0
        self._checked: dict[int, _Checked] = {}
        self._rendered = 0
        # Of all above, and of the order in the upload stream.
        self._lock = threading.Lock()

    def has(self, n: int) -> bool:
        """Whether frame `n` is there; any thread."""
        with self._lock:
            if n not in self._inputs:
                return False
            # A step asks for it.
            self._inputs.move_to_end(n)
            return True

    def taken(self, n: int, frame: GpuFrame) -> int:
        """Read frame `n` into a tensor; any thread.

        Returns:
            What the timeline READS reaches when the frame is read; 0 if it is read already.
        """
        return self._runtime.call(self._runtime.upload, lambda: self._take(n, frame))

    def inputs(self, first: int, count: int) -> list[Tensor] | None:
        """Frames as tensors that the compute stream may read; None if one is not there.

        Then those that are there stay, and those that come, until this is asked again.

        Args:
            first: Number of the first frame in the clip.
            count: How many frames.

        Returns:
            Each (1, 3, H, W), float32, clamped to [0, 1], a NaN become 0.
        """
        wanted = range(first, first + count)
        with self._lock:
            if not all(n in self._inputs for n in wanted):
                self._awaited[first] = wanted
                return None
            self._awaited.pop(first, None)
            for n in wanted:
                self._inputs.move_to_end(n)
            found = [self._inputs[n] for n in wanted]
            self._forget()
        # Waits: the network reads what the upload stream writes, which does so in order.
        self._runtime.wait(self._runtime.compute, max(found, key=lambda i: i.number).read)
        return [entry.tensor for entry in found]

    def give_up(self, first: int) -> None:
        """A step from frame `first` will not be done: its frames need not stay."""
        with self._lock:
            self._awaited.pop(first, None)
            self._forget()

    def look[T](self, work: Callable[[], T]) -> T:
        """Do what reads something back from input frames, without waiting for the network."""
        return self._runtime.call(self._runtime.upload, work)

    def render[T](
        self,
        frames: Sequence[GpuFrame],
        work: Callable[[Sequence[Sequence[Tensor]]], T],
        *,
        check: bool = False,
    ) -> tuple[T, int, int]:
        """Give the compute stream a step.

        Args:
            frames: The output frames.
            work: The step. It gets the places for its pictures: for each frame three tensors
                (1, H, W), with the row stride of its planes.
            check: Let `deliver` refuse pictures with a value that is infinite or NaN.

        Returns:
            What `work` returns; the number by which `deliver` knows the pictures, or 0 if they are
            not checked; and what the timeline WRITES reaches when the frames have their pictures,
            or 0 if they have them already.
        """
        compute = self._runtime.compute
        if not frames:
            return self._runtime.call(compute, lambda: work([])), 0, 0
        return self._runtime.call(compute, lambda: self._render(frames, work, check))

    def wait(self, late: int) -> None:
        """Wait until the pictures with this number are computed; any thread."""
        self._checked[late].computed.synchronize()

    def deliver(self, late: int, index: int) -> bool:
        """Wait until the pictures with this number are computed; any thread.

        Returns:
            Whether all their values are finite; they are the same for every `index`.
        """
        checked = self._checked[late]
        # Waits: the extremes are read once the device has written them.
        checked.computed.synchronize()
        return bool(checked.extremes.isfinite().all())

    def drop(self, late: int) -> None:
        """Forget what was found out about these pictures."""
        with self._lock:
            self._checked.pop(late, None)

    def close(self) -> None:
        """Wait for all work, and give the core's memory back."""
        self._runtime.call(self._runtime.upload, self._frames.close)

    def _take(self, n: int, frame: GpuFrame) -> int:
        runtime = self._runtime
        stream = runtime.address(runtime.upload)
        with self._frames.access([frame], stream, READS) as access:
            planes = self._tensors(frame, access.planes[0], self._in_shape)
            picture = runtime.empty(runtime.upload, (1, 3, *self._in_shape), torch.float32)
            runtime.enqueue(runtime.upload, lambda: unpack(planes, picture, None))
            # Waits: when the frame is forgotten, the network may still have to read it.
            runtime.keep(picture, runtime.compute)
            with self._lock:
                self._read += 1
                read = runtime.record(runtime.upload)
                self._inputs[n] = _Input(picture, read, self._read)
                self._inputs.move_to_end(n)
                self._forget()
        return access.value

    def _render[T](
        self,
        frames: Sequence[GpuFrame],
        work: Callable[[Sequence[Sequence[Tensor]]], T],
        check: bool,
    ) -> tuple[T, int, int]:
        runtime = self._runtime
        stream = runtime.address(runtime.compute)
        with self._frames.access(frames, stream, WRITES) as access:
            pictures = [
                [plane[None] for plane in self._tensors(frame, places, self._out_shape)]
                for frame, places in zip(frames, access.planes, strict=True)
            ]
            result = work(pictures)
            late = self._find_out(pictures) if check else 0
            runtime.enqueue(runtime.compute, lambda: _clamp(pictures))
        return result, late, access.value

    def _find_out(self, pictures: Sequence[Sequence[Tensor]]) -> int:
        """Have the extremes of pictures found; return their number."""
        runtime = self._runtime
        planes = [plane for picture in pictures for plane in picture]
        extremes = runtime.pinned((len(planes), 2), self._dtype)
        runtime.enqueue(runtime.compute, lambda: _find_extremes(planes, extremes))
        computed = runtime.record(runtime.compute)
        with self._lock:
            self._rendered += 1
            self._checked[self._rendered] = _Checked(extremes, computed)
            return self._rendered

    def _tensors(
        self, frame: GpuFrame, places: Sequence[int], shape: tuple[int, int]
    ) -> list[Tensor]:
        return [
            self._plane_tensor(place, shape, plane.stride, self._dtype)
            for plane, place in zip(frame.planes, places, strict=True)
        ]

    def _forget(self) -> None:
        """Let go of the frames used longest ago. Under the lock."""
        for n in list(self._inputs):
            if len(self._inputs) <= self._capacity:
                return
            if not any(n in wanted for wanted in self._awaited.values()):
                del self._inputs[n]


def _find_extremes(planes: Sequence[Tensor], out: Tensor) -> None:
    """Write the smallest and the largest value of each plane; a NaN is both."""
    found = [torch.stack(torch.aminmax(plane)) for plane in planes]
    out.copy_(torch.stack(found), non_blocking=True)


def _clamp(pictures: Sequence[Sequence[Tensor]]) -> None:
    for picture in pictures:
        for plane in picture:
            plane.clamp_(0, 1)
