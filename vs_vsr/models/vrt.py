"""VRT: a video restoration transformer (arXiv:2201.12288)."""

from collections.abc import Collection, Sequence
from math import isfinite
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vs_vsr.errors import ArgumentError, ShapeError
from vs_vsr.models import vrt_tiles
from vs_vsr.models.deformable import ModulatedDeformConv
from vs_vsr.models.layers import Activation, Conv, enlarged
from vs_vsr.models.padding import mirror_pad
from vs_vsr.models.sampling import flow_warp, nearest4_warp
from vs_vsr.models.spynet import SPyNet
from vs_vsr.models.vrt_attention import BlockGroup, GatedMLP, Size

__all__ = ["VRT"]

# How much smaller than the frames the features of stages 1 to 7 are, as powers of 2.
_REDUCTIONS = (0, 1, 2, 3, 2, 1, 0)
_SCALES = 4
_TAIL_WIDTH = 64
_MAX_RESIDUE_MAGNITUDE = 10.0

# Flows of one direction: [reduction][distance - 1] is (B, T - distance, 2, h, w), float32.
_Flows = list[list[Tensor]]


class VRT(nn.Module):
    """Super-resolution by 4, restoration at the same size, or a new frame between others.

    Every frame sees the whole clip that is given at once; `tiled` and `in_space` cut what is larger
    than memory as the published figures were made.
    """

    def __init__(
        self,
        *,
        upscale: int = 4,
        window: Size = (6, 8, 8),
        depths: Sequence[int],
        widths: Sequence[int],
        heads: Sequence[int],
        independent: Collection[int] = (),
        pa_frames: int = 2,
        groups: int = 16,
        denoising: bool = False,
        frames: int = 4,
    ) -> None:
        """Make the network.

        Args:
            upscale: 4, or 1 for restoration and interpolation.
            window: Frames, rows and columns of a window of attention.
            depths: Blocks of stages 1 to 7, then of each group of stage 8.
            widths: Features a pixel, likewise.
            heads: Heads of the attention, likewise.
            independent: Which of them look at one frame at a time.
            pa_frames: Neighbours each frame is joined by, both sides together: 2, 4 or 6; or 0 for
                interpolation.
            groups: Deformable groups of the alignment.
            denoising: Whether the noise level is an input.
            frames: How many frames one interpolation takes.
        """
        super().__init__()
        self.scale = upscale
        self.denoises = denoising
        self.interpolates = not pa_frames
        self.frames = frames
        self.reach = pa_frames // 2
        self.window = window
        channels = 27 + denoising if pa_frames else 3
        self.conv_first = _FrameConv(channels, widths[0])
        if pa_frames:
            self.spynet = SPyNet()
        for i, reduction in enumerate(_REDUCTIONS):
            before = _REDUCTIONS[max(i - 1, 0)]
            stage = _Stage(
                (widths[max(i - 1, 0)], widths[i]), depths[i], heads[i], window, reduction - before
            )
            if pa_frames:
                stage.add_warping(self.reach, groups, _MAX_RESIDUE_MAGNITUDE / 2**reduction)
            self.add_module(f"stage{i + 1}", stage)
        last = len(_REDUCTIONS)
        self.stage8 = nn.ModuleList([_reshape(widths[last - 1], widths[last])])
        for i in range(last, len(depths)):
            own = (1, *window[1:]) if i in independent else window
            self.stage8.append(_Refinement(widths[i], depths[i], own, heads[i]))
        self.norm = nn.LayerNorm(widths[-1])
        self.conv_after_body = nn.Linear(widths[-1], widths[0])
        self._add_tail(widths[0])

    def _add_tail(self, width: int) -> None:
        if self.interpolates:
            self.linear_fuse = nn.Conv2d(width * self.frames, _TAIL_WIDTH, 1)
            self.conv_last: nn.Conv2d = nn.Conv2d(_TAIL_WIDTH, 3, 7)
            return
        if self.scale > 1:
            self.conv_before_upsample = nn.Sequential(_FrameConv(width, _TAIL_WIDTH))
            # What stands between holds indices, so that the names are those of the released files.
            between = [nn.Identity() for _ in range(4)]
            enlarging = [_FrameConv(_TAIL_WIDTH, 4 * _TAIL_WIDTH, "leaky_relu") for _ in range(2)]
            self.upsample = nn.Sequential(
                enlarging[0],
                *between,
                enlarging[1],
                *between,
                _FrameConv(_TAIL_WIDTH, _TAIL_WIDTH),
            )
            width = _TAIL_WIDTH
        self.conv_last = _FrameConv(width, 3)

    def forward(self, frames: Tensor, sigma: float | None = None) -> Tensor:
        """Restore a whole clip.

        Args:
            frames: (B, T, 3, H, W), RGB, [0, 1], float32, any size: inside, height and width are
                mirrored, the last row and column repeated, to multiples of 8 that are at least 8
                windows (64), and a clip shorter than `pa_frames`/2 + 1 repeats its last frame. An
                interpolating network takes exactly `frames` frames.
            sigma: Noise level in units of 1/255, for a denoising network.

        Returns:
            (B, T, 3, s*H, s*W), float32, not clamped; s is `scale`. An interpolating network gives
            one frame, (B, 1, 3, H, W): that in the middle of those given.

        Raises:
            ShapeError: `frames` has another shape.
            ArgumentError: `sigma` is missing, out of its range or not for this network.
        """
        self._check(frames, sigma)
        count, _, height, width = frames.shape[1:]
        if count <= self.reach:
            missing = self.reach + 1 - count
            frames = torch.cat((frames, frames[:, -1:].expand(-1, missing, -1, -1, -1)), dim=1)
        frames = mirror_pad(frames, multiple=8, least=8 * max(self.window[1:]), repeat_edge=True)
        restored = (
            self._interpolated(frames) if self.interpolates else self._restored(frames, sigma)
        )
        return restored[:, :count, :, : self.scale * height, : self.scale * width]

    def tiled(
        self,
        frames: Tensor,
        *,
        tile: tuple[int, int, int],
        overlap: tuple[int, int, int],
        sigma: float | None = None,
    ) -> Tensor:
        """Restore a clip in tiles, with the numbers of the published test script.

        Clips that overlap in time are averaged. An interpolating network is not tiled in time.

        Args:
            frames: (B, T, 3, H, W), as in `forward`.
            tile: Frames, and pixels both ways; the third entry is not used. 0 frames: the whole
                clip, mirrored at its end to a multiple of the window. 0 pixels: whole frames.
            overlap: Frames and pixels that neighbouring tiles share, likewise.
            sigma: As in `forward`.

        Returns:
            As `forward` does.

        Raises:
            ShapeError: `frames` has another shape.
            ArgumentError: A tile does not exceed its overlap, or as in `forward`.
        """
        self._check(frames, sigma)

        def restore(clip: Tensor) -> Tensor:
            return self.in_space(clip, tile=tile[1], overlap=overlap[1], sigma=sigma)

        if self.interpolates:
            return restore(frames)
        return vrt_tiles.in_time(
            restore, frames, tile=tile[0], overlap=overlap[0], multiple=self.window[0]
        )

    def in_space(
        self, frames: Tensor, *, tile: int, overlap: int, sigma: float | None = None
    ) -> Tensor:
        """Restore a clip in tiles of its frames, all of the clip at once.

        Args:
            frames: (B, T, 3, H, W), as in `forward`.
            tile: Side of a tile in pixels; 0 takes whole frames.
            overlap: Pixels that neighbouring tiles share.
            sigma: As in `forward`.

        Returns:
            As `forward` does.

        Raises:
            ShapeError: `frames` has another shape.
            ArgumentError: The tile does not exceed the overlap, or as in `forward`.
        """
        self._check(frames, sigma)
        return vrt_tiles.in_space(
            lambda part: self(part, sigma), frames, tile=tile, overlap=overlap, scale=self.scale
        )

    def _check(self, frames: Tensor, sigma: float | None) -> None:
        shape = tuple(frames.shape)
        if len(shape) != 5 or shape[2] != 3 or not shape[1]:
            raise ShapeError(
                f"VRT: frames must be (B, T, 3, H, W), got {shape}. Stack the frames in this order."
            )
        if self.interpolates and shape[1] != self.frames:
            raise ShapeError(
                f"VRT: frames must be (B, {self.frames}, 3, H, W) to interpolate, got {shape}. "
                f"Give the {self.frames} frames around the new one."
            )
        if not self.denoises and sigma is not None:
            raise ArgumentError(
                f"VRT: sigma must be None where the network does not take a noise level, got "
                f"{sigma}. Leave it out."
            )
        if self.denoises and (sigma is None or not isfinite(sigma) or sigma < 0):
            raise ArgumentError(
                f"VRT: sigma must be a noise level of 0 or more, in units of 1/255, got {sigma}. "
                "The released network knows 0 to 50."
            )

    @property
    def _dtype(self) -> torch.dtype:
        return self.conv_first.weight.dtype

    def _restored(self, frames: Tensor, sigma: float | None) -> Tensor:
        b, t, _, height, width = frames.shape
        to_next, to_previous = self._flows(frames)
        x = self.conv_first.of_clip(self._joined(frames, to_next, to_previous, sigma))
        x = x + self._features(x, to_next, to_previous)
        s = self.scale
        out = frames.new_empty(b, t, 3, s * height, s * width)
        for i, frame in enumerate(frames.unbind(1)):
            picture = self.conv_last(self._enlarged(_channels_first(x[:, i])))
            torch.add(enlarged(frame, s) if s > 1 else frame, picture, out=out[:, i])
        return out

    def _enlarged(self, x: Tensor) -> Tensor:
        if self.scale == 1:
            return x
        x = F.leaky_relu(self.conv_before_upsample(x), 0.01)
        for conv in self.upsample:
            x = conv(x)
            if isinstance(conv, _FrameConv) and conv.activation != "none":
                # The shuffle comes before the activation in the paper's code: the same numbers.
                x = F.pixel_shuffle(x, 2).contiguous(memory_format=torch.channels_last)
        return x

    def _interpolated(self, frames: Tensor) -> Tensor:
        mean = frames.mean((1, 3, 4), keepdim=True)
        x = self.conv_first.of_clip((frames - mean).to(self._dtype))
        x = x + self._features(x, [], [])
        joined = torch.cat([_channels_first(frame) for frame in x.unbind(1)], dim=1)
        fused = F.leaky_relu(self.linear_fuse(joined), 0.2)
        picture: Tensor = self.conv_last(F.pad(fused, (3, 3, 3, 3), mode="reflect"))
        return picture.float()[:, None] + mean

    def _flows(self, frames: Tensor) -> tuple[_Flows, _Flows]:
        """Flows to the next frames and to the previous ones, at every size and distance."""
        one, other = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
        count = frames.shape[1] - 1
        to_next = [[f.unflatten(0, (-1, count))] for f in self.spynet.scales(one, other, _SCALES)]
        to_previous = [
            [f.unflatten(0, (-1, count))] for f in self.spynet.scales(other, one, _SCALES)
        ]
        for distance in range(1, self.reach):
            for flows in to_next:
                flows.append(_chained(flows[-1][:, :-1], flows[0][:, distance:]))
            for flows in to_previous:
                flows.append(_chained(flows[-1][:, 1:], flows[0][:, :-distance]))
        return to_next, to_previous

    def _joined(
        self, frames: Tensor, to_next: _Flows, to_previous: _Flows, sigma: float | None
    ) -> Tensor:
        """Each frame, its neighbours moved to its places, and the noise level, (B, T, C, H, W)."""
        b, t, _, height, width = frames.shape
        x = frames.new_zeros(b, t, self.conv_first.in_channels, height, width, dtype=self._dtype)
        x[:, :, :3] = frames
        for i in range(t):
            if i < t - 1:
                x[:, i, 3:15] = nearest4_warp(frames[:, i + 1], to_next[0][0][:, i])
            if i:
                x[:, i, 15:27] = nearest4_warp(frames[:, i - 1], to_previous[0][0][:, i - 1])
        if sigma is not None:
            x[:, :, 27] = sigma / 255
        return x

    def _features(self, x: Tensor, to_next: _Flows, to_previous: _Flows) -> Tensor:
        """Stages 1 to 8 on (B, T, H, W, C)."""
        skipped: list[Tensor] = []
        for i, reduction in enumerate(_REDUCTIONS):
            stage = self.get_submodule(f"stage{i + 1}")
            if i > _REDUCTIONS.index(max(_REDUCTIONS)) + 1:
                x = x + skipped.pop()
            flows = (to_next[reduction], to_previous[reduction]) if to_next else None
            x = stage(x, flows)
            if i < _REDUCTIONS.index(max(_REDUCTIONS)):
                skipped.append(x)
        x = x + skipped.pop()
        for group in self.stage8:
            x = group(x)
        out: Tensor = self.conv_after_body(self.norm(x))
        return out


class _FrameConv(Conv):
    """A 3x3 convolution of every frame; files keep its weight as one of a clip, (D, C, 1, 3, 3)."""

    def __init__(self, in_channels: int, channels: int, activation: Activation = "none") -> None:
        super().__init__(in_channels, channels, 3, activation)

    def of_clip(self, x: Tensor) -> Tensor:
        """Turn (B, T, C, H, W) into (B, T, H, W, D)."""
        folded = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        y: Tensor = self(folded)
        return torch.unflatten(_channels_last(y), 0, x.shape[:2])

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = destination[prefix + "weight"].unsqueeze(2)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        weight = state_dict.get(prefix + "weight")
        if weight is not None and weight.ndim == 5 and weight.shape[2] == 1:
            state_dict[prefix + "weight"] = weight.squeeze(2)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class _Halve(nn.Module):
    """(B, T, H, W, C) to (B, T, H/2, W/2, 4*C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Put the column's parity before the row's, and both before the channel."""
        x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, T, h, row, w, column, C)
        return x.permute(0, 1, 2, 4, 5, 3, 6).flatten(4)


class _Double(nn.Module):
    """(B, T, H, W, C) to (B, T, 2*H, 2*W, C/4)."""

    def forward(self, x: Tensor) -> Tensor:
        """Read the channels in the order that `_Halve` writes."""
        x = x.unflatten(4, (2, 2, -1))  # (B, T, h, w, column, row, C)
        return x.permute(0, 1, 2, 5, 3, 4, 6).flatten(4, 5).flatten(2, 3)


def _reshape(width: int, out: int, halvings: int | None = None) -> nn.Sequential:
    """What leads to a stage's size and width; `halvings` None: from one width to another."""
    if halvings == 0:
        return nn.Sequential(nn.Identity(), nn.LayerNorm(out))
    layers = {None: nn.Identity(), 1: _Halve(), -1: _Double()}
    between = {None: width, 1: 4 * width, -1: width // 4}[halvings]
    return nn.Sequential(layers[halvings], nn.LayerNorm(between), nn.Linear(between, out))


class _Refinement(nn.Module):
    """A group of blocks without mutual attention, as a residue."""

    def __init__(self, width: int, depth: int, window: Size, heads: int) -> None:
        super().__init__()
        self.residual_group = BlockGroup(width, depth, window, heads, mutual=False)
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the group to (B, T, H, W, C)."""
        out: Tensor = x + self.linear(self.residual_group(x))
        return out


class _Stage(nn.Module):
    """Attention at one size, then each frame joined by its neighbours, warped in parallel."""

    def __init__(
        self, widths: tuple[int, int], depth: int, heads: int, window: Size, halvings: int
    ) -> None:
        super().__init__()
        width = widths[1]
        self.width = width
        self.reshape = _reshape(*widths, halvings)
        mutual = int(depth * 0.75)
        pair = (2, *window[1:])
        self.residual_group1 = BlockGroup(width, mutual, pair, heads, mutual=True)
        self.linear1 = nn.Linear(width, width)
        self.residual_group2 = BlockGroup(width, depth - mutual, window, heads, mutual=False)
        self.linear2 = nn.Linear(width, width)

    def add_warping(self, reach: int, groups: int, magnitude: float) -> None:
        """Make the parts that join each frame by `reach` neighbours on either side."""
        self.pa_deform = _Alignment(self.width, reach, groups, magnitude)
        self.pa_fuse = GatedMLP(3 * self.width, 3 * self.width, self.width)

    def forward(self, x: Tensor, flows: tuple[list[Tensor], list[Tensor]] | None) -> Tensor:
        """Apply the stage.

        Args:
            x: (B, T, H, W, C), of the stage before.
            flows: To the next frames and to the previous ones, by distance; None: no warping.
        """
        x = self.reshape(x)
        x = x + self.linear1(self.residual_group1(x))
        x = x + self.linear2(self.residual_group2(x))
        return x if flows is None else self._warped(x, *flows)

    def _warped(self, x: Tensor, to_next: list[Tensor], to_previous: list[Tensor]) -> Tensor:
        frames = [_channels_first(frame) for frame in x.unbind(1)]
        out = torch.empty_like(x)
        last = len(frames) - 1
        for i, frame in enumerate(frames):
            sides = []
            for flows, step, room in ((to_next, 1, last - i), (to_previous, -1, i)):
                near = [frames[i + step * d] for d in range(1, min(len(flows), room) + 1)]
                # Flows are kept by the earlier of their two frames.
                ways = [
                    flow[:, min(i, i + step * (d + 1))] for d, flow in enumerate(flows[: len(near)])
                ]
                sides.append(self.pa_deform(frame, near, ways))
            joined = torch.cat([_channels_last(f) for f in (frame, *sides)], dim=-1)
            out[:, i] = self.pa_fuse(joined)
        return out


class _Alignment(ModulatedDeformConv):
    """The features of a frame's neighbours on one side, brought to its own places."""

    def __init__(self, width: int, reach: int, groups: int, magnitude: float) -> None:
        # The released weights take `width` channels even where there are 2 or 3 neighbours:
        # then each run of outputs sees one of them.
        super().__init__(width, width, groups)
        self.reach = reach
        self.magnitude = magnitude
        layers: list[nn.Module] = [Conv((1 + reach) * width + 2 * reach, width, 3, "leaky_relu")]
        for _ in range(2):
            layers += [nn.Identity(), Conv(width, width, 3, "leaky_relu")]
        self.conv_offset = nn.Sequential(*layers, nn.Identity(), Conv(width, 27 * groups))

    def forward(self, frame: Tensor, near: list[Tensor], ways: list[Tensor]) -> Tensor:
        """Align.

        Args:
            frame: The frame's own features, (B, C, H, W).
            near: Those of the neighbours that there are, the nearest first.
            ways: The flow to each of them, (B, 2, H, W), float32.
        """
        if not near:
            return torch.zeros_like(frame)
        b, _, height, width = frame.shape
        missing = self.reach - len(near)
        nothing = [torch.zeros_like(frame)] * missing
        ways = ways + [frame.new_zeros(b, 2, height, width, dtype=torch.float32)] * missing
        seen = [flow_warp(x, way) for x, way in zip(near, ways, strict=False)]
        along = torch.stack([way.flip(1) for way in ways], dim=1)  # (B, reach, 2, H, W), (y, x)
        seen += [*nothing, frame, *(way.to(frame.dtype) for way in ways)]
        offsets, mask = self.split(self.conv_offset(_stacked(seen)))
        offsets = self.magnitude * offsets.tanh()
        # Each run of groups reads one neighbour, and moves along the flow to it.
        offsets = offsets.unflatten(1, (self.reach, -1, 2)) + along[:, :, None]
        return self.deform(_stacked([*near, *nothing]), offsets.flatten(1, 3), mask.sigmoid())


def _chained(far: Tensor, onward: Tensor) -> Tensor:
    """The flow along `far` and from there along `onward`, each (B, t, 2, h, w)."""
    moved = flow_warp(onward.flatten(0, 1), far.flatten(0, 1))
    return far + torch.unflatten(moved, 0, far.shape[:2])


def _stacked(features: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(features), dim=1).contiguous(memory_format=torch.channels_last)


def _channels_first(x: Tensor) -> Tensor:
    """(B, H, W, C) as (B, C, H, W), channels_last: the same memory."""
    return x.permute(0, 3, 1, 2)


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)
