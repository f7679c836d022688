"""RealBasicVSR: frames are cleaned, then upscaled by BasicVSR (arXiv:2111.12704)."""

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
# The threshold of every published configuration. Residuals never reach it.
_ALWAYS_ONE_PASS = 255.0


@dataclass(frozen=True)
class CleanState:
    """What is carried from one span to the next."""

    forward: ForwardState | None
    cleaned: dict[int, Tensor] = field(default_factory=dict)
    """Frames after the output ones that are cleaned already, by number; they only save work."""


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
            channels: Features per frame.
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
                "Use 255 for one pass, 5 for dynamic refinement."
            )
        self.channels = channels
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
                takes the network's own. Its default, 255, is one pass in practice; 5 is what the
                published configurations suggest for dynamic refinement.

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

        The number of cleaning passes is found from the span's output frames, as the whole clip is
        not known here. It is one for thresholds of 255 and more.
        """
        one_pass = self.refine_threshold >= _ALWAYS_ONE_PASS
        known = {} if state is None else state.cleaned
        output = [frames[i] for i in span.output]
        passes = 1 if one_pass else self._clean_until(output, self.refine_threshold)[1]
        cleaned = []
        for number, frame in enumerate(frames, span.first):
            cleaned.append(known[number] if number in known else self._clean(frame, passes))
        forward = None if state is None else state.forward
        forward = self.basicvsr.step(cleaned, span, forward, out)
        # The next span may take another number of passes: then nothing cleaned here serves it.
        ahead = range(span.output.stop if one_pass else span.count, span.count)
        return CleanState(forward, {span.first + i: cleaned[i] for i in ahead})

    def _clean_until(self, frames: Sequence[Tensor], threshold: float) -> tuple[list[Tensor], int]:
        """Clean frames as often as the threshold asks; return them and the number of passes."""
        cleaned = list(frames)
        passes = 0
        # One pass at least, and another while the last one changed the frames enough.
        change = threshold
        while passes < _MOST_PASSES and (not passes or change >= threshold):
            total = 0.0
            for i, frame in enumerate(cleaned):
                residual = self._residual(frame).float()
                total += float(residual.abs().mean())
                cleaned[i] = frame + residual
            passes, change = passes + 1, 255 * total / len(cleaned)
        return cleaned, passes

    def _clean(self, frame: Tensor, passes: int) -> Tensor:
        for _ in range(passes):
            frame = frame + self._residual(frame)
        return frame

    def _residual(self, frame: Tensor) -> Tensor:
        """What one cleaning pass adds to a frame, in the dtype of the weights."""
        dtype = self.basicvsr.fusion.weight.dtype
        y: Tensor = self.image_cleaning(frame.to(dtype, memory_format=torch.channels_last))
        return y
