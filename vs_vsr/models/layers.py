"""Convolutions and blocks that several networks share."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vs_vsr.models.stream import Planes

__all__ = [
    "Activation",
    "Conv",
    "InputConvBlocks",
    "ResidualBlock",
    "Upsampler",
    "concat",
    "convolve",
    "convolve_to_few",
    "upsampled",
]

Activation = Literal["none", "relu", "leaky_relu"]

_LEAKY_SLOPE = 0.1
# Of a convolution's output in oneDNN: the 16 numbers of an AVX-512 register.
_CHANNELS_AT_A_TIME = 16
# Bytes of one strip of full-size features in the upsampler. On a CPU a strip and its convolution
# stay in the last-level cache (docs/measurements.md); a GPU wants few, large kernels.
_STRIP_BYTES = {"cpu": 16 << 20}
_STRIP_BYTES_DEFAULT = 512 << 20


@cache
def _fused_convolution() -> bool:
    """Whether this torch has oneDNN's convolution fused with an activation or a sum."""
    return torch.backends.mkldnn.is_available() and hasattr(
        torch.ops.mkldnn, "_convolution_pointwise"
    )


def _can_fuse(x: Tensor, weight: Tensor) -> bool:
    # The fused operators have no derivative and no float64.
    differentiates = torch.is_grad_enabled() and (weight.requires_grad or x.requires_grad)
    supported = x.device.type == "cpu" and x.dtype != torch.float64
    return supported and _fused_convolution() and not differentiates


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: Activation = "none",
    *,
    padding: tuple[int, int] | None = None,
    stride: tuple[int, int] = (1, 1),
) -> Tensor:
    """Convolve and apply the activation, in one pass over memory where torch can.

    Args:
        x: Features, (B, C, H, W); channels_last is the fast layout.
        weight: (D, C, k, k).
        bias: (D,).
        activation: What follows the convolution; the leaky slope is 0.1.
        padding: Zeros added above and below, left and right; by default the size stays.
        stride: Pixels from one output to the next, down and across.

    Returns:
        (B, D, H, W) for the default padding and stride, in the dtype of `x`.
    """
    if padding is None:
        padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    if stride[1] > 1 and x.shape[3] + 2 * padding[1] - weight.shape[3] < stride[1]:
        # Only one column comes out, which oneDNN (that of torch 2.15, in bfloat16 on a processor
        # with AMX) computes from memory that is not x's. Without a stride across it does not.
        y = convolve(x, weight, bias, activation, padding=padding, stride=(stride[0], 1))
        return y[..., :1]
    if _can_fuse(x, weight):
        scalars = [_LEAKY_SLOPE] if activation == "leaky_relu" else []
        fused: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, padding, stride, [1, 1], 1, activation, scalars, None
        )
        return fused
    y = F.conv2d(x, weight, bias, stride, padding)
    # In place where autograd does not need y: that saves a buffer.
    if activation == "relu":
        return y.relu_() if not y.requires_grad else y.relu()
    if activation == "leaky_relu":
        return F.leaky_relu(y, _LEAKY_SLOPE, inplace=not y.requires_grad)
    return y


def convolve_to_few(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, padding: tuple[int, int] | None = None
) -> Tensor:
    """As `convolve`, for at most 16 output channels.

    A CPU computes 16 channels at a time, so two or three take as long. Therefore neighbouring
    pixels become the channels of one: the kernel is widened by zeros and moves on by as many
    pixels. The sums are the same.
    """
    channels, _, _, width = weight.shape
    pixels = 1 << (_CHANNELS_AT_A_TIME // channels).bit_length() - 1
    if x.device.type != "cpu" or x.shape[3] % pixels:
        return convolve(x, weight, bias, padding=padding)
    if padding is None:
        padding = (weight.shape[2] // 2, width // 2)
    wide = weight.new_zeros(pixels, *weight.shape[:3], width + pixels - 1)
    for i, kernel in enumerate(wide):
        kernel[..., i : i + width] = weight
    wide = wide.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    bias = None if bias is None else bias.repeat(pixels)
    y = convolve(x, wide, bias, padding=padding, stride=(1, pixels))
    b, _, height, _ = y.shape
    return y.permute(0, 2, 3, 1).reshape(b, height, -1, channels).permute(0, 3, 1, 2)


def _convolve_add(total: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Add a 3x3 convolution of `x` to `total`, which is overwritten where that saves a pass."""
    if _can_fuse(x, weight):
        added: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            total, x, weight, bias, [1, 1], [1, 1], [1, 1], 1, "add", 1.0, None, [], None
        )
        return added
    y = F.conv2d(x, weight, bias, padding=1)
    return y.add_(total)


class Conv(nn.Conv2d):
    """A convolution and the activation after it; only its stride changes the size."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        size: int = 3,
        activation: Activation = "none",
        *,
        stride: int = 1,
    ) -> None:
        """Make a convolution of size x size."""
        super().__init__(in_channels, channels, size, stride, size // 2)
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, in_channels, H, W) into (B, channels, H/stride, W/stride)."""
        down, across = self.stride
        return convolve(x, self.weight, self.bias, self.activation, stride=(down, across))


def concat(features: Sequence[Tensor]) -> Tensor:
    """Features of one size, each (B, C, H, W), joined along the channels: (B, sum of C, H, W).

    If all are channels_last, that is one operation; otherwise two.
    """
    return torch.cat(list(features), dim=1).contiguous(memory_format=torch.channels_last)


def upsampled(x: Tensor, scale: int = 2) -> Tensor:
    """`x`, (B, C, H, W), resized bilinearly to `scale` times its size, corners not aligned."""
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), 3x3, no scaling."""

    def __init__(self, channels: int) -> None:
        """Make a block of `channels` features."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to (B, C, H, W); without autograd `x` is overwritten."""
        hidden = convolve(x, self.conv1.weight, self.conv1.bias, "relu")
        return _convolve_add(x, hidden, self.conv2.weight, self.conv2.bias)


class InputConvBlocks(nn.Module):
    """A 3x3 convolution with leaky ReLU, then residual blocks: the trunk of every BasicVSR."""

    def __init__(self, in_channels: int, channels: int, blocks: int) -> None:
        """Make a trunk of `blocks` residual blocks after a convolution to `channels`."""
        super().__init__()
        # The activation takes index 1, so that tensors have the names of the released files.
        self.main = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1),
            nn.LeakyReLU(_LEAKY_SLOPE),
            nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks))),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, in_channels, H, W) into (B, channels, H, W)."""
        first, _, blocks = self.main
        assert isinstance(first, nn.Conv2d)
        out: Tensor = blocks(convolve(x, first.weight, first.bias, "leaky_relu"))
        return out


class _ShuffleConv(nn.Conv2d):
    """A 3x3 convolution, leaky ReLU and a pixel shuffle by 2.

    In files, the output channels are in the order (c, i, j) of torch's shuffle. Here the order is
    (i, j, c): in channels_last the shuffle then moves whole rows of (j, c). The weights are put in
    this order once, when they are loaded.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        """Make a convolution to `channels` features; each output pixel gets a quarter of them."""
        super().__init__(in_channels, channels, 3)

    def forward(self, x: Tensor, rim: int = 0) -> Tensor:
        """Turn (B, in_channels, H, W) into (B, channels/4, 2*(H-2+2*rim), 2*W).

        `rim` is how many rows of zeros lie above and below: 0, or 1 for a whole picture.
        """
        y = convolve(x, self.weight, self.bias, "leaky_relu", padding=(rim, 1))
        b, c4, h, w = y.shape
        rows = y.permute(0, 2, 3, 1).reshape(b, h, w, 2, c4 // 2)  # (B, H, W, i, j*c)
        return rows.transpose(2, 3).reshape(b, 2 * h, 2 * w, c4 // 4).permute(0, 3, 1, 2)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # Back to the order of files.
        for key in (prefix + "weight", prefix + "bias"):
            by_position = destination[key].unflatten(0, (4, -1))
            destination[key] = by_position.transpose(0, 1).flatten(0, 1)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        for key in (prefix + "weight", prefix + "bias"):
            value = state_dict.get(key)
            # A tensor of another shape is reported by torch.
            if value is not None and value.shape[:1] == (self.out_channels,):
                state_dict[key] = value.unflatten(0, (-1, 4)).transpose(0, 1).flatten(0, 1)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class Upsampler(nn.Module):
    """Turns features into a picture four times as large: two pixel shuffles, two convolutions.

    It works in horizontal strips, so the full-size features (16 times the input's pixels, 64
    channels) never exist as a whole. A strip reads two more rows of features on either side. Rows
    outside the picture are zeros at every convolution, so strips change no value.
    """

    def __init__(self, channels: int) -> None:
        """Make the x4 upsampler for `channels` features; its later stages are 64 wide."""
        super().__init__()
        self.upconv1 = _ShuffleConv(channels, channels * 4)
        self.upconv2 = _ShuffleConv(channels, 64 * 4)
        self.conv_hr = nn.Conv2d(64, 64, 3, padding=1)
        self.conv_last = nn.Conv2d(64, 3, 3, padding=1)

    def forward(self, features: Tensor, base: Tensor, out: Planes) -> None:
        """Write base + picture(features) to `out`.

        Args:
            features: (B, C, H, W).
            base: The picture to which the network's result is added, (B, 3, 4*H, 4*W).
            out: The planes R, G, B to write, each (B, 4*H, 4*W). If they are smaller, what lies
                beyond their right and bottom edges is left out.
        """
        height, width = features.shape[-2:]
        budget = _STRIP_BYTES.get(features.device.type, _STRIP_BYTES_DEFAULT)
        row_bytes = 16 * width * 64 * features.element_size() * features.shape[0]
        # A strip reads four rows beside those it makes, so it should make at least as many.
        rows = max(4, min(height, budget // row_bytes))
        if rows >= height:
            x = self.upconv2(self.upconv1(features, 1), 1)
            x = convolve(x, self.conv_hr.weight, self.conv_hr.bias, "leaky_relu")
            x = convolve_to_few(x, self.conv_last.weight, self.conv_last.bias)
            _write_sum(base, x, out, 0)
            return
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            x = _rows(features, top - 2, bottom + 2)
            # Each convolution takes one row off at the top and at the bottom.
            x = self.upconv1(x, 0)
            _blank_outside(x, 2 * top - 2, 2 * height)
            x = self.upconv2(x, 0)
            _blank_outside(x, 4 * top - 2, 4 * height)
            x = convolve(x, self.conv_hr.weight, self.conv_hr.bias, "leaky_relu", padding=(0, 1))
            _blank_outside(x, 4 * top - 1, 4 * height)
            x = convolve_to_few(x, self.conv_last.weight, self.conv_last.bias, padding=(0, 1))
            _write_sum(base, x, out, 4 * top)


def _write_sum(base: Tensor, x: Tensor, out: Planes, top: int) -> None:
    """Write base + x to `out`; row 0 of `x` is row `top` of the picture."""
    height, width = out[0].shape[-2:]
    strip = slice(top, min(top + x.shape[-2], height))
    base, x = base[..., strip, :width], x[..., : strip.stop - top, :width]
    if isinstance(out, Tensor):
        torch.add(base, x, out=out[..., strip, :].transpose(0, 1))
        return
    for channel, plane in enumerate(out):
        torch.add(base[:, channel], x[:, channel], out=plane[:, strip])


def _rows(x: Tensor, first: int, last: int) -> Tensor:
    """Rows first to last (half open) of `x`; zeros for those outside it."""
    height = x.shape[-2]
    inside = x[..., max(first, 0) : min(last, height), :]
    above, below = max(-first, 0), max(last - height, 0)
    if not above and not below:
        return inside
    padded = F.pad(inside, (0, 0, above, below))
    return padded.contiguous(memory_format=torch.channels_last)


def _blank_outside(x: Tensor, first: int, height: int) -> None:
    """Zero the rows of `x` outside the picture; row 0 of `x` is row `first` of the picture."""
    if first < 0:
        x[..., :-first, :] = 0
    if first + x.shape[-2] > height:
        x[..., height - first :, :] = 0
