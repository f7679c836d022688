"""Frames in the host's memory: copied to tensors, and on a CPU written in place."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Array", "upload", "writing"]

Array = np.ndarray[Any, Any]


def upload(planes: Sequence[Array], device: torch.device) -> Tensor:
    """Copy one frame to a tensor.

    Args:
        planes: R, G, B of the frame, each (H, W), float32 or float16, any row stride.
        device: Where the tensor goes.

    Returns:
        (1, 3, H, W), float32, clamped to [0, 1]; a NaN becomes 0.
    """
    frame = torch.empty(1, 3, *planes[0].shape, dtype=torch.float32)
    for target, plane in zip(frame[0].numpy(), planes, strict=True):
        # fmax comes first: it takes the number where the other side is NaN, minimum takes the NaN.
        np.fmax(plane, 0, out=target)
        np.minimum(target, 1, out=target)
    return frame.to(device)


@contextmanager
def writing(
    frames: Sequence[Sequence[Array]], device: torch.device
) -> Iterator[Sequence[Sequence[Tensor]]]:
    """Give the planes of output frames as tensors; on leaving, the frames hold them, clamped.

    On a CPU the tensors are the frames' own memory, with its row stride. On other devices they are
    copied to the frames on leaving.

    Args:
        frames: For each frame its planes R, G, B, each (H, W), float32 or float16.
        device: Where the tensors are.

    Yields:
        For each frame three tensors (1, H, W).
    """
    # These share the frames' memory.
    in_host = [[torch.from_numpy(plane)[None] for plane in planes] for planes in frames]
    if device.type == "cpu":
        yield in_host
        for planes in in_host:
            for plane in planes:
                plane.clamp_(0, 1)
        return
    on_device = [[torch.empty_like(plane, device=device) for plane in planes] for planes in in_host]
    yield on_device
    for planes, targets in zip(on_device, in_host, strict=True):
        for plane, target in zip(planes, targets, strict=True):
            target.copy_(plane.clamp_(0, 1))
