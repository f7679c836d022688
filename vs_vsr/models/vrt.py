"""VRT: a video restoration transformer (arXiv:2201.12288)."""

from collections.abc import Collection, Sequence
from copy import deepcopy
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vs_vsr.errors import ArgumentError, ShapeError
from vs_vsr.models import vrt_tiles
from vs_vsr.models.layers import Activation, Conv, upsampled
from vs_vsr.models.padding import mirror_pad
from vs_vsr.models.sampling import flow_warp, nearest4_warp
from vs_vsr.models.spynet import SPyNet
from vs_vsr.models.stream import Network, Planes, Span, check_clip
from vs_vsr.models.vrt_attention import Size
from vs_vsr.models.vrt_stage import (
    SelfAttentionGroup,
    Stage,
    channels_first,
    channels_last,
    reshape,
)
from vs_vsr.models.vrt_tiles import WindowSums

__all__ = ["VRT"]

# How much smaller than the frames the features of stages 1 to 7 are, as powers of 2.
_REDUCTIONS = (0, 1, 2, 3, 2, 1, 0)
# Flows are needed at each of these sizes: full, a half, a quarter, an eighth.
_SCALES = 4
_TAIL_WIDTH = 64
# Most full-size pixels that the alignment may move away from the flow.
_MAX_RESIDUE_MAGNITUDE = 10.0

# Flows of one direction: [reduction][distance - 1] is (B, T - distance, 2, h, w), float32.
_Flows = list[list[Tensor]]


class VRT(Network):
    """Super-resolution by 4, restoration at the same size, or a new picture between frames.

    Every frame sees the whole clip that is passed at once. `tiled` and `in_space` cut what is too
    large for memory, in the way the published figures were made.
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
            widths: Features per pixel, likewise.
            heads: Heads of the attention, likewise.
            independent: Indices, in these lists, of the groups that look at one frame at a time.
            pa_frames: Neighbours that each frame is joined with, both sides together: 2, 4 or 6;
                or 0 for interpolation.
            groups: Deformable groups of the alignment.
            denoising: Whether the noise level is an input.
            frames: How many frames an interpolation takes.
        """
        super().__init__()
        self.scale = upscale
        self.denoises = denoising
        self.interpolates = not pa_frames
        self.frames_per_input = 2 if self.interpolates else 1
        self.frames = frames
        self.reach = pa_frames // 2
        self.window = window
        # RGB, and four pixels of RGB from each of the two neighbours (see `_joined`).
        channels = 27 + denoising if pa_frames else 3
        self.conv_first = _FrameConv(channels, widths[0])
        if pa_frames:
            self.spynet = SPyNet()
        for i, reduction in enumerate(_REDUCTIONS):
            previous = _REDUCTIONS[max(i - 1, 0)]
            stage = Stage(
                (widths[max(i - 1, 0)], widths[i]),
                depths[i],
                heads[i],
                window,
                reduction - previous,
            )
            if pa_frames:
                stage.add_warping(self.reach, groups, _MAX_RESIDUE_MAGNITUDE / 2**reduction)
            self.add_module(f"stage{i + 1}", stage)
        last = len(_REDUCTIONS)
        self.stage8 = nn.ModuleList([reshape(widths[last - 1], widths[last])])
        for i in range(last, len(depths)):
            size = (1, *window[1:]) if i in independent else window
            self.stage8.append(SelfAttentionGroup(widths[i], depths[i], size, heads[i]))
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
            # Identities take the indices of the layers between, so that tensors have the names of
            # the released files.
            identities = [nn.Identity() for _ in range(4)]
            upsampling = [_FrameConv(_TAIL_WIDTH, 4 * _TAIL_WIDTH, "leaky_relu") for _ in range(2)]
            self.upsample = nn.Sequential(
                upsampling[0],
                *identities,
                upsampling[1],
                *identities,
                _FrameConv(_TAIL_WIDTH, _TAIL_WIDTH),
            )
            width = _TAIL_WIDTH
        self.conv_last = _FrameConv(width, 3)

    if TYPE_CHECKING:

        def __call__(self, frames: Tensor, sigma: float | None = None) -> Tensor:
            """As `forward`."""

    def forward(self, frames: Tensor, sigma: float | None = None) -> Tensor:
        """Restore a whole clip.

        Args:
            frames: (B, T, 3, H, W), RGB, [0, 1], float32, any size. Inside, height and width are
                mirrored, repeating the last row and column, to multiples of 8 that are at least 8
                windows (64); a clip shorter than `pa_frames`/2 + 1 repeats its last frame. An
                interpolating network takes exactly `frames` frames.
            sigma: Noise level in units of 1/255, for a denoising network.

        Returns:
            (B, T, 3, s*H, s*W), float32, not clamped; s is `scale`. An interpolating network gives
            one picture, (B, 1, 3, H, W): the one in the middle of the frames.

        Raises:
            ShapeError: `frames` has another shape.
            ArgumentError: `sigma` is missing, out of range or not for this network.
        """
        self._check(frames, sigma)
        count, _, height, width = frames.shape[1:]
        # Flows to the farthest neighbours need that many frames.
        if count <= self.reach:
            missing = self.reach + 1 - count
            frames = torch.cat((frames, frames[:, -1:].expand(-1, missing, -1, -1, -1)), dim=1)
        frames = mirror_pad(frames, multiple=8, least=8 * max(self.window[1:]), repeat_edge=True)
        restored = (
            self._interpolated(frames) if self.interpolates else self._restored(frames, sigma)
        )
        return restored[:, :count, :, : self.scale * height, : self.scale * width]

    def step(
        self,
        frames: Sequence[Tensor],
        span: Span,
        state: WindowSums | None,
        out: Sequence[Planes] | None,
        *,
        windows: Sequence[range] | None = None,
        tile: int = 0,
        overlap: int = 0,
        sigma: float | None = None,
        extend: bool = False,
    ) -> WindowSums | None:
        """As `Stream.step`. Pictures are averaged where windows of frames overlap.

        An interpolating network gives each frame, and a new picture between it and the next, made
        from two frames on either side. At the ends of a shot, the end frame is repeated. The last
        frame of a shot has no next one, and is given twice.

        Args:
            frames: The frames of the span, each (B, 3, H, W), RGB, [0, 1], float32.
            span: Which frames these are.
            state: What earlier windows have made of frames of this span and later ones.
            out: Where the pictures of the output frames go; None makes no pictures.
            windows: Positions of each window; by default one window over all active frames. A cut
                splits a window in two.
            tile: As for `in_space`.
            overlap: As for `in_space`.
            sigma: As for `forward`.
            extend: Whether to mirror the end of a window up to a multiple of the attention's
                frames, as the published test script does with a clip that it takes at once.

        Returns:
            What the windows have made of frames after the output ones; None for interpolation.
        """
        if self.interpolates:
            if out is not None:
                self._interpolate(frames, span, out, tile, overlap)
            return None

        def restore(clip: Tensor) -> Tensor:
            if extend:
                sizes = {"tile": (0, tile, tile), "overlap": (0, overlap, overlap)}
                return self.tiled(clip, **sizes, sigma=sigma)
            return self.in_space(clip, tile=tile, overlap=overlap, sigma=sigma)

        sums = dict(state or {})
        for window in (span.active,) if windows is None else windows:
            vrt_tiles.add_window(restore, frames, window, span, sums)
        first, output = span.first, span.output
        if out is not None:
            # If the window that covered these frames failed, run one over them alone.
            missing = [i for i in output if first + i not in sums]
            if missing:
                window = range(missing[0], missing[-1] + 1)
                vrt_tiles.add_window(restore, frames, window, span, sums)
            for i, planes in zip(output, out, strict=True):
                total, count = sums[first + i]
                for plane, channel in zip(planes, total.unbind(1), strict=True):
                    torch.div(channel, count, out=plane)
        return {n: entry for n, entry in sums.items() if n >= first + output.stop}

    def _interpolate(
        self,
        frames: Sequence[Tensor],
        span: Span,
        out: Sequence[Planes],
        tile: int,
        overlap: int,
    ) -> None:
        """Copy each output frame, and make the picture between it and the next frame."""
        for number, i in enumerate(span.output):
            shot = span.shot(i)
            _copy(frames[i], out[2 * number])
            if i + 1 == shot.stop:
                _copy(frames[i], out[2 * number + 1])
                continue
            around = [min(max(k, shot.start), shot.stop - 1) for k in range(i - 1, i + 3)]
            clip = torch.stack([frames[k] for k in around], dim=1)
            _copy(self.in_space(clip, tile=tile, overlap=overlap)[:, 0], out[2 * number + 1])

    def tiled(
        self,
        frames: Tensor,
        *,
        tile: tuple[int, int, int],
        overlap: tuple[int, int, int],
        sigma: float | None = None,
    ) -> Tensor:
        """Restore a clip in tiles, with the same numbers as the published test script.

        Tiles that overlap in time are averaged. An interpolating network is not tiled in time.

        Args:
            frames: (B, T, 3, H, W), as in `forward`.
            tile: Frames, and pixels each way; the third entry is not used. 0 frames take the whole
                clip, mirrored at its end to a multiple of the window. 0 pixels take whole frames.
            overlap: Frames and pixels that neighbouring tiles share, likewise.
            sigma: As in `forward`.

        Returns:
            As `forward` does.

        Raises:
            ShapeError: `frames` has another shape.
            ArgumentError: A tile is not larger than its overlap, or as in `forward`.
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
        """Restore a clip in spatial tiles, each with all frames of the clip at once.

        Args:
            frames: (B, T, 3, H, W), as in `forward`.
            tile: Side of a tile in pixels; 0 takes whole frames.
            overlap: Pixels that neighbouring tiles share.
            sigma: As in `forward`.

        Returns:
            As `forward` does.

        Raises:
            ShapeError: `frames` has another shape.
            ArgumentError: The tile is not larger than the overlap, or as in `forward`.
        """
        self._check(frames, sigma)
        return vrt_tiles.in_space(
            lambda part: self(part, sigma), frames, tile=tile, overlap=overlap, scale=self.scale
        )

    def _check(self, frames: Tensor, sigma: float | None) -> None:
        check_clip(self, frames)
        shape = tuple(frames.shape)
        if self.interpolates and shape[1] != self.frames:
            raise ShapeError(
                f"VRT: frames must be (B, {self.frames}, 3, H, W) to interpolate, got {shape}. "
                f"Give the {self.frames} frames around the new one."
            )
        if not self.denoises and sigma is not None:
            raise ArgumentError(
                f"VRT: sigma is for networks that denoise only, got {sigma}. Leave it out."
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
        earlier, later = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
        spynet = self._exact_spynet()
        to_next, to_previous = (
            [flow.unflatten(0, (b, t - 1)) for flow in spynet.scales(*pair, _SCALES)]
            for pair in ((earlier, later), (later, earlier))
        )
        x = self.conv_first.of_clip(self._joined(frames, to_next[0], to_previous[0], sigma))
        x = x + self._features(x, self._chains(to_next, 1), self._chains(to_previous, -1))
        s = self.scale
        out = frames.new_empty(b, t, 3, s * height, s * width)
        for i, frame in enumerate(frames.unbind(1)):
            picture = self.conv_last(self._upsampled(channels_first(x[:, i])))
            torch.add(upsampled(frame, s) if s > 1 else frame, picture, out=out[:, i])
        return out

    def _upsampled(self, x: Tensor) -> Tensor:
        if self.scale == 1:
            return x
        x = F.leaky_relu(self.conv_before_upsample(x), 0.01)
        for conv in self.upsample:
            x = conv(x)
            if getattr(conv, "activation", "none") != "none":
                # The authors' code shuffles before the activation; the numbers are the same.
                x = F.pixel_shuffle(x, 2).contiguous(memory_format=torch.channels_last)
        return x

    def _interpolated(self, frames: Tensor) -> Tensor:
        # The network takes frames without their mean colour, and the picture gets it back.
        mean = frames.mean((1, 3, 4), keepdim=True)
        x = self.conv_first.of_clip((frames - mean).to(self._dtype))
        x = x + self._features(x, [], [])
        joined = torch.cat([channels_first(frame) for frame in x.unbind(1)], dim=1)
        fused = F.leaky_relu(self.linear_fuse(joined), 0.2)
        picture: Tensor = self.conv_last(F.pad(fused, (3, 3, 3, 3), mode="reflect"))
        out: Tensor = picture.float()[:, None] + mean
        return out

    def _exact_spynet(self) -> SPyNet:
        """The network that finds the flows: in float64 beside float32 features on a CPU.

        `nearest4_warp` reads frames at whole pixels, and a rounding error of the flow makes it read
        others. In float32 these differ from machine to machine; float64 gives all the same pixels.
        """
        if self._dtype == torch.float32 and self.conv_first.weight.device.type == "cpu":
            return deepcopy(self.spynet).double()
        return self.spynet

    def _chains(self, flows: Sequence[Tensor], direction: Literal[1, -1]) -> _Flows:
        """Flows at every distance, float32, from those to the next (1) or previous (-1) frames."""
        chains = [[flow.float()] for flow in flows]
        for distance in range(1, self.reach):
            for chain in chains:
                far, onward = chain[-1][:, :-1], chain[0][:, distance:]
                if direction < 0:
                    far, onward = chain[-1][:, 1:], chain[0][:, :-distance]
                chain.append(_chained(far, onward))
        return chains

    def _joined(
        self, frames: Tensor, to_next: Tensor, to_previous: Tensor, sigma: float | None
    ) -> Tensor:
        """Each frame, its neighbours warped to it, and the noise level, (B, T, C, H, W)."""
        # Channels: the frame 0 to 2, the next one 3 to 14, the previous one 15 to 26, the noise 27.
        b, t, _, height, width = frames.shape
        x = frames.new_zeros(b, t, self.conv_first.in_channels, height, width, dtype=self._dtype)
        x[:, :, :3] = frames
        for i in range(t):
            if i < t - 1:
                x[:, i, 3:15] = nearest4_warp(frames[:, i + 1], to_next[:, i])
            if i:
                x[:, i, 15:27] = nearest4_warp(frames[:, i - 1], to_previous[:, i - 1])
        if sigma is not None:
            x[:, :, 27] = sigma / 255
        return x

    def _features(self, x: Tensor, to_next: _Flows, to_previous: _Flows) -> Tensor:
        """Stages 1 to 8 on (B, T, H, W, C)."""
        # A stage changes the size before all else. So the inputs of stages 6, 7 and 8 have the
        # sizes of the outputs of stages 3, 2 and 1, which are added to them.
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
    """A 3x3 convolution of each frame; files keep its weight as one of a clip, (D, C, 1, 3, 3)."""

    def __init__(self, in_channels: int, channels: int, activation: Activation = "none") -> None:
        super().__init__(in_channels, channels, 3, activation)

    def of_clip(self, x: Tensor) -> Tensor:
        """Turn (B, T, C, H, W) into (B, T, H, W, D)."""
        frames = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        y: Tensor = self(frames)
        return torch.unflatten(channels_last(y), 0, x.shape[:2])

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


def _chained(far: Tensor, onward: Tensor) -> Tensor:
    """The flow along `far`, and from there on along `onward`, each (B, t, 2, h, w)."""
    warped = flow_warp(onward.flatten(0, 1), far.flatten(0, 1))
    return far + torch.unflatten(warped, 0, far.shape[:2])


def _copy(picture: Tensor, planes: Planes) -> None:
    for plane, channel in zip(planes, picture.unbind(1), strict=True):
        plane.copy_(channel)
