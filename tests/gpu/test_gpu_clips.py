"""Clips on a GPU in software: planes of the core are read and written in its own memory.

The GPU is Mesa's lavapipe, which .ci/lavapipe sets up; CUDA is a pretended one that maps the
memory. lavapipe exports no semaphores, so here the host waits; the other order is in
test_gpu_core.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_cuda
import pytest
from compiling import HERE, NATIVE, compiled
from conftest import environment
from filelock import FileLock
from platformdirs import user_cache_path

assert fake_cuda


@pytest.fixture(scope="session")
def lavapipe() -> Path:
    """The folder of the GPU in software, set up once for this machine."""
    if not sys.platform.startswith("linux"):
        pytest.skip("a GPU in software is set up on Linux only")
    folder = user_cache_path("vs-vsr-tests") / "lavapipe"
    folder.mkdir(parents=True, exist_ok=True)
    script = HERE.parents[1] / ".ci" / "lavapipe"
    with FileLock(folder / "lock"):
        if not (folder / "ready").exists():
            done = subprocess.run(
                ["sh", script, folder], capture_output=True, text=True, check=False, timeout=300
            )
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
                pytest.skip(f"no GPU in software can be set up here: {last}")
    return folder


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("plugin") / "libtouch.so"
    return compiled(target, NATIVE / "gpu.c", HERE / "plugin.c")


@pytest.fixture
def touching(lavapipe: Path, plugin: Path, tmp_path: Path) -> Any:
    """Runs a function of touching.py in a fresh process on that GPU; gives its answer."""

    def run(what: str) -> Any:
        variables = environment() | {"LD_LIBRARY_PATH": str(lavapipe / "lib")}
        paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        answer = tmp_path / "answer"
        command = [sys.executable, str(HERE / "touching.py"), str(plugin), what, str(answer)]
        done = subprocess.run(
            command, env=variables, capture_output=True, text=True, check=False, timeout=120
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        return json.loads(answer.read_text())

    return run


def test_pictures_are_those_of_the_processor(touching: Any) -> None:
    answer = touching("equal")
    # Rows are padded, so the strides matter.
    assert [200] * 3 not in answer.pop("strides")
    assert answer == {
        f"{name} {filter_name}{what}": value
        for name in ("RGBS", "RGBH", "RGB24")
        for filter_name in ("Touch", "Carry")
        for what, value in ((" on the GPU", True), ("", []))
    }


def test_frames_shared_with_other_filters(touching: Any) -> None:
    assert touching("chain") == {"blurred": [], "other": []}


def test_no_descriptor_is_left_over_hundreds_of_frames(touching: Any) -> None:
    answer = touching("many")
    before, after = answer["descriptors"]
    assert before == after and 1 <= answer["imports"] <= 16


def test_no_descriptor_is_left_by_what_fails(touching: Any) -> None:
    answer = touching("fail")
    assert answer["errors"] == [
        "Touch: clip must be in memory that CUDA can import, got cudaErrorInvalidValue. Put "
        "std.GPUDownload before the filter, and report this with the driver's version.",
        "frame N fails",
    ]
    assert (answer["known"], answer["again"]) == ([], [])
    # The blocks that were imported before are gone.
    assert answer["left"] <= 0


def test_filters_that_go_while_their_frames_are_on_the_way(touching: Any) -> None:
    counts = touching("destroy")["descriptors"]
    assert max(counts[2:]) <= max(counts[:2])


def test_a_clip_in_host_memory_is_an_error_not_a_crash(touching: Any) -> None:
    answer = touching("refuse")
    assert answer["exports"] == [1, 0]
    on_gpu, in_host = answer["errors"]
    assert on_gpu == ""
    assert in_host.startswith("Touch: frame 0 cannot be read on the GPU: ")
    assert in_host.endswith(" Put std.GPUDownload before the filter.")
