"""A device without a device: streams as queues whose work is done late, in any legal order.

What nothing has waited for may or may not have been done. Memory is full of NaN until something is
written to it, and full of NaN again as soon as the device may use it for something else. So a wait
that is missing shows as a picture that is wrong, for some order.
"""

import threading
import weakref
from collections.abc import Callable, Sequence
from random import Random

import torch
from torch import Tensor


class Queue:
    """A stream: work and waits, of which the first `done` are behind it."""

    def __init__(self) -> None:
        self.work: list[Callable[[], object] | Place] = []
        self.done = 0


class Place:
    """An event: the place in a queue before its item `index`."""

    def __init__(self, device: "Pretend", queue: Queue) -> None:
        self._device, self.queue, self.index = device, queue, len(queue.work)

    def passed(self) -> bool:
        return self.queue.done >= self.index

    def synchronize(self) -> None:
        self._device.run_to(self)


class Pretend:
    """A `Runtime`; `random` chooses which stream gets on, and how far."""

    def __init__(self, random: Random) -> None:
        self.upload, self.compute, self.download = Queue(), Queue(), Queue()
        self._queues = (self.upload, self.compute, self.download)
        self._random = random
        self._memory: dict[int, Tensor] = {}
        self._kept: dict[int, list[Queue]] = {}
        self._lock = threading.RLock()

    def pinned(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.full(tuple(shape), torch.nan, dtype=dtype)

    def empty(self, stream: Queue, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        memory = torch.full(tuple(shape), torch.nan, dtype=dtype)
        tensor = memory.view(*shape)
        with self._lock:
            self._memory[id(tensor)] = memory
            self._kept[id(tensor)] = [stream]
        weakref.finalize(tensor, self._release, id(tensor))
        return tensor

    def alias(self, tensor: Tensor) -> Tensor:
        """The same memory, for work that does not hold it, as a kernel does not."""
        return self._memory[id(tensor)]

    def _release(self, key: int) -> None:
        with self._lock:
            memory, streams = self._memory.pop(key), self._kept.pop(key)
            # On the stream it belongs to, after what the others were given by now.
            for other in streams[1:]:
                streams[0].work.append(Place(self, other))
            streams[0].work.append(lambda: memory.fill_(torch.nan))

    def keep(self, tensor: Tensor, stream: Queue) -> None:
        self._kept[id(tensor)].append(stream)

    def enqueue(self, stream: Queue, work: Callable[[], object]) -> None:
        with self._lock:
            stream.work.append(work)
            self._get_on()

    def call[T](self, stream: Queue, work: Callable[[], T]) -> T:
        return work()

    def record(self, stream: Queue) -> Place:
        with self._lock:
            self._get_on()
            return Place(self, stream)

    def wait(self, stream: Queue, event: Place) -> None:
        with self._lock:
            stream.work.append(event)
            self._get_on()

    def run_to(self, place: Place) -> None:
        """Let streams get on until one has passed this place."""
        with self._lock:
            while not place.passed():
                self._step()

    def finish(self) -> None:
        """Do all work."""
        for queue in self._queues:
            self.run_to(Place(self, queue))

    def _get_on(self) -> None:
        for _ in range(self._random.choice((0, 0, 1, 3, 20))):
            self._step()

    @torch.inference_mode()
    def _step(self) -> None:
        """Do one piece of work of a stream that has some and does not wait."""
        ready = [queue for queue in self._queues if self._can_go_on(queue)]
        if ready:
            queue = self._random.choice(ready)
            work = queue.work[queue.done]
            # Let go of first: it may hold the last reference to a tensor.
            queue.work[queue.done] = lambda: None
            if not isinstance(work, Place):
                work()
            queue.done += 1

    def _can_go_on(self, queue: Queue) -> bool:
        if queue.done == len(queue.work):
            return False
        work = queue.work[queue.done]
        return not isinstance(work, Place) or work.passed()


class Eager(Pretend):
    """One on which a network runs: it computes at once, with what it has waited for."""

    @torch.inference_mode()
    def call[T](self, stream: Queue, work: Callable[[], T]) -> T:
        with self._lock:
            self.run_to(Place(self, stream))
            return work()
