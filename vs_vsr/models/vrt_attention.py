"""The transformer of VRT: windows in time and space, attention inside them, gated MLPs.

The paper, arXiv:2201.12288, calls this temporal mutual self attention.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import pi, prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Block", "BlockGroup", "GatedMLP", "Size", "WindowAttention", "Windows"]

Size = tuple[int, int, int]
"""Frames, rows, columns."""

# Ranges t, h, w in a clip's grid of windows.
_Box = tuple[range, range, range]

# A score with this added is next to nothing after the softmax.
_MASKED = -100.0
# Tokens computed at once. On a CPU a slice's features should stay near the cache. A GPU wants few,
# large kernels, but needs memory for the scores where it has no fused attention for a width.
_SLICE_TOKENS = {"cpu": 1 << 13}
_SLICE_TOKENS_DEFAULT = 1 << 17


def _slice_tokens(x: Tensor) -> int:
    return _SLICE_TOKENS.get(x.device.type, _SLICE_TOKENS_DEFAULT)


@dataclass(frozen=True)
class Windows:
    """How the tokens of a clip are cut into windows, moved by a shift that wraps around."""

    window: Size
    shift: Size
    size: Size
    """Size of the clip."""
    counts: Size
    """Windows each way; where they reach beyond the clip, tokens are zeros."""
    boxes: tuple[tuple[_Box, Tensor | None], ...]
    """All windows, grouped by which of their tokens may see each other.

    The mask, (N, N), is 0 where token i of a window sees token j, and -100 where the shift has
    brought them together from opposite ends of the clip. It is None if there is no such pair.
    """

    @classmethod
    def of(cls, size: Size, window: Size, shift: Size, like: Tensor) -> "Windows":
        """Lay windows over a clip. Where it is no larger than one, they shrink and do not move.

        Args:
            size: Size of the clip.
            window: Size of window that the network was made for.
            shift: How far the windows move.
            like: A tensor with the dtype and the device that the masks get.
        """
        shift = _sized([s if n > w else 0 for n, w, s in zip(size, window, shift, strict=True)])
        window = _sized([min(n, w) for n, w in zip(size, window, strict=True)])
        counts = _sized([-(-n // w) for n, w in zip(size, window, strict=True)])
        # Along an axis with a shift, only the last window holds both ends of the clip.
        runs = [
            [(range(n - 1), False), (range(n - 1, n), True)] if s else [(range(n), False)]
            for n, s in zip(counts, shift, strict=True)
        ]
        boxes = []
        for (t, split_t), (h, split_h), (w, split_w) in product(*runs):
            mask = _mask(window, shift, (split_t, split_h, split_w), like)
            boxes.append(((t, h, w), mask))
        return cls(window, shift, size, counts, tuple(boxes))

    def pieces(self, box: _Box, tokens: int) -> Iterator[_Box]:
        """Cut a box into boxes of about `tokens` tokens, at least one row of windows each."""
        t, h, w = box
        rows = max(1, tokens // (len(w) * prod(self.window)))
        if rows >= len(h):
            steps = rows // len(h)
            for i in range(0, len(t), steps):
                yield t[i : i + steps], h, w
        else:
            for i in range(len(t)):
                for j in range(0, len(h), rows):
                    yield t[i : i + 1], h[j : j + rows], w

    def grid(self, x: Tensor, box: _Box) -> Tensor:
        """View a box of a padded clip, (B, T, H, W, C), as windows (B, t, h, w, wT, wH, wW, C)."""
        b, c = x.shape[0], x.shape[-1]
        shape = [part for pair in zip(self.counts, self.window, strict=True) for part in pair]
        t, h, w = (slice(part.start, part.stop) for part in box)
        return x.view(b, *shape, c)[:, t, :, h, :, w].permute(0, 1, 3, 5, 2, 4, 6, 7)


def _sized(values: list[int]) -> Size:
    """The three values as a tuple of known length, for type checkers."""
    t, h, w = values
    return t, h, w


def _mask(window: Size, shift: Size, split: tuple[bool, bool, bool], like: Tensor) -> Tensor | None:
    """Mask of a window that holds both ends of the clip along the axes of `split`."""
    if not any(split):
        return None
    # Tokens are numbered by the ends of the clip that they come from; different numbers are apart.
    ends = torch.zeros(window, dtype=torch.int32, device=like.device)
    for axis, (size, moved) in enumerate(zip(window, shift, strict=True)):
        if split[axis]:
            ends.narrow(axis, size - moved, moved).add_(1 << axis)
    flat = ends.flatten()
    apart = flat[:, None] != flat[None, :]
    return torch.zeros_like(apart, dtype=like.dtype).masked_fill_(apart, _MASKED)


class WindowAttention(nn.Module):
    """Attention among a window's tokens and, if `mutual`, from each of two frames to the other."""

    relative_position_index: Tensor
    position_bias: Tensor

    def __init__(self, width: int, window: Size, heads: int, *, mutual: bool) -> None:
        """Make the attention for windows of at most `window`; mutual ones hold two frames."""
        super().__init__()
        self.heads = heads
        self.mutual = mutual
        places = prod(2 * n - 1 for n in window)
        self.relative_position_bias_table = nn.Parameter(torch.empty(places, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", _relative_places(window))
        self.qkv_self = nn.Linear(width, 3 * width)
        if mutual:
            self.register_buffer("position_bias", _sine_positions(window[1:], width))
            self.qkv_mut = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(2 * width if mutual else width, width)

    def bias(self, tokens: int) -> Tensor:
        """What relative position adds to the scores of a window's first `tokens`, (heads, N, N).

        Tokens are counted from the first frame, so a window shortened in time fits.
        """
        index = self.relative_position_index[:tokens, :tokens]
        table = self.relative_position_bias_table.t().contiguous()
        return table[:, index.flatten()].view(self.heads, tokens, tokens)

    def forward(self, x: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        """Attend.

        Args:
            x: Windows, (n, N, C).
            bias: Added to the scores of self attention, (heads, N, N), mask included.
            mask: The windows' mask, (N, N), for mutual attention.

        Returns:
            (n, N, C).
        """
        q, k, v = self._split(self.qkv_self(x))
        attended = self._attend(q, k, v, bias)
        if self.mutual:
            half = x.shape[1] // 2
            position = self.position_bias.to(x.dtype)
            q, k, v = self._split(self.qkv_mut((x.unflatten(1, (2, -1)) + position).flatten(1, 2)))
            q1, q2 = q.split(half, dim=2)
            k1, k2 = k.split(half, dim=2)
            v1, v2 = v.split(half, dim=2)
            # As in the released networks, only the part of the mask inside the first frame counts.
            inside = None if mask is None else mask[:half, :half]
            # `first` is the first frame as the second one reads it, and the other way round.
            first, second = self._attend(q2, k1, v1, inside), self._attend(q1, k2, v2, inside)
            attended = torch.cat((torch.cat((first, second), dim=1), attended), dim=2)
        out: Tensor = self.proj(attended)
        return out

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, N, 3*C) to queries, keys and values, each (n, heads, N, C/heads)."""
        parts = torch.unflatten(qkv, 2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        if bias is not None:
            bias = bias.expand(q.shape[0], self.heads, -1, -1)
        y: Tensor = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return y.transpose(1, 2).flatten(2)


def _relative_places(window: Size) -> Tensor:
    """For tokens i and j of a window, the table's row for the offset from j to i, (N, N)."""
    table = torch.empty(prod(window), prod(window), dtype=torch.int64)
    if table.is_meta:
        return table  # only its shape counts, and arithmetic on it would import torch._dynamo
    axes = [torch.arange(n) for n in window]
    places = torch.stack([a.flatten() for a in torch.meshgrid(*axes, indexing="ij")])  # (3, N)
    offsets = places[:, :, None] - places[:, None, :]
    t, h, w = (offset + n - 1 for offset, n in zip(offsets, window, strict=True))
    rows: Tensor = (t * (2 * window[1] - 1) + h) * (2 * window[2] - 1) + w
    return rows


def _sine_positions(window: tuple[int, int], width: int) -> Tensor:
    """Sines and cosines of a token's row, then of its column, (1, N, width)."""
    count = width // 2
    table = torch.empty(1, prod(window), 2 * count)
    if table.is_meta:
        return table  # as above
    rates = 10000.0 ** (2 * (torch.arange(count) // 2) / count)
    waves = []
    for size in window:
        angles = (torch.arange(1, size + 1) / (size + 1e-6) * 2 * pi)[:, None] / rates
        waves.append(torch.where(torch.arange(count) % 2 == 0, angles.sin(), angles.cos()))
    rows = waves[0][:, None].expand(*window, -1)
    columns = waves[1][None, :].expand(*window, -1)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1)[None]


class GatedMLP(nn.Module):
    """fc2(gelu(fc11(x)) * fc12(x)), with the exact GELU.

    Source: GEGLU, arXiv:2002.05202, section 2, eq. 5; as in eq. 6, but with biases.
    """

    def __init__(self, width: int, hidden: int, out: int) -> None:
        """Make an MLP from `width` over `hidden` to `out` features."""
        super().__init__()
        self.fc11 = nn.Linear(width, hidden)
        self.fc12 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (..., width) into (..., out)."""
        out: Tensor = self.fc2(F.gelu(self.fc11(x)) * self.fc12(x))
        return out


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(self, width: int, window: Size, heads: int, *, mutual: bool) -> None:
        """Make a block."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, window, heads, mutual=mutual)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = GatedMLP(width, 2 * width, width)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """Apply the block to a clip, (B, T, H, W, C)."""
        x = x + self._attended(x, windows)
        # In place and slice by slice, as the hidden features are four times as wide as `x`.
        for tokens in x.flatten(0, 3).split(_slice_tokens(x)):
            tokens += self.mlp(self.norm2(tokens))
        return x

    def _attended(self, x: Tensor, windows: Windows) -> Tensor:
        t, h, w = windows.size
        y = self.norm1(x)
        # The padding comes after the norm, and its zeros are seen like any token, as in training.
        pads = [
            c * n - s for c, n, s in zip(windows.counts, windows.window, (t, h, w), strict=True)
        ]
        if any(pads):
            y = F.pad(y, (0, 0, 0, pads[2], 0, pads[1], 0, pads[0]))
        if any(windows.shift):
            y = y.roll([-s for s in windows.shift], (1, 2, 3))
        out = torch.empty_like(y)
        tokens = prod(windows.window)
        bias = self.attn.bias(tokens)
        for box, mask in windows.boxes:
            scores = bias if mask is None else bias + mask
            for piece in windows.pieces(box, _slice_tokens(x) // x.shape[0]):
                inside = windows.grid(y, piece)
                attended = self.attn(inside.reshape(-1, tokens, x.shape[-1]), scores, mask)
                windows.grid(out, piece).copy_(attended.view(inside.shape))
        if any(windows.shift):
            out = out.roll(windows.shift, (1, 2, 3))
        return out[:, :t, :h, :w]


class BlockGroup(nn.Module):
    """Blocks whose windows are, in turns, in place and moved by half a window."""

    def __init__(self, width: int, depth: int, window: Size, heads: int, *, mutual: bool) -> None:
        """Make a group of `depth` blocks."""
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList(
            Block(width, window, heads, mutual=mutual) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the blocks to a clip, (B, T, H, W, C)."""
        size = _sized(list(x.shape[1:4]))
        half = _sized([n // 2 for n in self.window])
        layouts = [Windows.of(size, self.window, shift, x) for shift in ((0, 0, 0), half)]
        for i, block in enumerate(self.blocks):
            x = block(x, layouts[i % 2])
        return x
