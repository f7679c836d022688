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


def on_it(lavapipe: Path, script: str, argument: Path, *more: str | Path) -> Any:
    """Run a script in a fresh process on that GPU; give the answer that it writes to the last."""
    variables = environment() | {"LD_LIBRARY_PATH": str(lavapipe / "lib")}
    paths = [HERE, HERE.parent, HERE.parent / "filters", os.environ.get("PYTHONPATH", "")]
    variables["PYTHONPATH"] = os.pathsep.join(str(path) for path in paths if str(path))
    command = [sys.executable, str(HERE / script), str(argument), *map(str, more)]
    done = subprocess.run(
        command, env=variables, capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return json.loads(Path(command[-1]).read_text())


@pytest.fixture
def touching(lavapipe: Path, plugin: Path, tmp_path: Path) -> Any:
    """Runs a function of touching.py."""
    return lambda what: on_it(lavapipe, "touching.py", plugin, what, tmp_path / "answer")


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


def test_the_frames_that_are_measured_are_uploaded_once(touching: Any) -> None:
    assert touching("upload") == {"on_gpu": True, "made": list(range(48))}


@pytest.mark.slow
def test_the_filters(lavapipe: Path, tmp_path: Path) -> None:
    """One process for all, as each must load torch and make its networks."""
    answers = on_it(lavapipe, "filtering.py", tmp_path, tmp_path / "answer")
    failed = [text for text in answers.values() if isinstance(text, str)]
    assert not failed, failed[0]
    # In order, backwards, at random; of two formats; with and without going ahead: the bits of the
    # processor.
    assert len(answers["equal"]) == 18 and not any(answers["equal"].values()), answers["equal"]
    # The next chunk reads some frames again.
    assert answers["once"] == list(range(13))
    assert answers["lost"] == {"wrong": [], "again": True, "kept": 1, "awaited": 0}
    # YUV differs by one step of 8 bits: the core's resize rounds otherwise on a GPU.
    assert max(answers["formats"].values()) <= 1
    fail = answers["fail"]
    assert "not now" in fail["errors"][0]
    assert (fail["wrong"], fail["awaited"]) == ([], 0)
    overflow = {"same": True, "finite": True, "overflowed": [2], "not dropped": 0}
    assert answers["overflow"] == overflow
    descriptors, workers = zip(*answers["destroy"], strict=True)
    assert set(workers) == {0}
    assert max(descriptors[2:]) <= max(descriptors[:2])
    assert len(answers["refuse"]["errors"]) == 2
    for error in answers["refuse"]["errors"]:
        assert error.startswith(
            "BasicVSR: clip must be on a GPU that CUDA can use, got one on llvm"
        )
        assert error.endswith(
            "Put std.GPUDownload before the filter, or choose another GPU with "
            "core.set_vulkan_device before any GPU filter."
        )
