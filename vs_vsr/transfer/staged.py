"""Frames for a device that works beside the program, in streams.

    frame server's threads   planes -> pinned memory             pinned memory -> planes
                                  |                                      ^
    upload stream                 copy -> float32, [0, 1]                |
                                            | event                      |
    compute stream                          network -> pictures          |
                                                         | event         |
    download stream                                      copy -----------+ event

A stream does its work in order, at some later time. Only events put the work of one stream after
that of another. So each arrow that crosses streams, or comes back to the program, needs a wait,
marked "Waits". tests/transfer/test_staged.py takes each one out and sees the pictures break.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vs_vsr.kernels.planes import unpack
from vs_vsr.transfer.host import Array

__all__ = ["SLOTS", "Event", "Runtime", "StagedTransfer", "Stream"]

# Frames that can be copied to the device, and from it, at the same time. A copy is short beside the
# work of the frame server's threads around it.
SLOTS = 4

Stream = Any
"""A queue of work on the device; what it is, only the runtime knows."""


Event = Any
"""A place in a stream; `synchronize` waits until the stream has done all that was before it."""


class Runtime(Protocol):
    """What a device must be able to do. Any thread may call it."""

    upload: Stream
    compute: Stream
    download: Stream

    def pinned(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory of the host that the device copies from and to while the program goes on."""

    def empty(self, stream: Stream, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory of the device. Once the tensor is gone, `stream` may use it for something else."""

    def keep(self, tensor: Tensor, stream: Stream) -> None:
        """Once `tensor` is gone, use its memory only after what `stream` has been given by then."""

    def enqueue(self, stream: Stream, work: Callable[[], object]) -> None:
        """Give a stream operations on tensors to do some time; does not wait for them."""

    def call[T](self, stream: Stream, work: Callable[[], T]) -> T:
        """The same with a result that does not lie on the device; it is there at once."""

    def record(self, stream: Stream) -> Event:
        """Mark the place in `stream` after all that it has been given."""

    def wait(self, stream: Stream, event: Event) -> None:
        """Let what `stream` is given from now on be done after `event`."""


@dataclass
class _Slot:
    """Pinned memory for one frame, and the last copy from it."""

    memory: Tensor
    copied: Event | None = None


@dataclass(frozen=True)
class _Input:
    """A frame on the device."""

    tensor: Tensor
    uploaded: Event
    number: int
    """Counts the frames in the order of the upload stream."""


@dataclass
class _Pictures:
    """The pictures of one chunk, and the frames that they go to."""

    tensor: Tensor
    """(N, 3, 1, H, W)."""
    computed: Event
    frames: Sequence[Sequence[Array]]
    extremes: Tensor | None
    """The smallest and the largest value before clamping, (2,), in pinned memory once the pictures
    are computed; None if nobody wants to know."""
    filled: set[int] = field(default_factory=set)
    locks: list[threading.Lock] = field(default_factory=list)


class StagedTransfer:
    """Frames for a device that has streams."""

    arrivals = True

    def __init__(self, runtime: Runtime, capacity: int) -> None:
        """Move frames to and from the device of `runtime`.

        Args:
            runtime: The device.
            capacity: How many input frames stay on the device. With as many as a chunk reads, those
                that the next chunk reads again need not be copied again.
        """
        self._runtime = runtime
        self._capacity = capacity
        self._inputs: OrderedDict[int, _Input] = OrderedDict()
        self._uploaded = 0
        self._late: dict[int, _Pictures] = {}
        self._rendered = 0
        # Of the two above, and of the order in the upload stream.
        self._lock = threading.Lock()
        # Slots are made when they are first needed.
        self._up: SimpleQueue[_Slot | None] = SimpleQueue()
        self._down: SimpleQueue[_Slot | None] = SimpleQueue()
        for _ in range(SLOTS):
            self._up.put(None)
            self._down.put(None)

    def arrived(self, n: int, planes: Sequence[Array]) -> None:
        """Start copying frame `n` to the device, if it is not there; any thread.

        Args:
            n: Its number in the clip.
            planes: R, G, B, each (H, W), float32 or float16, any row stride.
        """
        if n not in self._inputs:
            self._upload(n, planes)

    def inputs(self, first: int, frames: Sequence[Sequence[Array]]) -> list[Tensor]:
        """Frames as tensors that the compute stream and the upload stream may read.

        Args:
            first: Number of the first frame in the clip.
            frames: Planes of consecutive frames, as for `arrived`.

        Returns:
            Each (1, 3, H, W), float32, clamped to [0, 1], a NaN become 0.
        """
        found = []
        for n, planes in enumerate(frames, first):
            with self._lock:
                entry = self._inputs.get(n)
                if entry is not None:
                    self._inputs.move_to_end(n)
            found.append(entry or self._upload(n, planes))
        # Waits: the network reads what the upload stream writes, which does so in order.
        last = max(found, key=lambda entry: entry.number)
        self._runtime.wait(self._runtime.compute, last.uploaded)
        return [entry.tensor for entry in found]

    def look[T](self, work: Callable[[], T]) -> T:
        """Do what reads something back from input frames, without waiting for the network."""
        return self._runtime.call(self._runtime.upload, work)

    def render[T](
        self,
        frames: Sequence[Sequence[Array]],
        work: Callable[[Sequence[Tensor]], T],
        *,
        check: bool = False,
        first: Callable[[int], object] | None = None,
    ) -> tuple[T, int]:
        """Give the compute stream a step.

        Args:
            frames: For each output frame its planes R, G, B, each (H, W), float32 or float16. They
                are filled by `deliver`.
            work: The step. It gets the places for its pictures, for each frame (3, 1, H, W).
            check: Let `deliver` refuse pictures with a value that is infinite or NaN.
            first: Not called, as this returns before any picture is made.

        Returns:
            What `work` returns; and the number of the late pictures, or 0 if there are none.
        """
        runtime = self._runtime
        if not frames:
            return runtime.call(runtime.compute, lambda: work([])), 0
        plane = frames[0][0]
        dtype = torch.from_numpy(plane[:0]).dtype
        pictures = runtime.empty(runtime.compute, (len(frames), 3, 1, *plane.shape), dtype)
        result = runtime.call(runtime.compute, lambda: work(pictures.unbind()))
        extremes = runtime.pinned((2,), dtype) if check else None
        if extremes is not None:
            # On its way before the pictures are, so that nobody has to wait for it.
            runtime.enqueue(runtime.compute, lambda: _find_extremes(pictures, extremes))
        runtime.enqueue(runtime.compute, lambda: pictures.clamp_(0, 1))
        computed = runtime.record(runtime.compute)
        locks = [threading.Lock() for _ in frames]
        late = _Pictures(pictures, computed, frames, extremes, locks=locks)
        with self._lock:
            self._rendered += 1
            self._late[self._rendered] = late
            return result, self._rendered

    def wait(self, late: int) -> None:
        """Wait until the pictures with this number are computed; any thread."""
        self._late[late].computed.synchronize()

    def deliver(self, late: int, index: int) -> bool:
        """Copy one picture into its frame, once; any thread.

        Returns:
            Whether it is there; False if `render` was to check the pictures of this chunk, and one
            of them has a value that is not finite.
        """
        pictures = self._late[late]
        with pictures.locks[index]:
            if index not in pictures.filled:
                self._download(pictures.tensor[index], pictures.computed, pictures.frames[index])
                pictures.filled.add(index)
        return pictures.extremes is None or bool(np.isfinite(pictures.extremes.numpy()).all())

    def drop(self, late: int) -> None:
        """Forget pictures and the frames that they were to go to."""
        with self._lock:
            self._late.pop(late, None)

    def _upload(self, n: int, planes: Sequence[Array]) -> _Input:
        runtime = self._runtime
        shape = (3, *planes[0].shape)
        slot = self._up.get()
        try:
            if slot is None:
                dtype = torch.from_numpy(planes[0][:0].copy()).dtype
                slot = _Slot(runtime.pinned(shape, dtype))
            if slot.copied is not None:
                # Waits: the device may still read what the slot held last.
                slot.copied.synchronize()
            memory = slot.memory
            for target, plane in zip(memory.numpy(), planes, strict=True):
                np.copyto(target, plane)
            with self._lock:
                raw = runtime.empty(runtime.upload, shape, memory.dtype)
                frame = runtime.empty(runtime.upload, (1, *shape), torch.float32)
                runtime.enqueue(runtime.upload, lambda: raw.copy_(memory, non_blocking=True))
                runtime.enqueue(runtime.upload, lambda: unpack(raw, frame, None))
                slot.copied = runtime.record(runtime.upload)
                # Waits: when the frame is forgotten, the network may still have to read it.
                runtime.keep(frame, runtime.compute)
                self._uploaded += 1
                entry = _Input(frame, slot.copied, self._uploaded)
                self._inputs[n] = entry
                if len(self._inputs) > self._capacity:
                    self._inputs.popitem(last=False)
        finally:
            self._up.put(slot)
        return entry

    def _download(self, picture: Tensor, computed: Event, planes: Sequence[Array]) -> None:
        runtime = self._runtime
        # Waits: the picture is read once the network has written it. The program does, before it
        # takes a slot: a wait in the stream would hold up pictures of other chunks that are ready.
        computed.synchronize()
        slot = self._down.get()
        try:
            if slot is None:
                slot = _Slot(runtime.pinned((3, *planes[0].shape), picture.dtype))
            memory = slot.memory
            runtime.enqueue(
                runtime.download, lambda: memory.copy_(picture[:, 0], non_blocking=True)
            )
            # Waits: the planes get what the device has written.
            runtime.record(runtime.download).synchronize()
            for plane, source in zip(planes, memory.numpy(), strict=True):
                np.copyto(plane, source)
        finally:
            self._down.put(slot)


def _find_extremes(pictures: Tensor, out: Tensor) -> None:
    """Write the smallest and the largest value; a NaN is both."""
    out.copy_(torch.stack(torch.aminmax(pictures)), non_blocking=True)
