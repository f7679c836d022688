"""Whole clips through networks: what they take, and one step over all frames for those that stream.

Networks are for inference: they have no gradients, write into memory of their own, and are not made
for torch.export or ONNX. Pictures come out as they are computed, a little outside [0, 1] too.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from vs_vsr.errors import ShapeError
from vs_vsr.models.layers import Planes
from vs_vsr.models.stretch import Stretch

__all__ = ["Network", "check_clip", "whole_clip"]

# Frames of [0, 255] exceed it with their first bright pixel; overshoot of a resize does not.
_MOST = 2.0


class Network(nn.Module):
    """A network of clips, for inference: pictures from frames, not clamped, without gradients."""

    scale: int

    if TYPE_CHECKING:
        # For type checkers alone, as nn.Module takes and gives anything.
        def __call__(self, frames: Tensor) -> Tensor:
            """All pictures of a clip, (B, T, 3, s*H, s*W), from its frames, (B, T, 3, H, W)."""


class _Stream(Protocol):
    scale: int

    def step(
        self, frames: Sequence[Tensor], stretch: Stretch, state: Any, out: Sequence[Planes] | None
    ) -> Any: ...


def check_clip(network: object, frames: object) -> None:
    """Refuse what is not a clip: (B, T, 3, H, W) with at least one frame, float32 in [0, 1].

    Values a little outside are taken, as a resize leaves them. The greatest one is asked for: one
    pass over the input, nothing beside the network.

    Raises:
        ShapeError: `frames` is something else.
    """
    name = type(network).__name__
    if not isinstance(frames, Tensor):
        kind = f"{type(frames).__module__}.{type(frames).__qualname__}".removeprefix("builtins.")
        raise ShapeError(
            f"{name}: frames must be a torch.Tensor, got {kind}. Make one: torch.as_tensor(…)."
        )
    if frames.ndim != 5 or frames.shape[2] != 3 or not frames.numel():
        raise ShapeError(
            f"{name}: frames must be (B, T, 3, H, W), got {tuple(frames.shape)}. Stack the frames "
            "in this order."
        )
    if not frames.is_floating_point():
        raise ShapeError(
            f"{name}: frames must be float32 in [0, 1], got {frames.dtype}. Divide by 255 (for 8 "
            "bits): frames.float() / 255."
        )
    most = 0.0 if frames.is_meta else float(frames.amax())
    if most > _MOST:
        raise ShapeError(
            f"{name}: frames must be float32 in [0, 1], got values up to {most:g}. Divide by the "
            "greatest value that their format has (255 for 8 bits)."
        )


def whole_clip(network: _Stream, frames: Tensor) -> Tensor:
    """All pictures of a clip, (B, T, 3, s*H, s*W), from its frames, (B, T, 3, H, W)."""
    b, t, _, h, w = frames.shape
    out = frames.new_empty(b, t, 3, network.scale * h, network.scale * w)
    planes = [picture.unbind(1) for picture in out.unbind(1)]
    network.step(frames.unbind(1), Stretch.whole(t), None, planes)
    return out
