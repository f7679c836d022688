"""Frames in the host's memory, read and written in place; ordinary copies to other devices."""

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from vs_vsr.models.layers import Planes

__all__ = ["Array", "give_back", "upload", "writing"]

Array = np.ndarray[Any, Any]


def upload(planes: Sequence[Array], device: torch.device) -> Tensor:
    """Read one frame where it lies.

    Args:
        planes: R, G, B of the frame, each (H, W), float32 or float16, any row stride.
        device: Where the tensor goes.

    Returns:
        (1, 3, H, W), float32, clamped to [0, 1]; a NaN becomes 0.
    """
    frame = torch.empty(1, 3, *planes[0].shape, dtype=torch.float32)
    for target, plane in zip(frame[0].numpy(), planes, strict=True):
        # In this order fmax gives the number where the other side is NaN.
        np.fmax(plane, 0, out=target)
        np.minimum(target, 1, out=target)
    return frame.to(device)


@contextmanager
def writing(
    frames: Sequence[Sequence[Array]], device: torch.device
) -> Iterator[Sequence["Planes"]]:
    """Give the planes of output frames as tensors; on leaving they hold the clamped pictures.

    On a CPU the tensors are the frames' own memory, with their row stride. Elsewhere they are
    copied on leaving.

    Args:
        frames: For each frame its planes R, G, B, each (H, W), float32 or float16.
        device: Where the tensors are written.

    Yields:
        For each frame three tensors (1, H, W).
    """
    own = [[torch.from_numpy(plane)[None] for plane in planes] for planes in frames]
    if device.type == "cpu":
        yield own
        for planes in own:
            for plane in planes:
                plane.clamp_(0, 1)
        return
    there = [[torch.empty_like(plane, device=device) for plane in planes] for planes in own]
    yield there
    for planes, targets in zip(there, own, strict=True):
        for plane, target in zip(planes, targets, strict=True):
            target.copy_(plane.clamp_(0, 1))


def give_back() -> None:
    """Hand the memory that was freed back to the system, where the C library keeps it.

    Between tensors that live long, glibc keeps the holes of those that did not. Over a film they
    add up: the peak of 2,000 frames was a tenth above that of 200. A chunk takes seconds, this
    milliseconds.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    # Of C libraries only glibc has it.
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
