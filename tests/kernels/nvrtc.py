"""NVRTC without a GPU: what it makes of a kernel for an architecture, and what ptxas says of it."""

import ctypes
from ctypes.util import find_library
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest


class Compiled(NamedTuple):
    """A kernel in PTX or in machine code, and the compiler's words."""

    code: bytes
    log: str


@cache
def _library() -> ctypes.CDLL:
    # torch brings it for Linux, where pip put it; else where the system's loader finds it.
    package = find_spec("nvidia")
    folders = [Path(folder) for folder in (package and package.submodule_search_locations) or ()]
    paths = [path for folder in folders for path in folder.rglob("libnvrtc.so.*")]
    name = str(paths[0]) if paths else find_library("nvrtc")
    if name is None:
        pytest.skip("no NVRTC to compile the kernels for a GPU")
    return ctypes.CDLL(name)


def compile(source: str, *options: str) -> Compiled:
    """Compile, for `-arch=compute_N` to PTX, for `-arch=sm_N` to machine code."""
    nvrtc = _library()
    program = ctypes.c_void_p()
    made = nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None
    )
    assert made == 0
    texts = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    error = nvrtc.nvrtcCompileProgram(program, len(options), texts)
    log = _text(program, "ProgramLog").decode()
    assert error == 0, log
    kind = "PTX" if any("compute_" in option for option in options) else "CUBIN"
    compiled = Compiled(_text(program, kind), log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return compiled


def _text(program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    assert getattr(_library(), f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    text = ctypes.create_string_buffer(size.value)
    assert getattr(_library(), f"nvrtcGet{what}")(program, text) == 0
    return text.raw.rstrip(b"\0") if what != "CUBIN" else text.raw
