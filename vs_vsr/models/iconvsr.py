"""IconVSR: BasicVSR with keyframes refilled and the branches coupled (arXiv:2012.02181)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vs_vsr.errors import ArgumentError
from vs_vsr.models.edvr_features import EDVRFeatures, Pyramid
from vs_vsr.models.layers import Conv, InputConvBlocks, Upsampler, concat, upsampled
from vs_vsr.models.padding import mirror_pad
from vs_vsr.models.recurrent import ForwardState, backward_flows, forward_flows, warped_or_zeros
from vs_vsr.models.spynet import SPyNet
from vs_vsr.models.stream import Network, Planes, Span, reflected, shots

__all__ = ["IconVSR"]


class IconVSR(Network):
    """Four times super-resolution of a clip.

    At keyframes both branches are refilled with a feature that EDVR's front makes from the frames
    around; the forward branch sees the backward feature of each frame. Keyframes are frames 0,
    `keyframe_stride`, twice that, …, and the first and last of a shot. Where a shot is too short
    for the mirrored ends of a keyframe's window, its farthest frame is repeated. Frames are
    mirrored inside to sides that are multiples of 4.
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
            extraction_blocks: Residual blocks of the refill's front.
            groups: Its deformable groups.
            keyframe_stride: Every how many frames there is a keyframe.

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
        """Number of frames on either side that the refill of a keyframe is made from."""
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
        refills = self._refills(frames, span)
        backward = self._backward_features(frames, span, refills)
        run = range(span.active.start, span.output.stop)
        cuts = {cut - run.start for cut in span.cuts}
        flows = forward_flows(self.spynet, frames[run.start : run.stop], state, cuts)
        for i, flow in zip(run, flows, strict=True):
            # A backward feature is done with once its frame is out.
            feature = self._refilled(
                warped_or_zeros(
                    None if state is None else state.feature, flow, backward[i], self.channels
                ),
                refills.get(i),
                self.forward_fusion,
            )
            feature = self._trunk(self.forward_trunk, frames[i], backward.pop(i), feature)
            state = ForwardState(frames[i], feature)
            if out is not None and i in span.output:
                base = upsampled(frames[i], self.scale)
                self.upsampler(feature, base, out[i - span.output.start])
        return state

    def _refills(self, frames: Sequence[Tensor], span: Span) -> Mapping[int, Tensor]:
        """The refill feature of each active keyframe, by position."""
        made: dict[int, Pyramid] = {}
        refills = {}
        for shot in shots(range(span.count), span.cuts):
            for centre in self._keyframes(shot, span):
                window = []
                for position in range(centre - self.radius, centre + self.radius + 1):
                    i = reflected(position, shot, self.radius)
                    if i not in made:
                        made[i] = self.edvr.pyramid(frames[i])
                    window.append(made[i])
                refills[centre] = self.edvr.fused(window)
                for i in [i for i in made if i < centre - self.radius]:
                    del made[i]
        return refills

    def _keyframes(self, shot: range, span: Span) -> list[int]:
        """Active keyframes: those of the clip's grid, and the ends of a shot."""
        ends = {shot.start} & set(span.cuts) | {cut - 1 for cut in span.cuts if cut == shot.stop}
        active = range(max(shot.start, span.active.start), min(shot.stop, span.active.stop))
        return [i for i in active if (span.first + i) % self.keyframe_stride == 0 or i in ends]

    def _backward_features(
        self, frames: Sequence[Tensor], span: Span, refills: Mapping[int, Tensor]
    ) -> dict[int, Tensor]:
        """Backward features of the active frames up to the last own one, by position."""
        features = {}
        for shot in reversed(shots(span.active, span.cuts)):
            if shot.start >= span.output.stop:
                continue
            feature = None
            flows = backward_flows(self.spynet, frames[shot.start : shot.stop])
            for i in reversed(shot):
                like = frames[i].to(self.backward_fusion.weight.dtype)
                before = warped_or_zeros(feature, flows.pop(), like, self.channels)
                before = self._refilled(before, refills.get(i), self.backward_fusion)
                feature = self._trunk(self.backward_trunk, frames[i], before)
                if i < span.output.stop:
                    features[i] = feature
        return features

    def _refilled(self, feature: Tensor, refill: Tensor | None, fusion: Conv) -> Tensor:
        if refill is None:
            return feature
        out: Tensor = fusion(torch.cat((feature, refill), dim=1))
        return out

    def _trunk(self, trunk: InputConvBlocks, frame: Tensor, *features: Tensor) -> Tensor:
        out: Tensor = trunk(concat((frame.to(features[0].dtype), *features)))
        return out


def _checked_stride(keyframe_stride: int) -> int:
    """`keyframe_stride`, refused below 1."""
    if keyframe_stride < 1:
        raise ArgumentError(
            f"IconVSR: keyframe_stride must be at least 1, got {keyframe_stride}. Use 5, as the "
            "published networks do."
        )
    return keyframe_stride
