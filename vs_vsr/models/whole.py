"""Whole clips through networks that stream: one step over all frames."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from vs_vsr.errors import ShapeError
from vs_vsr.models.layers import Planes
from vs_vsr.models.stretch import Stretch

__all__ = ["check_clip", "whole_clip"]


class _Stream(Protocol):
    scale: int

    def step(
        self, frames: Sequence[Tensor], stretch: Stretch, state: Any, out: Sequence[Planes] | None
    ) -> Any: ...


def check_clip(network: object, frames: Tensor) -> None:
    """Refuse what is not (B, T, 3, H, W) with at least one frame, of floating point.

    Raises:
        ShapeError: `frames` has another shape.
    """
    if frames.ndim != 5 or frames.shape[2] != 3 or not frames.numel():
        raise ShapeError(
            f"{type(network).__name__}: frames must be (B, T, 3, H, W), got "
            f"{tuple(frames.shape)}. Stack the frames in this order."
        )
    if not frames.is_floating_point():
        raise ShapeError(
            f"{type(network).__name__}: frames must be float32 in [0, 1], got {frames.dtype}. "
            "Convert and scale them."
        )


def whole_clip(network: _Stream, frames: Tensor) -> Tensor:
    """All pictures of a clip, (B, T, 3, s*H, s*W), from its frames, (B, T, 3, H, W).

    Raises:
        ShapeError: `frames` has another shape.
    """
    check_clip(network, frames)
    b, t, _, h, w = frames.shape
    out = frames.new_empty(b, t, 3, network.scale * h, network.scale * w)
    planes = [picture.unbind(1) for picture in out.unbind(1)]
    network.step(frames.unbind(1), Stretch.whole(t), None, planes)
    return out
