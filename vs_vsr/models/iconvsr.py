"""IconVSR: BasicVSR with keyframes refilled and the branches coupled (arXiv:2012.02181).

The paper calls these information-refill and coupled propagation.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vs_vsr.errors import ArgumentError
from vs_vsr.models.edvr_features import EDVRFeatures, Pyramid
from vs_vsr.models.layers import Conv, InputConvBlocks, Upsampler, concat, upsampled
from vs_vsr.models.padding import mirror_pad
from vs_vsr.models.recurrent import (
    ForwardState,
    backward_flows,
    features_input,
    forward_flows,
    warped_or_zeros,
)
from vs_vsr.models.spynet import SPyNet
from vs_vsr.models.stream import Network, Planes, Span, reflected, shots

__all__ = ["IconVSR"]


class IconVSR(Network):
    """Four times super-resolution of a clip.

    At keyframes both branches are refilled with a feature that EDVR's front makes from the frames
    around. The forward branch also sees the backward feature of each frame. Keyframes are frames 0,
    `keyframe_stride`, twice that, and so on, and the first and last frame of each shot. If a shot
    is too short for the mirrored ends of a keyframe's window, its farthest frame is repeated.
    Inside, frames are mirrored to sides that are multiples of 4.
    """

    scale = 4

    def __init__(
        self,
        channels: int = 64,
        blocks: int = 30,
        temporal_padding: int = 2,
        *,
        extraction_blocks: int = 5,
        groups: int = 8,
        keyframe_stride: int = 5,
    ) -> None:
        """Make the network.

        Args:
            channels: Features a frame.
            blocks: Residual blocks of each branch.
            temporal_padding: Frames on either side of a keyframe that its refill is made from: 2
                for REDS, 3 for Vimeo-90K.
            extraction_blocks: Residual blocks of the front that makes the refills.
            groups: Deformable groups of that front.
            keyframe_stride: Frames from one keyframe to the next.

        Raises:
            ArgumentError: `keyframe_stride` is below 1.
        """
        super().__init__()
        self.channels = channels
        self.temporal_padding = temporal_padding
        self.keyframe_stride = _checked_stride(keyframe_stride)
        self.edvr = EDVRFeatures(channels, 2 * temporal_padding + 1, extraction_blocks, groups)
        self.spynet = SPyNet()
        self.backward_fusion = Conv(2 * channels, channels)
        self.backward_trunk = InputConvBlocks(channels + 3, channels, blocks)
        self.forward_fusion = Conv(2 * channels, channels)
        self.forward_trunk = InputConvBlocks(2 * channels + 3, channels, blocks)
        self.upsampler = Upsampler(channels)

    @property
    def radius(self) -> int:
        """Number of frames on either side of a keyframe that its refill is made from."""
        return self.temporal_padding

    def step(
        self,
        frames: Sequence[Tensor],
        span: Span,
        state: ForwardState | None,
        out: Sequence[Planes] | None,
    ) -> ForwardState | None:
        """As `Stream.step`. Only the refills of keyframes look at frames that are not active."""
        frames = [mirror_pad(frame, multiple=4) for frame in frames]
        inputs = features_input(frames, self.backward_fusion.weight.dtype)
        refills = self._refills(inputs, span)
        backward = self._backward_features(frames, inputs, span, refills)
        positions = range(span.active.start, span.output.stop)
        cuts = {cut - positions.start for cut in span.cuts}
        flows = forward_flows(self.spynet, frames[positions.start : positions.stop], state, cuts)
        for i, flow in zip(positions, flows, strict=True):
            feature = self._refilled(
                warped_or_zeros(
                    None if state is None else state.feature, flow, backward[i], self.channels
                ),
                refills.get(i),
                self.forward_fusion,
            )
            # Popped, as no later frame needs it and its memory can go.
            feature = self._trunk(self.forward_trunk, inputs[i], backward.pop(i), feature)
            state = ForwardState(frames[i], feature)
            if out is not None and i in span.output:
                base = upsampled(frames[i], self.scale)
                self.upsampler(feature, base, out[i - span.output.start])
        return state

    def _refills(self, frames: Sequence[Tensor], span: Span) -> Mapping[int, Tensor]:
        """The refill feature of each active keyframe, by position."""
        pyramids: dict[int, Pyramid] = {}
        refills = {}
        for shot in shots(range(span.count), span.cuts):
            for centre in self._keyframes(shot, span):
                window = []
                for position in range(centre - self.radius, centre + self.radius + 1):
                    i = reflected(position, shot, self.radius)
                    if i not in pyramids:
                        pyramids[i] = self.edvr.pyramid(frames[i])
                    window.append(pyramids[i])
                refills[centre] = self.edvr.fused(window)
                # Only a window mirrored at the shot's end reads further back; it makes them again.
                for i in [i for i in pyramids if i < centre - self.radius]:
                    del pyramids[i]
        return refills

    def _keyframes(self, shot: range, span: Span) -> list[int]:
        """Active keyframes: those on the clip's grid, and the ends of the shot."""
        # An end of the span is no end of the shot unless there is a cut.
        ends = {shot.start} & set(span.cuts) | {cut - 1 for cut in span.cuts if cut == shot.stop}
        active = range(max(shot.start, span.active.start), min(shot.stop, span.active.stop))
        return [i for i in active if (span.first + i) % self.keyframe_stride == 0 or i in ends]

    def _backward_features(
        self,
        frames: Sequence[Tensor],
        inputs: Sequence[Tensor],
        span: Span,
        refills: Mapping[int, Tensor],
    ) -> dict[int, Tensor]:
        """Backward features of the active frames up to the last output frame, by position."""
        features = {}
        for shot in reversed(shots(span.active, span.cuts)):
            # A shot within the lookahead changes no picture.
            if shot.start >= span.output.stop:
                continue
            feature = None
            flows = backward_flows(self.spynet, frames[shot.start : shot.stop])
            for i in reversed(shot):
                like = inputs[i].to(self.backward_fusion.weight.dtype)
                warped = warped_or_zeros(feature, flows.pop(), like, self.channels)
                warped = self._refilled(warped, refills.get(i), self.backward_fusion)
                feature = self._trunk(self.backward_trunk, inputs[i], warped)
                if i < span.output.stop:
                    features[i] = feature
        return features

    def _refilled(self, feature: Tensor, refill: Tensor | None, fusion: Conv) -> Tensor:
        """The neighbour's feature, fused with the refill if the frame is a keyframe."""
        if refill is None:
            return feature
        out: Tensor = fusion(concat((feature, refill)))
        return out

    def _trunk(self, trunk: InputConvBlocks, frame: Tensor, *features: Tensor) -> Tensor:
        frame = frame.to(features[0].dtype, memory_format=torch.channels_last)
        out: Tensor = trunk(concat((frame, *features)))
        return out


def _checked_stride(keyframe_stride: int) -> int:
    """`keyframe_stride` itself; below 1 it is refused."""
    if keyframe_stride < 1:
        raise ArgumentError(
            f"IconVSR: keyframe_stride must be at least 1, got {keyframe_stride}. Use 5, as the "
            "published networks do."
        )
    return keyframe_stride
