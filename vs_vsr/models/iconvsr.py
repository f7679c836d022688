"""IconVSR: BasicVSR with keyframes refilled and the branches coupled (arXiv:2012.02181)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vs_vsr.errors import ArgumentError, ShapeError
from vs_vsr.models.edvr_features import EDVRFeatures, Pyramid
from vs_vsr.models.layers import Conv, InputConvBlocks, Planes, Upsampler, enlarged
from vs_vsr.models.padding import mirror_pad
from vs_vsr.models.recurrent import ForwardState, backward_flows, forward_flows, moved
from vs_vsr.models.spynet import SPyNet
from vs_vsr.models.stretch import Stretch, folded, shots
from vs_vsr.models.whole import Network, check_clip, whole_clip

__all__ = ["IconVSR"]


class IconVSR(Network):
    """Four times super-resolution of a clip.

    At keyframes both branches are refilled with a feature that EDVR's front makes from the frames
    around; the forward branch sees the backward feature of each frame.
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
        self.keyframe_stride = checked_stride(keyframe_stride)
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

    def forward(self, frames: Tensor) -> Tensor:
        """Upscale a whole clip.

        Keyframes are frames 0, `keyframe_stride`, twice that, …, and the last. A clip too short for
        the mirrored ends of a keyframe's window repeats its farthest frame there.

        Args:
            frames: (B, T, 3, H, W), RGB, [0, 1], float32; any size, mirrored inside to sides that
                are multiples of 4.

        Returns:
            (B, T, 3, 4*H, 4*W), float32, not clamped.

        Raises:
            ShapeError: `frames` has another shape.
        """
        check_clip(self, frames)
        return whole_clip(self, frames)

    def step(
        self,
        frames: Sequence[Tensor],
        stretch: Stretch,
        state: ForwardState | None,
        out: Sequence[Planes] | None,
    ) -> ForwardState:
        """Do the next piece of a stream, as `BasicVSR.step`.

        Frames outside the stretch's active ones are looked at by the refills of keyframes only.
        """
        frames = [mirror_pad(frame, multiple=4) for frame in frames]
        refills = self._refills(frames, stretch)
        past = self._backward_features(frames, stretch, refills)
        run = range(stretch.active.start, stretch.own.stop)
        cuts = {cut - run.start for cut in stretch.cuts}
        flows = forward_flows(self.spynet, frames[run.start : run.stop], state, cuts)
        for i, flow in zip(run, flows, strict=True):
            # A backward feature is done with once its frame is past.
            feature = self._refilled(
                moved(None if state is None else state.feature, flow, past[i], self.channels),
                refills.get(i),
                self.forward_fusion,
            )
            feature = self._trunk(self.forward_trunk, frames[i], past.pop(i), feature)
            state = ForwardState(frames[i], feature)
            if out is not None and i in stretch.own:
                base = enlarged(frames[i], self.scale)
                self.upsampler(feature, base, out[i - stretch.own.start])
        if state is None:
            raise ShapeError("IconVSR: frames must hold at least one frame, got none. Pass one.")
        return state

    def _refills(self, frames: Sequence[Tensor], stretch: Stretch) -> Mapping[int, Tensor]:
        """The refill feature of each active keyframe, by position."""
        made: dict[int, Pyramid] = {}
        refills = {}
        for shot in shots(range(stretch.count), stretch.cuts):
            for centre in self._keyframes(shot, stretch):
                window = []
                for position in range(centre - self.radius, centre + self.radius + 1):
                    i = folded(position, shot, self.radius)
                    if i not in made:
                        made[i] = self.edvr.pyramid(frames[i])
                    window.append(made[i])
                refills[centre] = self.edvr.fused(window)
                for i in [i for i in made if i < centre - self.radius]:
                    del made[i]
        return refills

    def _keyframes(self, shot: range, stretch: Stretch) -> list[int]:
        """Active keyframes: those of the clip's grid, and the ends of a shot."""
        ends = {shot.start} & set(stretch.cuts) | {
            cut - 1 for cut in stretch.cuts if cut == shot.stop
        }
        active = range(max(shot.start, stretch.active.start), min(shot.stop, stretch.active.stop))
        return [i for i in active if (stretch.first + i) % self.keyframe_stride == 0 or i in ends]

    def _backward_features(
        self, frames: Sequence[Tensor], stretch: Stretch, refills: Mapping[int, Tensor]
    ) -> dict[int, Tensor]:
        """Backward features of the active frames up to the last own one, by position."""
        features = {}
        for shot in reversed(shots(stretch.active, stretch.cuts)):
            if shot.start >= stretch.own.stop:
                continue
            feature = None
            flows = backward_flows(self.spynet, frames[shot.start : shot.stop])
            for i in reversed(shot):
                like = frames[i].to(self.backward_fusion.weight.dtype)
                before = moved(feature, flows.pop(), like, self.channels)
                before = self._refilled(before, refills.get(i), self.backward_fusion)
                feature = self._trunk(self.backward_trunk, frames[i], before)
                if i < stretch.own.stop:
                    features[i] = feature
        return features

    def _refilled(self, feature: Tensor, refill: Tensor | None, fusion: Conv) -> Tensor:
        if refill is None:
            return feature
        out: Tensor = fusion(torch.cat((feature, refill), dim=1))
        return out

    def _trunk(self, trunk: InputConvBlocks, frame: Tensor, *features: Tensor) -> Tensor:
        x = torch.cat((frame.to(features[0].dtype), *features), dim=1)
        out: Tensor = trunk(x.contiguous(memory_format=torch.channels_last))
        return out


def checked_stride(keyframe_stride: int) -> int:
    """`keyframe_stride`, refused below 1."""
    if keyframe_stride < 1:
        raise ArgumentError(
            f"IconVSR: keyframe_stride must be at least 1, got {keyframe_stride}. Use 5, as the "
            "published networks do."
        )
    return keyframe_stride
