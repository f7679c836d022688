"""Frames for a CPU: copied to tensors, and written in place, one picture after another."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

__all__ = ["Array", "HostTransfer", "Pictures", "upload"]

Array = np.ndarray[Any, Any]


class HostTransfer:
    """Frames for a CPU: pictures are in their frames as soon as they are made.

    Its methods are those of `StagedTransfer`, which says more about them.
    """

    arrivals = False

    def __init__(self) -> None:
        """Nothing is late yet."""
        self._late: dict[int, Pictures] = {}
        self._rendered = 0

    def arrived(self, n: int, planes: Sequence[Array]) -> None:
        """Nothing: a step reads the frames where they are."""

    def inputs(self, first: int, frames: Sequence[Sequence[Array]]) -> list[Tensor]:
        """As `StagedTransfer.inputs`."""
        return [upload(planes) for planes in frames]

    def look[T](self, work: Callable[[], T]) -> T:
        """As `StagedTransfer.look`."""
        return work()

    def render[T](
        self,
        frames: Sequence[Sequence[Array]],
        work: Callable[[Sequence[Sequence[Tensor]]], T],
        *,
        check: bool = False,
        first: Callable[[int], object] | None = None,
    ) -> tuple[T, int]:
        """Do a step, as `StagedTransfer.render`, but all is done when this returns.

        Nothing is checked: a processor has no float16.

        Args:
            frames: As there.
            work: As there. It takes the places one after another, as `Stream.step` says.
            check: Not looked at.
            first: Told the number of the late pictures once the first one is in its frame and
                others are still to come. Not called if there is only one, or if this is None; then
                nothing is late.

        Returns:
            What `work` returns; and the number, or 0 if `first` was not called.
        """
        if first is None:
            pictures = Pictures(frames)
            return pictures.make(work), 0
        self._rendered += 1
        number = self._rendered
        pictures = Pictures(frames, lambda: first(number))
        # Known before anyone is told of it.
        self._late[number] = pictures
        try:
            result = pictures.make(work)
        finally:
            if not pictures.told:
                del self._late[number]
        return result, number if pictures.told else 0

    def wait(self, late: int) -> None:
        """As `StagedTransfer.wait`."""
        self._late[late].ended.wait()

    def deliver(self, late: int, index: int) -> bool:
        """Wait until a picture is in its frame, as `StagedTransfer.deliver`.

        Returns:
            True.

        Raises:
            Exception: What ended the step before it made the picture.
        """
        self._late[late].wait_for(index)
        return True

    def drop(self, late: int) -> None:
        """As `StagedTransfer.drop`; a step that still makes these pictures ends at the next one."""
        pictures = self._late.pop(late, None)
        if pictures is not None:
            pictures.give_up()


class _NotWanted(Exception):
    """Nobody wants the pictures any longer."""


class Pictures(Sequence[Sequence[Tensor]]):
    """Where a step writes its pictures: tensors over the output frames, taken one after another.

    When the next place is taken, the picture before it is written. It is clamped then, and may be
    handed out while the step goes on.
    """

    def __init__(
        self, frames: Sequence[Sequence[Array]], first: Callable[[], object] | None = None
    ) -> None:
        """No picture is written.

        Args:
            frames: For each frame its planes R, G, B, each (H, W), float32 or float16, with any row
                stride.
            first: Called once the first of several pictures is written.
        """
        self._places = [[torch.from_numpy(plane)[None] for plane in planes] for planes in frames]
        self._first = first
        self.told = False
        """Whether `first` was called."""
        self.ended = threading.Event()
        """Set when the step has ended, and the frames are no longer used."""
        self._written = 0
        self._wanted = True
        self._failure: BaseException | None = None
        self._progress = threading.Condition()

    def make[T](self, work: Callable[[Sequence[Sequence[Tensor]]], T]) -> T:
        """Do the step, which takes its places from this."""
        try:
            result = work(self)
            self._have_written(len(self))
            return result
        except BaseException as e:
            if self.told:
                self._failure = e
            raise
        finally:
            with self._progress:
                self.ended.set()
                self._progress.notify_all()

    def wait_for(self, index: int) -> None:
        """Wait for one picture; raise what ended the step before it was written."""
        with self._progress:
            self._progress.wait_for(lambda: index < self._written or self.ended.is_set())
            if index >= self._written and self._failure is not None:
                raise self._failure

    def give_up(self) -> None:
        """End the step at its next picture, and wait until it has ended."""
        self._wanted = False
        self.ended.wait()

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Sequence[Tensor]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sequence[Tensor]]: ...
    def __getitem__(self, index: int | slice) -> Sequence[Tensor] | Sequence[Sequence[Tensor]]:
        """The planes of the next picture: R, G, B, each (1, H, W)."""
        places = self._places[index]
        assert isinstance(index, int)
        self._have_written(index)
        return places

    def _have_written(self, count: int) -> None:
        if not self._wanted:
            raise _NotWanted
        for planes in self._places[self._written : count]:
            for plane in planes:
                plane.clamp_(0, 1)
        with self._progress:
            self._written = max(self._written, count)
            self._progress.notify_all()
        if self._first is not None and not self.told and 0 < count < len(self):
            self.told = True
            self._first()


def upload(planes: Sequence[Array]) -> Tensor:
    """Copy one frame to a tensor.

    Args:
        planes: R, G, B of the frame, each (H, W), float32 or float16, any row stride.

    Returns:
        (1, 3, H, W), float32, clamped to [0, 1]; a NaN becomes 0.
    """
    frame = torch.empty(1, 3, *planes[0].shape, dtype=torch.float32)
    for target, plane in zip(frame[0].numpy(), planes, strict=True):
        # numpy converts halves fast, but computes with them slowly.
        np.copyto(target, plane)
        # fmax comes first: it takes the number where the other side is NaN, minimum takes the NaN.
        np.fmax(target, 0, out=target)
        np.minimum(target, 1, out=target)
    return frame
