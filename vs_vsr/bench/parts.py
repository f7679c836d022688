"""Where the time of one BasicVSR frame goes: each part by itself, in ms."""

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.layers import concat, convolve, upsampled
from vs_vsr.models.recurrent import backward_flows, warped_or_zeros
from vs_vsr.streaming.plan import Plan
from vs_vsr.streaming.scenes import cuts
from vs_vsr.transfer.host import Pictures, upload

__all__ = ["Part", "parts"]

# Frames of the shot that parts are measured on; flows are computed for all of them at once.
_FRAMES = 6
_RUNS = 5


class Part(NamedTuple):
    """What one part of a frame takes."""

    ms: float
    """Once, the median of several."""
    times: float
    """How often it is done for a frame of a long clip."""
    least: int
    """How often it is done if the whole clip is one chunk."""


@torch.inference_mode()
def parts(network: BasicVSR, plan: Plan, width: int, height: int) -> dict[str, Part]:
    """Measure each part of a frame.

    Args:
        network: On a CPU.
        plan: How it is run.
        width: Of the input.
        height: Of the input.

    Returns:
        Each part by its name.
    """
    dtype = network.fusion.weight.dtype
    source = torch.rand(_FRAMES, 3, height, width).numpy()
    size = (4 * height, 4 * width)
    # Pages that were never written take the system's time, which a film takes once.
    picture = list(torch.zeros(3, *size).numpy())
    frames = [upload(planes) for planes in source]
    feature = torch.rand(1, network.channels, height, width).to(
        dtype, memory_format=torch.channels_last
    )
    (flow, *_) = backward_flows(network.spynet, frames[:2])
    base = upsampled(frames[0], network.scale)
    joined = concat((frames[0].to(dtype, memory_format=torch.channels_last), feature))
    out = [torch.zeros(1, *size) for _ in range(3)]

    def clamp() -> None:
        Pictures([picture]).make(lambda places: places[0])

    def fuse() -> Tensor:
        features = concat((feature, feature))
        return convolve(features, network.fusion.weight, network.fusion.bias, "leaky_relu")

    backward = (plan.chunk + plan.lookahead) / plan.chunk
    forward = (plan.segment + plan.preroll) / plan.segment
    each, pairs = 1 / _FRAMES, 1 / (_FRAMES - 1)
    both = backward + forward
    measured: dict[str, tuple[Callable[[], object], float, float, int]] = {
        # What runs, its share of a frame, and how often a frame of the film needs it: with the
        # borders of chunks and segments, and without.
        "input to tensors": (lambda: [upload(planes) for planes in source], each, backward, 1),
        "scene cuts": (
            lambda: cuts(frames, [(None, None)] * _FRAMES, "detect", before=None),
            pairs,
            backward,
            1,
        ),
        "flows": (lambda: backward_flows(network.spynet, frames), pairs, both, 2),
        "warp": (
            lambda: warped_or_zeros(feature, flow, feature, network.channels),
            1,
            both,
            2,
        ),
        "frame beside feature": (
            lambda: concat((frames[0].to(dtype, memory_format=torch.channels_last), feature)),
            1,
            both,
            2,
        ),
        "trunk": (lambda: network.backward_trunk(joined), 1, both, 2),
        "fusion": (fuse, 1, 1, 1),
        "bilinear base": (lambda: upsampled(frames[0], network.scale), 1, 1, 1),
        "upsampler": (lambda: network.upsampler(feature, base, out), 1, 1, 1),
        "clamp": (clamp, 1, 1, 1),
    }
    times: dict[str, list[float]] = {name: [] for name in measured}
    # In turn, so that a busy moment of the machine does not hit one part alone.
    for _ in range(_RUNS + 1):
        for name, (work, share, _, _) in measured.items():
            start = time.perf_counter()
            work()
            times[name].append(1e3 * share * (time.perf_counter() - start))
    # The first time of each makes what is kept from then on.
    return {name: Part(median(taken[1:]), *measured[name][2:]) for name, taken in times.items()}
