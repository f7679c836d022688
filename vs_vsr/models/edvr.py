"""EDVR: a sliding window of frames, aligned and fused into one picture (arXiv:1905.02716)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor, nn

from vs_vsr.errors import ArgumentError, ShapeError
from vs_vsr.models.edvr_features import EDVRFeatures, Pyramid
from vs_vsr.models.layers import ResidualBlock, Upsampler, upsampled
from vs_vsr.models.padding import mirror_pad
from vs_vsr.models.stream import Network, Planes, Span, check_clip, reflected

__all__ = ["EDVR", "Padding", "WindowState"]

Padding = Literal["reflection_circle", "replicate"]


@dataclass(frozen=True)
class WindowState:
    """Features of the last frames before a span, by frame number; they only save work."""

    pyramids: dict[int, Pyramid] = field(default_factory=dict)


class EDVR(Network, EDVRFeatures):
    """Super-resolution by 4, or restoration at the same size, of each frame by its neighbours.

    Every network of the paper is one of these: M and L, 5 and 7 frames, with and without TSA, for
    sharp and blurred input (`predeblur`), for input at the output's size (`hr_in`), and the second
    stages of 2019 (`hr_in`, with `predeblur` or without).

    Beyond a shot's ends the windows follow `padding`. If a shot is shorter than `frames` and the
    rule asks for a frame that it does not have, its farthest frame is repeated. Inside, frames are
    mirrored to sides that are multiples of 4 (16 with `hr_in`).

    Source: arXiv:1905.02716, section 3.1; the second stages: section 3.4.
    """

    def __init__(
        self,
        channels: int = 64,
        frames: int = 5,
        extraction_blocks: int = 5,
        reconstruction_blocks: int = 10,
        groups: int = 8,
        *,
        tsa: bool = True,
        predeblur: bool = False,
        hr_in: bool = False,
        padding: Padding | None = None,
    ) -> None:
        """Make the network.

        Args:
            channels: Features per frame.
            frames: Frames of a window, odd.
            extraction_blocks: Residual blocks before the alignment.
            reconstruction_blocks: Residual blocks after the fusion.
            groups: Deformable groups of the alignment.
            tsa: As in `EDVRFeatures`.
            predeblur: As in `EDVRFeatures`.
            hr_in: As in `EDVRFeatures`.
            padding: What windows read beyond the ends of a clip: frames mirrored about the window
                ("reflection_circle"), or the end frame ("replicate"). None does as the official
                tests: the former for super-resolution of sharp input, otherwise the latter.

        Raises:
            ArgumentError: `padding` is neither of these.
        """
        super().__init__(
            channels, frames, extraction_blocks, groups, tsa=tsa, predeblur=predeblur, hr_in=hr_in
        )
        self.scale = 1 if hr_in else 4
        official: Padding = "replicate" if predeblur or hr_in else "reflection_circle"
        self.padding: Padding = padding or official
        if self.padding not in get_args(Padding):
            raise ArgumentError(
                f"EDVR: padding must be one of {', '.join(get_args(Padding))}, got {padding}. "
                "Leave it out for what the official tests do."
            )
        self.reconstruction = nn.Sequential(
            *(ResidualBlock(channels) for _ in range(reconstruction_blocks))
        )
        self.upsampler = Upsampler(channels)

    @property
    def radius(self) -> int:
        """Number of neighbours on either side of the centre frame."""
        return self.frames // 2

    def window(self, frames: Tensor) -> Tensor:
        """The picture of the centre frame of one window.

        Args:
            frames: (B, T, 3, H, W), where T is the network's `frames`; otherwise as for `forward`.

        Returns:
            (B, 3, s*H, s*W), float32, not clamped.

        Raises:
            ShapeError: `frames` has another shape.
        """
        if frames.ndim != 5 or frames.shape[1:3] != (self.frames, 3):
            raise ShapeError(
                f"EDVR: frames must be (B, {self.frames}, 3, H, W), got {tuple(frames.shape)}. "
                "Pass one window, or call the network itself for a clip."
            )
        check_clip(self, frames)
        b, _, _, h, w = frames.shape
        out = frames.new_empty(b, 3, self.scale * h, self.scale * w)
        pyramids = [self.pyramid(self._padded(frame)) for frame in frames.unbind(1)]
        self._picture(pyramids, frames[:, self.radius], out.transpose(0, 1))
        return out

    def step(
        self,
        frames: Sequence[Tensor],
        span: Span,
        state: WindowState | None,
        out: Sequence[Planes] | None,
    ) -> WindowState:
        """As `Stream.step`. The pictures are the same with a state and without."""
        pyramids = dict(state.pyramids) if state is not None else {}
        # The state is kept by frame number, as positions change from span to span.
        first, radius = span.first, self.radius

        def pyramid(position: int) -> Pyramid:
            # One frame at a time: the same operations and bits, whichever window asks first.
            if first + position not in pyramids:
                pyramids[first + position] = self.pyramid(self._padded(frames[position]))
            return pyramids[first + position]

        # Without `out` there is nothing to compute, as the state only saves work.
        for centre, planes in zip(span.output, out or (), strict=out is not None):
            shot = span.shot(centre)
            positions = range(centre - radius, centre + radius + 1)
            window = [pyramid(self._inside(p, centre, shot)) for p in positions]
            self._picture(window, frames[centre], planes)
            # Mirrored at a cut, a later window reads up to 2 * radius frames back.
            for number in [n for n in pyramids if n <= first + centre - 2 * radius]:
                del pyramids[number]
        return WindowState(pyramids)

    def _inside(self, position: int, centre: int, shot: range) -> int:
        """The frame of the shot that the window around `centre` reads for `position`."""
        if self.padding == "replicate":
            return min(max(position, shot.start), shot.stop - 1)
        return reflected(position, shot, self.radius, centre)

    def _padded(self, frame: Tensor) -> Tensor:
        return mirror_pad(frame, multiple=16 if self.hr_in else 4)

    def _picture(self, window: Sequence[Pyramid], centre: Tensor, out: Planes) -> None:
        features = self.reconstruction(self.fused(window))
        base = self._padded(centre)
        self.upsampler(features, base if self.hr_in else upsampled(base, self.scale), out)
