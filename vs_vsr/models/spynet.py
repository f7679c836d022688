"""SPyNet: optical flow by a spatial pyramid (arXiv:1611.00850), as the networks use it."""

from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vs_vsr.kernels import warps
from vs_vsr.models.layers import convolve, convolve_to_few
from vs_vsr.models.sampling import flow_warp, position_dtype

__all__ = ["SPyNet"]

_LEVELS = 6
# Channels before and after each of the five convolutions of a level.
_WIDTHS = (8, 32, 64, 32, 16, 2)
# Pairs of one call are computed together up to this many pixels. On a CPU small levels are faster
# together, large ones would only push each other out of the cache. A GPU wants few, large kernels;
# there the widest map of a group, 64 channels, takes 512 MiB in half precision.
_GROUP_PIXELS = {"cpu": 1 << 18}
_GROUP_PIXELS_DEFAULT = 1 << 22


@lru_cache(64)
def _factors(x: float, y: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What the two components of a flow are multiplied by, (1, 2, 1, 1).

    Kept, as a copy of numbers to a GPU would make the program wait.
    """
    return torch.tensor((x, y), dtype=dtype, device=device).view(1, 2, 1, 1)


class _Level(nn.Module):
    """Five 7x7 convolutions: what one level of the pyramid adds to the flow.

    Source: arXiv:1611.00850, section "Training and Network Architecture".
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide_in, wide_out in pairwise(_WIDTHS):
            layers += [nn.Conv2d(wide_in, wide_out, 7, padding=3), nn.ReLU()]
        self.basic_module = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, 8, h, w), of reference, warped supporting and flow, into (B, 2, h, w) to add."""
        convs = [layer for layer in self.basic_module if isinstance(layer, nn.Conv2d)]
        for conv in convs[:-1]:
            x = convolve(x, conv.weight, conv.bias, "relu")
        return convolve_to_few(x, convs[-1].weight, convs[-1].bias)


class SPyNet(nn.Module):
    """Flow from each reference frame to its supporting frame.

    The flow itself, its upsampling and the warps are at least float32, whatever the weights are:
    bfloat16 has three digits, and flows are added up over six levels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        """Make the six levels; `mean` and `std` are ImageNet's until a file brings others."""
        super().__init__()
        self.basic_module = nn.ModuleList(_Level() for _ in range(_LEVELS))
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1))

    def forward(self, reference: Tensor, supporting: Tensor) -> Tensor:
        """Find where each pixel of `reference` lies in `supporting`.

        Args:
            reference: (B, 3, H, W), RGB, [0, 1], float32.
            supporting: The same shape; B may be 0.

        Returns:
            (B, 2, H, W), dx and dy in pixels; float32, or float64 if the weights are. Warping
            `supporting` by it aligns it with `reference`.
        """
        return self.scales(reference, supporting, 1)[0]

    def scales(self, reference: Tensor, supporting: Tensor, count: int) -> list[Tensor]:
        """Find the flow at the full size, at half of it, at a quarter and so on.

        Args:
            reference: (B, 3, H, W), RGB, [0, 1], float32.
            supporting: The same shape; B may be 0.
            count: How many sizes, 1 to 6.

        Returns:
            For each size k the flow, (B, 2, H >> k, W >> k), in pixels of that size; its dtype is
            as for `forward`.
        """
        b, _, height, width = reference.shape
        # Six levels halve the size five times, so it is made a multiple of 32.
        h32, w32 = -(-height // 32) * 32, -(-width // 32) * 32
        sizes = [(height >> k, width >> k) for k in range(count)]
        if not b:
            return [reference.new_zeros(0, 2, *size) for size in sizes]
        # By the size of the frames alone: the shapes of batches decide about the last bits.
        pixels = _GROUP_PIXELS.get(reference.device.type, _GROUP_PIXELS_DEFAULT)
        group = max(1, pixels // (h32 * w32))
        if self.dtype == torch.float64:
            # In float64 a CPU unfolds the whole batch in memory, 25 KB per pixel.
            group = 1
        # Levels come the coarsest first; the last `count` of them, reversed, are the sizes wanted.
        groups = [
            self._flows(*(self._normalised(x, (h32, w32)) for x in pair))[: -count - 1 : -1]
            for pair in zip(reference.split(group), supporting.split(group), strict=True)
        ]
        flows = groups[0]
        if len(groups) > 1:
            flows = [torch.cat(level) for level in zip(*groups, strict=True)]
        for k, (h, w) in enumerate(sizes):
            # Back to the frame's size, and to its pixels.
            if (h, w) != (h32 >> k, w32 >> k):
                flow = F.interpolate(flows[k], (h, w), mode="bilinear", align_corners=False)
                flows[k] = flow.mul_(
                    _factors(w / (w32 >> k), h / (h32 >> k), flow.dtype, flow.device)
                )
        return flows

    def _normalised(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x.to(position_dtype(self.dtype))
        if x.shape[-2:] != size:
            x = F.interpolate(x, size, mode="bilinear", align_corners=False)
        return (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)

    def _flows(self, reference: Tensor, supporting: Tensor) -> list[Tensor]:
        """The flow at each level of the pyramid, the coarsest first.

        Source: arXiv:1611.00850, section "Inference".
        """
        pyramid = [(reference, supporting)]
        for _ in range(_LEVELS - 1):
            reference, supporting = (F.avg_pool2d(x, 2, 2) for x in pyramid[-1])
            pyramid.append((reference, supporting))
        flow = torch.zeros_like(pyramid[-1][0][:, :2])
        flows = []
        for level, (reference, supporting) in zip(self.basic_module, pyramid[::-1], strict=True):
            if flow.shape[-2:] != reference.shape[-2:]:
                flow = F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
                flow = flow.mul_(2)
            if warps.can_join(reference, flow, self.dtype):
                x = warps.join(reference, supporting, flow, self.dtype)
            else:
                warped = flow_warp(supporting, flow, padding="border")
                x = torch.cat((reference, warped, flow), dim=1)
            flow = flow + level(x.to(self.dtype, memory_format=torch.channels_last))
            flows.append(flow)
        return flows

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype
