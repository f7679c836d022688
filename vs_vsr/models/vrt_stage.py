"""The stages of VRT: attention, then each frame joined with its warped neighbours.

The paper, arXiv:2201.12288, calls the second part parallel warping.
"""

import torch
from torch import Tensor, nn

from vs_vsr.models.deformable import ModulatedDeformConv
from vs_vsr.models.layers import Conv, concat
from vs_vsr.models.sampling import Flow, flow_warp, prepared
from vs_vsr.models.vrt_attention import BlockGroup, GatedMLP, Size

__all__ = ["SelfAttentionGroup", "Stage", "channels_first", "channels_last", "reshape"]


class _SpaceToDepth(nn.Module):
    """(B, T, H, W, C) to (B, T, H/2, W/2, 4*C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Put the column's parity before the row's, and both before the channel, as files do."""
        x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, T, h, row, w, column, C)
        return x.permute(0, 1, 2, 4, 5, 3, 6).flatten(4)


class _DepthToSpace(nn.Module):
    """(B, T, H, W, C) to (B, T, 2*H, 2*W, C/4)."""

    def forward(self, x: Tensor) -> Tensor:
        """Read the channels in the order that `_SpaceToDepth` writes."""
        x = x.unflatten(4, (2, 2, -1))  # (B, T, h, w, column, row, C)
        return x.permute(0, 1, 2, 5, 3, 4, 6).flatten(4, 5).flatten(2, 3)


def reshape(width: int, out: int, halvings: int | None = None) -> nn.Sequential:
    """Make the layers that lead to a stage's size and width.

    Args:
        width: Features per pixel before them.
        out: Features per pixel after them.
        halvings: 1 halves height and width, -1 doubles them, 0 keeps them and `width`; None changes
            `width` only.
    """
    if halvings == 0:
        return nn.Sequential(nn.Identity(), nn.LayerNorm(out))
    layers = {None: nn.Identity(), 1: _SpaceToDepth(), -1: _DepthToSpace()}
    resized = {None: width, 1: 4 * width, -1: width // 4}[halvings]
    return nn.Sequential(layers[halvings], nn.LayerNorm(resized), nn.Linear(resized, out))


class SelfAttentionGroup(nn.Module):
    """A group of blocks without mutual attention, added to its input."""

    def __init__(self, width: int, depth: int, window: Size, heads: int) -> None:
        """Make the group; with a `window` of one frame it looks at one frame at a time."""
        super().__init__()
        self.residual_group = BlockGroup(width, depth, window, heads, mutual=False)
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the group to (B, T, H, W, C)."""
        out: Tensor = x + self.linear(self.residual_group(x))
        return out


class Stage(nn.Module):
    """Attention at one size, then each frame joined with its neighbours, warped to it."""

    def __init__(
        self, widths: tuple[int, int], depth: int, heads: int, window: Size, halvings: int
    ) -> None:
        """Make the stage.

        Args:
            widths: Features per pixel before the stage and in it.
            depth: Number of blocks; three quarters of them have mutual attention.
            heads: Heads of the attention.
            window: Window of the other quarter; mutual attention takes two frames.
            halvings: 1 halves height and width first, -1 doubles them, 0 keeps them.
        """
        super().__init__()
        width = widths[1]
        self.width = width
        self.reshape = reshape(*widths, halvings)
        mutual = int(depth * 0.75)
        pair = (2, *window[1:])
        self.residual_group1 = BlockGroup(width, mutual, pair, heads, mutual=True)
        self.linear1 = nn.Linear(width, width)
        self.residual_group2 = BlockGroup(width, depth - mutual, window, heads, mutual=False)
        self.linear2 = nn.Linear(width, width)

    def add_warping(self, reach: int, groups: int, magnitude: float) -> None:
        """Make the parts that join each frame with `reach` neighbours on either side."""
        self.pa_deform = _Alignment(self.width, reach, groups, magnitude)
        self.pa_fuse = GatedMLP(3 * self.width, 3 * self.width, self.width)

    def forward(self, x: Tensor, flows: tuple[list[Tensor], list[Tensor]] | None) -> Tensor:
        """Apply the stage.

        Args:
            x: (B, T, H, W, C), from the stage before.
            flows: Flows to the next frames and to the previous ones, each by distance; None skips
                the warping.
        """
        x = self.reshape(x)
        x = x + self.linear1(self.residual_group1(x))
        x = x + self.linear2(self.residual_group2(x))
        return x if flows is None else self._warped(x, *flows)

    def _warped(self, x: Tensor, to_next: list[Tensor], to_previous: list[Tensor]) -> Tensor:
        """Each frame of (B, T, H, W, C) joined with its warped neighbours."""
        frames = [channels_first(frame) for frame in x.unbind(1)]
        next_flows, previous_flows = (
            [_prepared(flow, x.dtype) for flow in flows] for flows in (to_next, to_previous)
        )
        out = torch.empty_like(x)
        last = len(frames) - 1
        for i, frame in enumerate(frames):
            sides = []
            for flows, step, available in ((next_flows, 1, last - i), (previous_flows, -1, i)):
                reach = min(len(flows), available)
                neighbours = [frames[i + step * d] for d in range(1, reach + 1)]
                # Either way, a flow is stored at the earlier of its two frames: the one from i to
                # i + d at i, the one from i to i - d at i - d.
                to_neighbours = [
                    flow[min(i, i + step * d)] for d, flow in enumerate(flows[:reach], 1)
                ]
                sides.append(self.pa_deform(frame, neighbours, to_neighbours))
            joined = torch.cat([channels_last(f) for f in (frame, *sides)], dim=-1)
            out[:, i] = self.pa_fuse(joined)
        return out


class _Alignment(ModulatedDeformConv):
    """The features of a frame's neighbours on one side, aligned with the frame."""

    def __init__(self, width: int, reach: int, groups: int, magnitude: float) -> None:
        # The released weights take `width` channels even with 2 or 3 neighbours: each run of
        # outputs then sees one of these.
        super().__init__(width, width, groups)
        self.reach = reach
        self.magnitude = magnitude
        layers: list[nn.Module] = [Conv((1 + reach) * width + 2 * reach, width, 3, "leaky_relu")]
        for _ in range(2):
            layers += [nn.Identity(), Conv(width, width, 3, "leaky_relu")]
        self.conv_offset = nn.Sequential(*layers, nn.Identity(), Conv(width, 27 * groups))

    def forward(self, frame: Tensor, neighbours: list[Tensor], flows: list[Flow]) -> Tensor:
        """Align.

        Args:
            frame: The features of the frame itself, (B, C, H, W).
            neighbours: Those of at most `reach` neighbours, the nearest first.
            flows: The flow to each of them.

        Returns:
            (B, C, H, W); zeros if there are no neighbours.
        """
        if not neighbours:
            return torch.zeros_like(frame)
        b, _, height, width = frame.shape
        # Neighbours beyond the ends of the clip are zeros, as are the flows to them.
        missing = self.reach - len(neighbours)
        blank = [torch.zeros_like(frame)] * missing
        warped = [flow_warp(x, flow) for x, flow in zip(neighbours, flows, strict=True)]
        vectors = [flow.vectors for flow in flows]
        vectors += [frame.new_zeros(b, 2, height, width, dtype=torch.float32)] * missing
        guides = [*warped, *blank, frame, *(flow.to(frame.dtype) for flow in vectors)]
        offsets, mask = self.split(self.conv_offset(concat(guides)))
        offsets = self.magnitude * offsets.tanh()
        # Each run of groups reads one neighbour, along the flow to it. Flows are (x, y), offsets
        # (y, x).
        flow_offsets = torch.stack([flow.flip(1) for flow in vectors], dim=1)  # (B, reach, 2, H, W)
        offsets = offsets.unflatten(1, (self.reach, -1, 2)) + flow_offsets[:, :, None]
        return self.deform(concat([*neighbours, *blank]), offsets.flatten(1, 3), mask.sigmoid())


def _prepared(flow: Tensor, dtype: torch.dtype) -> list[Flow]:
    """The flows of a clip at one distance, (B, T, 2, H, W), one for each frame, for `dtype`."""
    return prepared(flow.transpose(0, 1).flatten(0, 1), flow.shape[1], dtype)


def channels_first(x: Tensor) -> Tensor:
    """(B, H, W, C) as (B, C, H, W), channels_last: the same memory."""
    return x.permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) as (B, H, W, C): the same memory."""
    return x.permute(0, 2, 3, 1)
