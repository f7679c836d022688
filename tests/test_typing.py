"""The examples of docs/tensors.md, as a reader's type checker sees them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]

# What the examples take for granted.
GIVEN = """
from torch import Tensor, rand
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.recurrent import ForwardState
from vs_vsr.models.stream import Network

frames = five_frames = rand(1, 5, 3, 64, 64)
chunk_and_lookahead = rand(1, 20, 3, 64, 64)
state: ForwardState | None = None
"""
# What must be known about their results, and what must be refused.
ASKED = """
from typing import assert_type

assert_type(network(frames), Tensor)
assert_type(pictures, Tensor)
assert_type(vrt(frames, sigma=25), Tensor)
load_model("BasicVSR/reds4")(frames, sigma=25)  # type: ignore[call-arg]
load_model("VRT/denoise", model=BasicVSR)(frames, sigma=25)  # type: ignore[call-arg]
assert_type(load_model("VRT/denoise", model=VRT), VRT)
assert_type(load_model("BasicVSR/reds4", model="BasicVSR"), Network)
assert_type(load_model("BasicVSR/reds4").stream(frames, lookahead=2)[0], Tensor)
load_model("EDVR/reds4", paddding="replicate")  # type: ignore[call-overload]
"""


def examples() -> str:
    page = (ROOT / "docs" / "tensors.md").read_text()
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_examples_on_tensors_are_typed(tmp_path: Path) -> None:
    path = tmp_path / "examples.py"
    path.write_text(GIVEN + examples() + ASKED)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
