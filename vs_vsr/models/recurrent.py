"""What the recurrent networks share: the state between frames, and the flows between neighbours."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vs_vsr.models.sampling import flow_warp
from vs_vsr.models.spynet import SPyNet
from vs_vsr.models.stream import shots

__all__ = ["ForwardState", "backward_flows", "flows_between", "forward_flows", "warped_or_zeros"]


@dataclass(frozen=True)
class ForwardState:
    """What a forward branch carries from one frame to the next."""

    frame: Tensor
    """The last frame seen, (B, 3, H, W), float32."""
    feature: Tensor
    """Its forward feature, (B, C, H, W)."""


def flows_between(
    spynet: SPyNet, reference: Sequence[Tensor], supporting: Sequence[Tensor]
) -> list[Tensor]:
    """Flow of each pair of frames, (B, 2, H, W)."""
    if not reference:
        return []
    flows: Tensor = spynet(torch.cat(list(reference)), torch.cat(list(supporting)))
    return list(flows.split(len(reference[0])))


def backward_flows(spynet: SPyNet, shot: Sequence[Tensor]) -> list[Tensor | None]:
    """Flow from each frame of a shot to the one after it; the last has none."""
    return [*flows_between(spynet, shot[:-1], shot[1:]), None]


def forward_flows(
    spynet: SPyNet,
    frames: Sequence[Tensor],
    state: ForwardState | None,
    cuts: Collection[int],
) -> list[Tensor | None]:
    """Flow from each frame to the one before it; None where the forward branch starts cold.

    Args:
        spynet: Finds them.
        frames: Each (B, 3, H, W).
        state: What holds the frame before the first one.
        cuts: Every t where a shot begins; 0 is before the first frame.
    """
    flows: list[Tensor | None] = []
    for part in shots(range(len(frames)), cuts):
        shot = list(frames[part.start : part.stop])
        if part.start == 0 and state is not None and 0 not in cuts:
            shot.insert(0, state.frame)
        else:
            flows.append(None)
        flows += flows_between(spynet, shot[1:], shot[:-1])
    return flows


def warped_or_zeros(
    feature: Tensor | None, flow: Tensor | None, like: Tensor, channels: int
) -> Tensor:
    """The neighbour's feature, warped by `flow`; zeros, with the size of `like`, without one."""
    if feature is None or flow is None:
        b, _, h, w = like.shape
        return like.new_zeros(b, channels, h, w)
    return flow_warp(feature, flow)
