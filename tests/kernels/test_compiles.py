"""Every kernel compiles for every GPU: nothing spilled, and read and written in wide pieces."""

import re
from collections import Counter
from functools import cache
from itertools import product

import nvrtc
import pytest

from vs_vsr.kernels import selection
from vs_vsr.kernels.launch import source

VALUES = ["half", "bfloat16", "float32"]
PLANES = ["uint8", "uint16", "half", "float32"]
VARIANTS = [
    *product(("warp", "spynet", "deform"), VALUES, (None,)),
    *product(("unpack",), (None,), PLANES),
    *product(("pack",), VALUES, PLANES),
]
# Turing, Ampere (A100 and others), Ada, Hopper, Blackwell (B200 and others).
ARCHITECTURES = [75, 80, 86, 89, 90, 100, 120]
BYTES = {"uint8": 1, "uint16": 2, "half": 2, "bfloat16": 2, "float32": 4}


def options(value: str | None, plane: str | None) -> tuple[str, ...]:
    """As vs_vsr.kernels.launch and CuPy give them."""
    macros = [("VALUE", value), ("PLANE", plane)]
    defines = (f"-D{macro}={name}" for macro, name in macros if name)
    return (*defines, "-std=c++17", "-ftz=true", "--device-as-default-execution-space")


@cache
def ptx(name: str, value: str | None, plane: str | None) -> str:
    compiled = nvrtc.compile(source(name), "-arch=compute_90", *options(value, plane))
    return compiled.code.decode()


def accesses(text: str) -> Counter[tuple[str, int]]:
    """How often global memory is loaded or stored ("ld" or "st") in pieces of so many bytes."""
    pattern = r"\b(ld|st)\.global(?:\.nc)?(?:\.L\w+)*(?:\.v(\d))?\.[busf](\d+)"
    return Counter(
        (kind, int(wide or 1) * int(bits) // 8) for kind, wide, bits in re.findall(pattern, text)
    )


def test_all_kernels_are_here() -> None:
    assert {name for name, _, _ in VARIANTS} == selection.KERNELS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "name", "value", "plane"),
    [
        (architecture, *variant)
        for architecture, variant in product(ARCHITECTURES, VARIANTS)
        # One type stands for all, but on one architecture.
        if architecture == 90 or variant[1] in ("half", None)
    ],
)
def test_nothing_is_spilled(
    architecture: int, name: str, value: str | None, plane: str | None
) -> None:
    arch = f"-arch=sm_{architecture}"
    log = nvrtc.compile(source(name), arch, "-Xptxas=-v", *options(value, plane)).log
    assert re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", log) == ["0"] * 3
    registers = re.search(r"Used (\d+) registers", log)
    # With 64 a multiprocessor of 65,536 runs 1,024 threads, four blocks.
    assert registers and int(registers[1]) <= 64
    assert "warning" not in log


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", ["warp", "deform"])
def test_features_are_read_and_written_16_bytes_at_a_time(name: str, value: str) -> None:
    found = accesses(ptx(name, value, None))
    pieces = 8 * BYTES[value] // 16
    # Four corners; besides these, two numbers of the flow or two offsets and a mask, 4 bytes each.
    assert found == {("ld", 16): 4 * pieces, ("ld", 4): 2 + (name == "deform"), ("st", 16): pieces}


@pytest.mark.parametrize("value", VALUES)
def test_what_spynet_sees_is_written_16_bytes_at_a_time(value: str) -> None:
    found = accesses(ptx("spynet", value, None))
    assert found == {("ld", 4): 2 + 3 + 4 * 3, ("st", 16): 8 * BYTES[value] // 16}


@pytest.mark.parametrize(
    ("name", "value", "plane"), [each for each in VARIANTS if each[0] in ("pack", "unpack")]
)
def test_planes_are_read_and_written_in_wide_pieces(
    name: str, value: str | None, plane: str
) -> None:
    text = ptx(name, value, plane)
    sizes = {"ld": 8 * BYTES[plane], "st": 8 * 4}
    if value:
        sizes = {"ld": 8 * BYTES[value], "st": 8 * BYTES[plane]}
    for kind, size in sizes.items():
        found = {piece: n for (k, piece), n in accesses(text).items() if piece > 4 and k == kind}
        assert found == {min(size, 16): max(1, size // 16)}


@pytest.mark.parametrize(("name", "value", "plane"), VARIANTS)
def test_nothing_slow_in_every_thread(name: str, value: str | None, plane: str | None) -> None:
    text = ptx(name, value, plane)
    # Local memory, float64, calls, and divisions of 64-bit integers.
    assert not re.search(r"\.local|\.f64|\bcall\b|\b(div|rem)\.[su]64", text)
