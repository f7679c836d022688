"""Compiling the kernels and launching them on torch's current stream, through CuPy."""

import re
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "CHUNK",
    "FEATURES",
    "MOST_ROWS",
    "arguments",
    "in_chunks",
    "launch",
    "macros",
    "source",
    "strides",
]

# The types of features, and how many of their channels one thread takes.
FEATURES = (torch.float16, torch.bfloat16, torch.float32)
CHUNK = 8
# Threads along y or z of one launch.
MOST_ROWS = 65535

# What a kernel's values are called in common.h.
_C_TYPES = {
    torch.uint8: "uint8",
    torch.uint16: "uint16",
    torch.float16: "half",
    torch.bfloat16: "bfloat16",
    torch.float32: "float32",
}

_FOLDER = Path(__file__).parent
_BLOCK = 256
_WARP = 32


def source(name: str) -> str:
    """The source of a kernel, with its headers pasted in.

    CuPy finds a compiled kernel again by its source, and would not see that a header changed.
    """
    text = (_FOLDER / f"{name}.cu").read_text()
    return re.sub(r'#include "(.*)"\n', lambda name: (_FOLDER / name[1]).read_text(), text)


def macros(types: dict[str, torch.dtype]) -> tuple[str, ...]:
    """What is to be defined, as "VALUE=half", so that the macros stand for these types."""
    return tuple(f"{macro}={_C_TYPES[dtype]}" for macro, dtype in types.items())


@cache
def _kernel(name: str, *macros: str) -> Any:
    import cupy

    return cupy.RawKernel(source(name), name, options=tuple(f"-D{macro}" for macro in macros))


_wrapping = threading.Lock()


@cache
def _for_cupy(stream: torch.cuda.Stream) -> Any:
    """A stream of torch's as CuPy's. Kept for good: CuPy would destroy what it forgets."""
    import cupy

    return cupy.cuda.Stream.from_external(stream)


def launch(
    name: str,
    types: dict[str, torch.dtype],
    threads: tuple[int, int, int],
    tensors: Sequence[Tensor | None],
    numbers: Sequence[int],
) -> None:
    """Launch a kernel on torch's current stream; nothing is waited for.

    It may be captured in a CUDA graph once it has run on the device, as the first run compiles and
    loads it.

    Args:
        name: The kernel, which is also its file's name.
        types: What the macros of the source, VALUE and PLANE, stand for.
        threads: Threads along x, y, z; those along y and z are at most MOST_ROWS.
        tensors: The first arguments of the source, on one CUDA device. The first is no None, which
            stands for no address.
        numbers: The other arguments.
    """
    import cupy

    assert tensors[0] is not None
    device = tensors[0].device
    kernel = _kernel(name, *macros(types))
    stream = torch.cuda.current_stream(device)
    along_x, along_y, along_z = threads
    # A row of a small picture has fewer threads than a whole block.
    block = min(_BLOCK, -(-along_x // _WARP) * _WARP)
    grid = (-(-along_x // block), along_y, along_z)
    with cupy.cuda.Device(device.index):
        # One of two that are made at once would be forgotten.
        with _wrapping:
            wrapped = _for_cupy(stream)
        with wrapped:
            kernel(grid, (block,), arguments(tensors, numbers))


def arguments(tensors: Sequence[Tensor | None], numbers: Sequence[int]) -> tuple[int, ...]:
    """Tensors as addresses, and numbers, all as int: CuPy passes these as eight bytes each."""
    addresses = (0 if tensor is None else tensor.data_ptr() for tensor in tensors)
    return (*addresses, *map(int, numbers))


def strides(x: Tensor) -> tuple[int, int, int]:
    """Of a picture, a row and a pixel of features, (B, C, H, W)."""
    return x.stride(0), x.stride(2), x.stride(3)


def in_chunks(x: Tensor) -> Tensor:
    """Features, (B, C, H, W), whose runs of 8 channels can be read at once: `x` if it is so."""
    used = (x.stride(axis) for axis in (0, 2, 3) if x.shape[axis] > 1)
    if x.stride(1) == 1 and not any(stride % CHUNK for stride in used) and x.data_ptr() % 16 == 0:
        return x
    return x.clone(memory_format=torch.channels_last)
