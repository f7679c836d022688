"""BasicVSR++: four passes through the clip, aligned in second order (arXiv:2104.13371).

The paper calls these second-order grid propagation and flow-guided deformable alignment.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vs_vsr.errors import ArgumentError
from vs_vsr.models.deformable import ModulatedDeformConv
from vs_vsr.models.layers import Conv, InputConvBlocks, Upsampler, concat, upsampled
from vs_vsr.models.padding import mirror_pad
from vs_vsr.models.recurrent import flows_between
from vs_vsr.models.sampling import Flow, flow_warp, prepared
from vs_vsr.models.spynet import SPyNet
from vs_vsr.models.stream import Network, Planes, Span, shots

__all__ = ["BasicVSRPP"]

_PASSES = ("backward_1", "forward_1", "backward_2", "forward_2")
_GROUPS = 16


class BasicVSRPP(Network):
    """Super-resolution by 4, or restoration at the same size, of a clip.

    The passes depend on each other, so nothing computed for one span serves the next: a stream
    reads some frames before and after each. If the network is not `low_res`, frames are mirrored
    inside to sides that are multiples of 4.
    """

    def __init__(
        self,
        channels: int = 64,
        blocks: int = 7,
        *,
        low_res: bool = True,
        end_blocks: int = 5,
        groups: int = _GROUPS,
        max_residue_magnitude: float = 10.0,
    ) -> None:
        """Make the network.

        Args:
            channels: Features per frame.
            blocks: Residual blocks of each pass.
            low_res: Whether frames are a quarter of the output's size. Otherwise they have the
                output's size, and features have a quarter of it.
            end_blocks: Residual blocks before and after the passes.
            groups: Deformable groups of the alignment.
            max_residue_magnitude: Most pixels that the alignment may move away from the flow.

        Raises:
            ArgumentError: `max_residue_magnitude` is negative.
        """
        super().__init__()
        if not max_residue_magnitude >= 0:
            raise ArgumentError(
                "BasicVSRPP: max_residue_magnitude must be 0 or more, got "
                f"{max_residue_magnitude}. Use 10, as the published networks do."
            )
        self.channels = channels
        self.low_res = low_res
        self.scale = 4 if low_res else 1
        self.spynet = SPyNet()
        if low_res:
            self.feat_extract: nn.Module = InputConvBlocks(3, channels, end_blocks)
        else:
            # Identities take the indices of activations, so that tensors have the names of the
            # released files.
            self.feat_extract = nn.Sequential(
                Conv(3, channels, 3, "leaky_relu", stride=2),
                nn.Identity(),
                Conv(channels, channels, 3, "leaky_relu", stride=2),
                nn.Identity(),
                InputConvBlocks(channels, channels, end_blocks),
            )
        self.deform_align = nn.ModuleDict(
            {
                name: _SecondOrderAlignment(channels, groups, max_residue_magnitude)
                for name in _PASSES
            }
        )
        self.backbone = nn.ModuleDict(
            {
                name: InputConvBlocks((2 + i) * channels, channels, blocks)
                for i, name in enumerate(_PASSES)
            }
        )
        self.reconstruction = InputConvBlocks(5 * channels, channels, end_blocks)
        self.upsampler = Upsampler(channels)

    def step(
        self,
        frames: Sequence[Tensor],
        span: Span,
        state: None,
        out: Sequence[Planes] | None,
    ) -> None:
        """As `Stream.step`. All frames are active, and nothing is carried."""
        for shot in shots(range(span.count), span.cuts):
            wanted = range(max(shot.start, span.output.start), min(shot.stop, span.output.stop))
            if out is None or not wanted:
                continue
            shot_frames = [frames[i] for i in shot]
            if not self.low_res:
                shot_frames = [mirror_pad(frame, multiple=4) for frame in shot_frames]
            for i, features in zip(shot, self._propagated(shot_frames), strict=True):
                if i in wanted:
                    base = shot_frames[i - shot.start]
                    base = upsampled(base, self.scale) if self.low_res else base
                    self.upsampler(self.reconstruction(features), base, out[i - span.output.start])

    def _propagated(self, shot: Sequence[Tensor]) -> Iterator[Tensor]:
        """For each frame of a shot, its own features and those of all passes, (B, 5*C, h, w)."""
        # Flows are needed at the size of the features.
        small = shot
        if not self.low_res:
            small = [F.interpolate(frame, scale_factor=0.25, mode="bicubic") for frame in shot]
        to_next = flows_between(self.spynet, small[:-1], small[1:])
        to_previous = flows_between(self.spynet, small[1:], small[:-1])
        dtype = self.upsampler.conv_hr.weight.dtype
        features = []
        for frame in shot:
            x = frame.to(dtype, memory_format=torch.channels_last)
            features.append([self.feat_extract(x)])
        for name in _PASSES[:-1]:
            backward = name.startswith("backward")
            # In the order of the pass.
            flows = to_next[::-1] if backward else to_previous
            propagated = list(self._propagate(name, features, flows, backward))
            order = reversed(features) if backward else iter(features)
            for frame_features, feature in zip(order, propagated, strict=True):
                frame_features.append(feature)
        # The last pass goes forward, so each of its features makes a picture before the next.
        last = self._propagate(_PASSES[-1], features, to_previous, backward=False)
        for frame_features, feature in zip(features, last, strict=True):
            yield concat([*frame_features, feature])
            # Features of a whole shot are large: these are freed once their picture is made.
            frame_features.clear()

    def _propagate(
        self,
        name: str,
        features: Sequence[Sequence[Tensor]],
        flows: Sequence[Flow],
        backward: bool,
    ) -> Iterator[Tensor]:
        """One pass: a feature for each frame, in the order of the pass.

        Args:
            name: Name of the pass.
            features: For each frame, its own feature and those of the passes before.
            flows: From each frame but the pass's first to the one visited before it, in the order
                of the pass.
            backward: Whether the pass goes from the last frame to the first.
        """
        order = reversed(range(len(features))) if backward else range(len(features))
        feature: Tensor | None = None
        older: Tensor | None = None
        paths = _paths(flows, self.upsampler.conv_hr.weight.dtype)
        for step, i in enumerate(order):
            frame_features = features[i]
            if feature is None:
                aligned = torch.zeros_like(frame_features[0])
            else:
                aligned = self.deform_align[name](
                    frame_features[0], feature, older, paths[step - 1]
                )
            trunk = self.backbone[name]
            older, feature = feature, trunk(concat([*frame_features, aligned])).add_(aligned)
            yield feature


@dataclass(frozen=True)
class _Path:
    """The flows from a frame to the two frames that a pass visits before it."""

    to_last: Flow
    to_older: Flow | None
    """None at the second frame of a pass, which has only one frame before it."""
    guide: Tensor
    """The vectors of both, zeros for a missing one, (B, 4, H, W), in the dtype of features,
    channels_last."""
    offsets: Tensor
    """The same as offsets, (B, 2, 1, 2, H, W), float32: which flow, then (y, x)."""


def _paths(flows: Sequence[Flow], dtype: torch.dtype) -> list[_Path]:
    """The paths along a pass from the flows between its neighbours, in the order of the pass.

    Args:
        flows: From each frame but the first to the one that the pass visits before it.
        dtype: That of the features.
    """
    if not flows:
        return []
    b = len(flows[0].vectors)
    to_last = torch.cat([flow.vectors for flow in flows])
    # To the frame two before, by way of the one before. On a CPU one by one, which takes less
    # memory. The networks were trained with zeros for the missing one, and half of the groups reads
    # there.
    onward, size = to_last[b:], b if to_last.device.type == "cpu" else len(to_last)
    to_older = [torch.zeros_like(to_last[:b])]
    if len(onward):
        parts = zip(to_last[:-b].split(size), onward.split(size), strict=True)
        to_older += [flow + flow_warp(last, flow) for last, flow in parts]
    both = torch.cat((to_last, torch.cat(to_older)), dim=1)
    older = prepared(both[b:, 2:], len(flows) - 1, dtype) if len(onward) else []
    guides = both.to(dtype, memory_format=torch.channels_last).split(b)
    # Flows are (x, y), offsets (y, x).
    offsets = both.unflatten(1, (2, 1, 2)).flip(3).split(b)
    return list(map(_Path, flows, [None, *older], guides, offsets))


class _SecondOrderAlignment(ModulatedDeformConv):
    """The pass's features of the two frames before, aligned with this frame."""

    def __init__(self, channels: int, groups: int, max_residue_magnitude: float) -> None:
        super().__init__(2 * channels, channels, groups)
        self.max_residue_magnitude = max_residue_magnitude
        layers: list[nn.Module] = [Conv(3 * channels + 4, channels, 3, "leaky_relu")]
        for _ in range(2):
            layers += [nn.Identity(), Conv(channels, channels, 3, "leaky_relu")]
        self.conv_offset = nn.Sequential(*layers, nn.Identity(), Conv(channels, 27 * groups))

    def forward(
        self,
        current: Tensor,
        feature: Tensor,
        older: Tensor | None,
        path: _Path,
    ) -> Tensor:
        """Align.

        Args:
            current: This frame's own feature, (B, C, H, W).
            feature: The pass's feature of the frame before.
            older: The pass's feature two frames before; None at the second frame.
            path: The flows to both.
        """
        warped = flow_warp(feature, path.to_last)
        if older is None or path.to_older is None:
            older = warped_older = torch.zeros_like(feature)
        else:
            warped_older = flow_warp(older, path.to_older)
        residues, mask = self.split(
            self.conv_offset(concat((warped, current, warped_older, path.guide)))
        )
        # One half of the groups reads the frame before, the other the one two before.
        moved = residues.tanh().unflatten(1, (2, -1, 2)).mul_(self.max_residue_magnitude)
        offsets = moved.add_(path.offsets).flatten(1, 3)
        return self.deform(concat((feature, older)), offsets, mask.sigmoid())
