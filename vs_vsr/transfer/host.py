"""Frames for a CPU: copied to tensors, and written in place."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Array", "HostTransfer", "upload", "writing"]

Array = np.ndarray[Any, Any]


class HostTransfer:
    """Frames for a CPU: all is done when a call returns, and nothing is late.

    Its methods are those of `StagedTransfer`, which says more about them.
    """

    arrivals = False

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
    ) -> tuple[T, int]:
        """As `StagedTransfer.render`, but nothing is checked: a processor has no float16."""
        with writing(frames) as out:
            return work(out), 0

    def wait(self, late: int) -> None:
        """Nothing: what is rendered is computed."""

    def deliver(self, late: int, index: int) -> bool:
        """True: all pictures are in their frames."""
        return True

    def drop(self, late: int) -> None:
        """Nothing, likewise."""


def upload(planes: Sequence[Array]) -> Tensor:
    """Copy one frame to a tensor.

    Args:
        planes: R, G, B of the frame, each (H, W), float32 or float16, any row stride.

    Returns:
        (1, 3, H, W), float32, clamped to [0, 1]; a NaN becomes 0.
    """
    frame = torch.empty(1, 3, *planes[0].shape, dtype=torch.float32)
    for target, plane in zip(frame[0].numpy(), planes, strict=True):
        # fmax comes first: it takes the number where the other side is NaN, minimum takes the NaN.
        np.fmax(plane, 0, out=target)
        np.minimum(target, 1, out=target)
    return frame


@contextmanager
def writing(frames: Sequence[Sequence[Array]]) -> Iterator[Sequence[Sequence[Tensor]]]:
    """Give the planes of output frames as tensors over their memory; clamp them on leaving.

    Args:
        frames: For each frame its planes R, G, B, each (H, W), float32 or float16.

    Yields:
        For each frame three tensors (1, H, W), with the row stride of its planes.
    """
    out = [[torch.from_numpy(plane)[None] for plane in planes] for planes in frames]
    yield out
    for planes in out:
        for plane in planes:
            plane.clamp_(0, 1)
