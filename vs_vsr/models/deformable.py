"""Modulated deformable convolution (DCNv2, arXiv:1811.11168), as the networks use it."""

from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vs_vsr.kernels import deform as kernel
from vs_vsr.models.sampling import corners, weighted_rows

__all__ = ["ModulatedDeformConv"]

_TAPS = 9
# For one strip of a frame: bytes of the indices of what the taps read, and of what they read.
_STRIP_BYTES, _SAMPLE_BYTES = 8 << 20, 32 << 20
# From this many channels in a group, a CPU reads rows of a table faster than grid_sample does.
_WIDE = 16
# Most bytes of what the taps read for the frames of one call of torchvision's operator.
_COLUMN_BYTES = 1 << 30


@cache
def _load_operator() -> None:
    """Register torchvision's operators with torch, without importing torchvision.

    The import brings in torch._dynamo and triton, which takes seconds. Besides, triton's LLVM in
    one process with Mesa's crashes previewers that draw through OpenGL. The extension's name is
    private to torchvision (`_C_stable` in 0.29, `_C` before), so where neither is found torchvision
    is imported after all.
    """
    package = find_spec("torchvision")
    folders = package.submodule_search_locations if package else None
    for name in ("_C_stable", "_C"):
        extension = PathFinder.find_spec(name, folders) if folders else None
        if extension and extension.origin:
            with suppress(OSError):  # Built for another torch: the import will say so.
                torch.ops.load_library(extension.origin)
                return
    import_module("torchvision")


class ModulatedDeformConv(nn.Module):
    """A 3x3 convolution whose taps each read where an offset points, weighted by a mask.

    Offsets are in pixels, ordered by group, then tap, then (y, x). Positions outside read zero.

    Source: arXiv:1811.11168, section 3.2, eq. 1.
    """

    def __init__(self, in_channels: int, channels: int, groups: int) -> None:
        """Make the convolution; each of `groups` runs of input channels has its own offsets.

        `deform` also takes a multiple of `in_channels` (VRT's files): then each run of outputs sees
        only its own run of inputs.
        """
        super().__init__()
        _load_operator()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def deform(self, x: Tensor, offsets: Tensor, mask: Tensor) -> Tensor:
        """Convolve `x` at displaced positions.

        Args:
            x: (B, C, H, W), C a multiple of `in_channels`.
            offsets: (B, 2*9*groups, H, W), float32.
            mask: (B, 9*groups, H, W), already between 0 and 1.

        Returns:
            (B, channels, H, W), in the dtype of `x`, channels_last.
        """
        # Positions stay float32: in half precision they would be off by pixels in a large frame.
        offsets, mask = offsets.float(), mask.float()
        if kernel.can_deform(x, self.weight, self.groups):
            return kernel.deform(x, offsets, mask, self.weight, self.bias, self.groups)
        runs = x.shape[1] // self.weight.shape[1]
        on_cpu, wide = x.device.type == "cpu", x.shape[1] // self.groups
        if on_cpu and x.dtype != torch.float32 and wide < _WIDE:
            y = self._by_taps(x.float(), offsets, mask)
        elif on_cpu and self.groups % runs == 0:
            y = self._by_rows(x.float(), offsets, mask)
        else:
            y = self._by_operator(x, offsets, mask)
        return y.to(x.dtype, memory_format=torch.channels_last)

    def _by_operator(self, x: Tensor, offsets: Tensor, mask: Tensor) -> Tensor:
        """The same through torchvision's operator, float32.

        It takes one dtype for all, and positions need float32: so in half precision this is the one
        place where features are float32.
        """
        x, weight = (
            t.to(torch.float32, memory_format=torch.contiguous_format) for t in (x, self.weight)
        )
        bias = self.bias.float()
        stride = padding = dilation = (1, 1)
        groups = (x.shape[1] // weight.shape[1], self.groups)  # of the channels, of the offsets
        # What all taps read of the frames of a call is in memory at once.
        frames = max(1, _COLUMN_BYTES // (4 * _TAPS * x[0].numel()))
        parts = [
            torch.ops.torchvision.deform_conv2d(
                part, weight, *at, bias, *stride, *padding, *dilation, *groups, True
            )
            for part, *at in zip(
                *(t.contiguous().split(frames) for t in (x, offsets, mask)), strict=True
            )
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _by_rows(self, x: Tensor, offsets: Tensor, mask: Tensor) -> Tensor:
        """The same for a CPU, float32: what the taps read as weighted sums of rows of a table.

        torchvision's operator reads on one thread, and has no bfloat16.
        """
        b, channels, height, width = x.shape
        wide = channels // self.groups
        runs = channels // self.weight.shape[1]
        # A row is what a tap of one group reads: so a group's taps come before its channels.
        weight = self.weight.float().reshape(runs, -1, self.groups // runs, wide, _TAPS)
        weight = weight.transpose(3, 4).flatten(2)  # (runs, channels/runs, groups/runs * 9 * wide)
        table = x.reshape(b * self.groups, wide, -1).transpose(1, 2).reshape(-1, wide)
        offsets = offsets.reshape(b * self.groups, _TAPS, 2, height, width)
        mask = mask.reshape(b * self.groups * _TAPS, height, width)
        tap = torch.arange(_TAPS)[:, None, None]
        down, right = tap // 3 - 1, tap % 3 - 1
        row, column = torch.arange(height)[:, None], torch.arange(width)
        first = height * width * torch.arange(b * self.groups, dtype=torch.int32)
        first = first.repeat_interleave(_TAPS)[:, None, None]
        # In strips, as what all taps read of a whole frame is nine times as large as its features.
        rows = max(1, _STRIP_BYTES // (16 * len(mask) * width))
        strips = []
        for top in range(0, height, rows):
            strip = slice(top, min(top + rows, height))
            y_at = offsets[:, :, 0, strip] + (down + row[strip])
            x_at = offsets[:, :, 1, strip] + (right + column)
            index, shares = corners(torch.stack((x_at, y_at), 2).flatten(0, 1), height, width)
            index += first
            shares *= mask[:, strip]
            # To (b, h, w, groups, taps, 2, 2): all that an output pixel reads lies together.
            index, shares = (
                t.view(2, 2, b, self.groups, _TAPS, -1, width)
                .permute(2, 5, 6, 3, 4, 0, 1)
                .flatten()
                for t in (index, shares)
            )
            samples = weighted_rows(table, index, shares).view(-1, runs, weight.shape[2])
            outputs = [samples[:, i] @ part.t() for i, part in enumerate(weight)]
            strips.append(torch.cat(outputs, dim=1).view(b, -1, width, len(self.bias)))
        out = torch.cat(strips, dim=1) + self.bias.float()
        return out.permute(0, 3, 1, 2)

    def _by_taps(self, x: Tensor, offsets: Tensor, mask: Tensor) -> Tensor:
        """The same, tap by tap through grid_sample, for a CPU in half precision.

        grid_sample's positions are off by 1e-5 pixels, which would show in float32 and does not in
        bfloat16.
        """
        b, channels, height, width = x.shape
        weight = self.weight.float()
        runs = channels // weight.shape[1]
        weight = weight.reshape(runs, weight.shape[0] // runs, -1)
        parts = x.reshape(b * self.groups, channels // self.groups, height, width)
        offsets = offsets.reshape(b * self.groups, _TAPS, 2, height, width)
        mask = mask.reshape(b * self.groups, _TAPS, 1, height, width)
        column = torch.arange(width, dtype=torch.float32, device=x.device)
        # In strips, as what all taps read of a whole frame is nine times as large as its features.
        rows = max(1, _SAMPLE_BYTES // (4 * b * channels * _TAPS * width))
        strips = []
        for top in range(0, height, rows):
            strip = slice(top, min(top + rows, height))
            row = torch.arange(strip.start, strip.stop, dtype=torch.float32, device=x.device)
            size = (*parts.shape[:2], _TAPS, strip.stop - top, width)
            samples = x.new_empty(size)
            for tap in range(_TAPS):
                down, right = divmod(tap, 3)
                y_at = offsets[:, tap, 0, strip] + (row[:, None] + (down - 1))
                x_at = offsets[:, tap, 1, strip] + (column + (right - 1))
                grid = torch.stack(
                    ((2 * x_at + 1) / width - 1, (2 * y_at + 1) / height - 1), dim=-1
                )
                values = F.grid_sample(parts, grid, align_corners=False)
                torch.mul(values, mask[:, tap, :, strip], out=samples[:, :, tap])
            strips.append(weight @ samples.view(b, runs, weight.shape[2], -1))
        out = torch.cat([strip.view(b, self.weight.shape[0], -1, width) for strip in strips], dim=2)
        return out + self.bias.float().view(1, -1, 1, 1)

    def split(self, head: Tensor) -> tuple[Tensor, Tensor]:
        """Split the result of an offset head, (B, 27*groups, H, W): offsets and mask logits."""
        # In the layout that the operator wants, which the parts of one frame have too.
        head = head.to(torch.float32, memory_format=torch.contiguous_format)
        offsets, mask = head.split((2 * _TAPS * self.groups, _TAPS * self.groups), dim=1)
        return offsets, mask
