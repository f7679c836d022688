"""BasicVSR: two recurrent branches, one in each direction of the clip (arXiv:2012.02181)."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from vs_vsr.models.layers import InputConvBlocks, Upsampler, concat, convolve, upsampled
from vs_vsr.models.recurrent import (
    ForwardState,
    backward_flows,
    features_input,
    forward_flows,
    warped_or_zeros,
)
from vs_vsr.models.sampling import Flow
from vs_vsr.models.spynet import SPyNet
from vs_vsr.models.stream import Network, Planes, Span, shots

__all__ = ["BasicVSR"]


class BasicVSR(Network):
    """Four times super-resolution of a clip.

    The branches do not see each other. The backward one starts at the last frame, the forward one
    at the first. Each frame's picture is made from its two features.
    """

    scale = 4

    def __init__(self, channels: int = 64, blocks: int = 30) -> None:
        """Make the network; each branch has `blocks` residual blocks of `channels` features."""
        super().__init__()
        self.channels = channels
        self.spynet = SPyNet()
        self.backward_trunk = InputConvBlocks(channels + 3, channels, blocks)
        self.forward_trunk = InputConvBlocks(channels + 3, channels, blocks)
        self.fusion = nn.Conv2d(channels * 2, channels, 1)
        self.upsampler = Upsampler(channels)

    def step(
        self,
        frames: Sequence[Tensor],
        span: Span,
        state: ForwardState | None,
        out: Sequence[Planes] | None,
    ) -> ForwardState | None:
        """As `Stream.step`. Frames before the output ones only carry the forward state."""
        start, stop = span.output.start, span.output.stop
        state = self._advance(frames[:start], state, span.cuts)
        # From here on, positions count from the first output frame.
        cuts = {cut - start for cut in span.cuts if cut >= start}
        if out is None:
            return self._advance(frames[start:stop], state, cuts)
        return self._render(frames[start:], state, cuts, out)

    def _render(
        self,
        frames: Sequence[Tensor],
        state: ForwardState | None,
        cuts: Collection[int],
        out: Sequence[Planes],
    ) -> ForwardState | None:
        """Upscale the first len(out) of `frames` into `out`; the others are lookahead."""
        inputs = features_input(frames, self.fusion.weight.dtype)
        backward = self._backward_features(frames, inputs, cuts, len(out))
        flows = forward_flows(self.spynet, frames[: len(out)], state, cuts)
        for i, (planes, flow) in enumerate(zip(out, flows, strict=True)):
            state = self._forward_frame(frames[i], inputs[i], state, flow)
            # Popped, as no later frame needs it and its memory can go.
            features = concat((backward.pop(), state.feature))
            features = convolve(features, self.fusion.weight, self.fusion.bias, "leaky_relu")
            self.upsampler(features, upsampled(frames[i], self.scale), planes)
        return state

    def _advance(
        self, frames: Sequence[Tensor], state: ForwardState | None, cuts: Collection[int]
    ) -> ForwardState | None:
        """Carry the forward state over `frames` without making pictures, to the same bits."""
        flows = forward_flows(self.spynet, frames, state, cuts)
        inputs = features_input(frames, self.fusion.weight.dtype)
        for frame, x, flow in zip(frames, inputs, flows, strict=True):
            state = self._forward_frame(frame, x, state, flow)
        return state

    def _forward_frame(
        self, frame: Tensor, x: Tensor, state: ForwardState | None, flow: Flow | None
    ) -> ForwardState:
        feature = None if state is None else state.feature
        return ForwardState(frame, self._propagate(self.forward_trunk, x, feature, flow))

    def _backward_features(
        self,
        frames: Sequence[Tensor],
        inputs: Sequence[Tensor],
        cuts: Collection[int],
        keep: int,
    ) -> list[Tensor]:
        """Backward features of the first `keep` frames, the last of these frames first."""
        features = []
        for shot in reversed(shots(range(len(frames)), cuts)):
            # A shot within the lookahead changes no picture.
            if shot.start >= keep:
                continue
            feature = None
            flows = backward_flows(self.spynet, frames[shot.start : shot.stop])
            for i in reversed(shot):
                feature = self._propagate(self.backward_trunk, inputs[i], feature, flows.pop())
                if i < keep:
                    features.append(feature)
        return features

    def _propagate(
        self,
        trunk: InputConvBlocks,
        frame: Tensor,
        feature: Tensor | None,
        flow: Flow | None,
    ) -> Tensor:
        """One step of a branch: this frame and the neighbour's feature, warped by `flow`.

        Source: arXiv:2012.02181, eq. 2.
        """
        frame = frame.to(self.fusion.weight.dtype, memory_format=torch.channels_last)
        out: Tensor = trunk(concat((frame, warped_or_zeros(feature, flow, frame, self.channels))))
        return out
