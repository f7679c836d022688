"""RealBasicVSR: frames cleaned before they are upscaled by BasicVSR (arXiv:2111.12704)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vs_vsr.errors import ArgumentError
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.layers import Conv, InputConvBlocks
from vs_vsr.models.recurrent import ForwardState
from vs_vsr.models.stream import Network, Planes, Span, check_clip, run_clip

__all__ = ["CleanState", "RealBasicVSR"]

_MOST_PASSES = 3
# The threshold of every published configuration: residuals never reach it.
_ALWAYS_ONE_PASS = 255.0


@dataclass(frozen=True)
class CleanState:
    """What is carried from one span to the next."""

    forward: ForwardState | None
    cleaned: dict[int, Tensor] = field(default_factory=dict)
    """Frames beyond the span that are cleaned already, by number: they only save work."""


class RealBasicVSR(Network):
    """Four times super-resolution of real, degraded footage."""

    scale = 4

    def __init__(
        self,
        channels: int = 64,
        blocks: int = 20,
        cleaning_blocks: int = 20,
        *,
        refine_threshold: float = _ALWAYS_ONE_PASS,
    ) -> None:
        """Make the network.

        Args:
            channels: Features a frame.
            blocks: Residual blocks of each branch.
            cleaning_blocks: Residual blocks of the cleaning module.
            refine_threshold: As for `forward`.

        Raises:
            ArgumentError: `refine_threshold` is negative.
        """
        super().__init__()
        if not refine_threshold >= 0:
            raise ArgumentError(
                f"RealBasicVSR: refine_threshold must be 0 or more, got {refine_threshold}. "
                "Use 255 for one pass, 5 for the paper's dynamic refinement."
            )
        self.refine_threshold = refine_threshold
        self.image_cleaning = nn.Sequential(
            InputConvBlocks(3, channels, cleaning_blocks), Conv(channels, 3)
        )
        self.basicvsr = BasicVSR(channels, blocks)

    if TYPE_CHECKING:

        def __call__(self, frames: Tensor, refine_threshold: float | None = None) -> Tensor:
            """As `forward`."""

    def forward(self, frames: Tensor, refine_threshold: float | None = None) -> Tensor:
        """Upscale a whole clip.

        Args:
            frames: (B, T, 3, H, W), RGB, [0, 1], float32.
            refine_threshold: The frames are cleaned again, up to three times in all, until a pass
                changes them by less than this on average over the clip, in units of 1/255. None
                takes the network's own; 255, its default, is one pass in practice; the paper's
                dynamic refinement is 5.

        Returns:
            (B, T, 3, 4*H, 4*W), float32, not clamped.

        Raises:
            ShapeError: `frames` has another shape.
        """
        check_clip(self, frames)
        threshold = self.refine_threshold if refine_threshold is None else refine_threshold
        cleaned, _ = self._clean_until(frames.unbind(1), threshold)
        return run_clip(self.basicvsr, torch.stack(cleaned, dim=1))

    def step(
        self,
        frames: Sequence[Tensor],
        span: Span,
        state: CleanState | None,
        out: Sequence[Planes] | None,
    ) -> CleanState:
        """As `Stream.step`.

        The number of cleaning passes is found from the span's output frames, as nobody has the
        whole clip here. It is one for thresholds of 255 and more.
        """
        once = self.refine_threshold >= _ALWAYS_ONE_PASS
        known = {} if state is None else state.cleaned
        output = [frames[i] for i in span.output]
        passes = 1 if once else self._clean_until(output, self.refine_threshold)[1]
        cleaned = []
        for number, frame in enumerate(frames, span.first):
            cleaned.append(known[number] if number in known else self._clean(frame, passes))
        forward = None if state is None else state.forward
        forward = self.basicvsr.step(cleaned, span, forward, out)
        # The frames of the next span may want another number of passes.
        ahead = range(span.output.stop if once else span.count, span.count)
        return CleanState(forward, {span.first + i: cleaned[i] for i in ahead})

    def _clean_until(self, frames: Sequence[Tensor], threshold: float) -> tuple[list[Tensor], int]:
        """Clean frames as often as the threshold asks, and say how often that was."""
        cleaned = list(frames)
        passes = 0
        change = threshold
        while passes < _MOST_PASSES and (not passes or change >= threshold):
            total = 0.0
            for i, frame in enumerate(cleaned):
                residual = self._residual(frame)
                total += float(residual.abs().mean())
                cleaned[i] = frame + residual
            passes, change = passes + 1, 255 * total / len(cleaned)
        return cleaned, passes

    def _clean(self, frame: Tensor, passes: int) -> Tensor:
        for _ in range(passes):
            frame = frame + self._residual(frame)
        return frame

    def _residual(self, frame: Tensor) -> Tensor:
        """What one pass adds to a frame, float32."""
        dtype = self.basicvsr.fusion.weight.dtype
        y: Tensor = self.image_cleaning(frame.to(dtype, memory_format=torch.channels_last))
        return y.float()
