"""What the recurrent networks share: the state between frames and the flows between neighbours."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vs_vsr.models.sampling import Flow, flow_warp, prepared
from vs_vsr.models.spynet import SPyNet
from vs_vsr.models.stream import shots

__all__ = [
    "ForwardState",
    "backward_flows",
    "features_input",
    "flows_between",
    "forward_flows",
    "warped_or_zeros",
]


@dataclass(frozen=True)
class ForwardState:
    """What a forward branch carries from one frame to the next."""

    frame: Tensor
    """The last frame that the branch ran over, (B, 3, H, W), float32."""
    feature: Tensor
    """The forward feature of that frame, (B, C, H, W)."""


def flows_between(
    spynet: SPyNet, reference: Sequence[Tensor], supporting: Sequence[Tensor]
) -> list[Flow]:
    """Flow from each reference frame to its supporting frame, for warps of features.

    The pairs of a call are computed together, and a GPU chooses how to compute by the size of a
    batch. So bits depend on which pairs a call has. That is why a state that is made again asks for
    the same pairs in the same calls: `Plan.advance` and `Plan.render` have the same output frames,
    and the forward branch asks for its flows apart from the backward branch, which is not run then.
    """
    if not reference:
        return []
    flows: Tensor = spynet(torch.cat(list(reference)), torch.cat(list(supporting)))
    return prepared(flows, len(reference), spynet.dtype)


def backward_flows(spynet: SPyNet, shot: Sequence[Tensor]) -> list[Flow | None]:
    """Flow from each frame of a shot to the one after it; None for the last frame."""
    return [*flows_between(spynet, shot[:-1], shot[1:]), None]


def forward_flows(
    spynet: SPyNet,
    frames: Sequence[Tensor],
    state: ForwardState | None,
    cuts: Collection[int],
) -> list[Flow | None]:
    """Flow from each frame to the one before it; None where the forward branch starts cold.

    Args:
        spynet: Computes the flows.
        frames: Each (B, 3, H, W).
        state: The state before the first frame; it holds the frame before it.
        cuts: Every t where a shot begins with frame t.
    """
    flows: list[Flow | None] = []
    for part in shots(range(len(frames)), cuts):
        shot = list(frames[part.start : part.stop])
        if part.start == 0 and state is not None and 0 not in cuts:
            # The first shot goes on from the frame that the state holds.
            shot.insert(0, state.frame)
        else:
            flows.append(None)
        flows += flows_between(spynet, shot[1:], shot[:-1])
    return flows


def features_input(frames: Sequence[Tensor], dtype: torch.dtype) -> Sequence[Tensor]:
    """Frames, each (B, 3, H, W), to join with features of `dtype`; on a GPU cast and channels_last.

    There two operations do it for all. On a CPU each step casts its own, which takes less memory.
    """
    if not frames or frames[0].device.type == "cpu":
        return frames
    cast = torch.cat(list(frames)).to(dtype, memory_format=torch.channels_last)
    return list(cast.split(len(frames[0])))


def warped_or_zeros(
    feature: Tensor | None, flow: Flow | None, like: Tensor, channels: int
) -> Tensor:
    """The neighbour's feature, warped by `flow`; without one, zeros of the size of `like`.

    Either is (B, channels, H, W), channels_last.
    """
    if feature is None or flow is None:
        b, _, h, w = like.shape
        return like.new_zeros(b, h, w, channels).permute(0, 3, 1, 2)
    return flow_warp(feature, flow)
