"""The names of devices, and the memory of this machine and of the container of a process."""

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vs_vsr import devices
from vs_vsr.errors import ArgumentError, DeviceError


@pytest.mark.parametrize(
    ("lines", "limits", "want"),
    [
        # A container sees its own group as the root.
        ("0::/\n", {"memory.max": "1000\n"}, [1000]),
        (
            "0::/a/b\n",
            {"memory.max": "max\n", "a/memory.max": "700\n", "a/b/memory.max": "max\n"},
            [700],
        ),
        (
            "12:cpu,memory:/x\n3:cpu:/y\n",
            {"memory/memory.limit_in_bytes": "900\n", "memory/x/memory.limit_in_bytes": "800\n"},
            [800, 900],
        ),
        # In a container not every path outside it can be seen.
        ("12:memory:/docker/f00\n", {"memory/memory.limit_in_bytes": "900\n"}, [900]),
        ("0::/\n", {}, []),
    ],
)
def test_the_limits_of_control_groups(
    tmp_path: Path, lines: str, limits: dict[str, str], want: list[int]
) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text(lines)
    for name, text in limits.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    assert list(devices._control_group_limits(membership, tmp_path / "root")) == want


def test_a_file_that_cannot_be_read_gives_no_limit(tmp_path: Path) -> None:
    assert list(devices._control_group_limits(tmp_path / "none", tmp_path)) == []
    # A folder in place of a file cannot be read either.
    (tmp_path / "memory.max").mkdir()
    (tmp_path / "cgroup").write_text("0::/\n")
    assert list(devices._control_group_limits(tmp_path / "cgroup", tmp_path)) == []
    assert list(devices._control_group_limits(tmp_path, tmp_path)) == []


@pytest.mark.parametrize(("limits", "gib"), [((), 64), ((8 << 30, 4 << 30), 4)])
def test_the_memory_is_the_least_of_all(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, ...], gib: int
) -> None:
    monkeypatch.setattr(devices, "_control_group_limits", lambda: iter(limits))
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": (64 << 30) // 4096}
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    assert devices.memory_bytes() == gib << 30


def test_the_line_of_a_gpu_tells_which_kernels_are_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_gpu_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: "GPU 9")
    monkeypatch.setattr(devices, "describe", lambda device: f"warp on {device}")
    (line,) = [text for name, text in devices.describe_all() if name == "cuda:0"]
    assert line == 'GPU 9; own kernels: warp on cuda:0; precision="auto" is float16'


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_gpu_count", lambda: 3)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("auto", ["cuda:0"]),
        ("cuda", ["cuda:0"]),
        ("cpu:3", ["cpu"]),
        ("cuda:0,cuda:1", ["cuda:0", "cuda:1"]),
        ("cuda:2, cuda:0", ["cuda:2", "cuda:0"]),
    ],
)
def test_names_of_devices(three_gpus: None, name: str, want: list[str]) -> None:
    assert devices.find_devices("EDVR", name) == tuple(map(torch.device, want))


@pytest.mark.parametrize(
    "name", ["cuda:0,cpu", "cpu,cpu", "cuda:0,cuda:0", "cuda,cuda:0", "cuda:0,auto", "cuda:1,auto"]
)
def test_a_list_of_something_else_than_different_gpus(three_gpus: None, name: str) -> None:
    with pytest.raises(ArgumentError) as e:
        devices.find_devices("EDVR", name)
    assert str(e.value) == (
        'EDVR: device must be different GPUs if it is a list ("cuda:0,cuda:1"), got '
        f'"{name}". Name each GPU once and nothing else.'
    )


def test_a_list_with_a_gpu_that_is_not_there(three_gpus: None) -> None:
    with pytest.raises(DeviceError) as e:
        devices.find_devices("EDVR", "cuda:0,cuda:9")
    assert str(e.value) == (
        "EDVR: device must be one that this machine has (cpu, cuda:0, cuda:1, cuda:2), got "
        '"cuda:9". Choose one of these, or "auto".'
    )
    with pytest.raises(ArgumentError, match=r'"cpu" or "cuda:N", got ""\. Leave it'):
        devices.find_devices("EDVR", "cuda:0,")


@pytest.mark.parametrize(("version", "built"), [("13.2", "for CUDA 13.2"), (None, "without CUDA")])
def test_a_machine_without_a_gpu_says_so(
    monkeypatch: pytest.MonkeyPatch, version: str | None, built: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", version)
    lines = dict(devices.describe_all())
    assert set(lines) == {"cpu", "cuda"}
    assert lines["cuda"] == f"none: torch, built {built}, finds no NVIDIA GPU with a driver"


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="these are settings of glibc")
def test_a_processor_keeps_the_memory_of_freed_tensors() -> None:
    """In the thread of a filter, whose heaps are not the main thread's."""
    code = """
import resource, sys, threading, vs_vsr, torch
from vs_vsr import devices
from vs_vsr.models.layers import Upsampler
devices.prepare(torch.device("cpu"))
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
@torch.inference_mode()
def work():
    dtype = devices.default_dtype(torch.device("cpu"))
    parts = Upsampler(64), torch.rand(1, 64, 180, 320)
    upsampler, features = (x.to(dtype=dtype, memory_format=torch.channels_last) for x in parts)
    base, out = torch.rand(1, 3, 720, 1280), torch.zeros(3, 1, 720, 1280)
    for i in range(6):
        if i == 3:
            before = faults()
        upsampler(features, base, out)
    print((faults() - before) // 3)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    mine = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, check=True, env=mine)
    # Of one frame; without the settings there are thousands.
    assert int(done.stdout) < 1000


@pytest.mark.skipif(sys.platform != "linux", reason="these are settings of glibc")
@pytest.mark.parametrize(
    ("name", "value", "want"),
    [
        ("NOTHING", "", {-3, -2, -1}),
        ("MALLOC_TOP_PAD_", "0", {-3, -1}),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=0", {-3, -2}),
    ],
)
def test_a_users_own_settings_of_the_c_library_hold(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, want: set[int]
) -> None:
    done: set[int] = set()
    library = SimpleNamespace(mallopt=lambda number, value: done.add(number))
    monkeypatch.setattr(ctypes, "CDLL", lambda path: library)
    monkeypatch.setenv(name, value)
    devices._keep_freed_memory.__wrapped__()
    assert done == want
