"""BasicVSR: two recurrent branches, one each way through the clip (arXiv:2012.02181)."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from vs_vsr.errors import ShapeError
from vs_vsr.models.layers import InputConvBlocks, Planes, Upsampler, convolve, enlarged
from vs_vsr.models.recurrent import ForwardState, backward_flows, forward_flows, moved
from vs_vsr.models.spynet import SPyNet
from vs_vsr.models.stretch import Stretch, shots
from vs_vsr.models.whole import Network, check_clip, whole_clip

__all__ = ["BasicVSR"]


class BasicVSR(Network):
    """Four times super-resolution of a clip.

    The branches do not see each other: the backward one starts at the last frame, the forward one
    at the first, and each frame's picture is made of its two features.
    """

    scale = 4

    def __init__(self, channels: int = 64, blocks: int = 30) -> None:
        """Make the network with `blocks` residual blocks of `channels` features a branch."""
        super().__init__()
        self.channels = channels
        self.spynet = SPyNet()
        self.backward_trunk = InputConvBlocks(channels + 3, channels, blocks)
        self.forward_trunk = InputConvBlocks(channels + 3, channels, blocks)
        self.fusion = nn.Conv2d(channels * 2, channels, 1)
        self.upsampler = Upsampler(channels)

    def forward(self, frames: Tensor) -> Tensor:
        """Upscale a whole clip.

        Args:
            frames: (B, T, 3, H, W), RGB, [0, 1], float32.

        Returns:
            (B, T, 3, 4*H, 4*W), float32, not clamped.

        Raises:
            ShapeError: `frames` has another shape.
        """
        check_clip(self, frames)
        return whole_clip(self, frames)

    def stream(
        self,
        frames: Tensor,
        state: ForwardState | None = None,
        *,
        lookahead: int = 0,
        cuts: Collection[int] = (),
    ) -> tuple[Tensor, ForwardState]:
        """Upscale the next chunk of a clip.

        Args:
            frames: The chunk and its look-ahead, (B, T + lookahead, 3, H, W), RGB, [0, 1], float32.
            state: What the call for the chunk before returned; None starts cold.
            lookahead: Number of frames at the end that only the backward branch sees.
            cuts: Every t where a scene cut lies between frames t-1 and t; 0 is before the first.

        Returns:
            The chunk, (B, T, 3, 4*H, 4*W), float32, not clamped, and the state after it.

        Raises:
            ShapeError: `frames` has another shape, or holds nothing but look-ahead.
        """
        check_clip(self, frames)
        if frames.shape[1] <= lookahead:
            raise ShapeError(
                "BasicVSR: frames must be (B, T, 3, H, W) with T above the look-ahead of "
                f"{lookahead}, got {tuple(frames.shape)}. Append the look-ahead to the chunk."
            )
        b, t, _, h, w = frames.shape
        out = frames.new_empty(b, t - lookahead, 3, self.scale * h, self.scale * w)
        planes = [out[:, i].unbind(1) for i in range(t - lookahead)]
        return out, self.render(frames.unbind(1), state, planes, cuts=cuts)

    def render(
        self,
        frames: Sequence[Tensor],
        state: ForwardState | None,
        out: Sequence[Planes],
        *,
        cuts: Collection[int] = (),
    ) -> ForwardState:
        """Upscale the first len(out) of `frames` into `out`; the others are look-ahead.

        Args:
            frames: Each (B, 3, H, W), RGB, [0, 1], float32.
            state: As for `stream`.
            out: For each frame of the chunk its planes R, G, B, each (B, 4*H, 4*W).
            cuts: As for `stream`.

        Returns:
            The state after the chunk.
        """
        past = self._backward_features(frames, cuts, len(out))
        flows = forward_flows(self.spynet, frames[: len(out)], state, cuts)
        for i, (planes, flow) in enumerate(zip(out, flows, strict=True)):
            state = self._step(frames[i], state, flow)
            # A backward feature is done with once its frame is out.
            features = torch.cat((past.pop(), state.feature), dim=1)
            features = convolve(features, self.fusion.weight, self.fusion.bias, "leaky_relu")
            self.upsampler(features, enlarged(frames[i], self.scale), planes)
        if state is None:
            raise ShapeError("BasicVSR: frames must hold at least one frame, got none. Pass one.")
        return state

    def advance(
        self,
        frames: Sequence[Tensor],
        state: ForwardState | None,
        *,
        cuts: Collection[int] = (),
    ) -> ForwardState | None:
        """Carry the forward state over `frames` without making pictures, to the same bits.

        Args:
            frames: Each (B, 3, H, W), RGB, [0, 1], float32.
            state: As for `stream`.
            cuts: As for `stream`.

        Returns:
            The state after the last frame; `state` itself where there are none.
        """
        flows = forward_flows(self.spynet, frames, state, cuts)
        for frame, flow in zip(frames, flows, strict=True):
            state = self._step(frame, state, flow)
        return state

    def step(
        self,
        frames: Sequence[Tensor],
        stretch: Stretch,
        state: ForwardState | None,
        out: Sequence[Planes] | None,
    ) -> ForwardState | None:
        """Do the next piece of a stream: carry the state over a stretch, and make its pictures.

        Args:
            frames: Those of the stretch, each (1, 3, H, W), RGB, [0, 1], float32.
            stretch: Which frames they are.
            state: What the step before returned; None starts cold.
            out: Where the pictures of its own frames go; None makes none.

        Returns:
            The state after its own frames, to the same bits with pictures and without.
        """
        start, stop = stretch.own.start, stretch.own.stop
        state = self.advance(frames[:start], state, cuts=stretch.cuts)
        cuts = {cut - start for cut in stretch.cuts if cut >= start}
        if out is None:
            return self.advance(frames[start:stop], state, cuts=cuts)
        return self.render(frames[start:], state, out, cuts=cuts)

    def _step(self, frame: Tensor, state: ForwardState | None, flow: Tensor | None) -> ForwardState:
        before = None if state is None else state.feature
        return ForwardState(frame, self._propagate(self.forward_trunk, frame, before, flow))

    def _backward_features(
        self, frames: Sequence[Tensor], cuts: Collection[int], keep: int
    ) -> list[Tensor]:
        """Backward features of the first `keep` frames, the last of them first."""
        features = []
        for shot in reversed(shots(range(len(frames)), cuts)):
            if shot.start >= keep:
                continue
            feature = None
            flows = backward_flows(self.spynet, frames[shot.start : shot.stop])
            for i in reversed(shot):
                feature = self._propagate(self.backward_trunk, frames[i], feature, flows.pop())
                if i < keep:
                    features.append(feature)
        return features

    def _propagate(
        self,
        trunk: InputConvBlocks,
        frame: Tensor,
        feature: Tensor | None,
        flow: Tensor | None,
    ) -> Tensor:
        """One step of a branch: the neighbour's feature, moved by `flow`, and this frame."""
        frame = frame.to(self.fusion.weight.dtype)
        x = torch.cat((frame, moved(feature, flow, frame, self.channels)), dim=1)
        out: Tensor = trunk(x.contiguous(memory_format=torch.channels_last))
        return out
