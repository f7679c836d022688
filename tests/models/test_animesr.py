"""AnimeSR beside a plain reading of its cell, and numbers from its authors' code."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import drifting
from formula import digest, fill, frames
from networks import network
from torch import Tensor

from vs_vsr.errors import ArgumentError
from vs_vsr.models.animesr import AnimeSR


def plain_cell(state: dict[str, Tensor], blocks: tuple[int, ...], x: Tensor) -> Tensor:
    """The multi-scale cell: blocks of three scales that end together, from 121 channels to 112."""

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        name = f"recurrent_cell.{name}"
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, 1)

    def block(scale: int, i: int, x: Tensor) -> Tensor:
        name = f"body_s{scale}_first.{i}"
        return x + conv(f"{name}.conv2", conv(f"{name}.conv1", x).relu())

    def larger(x: Tensor, factor: int) -> Tensor:
        return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)

    s1 = F.leaky_relu(conv("conv_s1_first.0", x), 0.1)
    s2 = F.leaky_relu(conv("conv_s2_first.0", s1, 2), 0.1)
    s4 = F.leaky_relu(conv("conv_s4_first.0", s2, 2), 0.1)
    most, half, quarter = blocks
    has_s2 = has_s4 = False
    for i in range(most):
        from_s2 = larger(s2, 2) if has_s2 else 0
        from_s4 = larger(s4, 4) if has_s4 else 0
        s1 = block(1, i, s1 + from_s2 + from_s4)
        if i >= most - half:
            s2 = block(2, i - most + half, s2 + (larger(s4, 2) if has_s4 else 0))
            has_s2 = True
        if i >= most - quarter:
            s4 = block(4, i - most + quarter, s4)
            has_s4 = True
    joined = torch.cat((s1, larger(s2, 2), larger(s4, 4)), dim=1)
    return conv("fusion.2", F.leaky_relu(conv("fusion.0", joined), 0.1))


def plain(net: AnimeSR, blocks: tuple[int, ...], clip: list[Tensor]) -> Tensor:
    """The cell in order: the picture and the state of each frame go into the next."""
    state = net.state_dict()
    height, width = clip[0].shape[-2:]
    padded = [F.pad(x, (0, -width % 4, 0, -height % 4), mode="replicate") for x in clip]
    b, _, h, w = padded[0].shape
    picture, hidden = torch.zeros(b, 3, 4 * h, 4 * w), torch.zeros(b, net.channels, h, w)
    pictures = []
    for t, frame in enumerate(padded):
        before, after = padded[max(t - 1, 0)], padded[min(t + 1, len(padded) - 1)]
        inputs = (before, frame, after, F.pixel_unshuffle(picture, 4), hidden)
        out = plain_cell(state, blocks, torch.cat(inputs, dim=1))
        base = F.interpolate(frame, scale_factor=4, mode="bilinear", align_corners=False)
        picture = F.pixel_shuffle(out[:, :48], 4) + base
        hidden = F.leaky_relu(out[:, 48:], 0.1)
        pictures.append(picture[..., : 4 * height, : 4 * width])
    return torch.stack(pictures, dim=1)


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("size", [(9, 5), (33, 64), (24, 28)])
def test_a_clip_is_the_cell_in_order(length: int, size: tuple[int, int]) -> None:
    net: Any = network("AnimeSR")
    clip = [
        torch.cat((a, b))
        for a, b in zip(drifting(length, *size), drifting(length, *size, seed=8), strict=True)
    ]
    want = plain(net, (3, 2, 1), clip)
    torch.testing.assert_close(net(torch.stack(clip, dim=1)), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("blocks", [(5, 3, 2), (4, 4, 4), (2, 1, 0)])
def test_blocks_of_other_counts(blocks: tuple[int, ...]) -> None:
    net: Any = fill(AnimeSR(8, blocks))
    clip = drifting(3, 12, 16)
    want = plain(net, blocks, clip)
    torch.testing.assert_close(net(torch.stack(clip, dim=1)), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("blocks", [(2, 3, 1), (3, 2)])
def test_blocks_that_do_not_end_together_are_refused(blocks: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match=r"^AnimeSR: blocks must be three counts, none above"):
        AnimeSR(8, blocks)


# TencentARC/AnimeSR 80a24bf, run in float64 on a CPU.
@pytest.mark.parametrize(
    ("channels", "blocks", "size", "want"),
    [
        (
            16,
            (3, 2, 1),
            (6, 20, 28),
            [0.54345, 0.16465, 0.66411, 0.59024, 0.62892, 0.31473, 0.40413],
        ),
        (
            8,
            (4, 4, 2),
            (5, 24, 36),
            [0.54943, 0.18207, 0.68614, 0.35316, 0.54901, 0.25931, 0.41755],
        ),
    ],
)
def test_what_the_authors_code_gives(
    channels: int, blocks: tuple[int, ...], size: tuple[int, int, int], want: list[float]
) -> None:
    net: Any = fill(AnimeSR(channels, blocks))
    got = torch.tensor(digest(net(frames(*size))))
    torch.testing.assert_close(got, torch.tensor(want), atol=2e-4, rtol=0)


def test_half_precision_keeps_the_base_in_float32() -> None:
    # Of a network that adds nothing, the picture is the bilinear enlargement, to the last bit.
    net: Any = AnimeSR(8, (1, 1, 1)).bfloat16()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    (frame,) = drifting(1, 10, 14)
    want = F.interpolate(frame, scale_factor=4, mode="bilinear", align_corners=False)
    torch.testing.assert_close(net(frame[None])[0], want, atol=1e-6, rtol=0)
