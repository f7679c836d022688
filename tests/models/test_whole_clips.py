"""Whole clips of any length against plain readings of the references' loops."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import drifting, small_network
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import network
from torch import Tensor

from vs_vsr.errors import ShapeError
from vs_vsr.models.layers import upsampled
from vs_vsr.models.sampling import flow_warp


def plain_iconvsr(model: Any, frames: list[Tensor], stride: int) -> Tensor:
    """The clip padded once in time, keyframes every `stride` and the last, two loops."""
    t, p = len(frames), model.temporal_padding
    padded = [
        *(frames[i] for i in range(2 * p, p, -1)),
        *frames,
        *(frames[i] for i in range(t - 2 - p, t - 2 - 2 * p, -1)),
    ]
    keys = {*range(0, t, stride), t - 1}
    refill = {k: model.edvr(torch.stack(padded[k : k + 2 * p + 1], dim=1)) for k in keys}
    blank = torch.zeros(1, model.channels, *frames[0].shape[-2:])
    past: list[Tensor] = [blank] * t
    feature = blank
    for i in reversed(range(t)):
        if i < t - 1:
            feature = flow_warp(feature, model.spynet(frames[i], frames[i + 1]))
        if i in keys:
            feature = model.backward_fusion(torch.cat((feature, refill[i]), dim=1))
        feature = past[i] = model.backward_trunk(torch.cat((frames[i], feature), dim=1))
    feature, pictures = blank, []
    for i in range(t):
        if i > 0:
            feature = flow_warp(feature, model.spynet(frames[i], frames[i - 1]))
        if i in keys:
            feature = model.forward_fusion(torch.cat((feature, refill[i]), dim=1))
        feature = model.forward_trunk(torch.cat((frames[i], past[i], feature), dim=1))
        base = upsampled(frames[i], 4)
        out = torch.empty_like(base)
        model.upsampler(feature, base, out.unbind(1))
        pictures.append(out)
    return torch.stack(pictures, dim=1)


def plain_basicvsr(model: Any, frames: list[Tensor]) -> Tensor:
    """Two loops, and the features of both fused."""
    blank = torch.zeros(len(frames[0]), model.channels, *frames[0].shape[-2:])
    backward: list[Tensor] = []
    feature = blank
    for i in reversed(range(len(frames))):
        if backward:
            feature = flow_warp(feature, model.spynet(frames[i], frames[i + 1]))
        feature = model.backward_trunk(torch.cat((frames[i], feature), dim=1))
        backward.insert(0, feature)
    feature, pictures = blank, []
    for i, frame in enumerate(frames):
        if i > 0:
            feature = flow_warp(feature, model.spynet(frame, frames[i - 1]))
        feature = model.forward_trunk(torch.cat((frame, feature), dim=1))
        fused = model.fusion(torch.cat((backward[i], feature), dim=1))
        base = upsampled(frame, 4)
        out = torch.empty_like(base)
        model.upsampler(F.leaky_relu(fused, 0.1), base, out.unbind(1))
        pictures.append(out)
    return torch.stack(pictures, dim=1)


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("size", [(9, 5), (33, 64), (50, 78)])
def test_basicvsr_of_any_size_and_length(length: int, size: tuple[int, int]) -> None:
    model = network("BasicVSR")
    frames = [
        torch.cat(pair)
        for pair in zip(drifting(length, *size), drifting(length, *size, seed=5), strict=True)
    ]
    want = plain_basicvsr(model, frames)
    torch.testing.assert_close(model(torch.stack(frames, dim=1)), want, atol=1e-5, rtol=0)


@pytest.mark.slow
@settings(max_examples=6)
@given(st.sampled_from(["IconVSR", "IconVSR Vimeo"]), st.integers(7, 16), st.integers(1, 9))
def test_iconvsr_of_any_length_and_stride(name: str, length: int, stride: int) -> None:
    with torch.inference_mode():
        model: Any = network(name)
        model.keyframe_stride = stride
        frames = drifting(length, 24, 28)
        got = model(torch.stack(frames, dim=1))
        want = plain_iconvsr(model, frames, stride)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def official(index: int, length: int, padding: str) -> list[int]:
    """The window of five around a frame, as the official tests number it."""
    found = []
    for i in range(index - 2, index + 3):
        if i < 0:
            found.append(0 if padding == "replicate" else index + 2 - i)
        elif i >= length:
            last = length - 1
            found.append(last if padding == "replicate" else index - 2 - (i - last))
        else:
            found.append(i)
    return found


@pytest.mark.slow
@settings(max_examples=6)
@given(st.sampled_from(["EDVR", "EDVR deblur"]), st.integers(5, 12), st.booleans())
def test_edvr_of_any_length(name: str, length: int, other: bool) -> None:
    with torch.inference_mode():
        model: Any = network(name)
        if other:
            both = {"replicate", "reflection_circle"}
            (model.padding,) = both - {model.padding}
        frames = drifting(length, 32, 48)
        got = model(torch.stack(frames, dim=1))
        for i in range(length):
            window = [frames[k] for k in official(i, length, model.padding)]
            want = model.window(torch.stack(window, dim=1))
            torch.testing.assert_close(got[:, i], want, atol=1e-6, rtol=0)


# A long clip of VRT takes minutes here.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "length"),
    [
        *((name, n) for name in ("IconVSR", "EDVR", "RealBasicVSR", "BasicVSRPP") for n in (1, 40)),
        *(("VRT deblur", n) for n in (1, 2)),
    ],
)
def test_the_shortest_and_a_long_clip(name: str, length: int) -> None:
    model: Any = network(name)
    size = (64, 64) if name.startswith("VRT") else (16, 20)
    frames = torch.stack(drifting(length, *size), dim=1)
    pictures = model(frames)
    assert pictures.shape == (1, length, 3, model.scale * size[0], model.scale * size[1])
    assert pictures.isfinite().all()


NAMES = ["BasicVSR", "IconVSR", "EDVR", "RealBasicVSR", "BasicVSRPP", "VRT deblur"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_clip_is_refused(name: str) -> None:
    model: Any = small_network() if name == "BasicVSR" else network(name)
    for shape in ((3, 8, 8), (1, 0, 3, 8, 8), (1, 5, 4, 8, 8), (0, 5, 3, 8, 8), (1, 5, 3, 0, 8)):
        with pytest.raises(ShapeError, match=r"frames must be \(B, T, 3, H, W\), got \("):
            model(torch.zeros(shape))
    with pytest.raises(ShapeError, match=r"frames must be float32 in \[0, 1\], got torch\.uint8"):
        model(torch.zeros(1, 5, 3, 8, 8, dtype=torch.uint8))
    frames = torch.full((1, 5, 3, 8, 8), 0.5)
    frames[0, 4, 2, 7, 7] = 200
    begin = f"^{name.split()[0]}: frames must be "
    with pytest.raises(ShapeError, match=rf"{begin}.*, got values up to 200\. Divide by the great"):
        model(frames)
    for other, kind in ((frames.numpy(), "numpy.ndarray"), ([frames], "list"), (None, "NoneType")):
        with pytest.raises(ShapeError, match=rf"{begin}a torch\.Tensor, got {kind}\. Make one: "):
            model(other)


def test_what_a_resize_leaves_beyond_the_range_is_taken() -> None:
    frames = torch.stack(drifting(2, 16, 20), dim=1) * 1.4 - 0.2
    assert frames.amax() > 1 and frames.amin() < 0
    pictures = small_network()(frames)
    # Pictures are not clamped either.
    assert pictures.amax() > 1 or pictures.amin() < 0


def test_a_chunk_is_checked_like_a_clip() -> None:
    with pytest.raises(ShapeError, match=r"^BasicVSR: frames must be float32 .*torch\.uint8\. Div"):
        small_network().stream(torch.zeros(1, 5, 3, 8, 8, dtype=torch.uint8), lookahead=1)


def test_a_window_has_the_networks_length() -> None:
    model: Any = network("EDVR")
    with pytest.raises(ShapeError, match=r"^EDVR: frames must be \(B, 5, 3, H, W\), got \(1, 4,"):
        model.window(torch.zeros(1, 4, 3, 8, 8))
    with pytest.raises(ShapeError, match=r"^EDVR: frames must be float32 in \[0, 1\], got values"):
        model.window(torch.full((1, 5, 3, 8, 8), 255.0))
