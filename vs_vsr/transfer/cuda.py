"""An NVIDIA GPU as a `Runtime`: three streams, pinned memory, events.

They are torch's own. CuPy's kernels run in them too: what is current for torch is wrapped, not
copied, so no order has to be made between the two.
"""

import threading
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

__all__ = ["CudaRuntime", "runtime"]


class CudaRuntime:
    """The streams of one GPU."""

    def __init__(self, device: torch.device) -> None:
        """Make the streams of `device`."""
        self._device = device
        self.upload, self.compute, self.download = (torch.cuda.Stream(device) for _ in range(3))

    def address(self, stream: torch.cuda.Stream) -> int:
        """As `GpuRuntime.address`."""
        return stream.cuda_stream

    def pinned(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """As `Runtime.pinned`."""
        with torch.cuda.device(self._device):
            return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)

    def empty(self, stream: torch.cuda.Stream, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """As `Runtime.empty`."""
        # torch's allocator gives memory back to the stream that was current when it was taken.
        with torch.cuda.stream(stream):
            return torch.empty(tuple(shape), dtype=dtype, device=self._device)

    def keep(self, tensor: Tensor, stream: torch.cuda.Stream) -> None:
        """As `Runtime.keep`."""
        tensor.record_stream(stream)

    def enqueue(self, stream: torch.cuda.Stream, work: Callable[[], object]) -> None:
        """As `Runtime.enqueue`."""
        self.call(stream, work)

    @torch.inference_mode()
    def call[T](self, stream: torch.cuda.Stream, work: Callable[[], T]) -> T:
        """As `Runtime.call`."""
        with torch.cuda.device(self._device), torch.cuda.stream(stream):
            return work()

    def record(self, stream: torch.cuda.Stream) -> torch.cuda.Event:
        """As `Runtime.record`."""
        # A blocking one sleeps instead of keeping a core busy.
        event = torch.cuda.Event(blocking=True)
        event.record(stream)
        return event

    def wait(self, stream: torch.cuda.Stream, event: torch.cuda.Event) -> None:
        """As `Runtime.wait`."""
        stream.wait_event(event)


_making = threading.Lock()


def runtime(device: torch.device) -> CudaRuntime:
    """The runtime of a GPU, which all filters on it share: one order of work for all."""
    # A cache alone may give two threads that ask at once a runtime each.
    with _making:
        return _made(device)


@cache
def _made(device: torch.device) -> CudaRuntime:
    return CudaRuntime(device)
