"""EDVR's front: frames of a window aligned with the centre and fused (PCD and TSA).

IconVSR uses the same front for its keyframes. The sections and equations named here are those of
arXiv:1905.02716.
"""

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vs_vsr.models.deformable import ModulatedDeformConv
from vs_vsr.models.layers import Conv, ResidualBlock, upsampled
from vs_vsr.models.sampling import position_dtype

__all__ = ["EDVRFeatures", "Pyramid"]

# Features of one frame at full, half and quarter size, each (B, C, h, w).
Pyramid = tuple[Tensor, Tensor, Tensor]

_LEAKY: Final = "leaky_relu"

# On a GPU the frames of a window are aligned together, as many as have so many bytes of features.
# On a CPU it is one by one, as the features of one frame fill the cache.
_WINDOW_BYTES = 512 << 20


class EDVRFeatures(nn.Module):
    """One feature map for the centre frame of a window, made from all its frames."""

    def __init__(
        self,
        channels: int = 64,
        frames: int = 5,
        blocks: int = 5,
        groups: int = 8,
        *,
        tsa: bool = True,
        predeblur: bool = False,
        hr_in: bool = False,
    ) -> None:
        """Make the front.

        Args:
            channels: Features per frame.
            frames: Frames of a window, odd.
            blocks: Residual blocks that extract the features of one frame.
            groups: Deformable groups of the alignment.
            tsa: Fuse by temporal and spatial attention; otherwise by one convolution.
            predeblur: Put the module for blurred input in front.
            hr_in: Take frames of the output's size, and make features at a quarter of it.
        """
        super().__init__()
        self.channels = channels
        self.frames = frames
        self.hr_in = hr_in
        if predeblur:
            self.predeblur = _Predeblur(channels, hr_in=hr_in)
            self.conv_1x1 = Conv(channels, channels, 1)
        elif hr_in:
            self.conv_first_1 = Conv(3, channels, 3, _LEAKY)
            self.conv_first_2 = Conv(channels, channels, 3, _LEAKY, stride=2)
            self.conv_first_3 = Conv(channels, channels, 3, _LEAKY, stride=2)
        else:
            self.conv_first = Conv(3, channels, 3, _LEAKY)
        self.feature_extraction = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.conv_l2_1 = Conv(channels, channels, 3, _LEAKY, stride=2)
        self.conv_l2_2 = Conv(channels, channels, 3, _LEAKY)
        self.conv_l3_1 = Conv(channels, channels, 3, _LEAKY, stride=2)
        self.conv_l3_2 = Conv(channels, channels, 3, _LEAKY)
        self.pcd_align = _PCDAlignment(channels, groups)
        self.tsa = tsa
        self.fusion = _TSAFusion(channels, frames) if tsa else Conv(frames * channels, channels, 1)

    @property
    def predeblurs(self) -> bool:
        """Whether the module for blurred input is in front."""
        return hasattr(self, "predeblur")

    def pyramid(self, frame: Tensor) -> Pyramid:
        """Features of one frame, (B, 3, H, W), with sides that are multiples of 4, of 16 for hr_in.

        They depend on this frame alone, so a stream makes them once.
        """
        x = frame.to(self.conv_l2_1.weight.dtype, memory_format=torch.channels_last)
        if self.predeblurs:
            x = self.conv_1x1(self.predeblur(x))
        elif self.hr_in:
            x = self.conv_first_3(self.conv_first_2(self.conv_first_1(x)))
        else:
            x = self.conv_first(x)
        l1 = self.feature_extraction(x)
        l2 = self.conv_l2_2(self.conv_l2_1(l1))
        return l1, l2, self.conv_l3_2(self.conv_l3_1(l2))

    def fused(self, window: Sequence[Pyramid]) -> Tensor:
        """The centre's feature, (B, C, h, w), from the features of the window's frames."""
        centre = window[len(window) // 2]
        aligned: list[Tensor] = []
        count = _frames_at_once(centre[0])
        for first in range(0, len(window), count):
            part = window[first : first + count]
            stacked = self.pcd_align(_stacked(part), _stacked([centre] * len(part)))
            aligned += stacked.chunk(len(part))
        # Not by the class of `fusion`: a reloaded module has new classes, and old networks live on.
        out: Tensor = self.fusion(aligned if self.tsa else torch.cat(aligned, dim=1))
        return out

    def forward(self, frames: Tensor) -> Tensor:
        """Fuse one window, (B, T, 3, H, W), into (B, C, h, w)."""
        return self.fused([self.pyramid(frame) for frame in frames.unbind(1)])


class _Predeblur(nn.Module):
    """Features of a blurred frame, from three scales of it (section 3.1)."""

    def __init__(self, channels: int, *, hr_in: bool) -> None:
        super().__init__()
        self.conv_first = Conv(3, channels, 3, _LEAKY)
        if hr_in:
            self.stride_conv_hr1 = Conv(channels, channels, 3, _LEAKY, stride=2)
            self.stride_conv_hr2 = Conv(channels, channels, 3, _LEAKY, stride=2)
        self.stride_conv_l2 = Conv(channels, channels, 3, _LEAKY, stride=2)
        self.stride_conv_l3 = Conv(channels, channels, 3, _LEAKY, stride=2)
        self.resblock_l3 = ResidualBlock(channels)
        self.resblock_l2_1 = ResidualBlock(channels)
        self.resblock_l2_2 = ResidualBlock(channels)
        self.resblock_l1 = nn.ModuleList(ResidualBlock(channels) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_first(x)
        if hasattr(self, "stride_conv_hr1"):
            x = self.stride_conv_hr2(self.stride_conv_hr1(x))
        l2 = self.stride_conv_l2(x)
        l3 = upsampled(self.resblock_l3(self.stride_conv_l3(l2)))
        l2 = upsampled(self.resblock_l2_2(self.resblock_l2_1(l2) + l3))
        before, after = self.resblock_l1[:2], self.resblock_l1[2:]
        for block in before:
            x = block(x)
        x = x + l2
        for block in after:
            x = block(x)
        return x


class _DeformPack(ModulatedDeformConv):
    """A deformable convolution with the head that makes its offsets from a feature (eq. 1)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels, channels, groups)
        self.conv_offset = Conv(channels, 27 * groups)

    def forward(self, x: Tensor, offset_feature: Tensor) -> Tensor:
        offsets, mask = self.split(self.conv_offset(offset_feature))
        return self.deform(x, offsets, mask.sigmoid())


class _PCDAlignment(nn.Module):
    """Pyramid, cascading and deformable: a neighbour's features aligned with the centre's.

    Source: section 3.2.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()

        def conv(inputs: int) -> Conv:
            return Conv(inputs * channels, channels, 3, _LEAKY)

        levels = ("l3", "l2", "l1")
        self.offset_conv1 = nn.ModuleDict({level: conv(2) for level in levels})
        self.offset_conv2 = nn.ModuleDict({level: conv(1 + (level != "l3")) for level in levels})
        self.offset_conv3 = nn.ModuleDict({level: conv(1) for level in levels[1:]})
        self.dcn_pack = nn.ModuleDict({level: _DeformPack(channels, groups) for level in levels})
        self.feat_conv = nn.ModuleDict({"l2": conv(2), "l1": Conv(2 * channels, channels)})
        self.cas_offset_conv1 = conv(2)
        self.cas_offset_conv2 = conv(1)
        self.cas_dcnpack = _DeformPack(channels, groups)

    def forward(self, neighbour: Pyramid, centre: Pyramid) -> Tensor:
        """Align the features of a frame from the smallest to the full size, which is returned."""
        offset = self._offset_feature("l3", neighbour[2], centre[2])
        x = F.leaky_relu_(self.dcn_pack["l3"](neighbour[2], offset), 0.1)
        for level, of_neighbour, of_centre in (
            ("l2", neighbour[1], centre[1]),
            ("l1", neighbour[0], centre[0]),
        ):
            # A pixel of the level above is two pixels here, so its offsets double (eq. 3).
            offset = self._offset_feature(level, of_neighbour, of_centre, upsampled(offset).mul_(2))
            aligned = self.dcn_pack[level](of_neighbour, offset)
            # Eq. 4.
            x = self.feat_conv[level](torch.cat((aligned, upsampled(x)), dim=1))
        # The cascade: the result is aligned once more, at full size.
        offset = self.cas_offset_conv2(self.cas_offset_conv1(torch.cat((x, centre[0]), dim=1)))
        return F.leaky_relu_(self.cas_dcnpack(x, offset), 0.1)

    def _offset_feature(
        self, level: str, neighbour: Tensor, centre: Tensor, above: Tensor | None = None
    ) -> Tensor:
        """The feature from which a level's offsets are made (eq. 2 and 3)."""
        x: Tensor = self.offset_conv1[level](torch.cat((neighbour, centre), dim=1))
        if above is None:
            x = self.offset_conv2[level](x)
        else:
            x = self.offset_conv3[level](self.offset_conv2[level](torch.cat((x, above), dim=1)))
        return x


class _TSAFusion(nn.Module):
    """Temporal and spatial attention: frames weighted by their likeness to the centre, then fused.

    Inside, the size is halved twice, so sides are multiples of 4.

    Source: section 3.3.
    """

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()

        def conv(inputs: int, size: int = 1) -> Conv:
            return Conv(inputs * channels, channels, size, _LEAKY)

        self.temporal_attn1 = Conv(channels, channels)
        self.temporal_attn2 = Conv(channels, channels)
        self.feat_fusion = conv(frames)
        self.spatial_attn1 = conv(frames)
        self.spatial_attn2 = conv(2)
        self.spatial_attn3 = conv(1, 3)
        self.spatial_attn4 = conv(1)
        self.spatial_attn5 = Conv(channels, channels)
        self.spatial_attn_l1 = conv(1)
        self.spatial_attn_l2 = conv(2, 3)
        self.spatial_attn_l3 = conv(1, 3)
        self.spatial_attn_add1 = conv(1)
        self.spatial_attn_add2 = Conv(channels, channels, 1)

    def forward(self, aligned: Sequence[Tensor]) -> Tensor:
        """Fuse the aligned features of a window, each (B, C, H, W)."""
        x = torch.cat(self._weighted(aligned), dim=1)
        fused = self.feat_fusion(x)  # eq. 7
        attention = self.spatial_attn2(_pooled(self.spatial_attn1(x)))
        coarse = self.spatial_attn_l2(_pooled(self.spatial_attn_l1(attention)))
        coarse = upsampled(self.spatial_attn_l3(coarse))
        attention = self.spatial_attn4(self.spatial_attn3(attention) + coarse)
        attention = self.spatial_attn5(upsampled(attention))
        add = self.spatial_attn_add2(self.spatial_attn_add1(attention))
        # Twice the sigmoid is about 1 in an untrained network.
        out: Tensor = fused * attention.sigmoid() * 2 + add
        return out

    def _weighted(self, aligned: Sequence[Tensor]) -> list[Tensor]:
        """Each frame's features times their likeness to the centre's, by pixel (eq. 5 and 6)."""
        centre = self.temporal_attn1(aligned[len(aligned) // 2])
        count = _frames_at_once(centre)
        weighted: list[Tensor] = []
        for first in range(0, len(aligned), count):
            part = aligned[first : first + count]
            x = torch.cat(list(part)) if len(part) > 1 else part[0]
            attention = _likeness(self.temporal_attn2(x), centre).sigmoid().to(x.dtype)
            weighted += (x * attention).chunk(len(part))
        return weighted


def _likeness(x: Tensor, centre: Tensor) -> Tensor:
    """Sum over channels of the products, (N*B, 1, H, W), of `x`, (N*B, C, H, W), with `centre`."""
    # In half precision the sum would lose digits. The products lose no more than their factors have
    # lost, so a GPU keeps them in half precision: features in float32 are twice the memory.
    if x.device.type == "cpu":
        x, centre = x.float(), centre.float()
    products: Tensor = x.unflatten(0, (-1, len(centre))) * centre
    return products.flatten(0, 1).sum(1, keepdim=True, dtype=position_dtype(x.dtype))


def _frames_at_once(x: Tensor) -> int:
    """How many frames of a window are computed together, whose features are like `x`.

    By their size alone, so that bits depend on nothing else.
    """
    if x.device.type == "cpu":
        return 1
    return max(1, _WINDOW_BYTES // (x.numel() * x.element_size()))


def _stacked(pyramids: Sequence[Pyramid]) -> Pyramid:
    """Pyramids of features (B, C, h, w) as one of (N*B, C, h, w), the first of them first."""
    if len(pyramids) == 1:
        return pyramids[0]
    l1, l2, l3 = (torch.cat(level) for level in zip(*pyramids, strict=True))
    return l1, l2, l3


def _pooled(x: Tensor) -> Tensor:
    """Maximum and mean of 3x3 at half the size; the mean counts the zeros around the features."""
    return torch.cat(
        (F.max_pool2d(x, 3, stride=2, padding=1), F.avg_pool2d(x, 3, stride=2, padding=1)), dim=1
    )
