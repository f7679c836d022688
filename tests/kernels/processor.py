"""The kernels on a processor: their very lines, compiled by the C compiler."""

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vs_vsr.kernels import launch as launching

# A fault that the sanitizer finds (a misaligned wide read, a float that no int holds) ends the run.
FLAGS = [
    *("-x", "c", "-std=c11", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"),
    *("-fsanitize=undefined,float-cast-overflow", "-fsanitize-undefined-trap-on-error"),
    "-fno-strict-aliasing",
]


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="kernels")


@cache
def library(name: str, macros: tuple[str, ...]) -> ctypes.CDLL:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler to build the kernels for a processor")
    path = Path(_folder().name, "-".join((name, *macros)) + ".so")
    defines = [f"-D{macro}" for macro in macros]
    subprocess.run(
        [compiler, *FLAGS, *defines, "-o", str(path), "-", "-lm"],
        input=launching.source(name).encode(),
        check=True,
    )
    return ctypes.CDLL(str(path))


def parameters(name: str) -> list[str]:
    """What the source declares, as "const float *RESTRICT flow"."""
    found = re.search(rf"KERNEL {name}\((.*?)\)", launching.source(name), re.DOTALL)
    assert found
    return [" ".join(text.split()) for text in found[1].split(",")]


def launch(
    name: str,
    types: dict[str, torch.dtype],
    threads: tuple[int, int, int],
    tensors: Sequence[Tensor | None],
    numbers: Sequence[int],
) -> None:
    """As launch.launch, and sure that the launch fits the source."""
    addresses = [True] * len(tensors) + [False] * len(numbers)
    assert ["*" in declared for declared in parameters(name)] == addresses
    assert max(threads[1:]) <= launching.MOST_ROWS
    kernels = library(name, launching.macros(types))
    getattr(kernels, name)(*map(ctypes.c_longlong, launching.arguments(tensors, numbers)))
    assert threads == tuple((ctypes.c_longlong * 3).in_dll(kernels, "threads"))
