"""Modulated deformable convolution: a kernel reads, cuBLAS multiplies.

The plain form is `ModulatedDeformConv.deform` of models/deformable.py. Positions and what is read
between pixels are float32; for the product that is rounded to the type of the features.
"""

import torch
from torch import Tensor

from vs_vsr.kernels.launch import CHUNK, FEATURES, MOST_ROWS, in_chunks, launch, strides
from vs_vsr.kernels.selection import enabled

__all__ = ["can_deform", "deform"]

_TAPS = 9
# Bytes of what the taps read for one strip of rows. Chosen to stay in the second-level cache of
# large GPUs beside the features; not measured yet.
_STRIP_BYTES = 16 << 20


def can_deform(x: Tensor, weight: Tensor, groups: int) -> bool:
    """Whether `deform` is on for these features, and takes them.

    It takes no channels that see only a part of `x`, and no groups but of 8 channels or a multiple:
    those of VRT are left to the plain form.
    """
    channels = x.shape[1]
    return (
        enabled("deform", x.device)
        and x.dtype in FEATURES
        and weight.shape[1] == channels
        and channels % (groups * CHUNK) == 0
    )


def deform(
    x: Tensor, offsets: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, groups: int
) -> Tensor:
    """Convolve `x` at displaced positions, 3x3; positions outside read zero.

    Args:
        x: (B, C, H, W), float16, bfloat16 or float32. What is not channels_last is copied first.
        offsets: (B, 2*9*groups, H, W), float32, any strides: by group, then tap, then (y, x).
        mask: (B, 9*groups, H, W), float32, any strides.
        weight: (channels, C, 3, 3); channels_last is the layout that needs no copy.
        bias: (channels,).
        groups: Runs of channels of `x` with offsets of their own; C/groups is a multiple of 8.

    Returns:
        (B, channels, H, W), in the dtype of `x`, channels_last.
    """
    x = in_chunks(x)
    b, c, height, width = x.shape
    sizes = (height, width, c, groups)
    columns = _TAPS * c
    # (channels, 9*C), by tap, then channel, as the kernel writes what the taps read.
    matrix = weight.to(x.dtype).permute(0, 2, 3, 1).reshape(-1, columns)
    bias = bias.to(x.dtype)
    out = x.new_empty(b, height, width, len(matrix))
    flat = out.view(b * height, width, -1)
    rows = min(max(1, _STRIP_BYTES // (columns * width * x.itemsize)), b * height, MOST_ROWS)
    read = x.new_empty(rows * width, columns)
    for first in range(0, b * height, rows):
        count = min(rows, b * height - first)
        launch(
            "deform",
            {"VALUE": x.dtype},
            (width * c // CHUNK, _TAPS, count),
            (x, offsets, mask, read),
            (first, count, *sizes, *strides(x), *offsets.stride(), *mask.stride()),
        )
        torch.addmm(
            bias,
            read[: count * width],
            matrix.t(),
            out=flat[first : first + count].view(count * width, -1),
        )
    return out.permute(0, 3, 1, 2)
