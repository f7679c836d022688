"""BasicVSR: two recurrent branches, one each way through the clip (arXiv:2012.02181)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vs_vsr.errors import ShapeError
from vs_vsr.models.layers import InputConvBlocks, Planes, Upsampler, convolve
from vs_vsr.models.sampling import flow_warp
from vs_vsr.models.spynet import SPyNet

__all__ = ["BasicVSR", "ForwardState"]


@dataclass(frozen=True)
class ForwardState:
    """What the forward branch carries from one frame to the next."""

    frame: Tensor
    """The last frame seen, (B, 3, H, W), float32."""
    feature: Tensor
    """Its forward feature, (B, C, H, W)."""


class BasicVSR(nn.Module):
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
        return self.stream(frames)[0]

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
        if frames.ndim != 5 or frames.shape[2] != 3 or frames.shape[1] <= lookahead:
            raise ShapeError(
                "BasicVSR: frames must be (B, T, 3, H, W) with T above the look-ahead of "
                f"{lookahead}, got {tuple(frames.shape)}. Stack the frames in this order."
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
        flows = self._forward_flows(frames[: len(out)], state, cuts)
        for i, (planes, flow) in enumerate(zip(out, flows, strict=True)):
            state = self._step(frames[i], state, flow)
            # A backward feature is done with once its frame is out.
            features = torch.cat((past.pop(), state.feature), dim=1)
            features = convolve(features, self.fusion.weight, self.fusion.bias, "leaky_relu")
            base = F.interpolate(
                frames[i], scale_factor=self.scale, mode="bilinear", align_corners=False
            )
            self.upsampler(features, base, planes)
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
        for frame, flow in zip(frames, self._forward_flows(frames, state, cuts), strict=True):
            state = self._step(frame, state, flow)
        return state

    def _step(self, frame: Tensor, state: ForwardState | None, flow: Tensor | None) -> ForwardState:
        before = None if state is None or flow is None else state.feature
        return ForwardState(frame, self._propagate(self.forward_trunk, frame, before, flow))

    def _backward_features(
        self, frames: Sequence[Tensor], cuts: Collection[int], keep: int
    ) -> list[Tensor]:
        """Backward features of the first `keep` frames, the last of them first."""
        features = []
        for first, last in reversed(_shots(len(frames), cuts)):
            if first >= keep:
                continue
            shot = frames[first:last]
            flows = self._flows(shot[:-1], shot[1:])
            feature = self._propagate(self.backward_trunk, shot[-1])
            if last <= keep:
                features.append(feature)
            for i in reversed(range(len(shot) - 1)):
                feature = self._propagate(self.backward_trunk, shot[i], feature, flows[i])
                if first + i < keep:
                    features.append(feature)
        return features

    def _forward_flows(
        self, frames: Sequence[Tensor], state: ForwardState | None, cuts: Collection[int]
    ) -> list[Tensor | None]:
        """Flow from each frame to the one before it; None where the forward branch starts cold."""
        flows: list[Tensor | None] = []
        for first, last in _shots(len(frames), cuts):
            shot = list(frames[first:last])
            if first == 0 and state is not None and 0 not in cuts:
                shot.insert(0, state.frame)
            else:
                flows.append(None)
            flows += self._flows(shot[1:], shot[:-1])
        return flows

    def _flows(self, reference: Sequence[Tensor], supporting: Sequence[Tensor]) -> list[Tensor]:
        """Flow of each pair, (B, 2, H, W)."""
        if not reference:
            return []
        flows: Tensor = self.spynet(torch.cat(list(reference)), torch.cat(list(supporting)))
        return list(flows.split(len(reference[0])))

    def _propagate(
        self,
        trunk: InputConvBlocks,
        frame: Tensor,
        feature: Tensor | None = None,
        flow: Tensor | None = None,
    ) -> Tensor:
        """One step of a branch: the neighbour's feature, moved by `flow`, and this frame."""
        frame = frame.to(self.fusion.weight.dtype)
        if feature is None or flow is None:
            b, _, h, w = frame.shape
            feature = frame.new_zeros(b, self.channels, h, w)
        else:
            feature = flow_warp(feature, flow)
        x = torch.cat((frame, feature), dim=1)
        out: Tensor = trunk(x.contiguous(memory_format=torch.channels_last))
        return out


def _shots(count: int, cuts: Collection[int]) -> list[tuple[int, int]]:
    """Split frames 0..count at the cuts: half-open runs, none of them empty."""
    borders = [0, *sorted(cut for cut in set(cuts) if 0 < cut < count), count]
    return [(i, j) for i, j in pairwise(borders) if i < j]
