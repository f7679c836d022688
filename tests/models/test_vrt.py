"""VRT: the reference's numbers and names, tiles, odd sizes, and its parts read plainly."""

import json
import math
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vs_vsr.errors import ArgumentError, ShapeError
from vs_vsr.models import vrt, vrt_attention, vrt_tiles
from vs_vsr.models.sampling import nearest4_warp
from vs_vsr.models.spynet import SPyNet
from vs_vsr.models.vrt import VRT
from vs_vsr.models.vrt_attention import Block, BlockGroup, Windows

ROUNDINGS = (math.floor, math.ceil)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def constructed(constructor: dict[str, Any]) -> VRT:
    return VRT(
        upscale=constructor["upscale"],
        window=tuple(constructor["window_size"]),
        depths=constructor["depths"],
        widths=constructor["embed_dims"],
        heads=constructor["num_heads"],
        independent=constructor["indep_reconsts"],
        pa_frames=constructor["pa_frames"],
        groups=constructor["deformable_groups"],
        denoising=constructor.get("nonblind_denoising", False),
        frames=constructor["img_size"][0],
    )


def small(**arguments: Any) -> VRT:
    """A seeded network of two blocks a stage; flows and offsets are large enough to matter."""
    given: dict[str, Any] = {"upscale": 1, "window": (4, 8, 8), "groups": 6, **arguments}
    torch.manual_seed(5)
    model = VRT(depths=[2] * 9, widths=[24] * 7 + [12] * 2, heads=[3] * 9, independent=[8], **given)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "spynet" in name and ".8." in name:
                parameter.mul_(20)
            if name.endswith("bias_table"):
                parameter.mul_(20)
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def clip(frames: int, height: int = 64, width: int = 64, batch: int = 1) -> Tensor:
    coarse = torch.rand(batch * frames, 3, height // 8 + 1, width // 8 + 1)
    fine = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    # Grain, so that no two rows or columns are the same.
    fine += 0.1 * torch.rand_like(fine)
    return torch.unflatten(fine, 0, (batch, frames))


@pytest.mark.slow
def test_the_reference_result(shared: Path) -> None:
    found = 0
    for meta_file in sorted((shared / "parity").glob("vrt_*/meta.json")):
        meta = json.loads(meta_file.read_text())
        model = constructed(meta["constructor"]).eval()
        state = torch.load(meta_file.with_name("checkpoint.pth"), weights_only=True)
        model.load_state_dict(state.get("params", state), strict=True)
        with np.load(meta_file.with_name("io.npz")) as dump:
            x, want = torch.from_numpy(dump["input"]), dump["output"]
        options = meta["options"]
        if "tile" in options:
            y = model.tiled(
                x, tile=options["tile"], overlap=options["tile_overlap"], sigma=options.get("sigma")
            )
        else:
            y = model(x, options.get("sigma"))
        error = np.abs(y.numpy() - want).max()
        limit = max(1e-4, 4 * meta["float32_error"]["max"])
        assert error <= limit, f"{meta['name']}: off by {error:.2e}, limit {limit:.2e}"
        found += 1
    assert found, "the folder has no case of VRT"


@pytest.mark.slow
def test_names_and_shapes_of_every_released_file(shared: Path) -> None:
    files = sorted((shared / "keys").glob("vrt_*.json"))
    assert len(files) == 9
    for file in files:
        listed = json.loads(file.read_text())
        with torch.device("meta"):
            state = constructed(listed["constructor"]).state_dict()
        assert {name: list(value.shape) for name, value in state.items()} == listed["keys"]


@pytest.mark.slow
def test_state_goes_out_and_in() -> None:
    state = small(upscale=4).state_dict()
    assert state["conv_first.weight"].shape == (24, 27, 1, 3, 3)
    other = small(upscale=4)
    other.conv_first.weight.zero_()
    other.load_state_dict(state, strict=True)
    x = clip(2)
    assert torch.equal(small(upscale=4)(x), other(x))


@pytest.mark.slow
@pytest.mark.parametrize("pa_frames", [2, 4, 6])
def test_a_clip_too_short_repeats_its_last_frame(pa_frames: int) -> None:
    model, least = small(pa_frames=pa_frames), pa_frames // 2 + 1
    x = clip(least - 1)
    y = model(x)
    assert y.shape == x.shape
    longer = torch.cat((x, x[:, -1:]), dim=1)
    torch.testing.assert_close(y, model(longer)[:, :-1], atol=1e-6, rtol=0)
    assert model(x[:, :1]).shape == x[:, :1].shape


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 61), (70, 64), (9, 5)])
def test_odd_sizes_are_mirrored(size: tuple[int, int]) -> None:
    model, (height, width) = small(upscale=4), size
    x = clip(2, *size)
    wanted = [max(64, -(-n // 8) * 8) for n in size]
    # numpy's "symmetric" repeats the last row and column.
    pads = [(0, 0)] * 3 + [(0, w - n) for n, w in zip(size, wanted, strict=True)]
    padded = torch.from_numpy(np.pad(x.numpy(), pads, mode="symmetric"))
    y = model(x)
    assert y.shape == (1, 2, 3, 4 * height, 4 * width)
    want = model(padded)[..., : 4 * height, : 4 * width]
    torch.testing.assert_close(y, want, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_pictures_of_a_batch_do_not_meet() -> None:
    model, x = small(pa_frames=4, upscale=4), clip(3, 64, 72, batch=2)
    torch.testing.assert_close(model(x)[1:], model(x[1:]), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_noise_level() -> None:
    model, x = small(denoising=True), clip(2)
    assert not torch.allclose(model(x, 10), model(x, 40), atol=1e-4)
    # The last input of the first convolution is the map, sigma/255 everywhere: through the middle
    # of the kernel alone it is a bias.
    plain = small()
    state = model.state_dict()
    weight = state["conv_first.weight"]
    middle = weight[:, 27, 0, 1, 1].clone()
    weight[:, 27] = 0
    weight[:, 27, 0, 1, 1] = middle
    model.load_state_dict(state)
    bias = state["conv_first.bias"] + middle * 51 / 255
    plain.load_state_dict(
        {**state, "conv_first.weight": weight[:, :27], "conv_first.bias": bias}, strict=True
    )
    torch.testing.assert_close(model(x, 51), plain(x), atol=1e-5, rtol=0)
    for bad in (None, -1.0, math.nan, math.inf):
        with pytest.raises(ArgumentError, match=f"sigma must be a noise level .*, got {bad}"):
            model(x, bad)
    with pytest.raises(
        ArgumentError, match=r"^VRT: sigma is for networks that denoise only, got 10\. Leave"
    ):
        plain(x, 10)


@pytest.mark.slow
def test_interpolation() -> None:
    model, x = small(pa_frames=0), clip(4, 66, 61)
    y = model(x)
    assert y.shape == (1, 1, 3, 66, 61)
    # The mean of each channel goes through untouched.
    by = torch.tensor([0.1, -0.2, 0.3]).view(1, 1, 3, 1, 1)
    torch.testing.assert_close(model(x + by), y + by, atol=1e-5, rtol=0)
    tiled = model.tiled(x, tile=(0, 0, 0), overlap=(0, 0, 0))
    assert torch.equal(tiled, y)
    assert model.tiled(x, tile=(4, 64, 64), overlap=(0, 8, 8)).shape == y.shape
    for frames in (3, 5):
        with pytest.raises(ShapeError, match=r"\(B, 4, 3, H, W\) to interpolate, got \(1, "):
            model(clip(frames))


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 0, 3, 64, 64), (1, 2, 4, 64, 64)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"frames must be \(B, T, 3, H, W\), got \("):
        small()(torch.zeros(shape))


@pytest.mark.slow
def test_bfloat16_stays_near() -> None:
    x = clip(3)
    want = small(upscale=4)(x)
    model = small(upscale=4).to(torch.bfloat16)
    y = model(x)
    assert y.dtype == torch.float32
    # Three digits, through some twenty blocks; nearest4 may read other pixels.
    assert (y - want).abs().mean() < 0.02 * want.std()


@pytest.mark.slow
def test_one_tile_is_the_whole() -> None:
    model, x = small(upscale=4), clip(4)
    whole = model(x)
    for tile in ((4, 64, 64), (9, 128, 128), (0, 0, 0)):
        assert torch.equal(model.tiled(x, tile=tile, overlap=(2, 20, 20)), whole)
    assert torch.equal(model.in_space(x, tile=64, overlap=20), whole)


@pytest.mark.slow
def test_clips_are_averaged_where_they_overlap() -> None:
    model, x = small(), clip(6)
    y = model.tiled(x, tile=(3, 0, 0), overlap=(1, 0, 0))
    # 0 1 2, 2 3 4 and, ending with the clip, 3 4 5.
    parts = {start: model(x[:, start : start + 3]) for start in (0, 2, 3)}
    for t in range(6):
        seen = [part[:, t - start] for start, part in parts.items() if start <= t < start + 3]
        torch.testing.assert_close(y[:, t], torch.stack(seen).mean(0), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("frames", "order"), [(3, [0, 1, 2, 2]), (5, [0, 1, 2, 3, 4, 4, 3, 2]), (1, [0, 0])]
)
def test_a_whole_clip_is_mirrored_to_whole_windows(frames: int, order: list[int]) -> None:
    given = []

    def restore(part: Tensor) -> Tensor:
        given.append(part.flatten().int().tolist())
        return part

    x = torch.arange(frames).float().view(1, -1, 1, 1, 1)
    y = vrt_tiles.in_time(restore, x, tile=0, overlap=0, multiple=4)
    assert given == [order]
    assert torch.equal(y, x)


@pytest.mark.parametrize("overlap", [0, 4, 5])
@pytest.mark.parametrize("scale", [1, 4])
def test_neighbours_give_up_half_the_overlap(overlap: int, scale: int) -> None:
    """Each tile writes its own number: the blend is counted pixel by pixel, in plain loops."""
    height, width, tile = 30, 16, 16
    rows = [*range(0, height - tile, tile - overlap), height - tile]
    total, times = np.zeros((2, scale * height, scale * width))
    for i, top in enumerate(rows):
        first = scale * top + (overlap // 2 if i else 0)
        last = scale * (top + tile) - (-(-overlap // 2) if i < len(rows) - 1 else 0)
        total[first:last] += i + 1
        times[first:last] += 1
    assert times.min() > 0
    numbers = iter(range(1, 10))

    def restore(part: Tensor) -> Tensor:
        assert part.shape[-2:] == (tile, tile)
        return torch.full((1, 1, 3, scale * tile, scale * tile), float(next(numbers)))

    y = vrt_tiles.in_space(
        restore, torch.zeros(1, 1, 3, height, width), tile=tile, overlap=overlap, scale=scale
    )
    np.testing.assert_allclose(y[0, 0, 0].numpy(), total / times, rtol=1e-6)


@pytest.mark.slow
def test_tiles_in_space_and_time() -> None:
    model, x = small(upscale=4), clip(4, 64, 88)
    y = model.tiled(x, tile=(3, 64, 64), overlap=(2, 20, 20))
    assert y.shape == (1, 4, 3, 256, 352)
    left, right = (model(x[:, :3, ..., at : at + 64]) for at in (0, 24))
    # Frame 0 is of the first clip only; column 99 = 4*24 + 3 of the left tile, 300 of the right.
    torch.testing.assert_close(y[:, 0, ..., :99], left[:, 0, ..., :99], atol=1e-6, rtol=0)
    torch.testing.assert_close(y[:, 0, ..., 300:], right[:, 0, ..., 204:], atol=1e-6, rtol=0)
    both = (left[:, 0, ..., 150] + right[:, 0, ..., 54]) / 2
    torch.testing.assert_close(y[:, 0, ..., 150], both, atol=1e-6, rtol=0)


def test_tiles_that_do_not_move_are_refused() -> None:
    model, x = small(), clip(2)
    with pytest.raises(ArgumentError, match=r"less than tile \(8\), got 8"):
        model.in_space(x, tile=8, overlap=8)
    with pytest.raises(ArgumentError, match=r"less than tile \(2\), got -1"):
        model.tiled(x, tile=(2, 0, 0), overlap=(-1, 0, 0))
    with pytest.raises(ArgumentError, match=r"tile must be 0 or more, got -8"):
        model.in_space(x, tile=-8, overlap=0)


def test_nearest4_reads_four_pixels() -> None:
    x = torch.randn(2, 3, 5, 7)
    flow = 3 * torch.randn(2, 2, 5, 7)
    flow[:, :, 2] = flow[:, :, 2].round()
    flow[0, :, 0, 0] = 1e9
    y = nearest4_warp(x, flow)
    assert y.shape == (2, 12, 5, 7)
    want = torch.zeros_like(y)
    for b in range(2):
        for row in range(5):
            for column in range(7):
                across = float(column + flow[b, 0, row, column])
                down = float(row + flow[b, 1, row, column])
                places = [(f(across), g(down)) for f in ROUNDINGS for g in ROUNDINGS]
                for k, (i, j) in enumerate(places):
                    if 0 <= i < 7 and 0 <= j < 5:
                        want[b, 3 * k : 3 * k + 3, row, column] = x[b, :, j, i]
    assert torch.equal(y, want)


def test_flows_of_every_size() -> None:
    spynet = SPyNet()
    one, other = torch.rand(2, 3, 72, 64), torch.rand(2, 3, 72, 64)
    flows = spynet.scales(one, other, 4)
    assert [f.shape[-2:] for f in flows] == [(72, 64), (36, 32), (18, 16), (9, 8)]
    assert torch.equal(flows[0], spynet(one, other))
    # Each smaller flow is that of its level: the finest ones, cut off, leave it as it is.
    for level in spynet.basic_module[-2:]:
        for parameter in level.parameters():
            parameter.zero_()
    again = spynet.scales(one, other, 4)
    assert torch.equal(again[2], flows[2])
    assert not torch.allclose(again[1], flows[1])


def test_nearest4_reads_beside_a_whole_number() -> None:
    # In float32 the place of pixel 40 and this flow round to 41, whose neighbours are itself.
    x = torch.rand(1, 3, 64, 64)
    flow = torch.full((1, 2, 64, 64), 1 - 2**-24)
    y = nearest4_warp(x, flow).unflatten(1, (4, 3))[0, :, :, 40, 40]
    assert torch.equal(y, torch.stack([x[0, :, 40 + j, 40 + i] for i in (0, 1) for j in (0, 1)]))


@pytest.mark.slow
def test_pixels_are_those_of_exact_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = small(), clip(3)
    exact = deepcopy(model.spynet).double()
    want = [exact(x[:, i], x[:, j]) for i, j in ((0, 1), (1, 2), (1, 0), (2, 1))]
    seen: list[Tensor] = []

    def noted(frame: Tensor, flow: Tensor) -> Tensor:
        seen.append(flow)
        return nearest4_warp(frame, flow)

    monkeypatch.setattr(vrt, "nearest4_warp", noted)
    assert model(x).dtype == torch.float32
    assert len(seen) == len(want)
    for flow in want:
        assert flow.dtype == torch.float64
        assert any((flow - other).abs().max() < 1e-12 for other in seen)
    assert next(model.spynet.parameters()).dtype == torch.float32


def test_flows_over_several_frames() -> None:
    """Moves that differ by pair add up over two and three frames."""
    model, moves = small(pa_frames=6), torch.tensor([1.0, 2.0, 4.0, 8.0])
    directions: tuple[Literal[1], Literal[-1]] = (1, -1)
    for sign in directions:
        flows = (sign * moves).view(1, -1, 1, 1, 1).expand(1, -1, 2, 64, 64)
        for distance, flow in enumerate(model._chains([flows], sign)[0], start=1):
            centre = flow[0, :, 0, 32, 32].tolist()
            sums = [sign * moves[t : t + distance].sum().item() for t in range(5 - distance)]
            assert centre == sums


def regions(size: tuple[int, ...], windows: Windows) -> Tensor:
    """For each token of the moved, padded clip the region it came from, as the paper's code."""
    padded = [c * n for c, n in zip(windows.counts, windows.window, strict=True)]
    labels = torch.zeros(padded)
    for axis, (n, window, shift) in enumerate(
        zip(padded, windows.window, windows.shift, strict=True)
    ):
        if shift:
            labels.narrow(axis, n - window, window - shift).add_(10**axis)
            labels.narrow(axis, n - shift, shift).add_(2 * 10**axis)
    return labels


def plain_attention(block: Block, x: Tensor, windows: Windows) -> Tensor:
    """Attention of one window after another, with whole matrices and softmax."""
    attn, (t, h, w), (wt, wh, ww) = block.attn, x.shape[1:4], windows.window
    padded = [c * n for c, n in zip(windows.counts, windows.window, strict=True)]
    y = x.new_zeros(1, *padded, x.shape[-1])
    y[:, :t, :h, :w] = block.norm1(x)
    y = y.roll([-s for s in windows.shift], (1, 2, 3))
    labels = regions((t, h, w), windows)
    out = torch.empty_like(y)
    count = wt * wh * ww
    index = attn.relative_position_index[:count, :count]
    bias = attn.relative_position_bias_table[index].permute(2, 0, 1)

    def attend(q: Tensor, k: Tensor, v: Tensor, added: Tensor) -> Tensor:
        q, k, v = (z.unflatten(-1, (attn.heads, -1)).transpose(0, 1) for z in (q, k, v))
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5 + added
        out: Tensor = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        return out

    for i in range(0, padded[0], wt):
        for j in range(0, padded[1], wh):
            for k in range(0, padded[2], ww):
                place = (slice(i, i + wt), slice(j, j + wh), slice(k, k + ww))
                tokens = y[0][place].flatten(0, 2)
                side = labels[place].flatten()
                mask = torch.where(side[:, None] == side, 0.0, -100.0)
                all_q, all_k, all_v = attn.qkv_self(tokens).chunk(3, -1)
                result = attend(all_q, all_k, all_v, bias + mask)
                if attn.mutual:
                    half = count // 2
                    seen = attn.qkv_mut(tokens + attn.position_bias[0].repeat(2, 1))
                    (q1, q2), (k1, k2), (v1, v2) = (z.split(half) for z in seen.chunk(3, -1))
                    inner = mask[:half, :half]
                    other = [attend(q2, k1, v1, inner), attend(q1, k2, v2, inner)]
                    result = torch.cat((torch.cat(other), result), dim=-1)
                out[0][place] = attn.proj(result).view(wt, wh, ww, -1)
    return out.roll(windows.shift, (1, 2, 3))[:, :t, :h, :w]


@pytest.mark.parametrize("slice_tokens", [1, 300, 1 << 20])
@pytest.mark.parametrize("mutual", [True, False])
@pytest.mark.parametrize("size", [(5, 12, 11), (2, 8, 12), (3, 9, 4)])
def test_blocks_in_windows(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int, int], mutual: bool, slice_tokens: int
) -> None:
    monkeypatch.setitem(vrt_attention._SLICE_TOKENS, "cpu", slice_tokens)
    window = (2 if mutual else 4, 4, 4)
    group = BlockGroup(12, 2, window, 3, mutual=mutual)
    blocks: Any = group.blocks
    for block in blocks:
        block.attn.relative_position_bias_table.normal_()
    x = torch.randn(1, *size, 12)
    want = x
    for block, shift in zip(blocks, ((0, 0, 0), (window[0] // 2, 2, 2)), strict=True):
        windows = Windows.of(size, window, shift, x)
        want = want + plain_attention(block, want, windows)
        hidden = block.norm2(want)
        gate = 0.5 * block.mlp.fc11(hidden)
        gate = gate * (1 + torch.erf(gate * 2**0.5))
        want = want + block.mlp.fc2(gate * block.mlp.fc12(hidden))
    torch.testing.assert_close(group(x), want, atol=1e-5, rtol=0)


def test_windows_shrink_to_a_small_clip() -> None:
    like = torch.zeros(1)
    windows = Windows.of((3, 8, 9), (6, 8, 8), (3, 4, 4), like)
    assert windows.window == (3, 8, 8)
    assert windows.shift == (0, 0, 4)
    assert windows.counts == (1, 1, 2)
    assert [mask is None for _, mask in windows.boxes] == [True, False]
