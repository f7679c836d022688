"""What the recurrent networks share: the state between frames and the flows between neighbours."""

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
    """The last frame that the branch ran over, (B, 3, H, W), float32."""
    feature: Tensor
    """The forward feature of that frame, (B, C, H, W)."""


def flows_between(
    spynet: SPyNet, reference: Sequence[Tensor], supporting: Sequence[Tensor]
) -> list[Tensor]:
    """Flow from each reference frame to its supporting frame, (B, 2, H, W)."""
    if not reference:
        return []
    # One call for all pairs: SPyNet computes small frames together, which is faster.
    flows: Tensor = spynet(torch.cat(list(reference)), torch.cat(list(supporting)))
    return list(flows.split(len(reference[0])))


def backward_flows(spynet: SPyNet, shot: Sequence[Tensor]) -> list[Tensor | None]:
    """Flow from each frame of a shot to the one after it; None for the last frame."""
    return [*flows_between(spynet, shot[:-1], shot[1:]), None]


def forward_flows(
    spynet: SPyNet,
    frames: Sequence[Tensor],
    state: ForwardState | None,
    cuts: Collection[int],
) -> list[Tensor | None]:
    """Flow from each frame to the one before it; None where the forward branch starts cold.

    Args:
        spynet: Computes the flows.
        frames: Each (B, 3, H, W).
        state: The state before the first frame; it holds the frame before it.
        cuts: Every t where a shot begins with frame t.
    """
    flows: list[Tensor | None] = []
    for part in shots(range(len(frames)), cuts):
        shot = list(frames[part.start : part.stop])
        if part.start == 0 and state is not None and 0 not in cuts:
            # The first shot goes on from the frame that the state holds.
            shot.insert(0, state.frame)
        else:
            flows.append(None)
        flows += flows_between(spynet, shot[1:], shot[:-1])
    return flows


def warped_or_zeros(
    feature: Tensor | None, flow: Tensor | None, like: Tensor, channels: int
) -> Tensor:
    """The neighbour's feature, warped by `flow`; without one, zeros of the size of `like`."""
    if feature is None or flow is None:
        b, _, h, w = like.shape
        return like.new_zeros(b, channels, h, w)
    return flow_warp(feature, flow)
