"""Types of `core.vsr` as vsstubs writes them from the plugin, over an example script."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import vapoursynth as vs
from conftest import environment

pytestmark = pytest.mark.slow
pytest.importorskip("vsstubs")

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "typed.py"
# What must be known of the filters, and what must be refused.
ASKED = """
from typing import assert_type

clip = core.std.BlankClip()
assert_type(core.vsr.BasicVSR(clip, "reds4", chunk=10, prefetch=True), vs.VideoNode)
assert_type(clip.vsr.VRT("denoise", sigma=25), vs.VideoNode)
core.vsr.BasicVSR(clip, chunks=10)  # type: ignore[call-arg]
core.vsr.BasicVSR(clip, chunk="10")  # type: ignore[arg-type]
core.vsr.EDVR(clip, lookahead=2)  # type: ignore[call-arg]
core.vsr.BasicVSR()  # type: ignore[call-arg]
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stubs") / "vapoursynth.pyi"
    command = [sys.executable, "-m", "vsstubs", "--output", str(path)]
    subprocess.run(command, check=True, capture_output=True, env=environment())
    return path


def test_every_filter_and_argument_has_a_type(stubs: Path) -> None:
    text = stubs.read_text().partition("# <implementation/vsr>")[2]
    for function in vs.core.vsr.functions():
        (line, *_) = [x for x in text.splitlines() if f"def {function.name}(self" in x]
        for argument in filter(None, function.signature.split(";")):
            name, kind, *_ = argument.split(":")
            types = {"vnode": "VideoNode", "data": "_AnyStr", "int": "_IntLike"}
            assert f"{name}: {types.get(kind, '_FloatLike')}" in line


def test_a_type_checker_understands_the_example_and_refuses_mistakes(
    stubs: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(EXAMPLE.read_text() + ASKED)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(script)],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(stubs.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.usefixtures("real_weights")
def test_the_example_runs() -> None:
    sample = EXAMPLE.with_name("sample.mp4")
    command = ["vspipe", "-c", "y4m", "-a", f"source={sample}", "-e", "1", str(EXAMPLE), "-"]
    done = subprocess.run(command, check=True, capture_output=True, env=environment())
    assert done.stdout.startswith(b"YUV4MPEG2 C420 W256 H192 ")
    assert done.stdout.count(b"FRAME\n") == 2
