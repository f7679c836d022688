"""AnimeSR: one recurrent cell, which sees one frame ahead (arXiv:2206.07038).

The paper calls it multi-scale, unidirectional recurrent, with a sliding window.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vs_vsr.errors import ArgumentError
from vs_vsr.models.layers import Conv, ResidualBlock, concat, upsampled
from vs_vsr.models.stream import Network, Planes, Span

__all__ = ["AnimeSR", "CellState"]

_SCALE = 4
# Of a picture: R, G and B of the 4x4 pixels that take the place of one.
_PICTURE_CHANNELS = 3 * _SCALE**2
# Along a line, each of the 4 pixels that take the place of one: eighths of the pixel before that
# one, of itself, and of the one after it.
_BILINEAR = ((3, 5, 0), (1, 7, 0), (0, 7, 1), (0, 5, 3))


@dataclass(frozen=True)
class CellState:
    """What the cell gets from the frame before."""

    picture: Tensor
    """That frame's picture, unshuffled, (B, 48, H, W)."""
    feature: Tensor
    """What else it remembers, (B, C, H, W)."""


class AnimeSR(Network):
    """Four times super-resolution of animation.

    A frame is made from itself, its two neighbours, and the picture and the feature of the frame
    before. At the ends of a shot the end frame takes the place of the missing neighbour. Inside,
    the last row and column are repeated until the sides are multiples of 4.
    """

    scale = _SCALE
    radius = 1
    """Number of frames on either side of a frame that its picture is made from."""
    enlargement: Tensor

    def __init__(self, channels: int = 64, blocks: Sequence[int] = (5, 3, 2)) -> None:
        """Make the network.

        Args:
            channels: Features a frame.
            blocks: Residual blocks at full, half and quarter size, not increasing.

        Raises:
            ArgumentError: `blocks` are not three, or do increase.
        """
        super().__init__()
        if len(blocks) != 3 or sorted(blocks, reverse=True) != list(blocks):
            raise ArgumentError(
                "AnimeSR: blocks must be three counts, none above the one before it, got "
                f"{tuple(blocks)}. Use (5, 3, 2), as the published networks do."
            )
        inputs = 3 * (2 * self.radius + 1) + _PICTURE_CHANNELS + channels
        self.channels = channels
        self.recurrent_cell = _Cell(inputs, channels, _PICTURE_CHANNELS + channels, blocks)
        # Not in files. Its numbers are 64ths, which half precision has too.
        self.register_buffer("enlargement", _enlargement(), persistent=False)

    def step(
        self,
        frames: Sequence[Tensor],
        span: Span,
        state: CellState | None,
        out: Sequence[Planes] | None,
    ) -> CellState | None:
        """As `Stream.step`. A window looks one frame beyond the active ones."""
        for position in range(span.active.start, span.output.stop):
            if position in span.cuts:
                state = None
            shot = span.shot(position)
            window = [min(max(position + d, shot.start), shot.stop - 1) for d in (-1, 0, 1)]
            picture, state = self._cell([frames[i] for i in window], state)
            if out is not None and position in span.output:
                _write(picture, out[position - span.output.start])
        return state

    def _cell(self, window: Sequence[Tensor], state: CellState | None) -> tuple[Tensor, CellState]:
        """The picture of the middle frame of a window, unshuffled, and the state after it."""
        window = [_extended(frame) for frame in window]
        _, frame, _ = window
        dtype = next(self.recurrent_cell.parameters()).dtype
        if state is None:
            b, _, h, w = frame.shape
            blank = frame.new_zeros(b, _PICTURE_CHANNELS + self.channels, h, w, dtype=dtype)
            state = CellState(*blank.split((_PICTURE_CHANNELS, self.channels), dim=1))
        stacked = torch.cat(window, dim=1).to(dtype, memory_format=torch.channels_last)
        out = self.recurrent_cell(concat((stacked, state.picture, state.feature)))
        residual, feature = out.split((_PICTURE_CHANNELS, self.channels), dim=1)
        edged = F.pad(frame, (1, 1, 1, 1), mode="replicate")
        edged = edged.contiguous(memory_format=torch.channels_last)
        picture = F.conv2d(edged, self.enlargement.to(frame.dtype)).add_(residual)
        return picture, CellState(picture.to(dtype), F.leaky_relu(feature, 0.1))


class _Cell(nn.Module):
    """Residual blocks at three scales, which end together.

    Before each block, the coarser scales that have run a block already are enlarged and added to
    the features that it gets.
    """

    def __init__(
        self, in_channels: int, channels: int, out_channels: int, blocks: Sequence[int]
    ) -> None:
        super().__init__()

        def first(in_channels: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                Conv(in_channels, channels, activation="leaky_relu", stride=stride)
            )

        def body(count: int) -> nn.ModuleList:
            return nn.ModuleList(ResidualBlock(channels) for _ in range(count))

        self.conv_s1_first = first(in_channels, 1)
        self.conv_s2_first = first(channels, 2)
        self.conv_s4_first = first(channels, 2)
        self.body_s1_first, self.body_s2_first, self.body_s4_first = map(body, blocks)
        # The identity takes index 1, so that tensors have the names of the released files.
        self.fusion = nn.Sequential(
            Conv(3 * channels, 2 * out_channels, activation="leaky_relu"),
            nn.Identity(),
            Conv(2 * out_channels, out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        full = self.conv_s1_first(x)
        half = self.conv_s2_first(full)
        quarter = self.conv_s4_first(half)
        for i in reversed(range(len(self.body_s1_first))):
            if i < len(self.body_s2_first) - 1:
                full = upsampled(half).add_(full)
            if i < len(self.body_s4_first) - 1:
                full = upsampled(quarter, 4).add_(full)
            full = self.body_s1_first[-1 - i](full)
            if i < len(self.body_s2_first):
                if i < len(self.body_s4_first) - 1:
                    half = upsampled(quarter).add_(half)
                half = self.body_s2_first[-1 - i](half)
            if i < len(self.body_s4_first):
                quarter = self.body_s4_first[-1 - i](quarter)
        out: Tensor = self.fusion(concat((full, upsampled(half), upsampled(quarter, 4))))
        return out


def _extended(frame: Tensor) -> Tensor:
    """A frame whose last row and column are repeated until its sides are multiples of 4."""
    right, below = (-side % 4 for side in reversed(frame.shape[-2:]))
    if not right and not below:
        return frame
    return F.pad(frame, (0, right, 0, below), mode="replicate")


def _enlargement() -> Tensor:
    """Bilinear enlargement by 4, corners not aligned, as a 3x3 convolution: (48, 3, 3, 3).

    It gives the pixels unshuffled, each colour from itself alone.
    """
    # From numbers: resizing a tensor on the meta device, on which a network is built first, would
    # import torch._dynamo, which takes seconds.
    return torch.tensor(
        [
            [[[(i == o) * y * x / 64 for x in across] for y in down] for i in range(3)]
            for o in range(3)
            for down in _BILINEAR
            for across in _BILINEAR
        ]
    )


def _write(picture: Tensor, planes: Planes) -> None:
    """Shuffle an unshuffled picture, (B, 48, H, W), into its planes, which may be smaller."""
    pixels = picture.unflatten(1, (3, _SCALE, _SCALE)).transpose(0, 1)  # (3, B, i, j, H, W)
    parts = [(planes, pixels)] if isinstance(planes, Tensor) else zip(planes, pixels, strict=True)
    for plane, source in parts:
        blocks = plane.unflatten(-1, (-1, _SCALE)).unflatten(-3, (-1, _SCALE))  # (..., h, i, w, j)
        h, _, w, _ = blocks.shape[-4:]
        blocks.copy_(source[..., :h, :w].movedim((-2, -1), (-4, -2)))
