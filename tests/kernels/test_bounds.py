"""No kernel touches memory beside its arguments: they lie against pages that may not be touched."""

import ctypes
import mmap
import sys

import processor
import pytest
import torch
from torch import Tensor

from vs_vsr.kernels import deform, planes, warps

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")


def fenced(x: Tensor, *, at_end: bool) -> Tensor:
    """A copy with the same strides; beside its last byte, or its first, a read ends the process."""
    size = x.itemsize * (1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)))
    pages = -(-size // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 2) * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for fence in (start, start + (pages + 1) * mmap.PAGESIZE):
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        assert protect(ctypes.c_void_p(fence), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    offset = mmap.PAGESIZE + at_end * (pages * mmap.PAGESIZE - size)
    flat = torch.frombuffer(memory, dtype=x.dtype, count=size // x.itemsize, offset=offset)
    return flat.as_strided(x.shape, x.stride()).copy_(x)


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (deform, planes, warps):
        monkeypatch.setattr(module, "launch", processor.launch)
        monkeypatch.setattr(module, "enabled", lambda name, device: True)


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (3, 4)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_features(dtype: torch.dtype, size: tuple[int, int], at_end: bool) -> None:
    x = torch.randn(2, 8, *size, dtype=dtype).contiguous(memory_format=torch.channels_last)
    x = fenced(x, at_end=at_end)
    for wild in (0.5, -0.5, 1, -1, 3, -3, 1e9, -1e9, torch.inf, -torch.inf, torch.nan):
        flow = fenced(torch.full((2, 2, *size), wild), at_end=at_end)
        warps.warp(x, flow, padding="zeros")
        warps.warp(x, flow, padding="border")
        offsets = fenced(torch.full((2, 18, *size), wild), at_end=at_end)
        mask = fenced(torch.ones(2, 9, *size), at_end=at_end)
        weight = torch.ones(4, 8, 3, 3, dtype=dtype)
        deform.deform(x, offsets, mask, weight, torch.ones(4), 1)
        frames = fenced(torch.rand(2, 3, *size), at_end=at_end)
        warps.join(frames, frames, flow, dtype)


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("width", [1, 7, 16, 24])
@pytest.mark.parametrize(
    ("dtype", "maximum"), [(torch.uint8, 255), (torch.uint16, 1023), (torch.float32, None)]
)
def test_planes(dtype: torch.dtype, maximum: int | None, width: int, at_end: bool) -> None:
    given = [fenced(torch.ones(3, width).to(dtype), at_end=at_end) for _ in range(3)]
    picture = fenced(torch.empty(1, 3, 3, width), at_end=at_end)
    planes.unpack(given, picture, maximum)
    planes.pack(list(picture[0]), given, maximum)
