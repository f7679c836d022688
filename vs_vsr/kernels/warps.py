"""Features and frames where a flow points.

The plain forms are `flow_warp` of models/sampling.py and `SPyNet` of models/spynet.py. Positions
and sums are in float32. An infinite position lies outside; a NaN reads NaN.
"""

from typing import Literal

import torch
from torch import Tensor

from vs_vsr.kernels.launch import CHUNK, FEATURES, MOST_ROWS, in_chunks, launch, strides
from vs_vsr.kernels.selection import enabled

__all__ = ["can_join", "can_warp", "is_on", "join", "warp"]


def is_on(device: torch.device) -> bool:
    """Whether `warp` is on for this device."""
    return enabled("warp", device)


def can_warp(x: Tensor, flow: Tensor) -> bool:
    """Whether `warp` is on for these tensors, and takes them."""
    return (
        is_on(x.device)
        and x.dtype in FEATURES
        and flow.dtype == torch.float32
        and x.shape[1] % CHUNK == 0
        and max(x.shape[0], x.shape[2]) <= MOST_ROWS
    )


def warp(x: Tensor, flow: Tensor, *, padding: Literal["zeros", "border"]) -> Tensor:
    """Read `x` where `flow` points, bilinearly: out[y, x] = x[y + dy, x + dx].

    Args:
        x: Features, (B, C, H, W), float16, bfloat16 or float32, C a multiple of 8. What is not
            channels_last is copied first.
        flow: Displacement in pixels of `x`, (B, 2, H, W), float32, any strides: dx, then dy.
        padding: What a position outside `x` reads.

    Returns:
        (B, C, H, W), with the dtype and device of `x`, channels_last.
    """
    x = in_chunks(x)
    b, c, height, width = x.shape
    out = torch.empty_like(x, memory_format=torch.channels_last)
    if out.numel():
        launch(
            "warp",
            {"VALUE": x.dtype},
            (width * c // CHUNK, height, b),
            (x, flow, out),
            (b, height, width, c, *strides(x), *flow.stride(), padding == "border"),
        )
    return out


def can_join(frames: Tensor, flow: Tensor, dtype: torch.dtype) -> bool:
    """Whether `join` is on for frames and flows like these, and makes this dtype."""
    return (
        enabled("spynet", frames.device)
        and frames.dtype == flow.dtype == torch.float32
        and dtype in FEATURES
        and max(frames.shape[0], frames.shape[2]) <= MOST_ROWS
    )


def join(reference: Tensor, supporting: Tensor, flow: Tensor, dtype: torch.dtype) -> Tensor:
    """What a level of SPyNet sees: the reference, the warped supporting frame, the flow.

    Args:
        reference: (B, 3, H, W), float32.
        supporting: The same shape. It is read where `flow` points, bilinearly; a position outside
            reads the nearest pixel inside.
        flow: Displacement in pixels, (B, 2, H, W), float32, any strides: dx, then dy.
        dtype: Of the result: float16, bfloat16 or float32.

    Returns:
        (B, 8, H, W), channels_last.
    """
    if reference.stride() != supporting.stride():
        reference, supporting = reference.contiguous(), supporting.contiguous()
    b, _, height, width = reference.shape
    out = torch.empty(
        (b, 8, height, width),
        dtype=dtype,
        device=reference.device,
        memory_format=torch.channels_last,
    )
    if out.numel():
        launch(
            "spynet",
            {"VALUE": dtype},
            (width, height, b),
            (reference, supporting, flow, out),
            (b, height, width, *reference.stride(), *flow.stride()),
        )
    return out
