"""Which device a clip on a GPU is on, and whether it has room."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vs_vsr import devices
from vs_vsr.devices import check_cupy, check_gpu_room, find_device_of_clip
from vs_vsr.errors import ArgumentError, DeviceError

UUID = bytes(range(16))


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs; the clip's is the second."""
    uuids = [bytes(16), UUID]

    def properties(i: int) -> Any:
        # torch gives a list of numbers.
        return SimpleNamespace(uuid=SimpleNamespace(bytes=list(uuids[i])))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    # 100 MiB of what is not free are torch's, for whoever comes next.
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (500 << 20, 8 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300 << 20)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200 << 20)


@pytest.mark.parametrize("name", ["auto", "cuda:1"])
def test_the_device_is_the_clips(gpus: None, name: str) -> None:
    assert find_device_of_clip("EDVR", name, UUID, "GPU 1") == torch.device("cuda:1")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cpu"])
def test_another_device_is_refused(gpus: None, name: str) -> None:
    with pytest.raises(ArgumentError) as e:
        find_device_of_clip("EDVR", name, UUID, "GPU 1")
    text = str(e.value)
    assert text.startswith(
        f'EDVR: device must be the GPU that the clip is on (GPU 1), got "{name}" ('
    )
    assert ("GPU 0" in text) == (name != "cpu")
    assert text.endswith(
        "Leave it out, or choose the clip's with core.set_vulkan_device before any GPU filter."
    )


def test_several_devices_are_refused(gpus: None) -> None:
    with pytest.raises(ArgumentError) as e:
        find_device_of_clip("EDVR", "cuda:0,cuda:1", UUID, "GPU 1")
    assert str(e.value) == (
        "EDVR: device must be one GPU, as the clip is on one (GPU 1), got "
        '"cuda:0,cuda:1". Leave it out, or put std.GPUDownload before the filter.'
    )


def test_names_are_checked_as_ever(gpus: None) -> None:
    with pytest.raises(ArgumentError, match=r'^EDVR: device must be "auto", "cpu" or "cuda:N", '):
        find_device_of_clip("EDVR", "gpu", UUID, "GPU 1")
    with pytest.raises(DeviceError, match=r"^EDVR: device must be one that this machine has"):
        find_device_of_clip("EDVR", "cuda:2", UUID, "GPU 1")


def test_a_gpu_that_is_not_cudas(gpus: None) -> None:
    with pytest.raises(DeviceError) as e:
        find_device_of_clip("EDVR", "auto", UUID[::-1], "llvmpipe")
    assert str(e.value) == (
        "EDVR: clip must be on a GPU that CUDA can use, got one on llvmpipe. Put std.GPUDownload "
        "before the filter, or choose another GPU with core.set_vulkan_device before any GPU "
        "filter."
    )


def test_room_beside_the_frame_cache(gpus: None) -> None:
    device = torch.device("cuda:1")
    check_gpu_room("EDVR", device, 600 << 20, 5 << 30, 15)
    with pytest.raises(DeviceError) as e:
        check_gpu_room("EDVR", device, (1000 << 20) - 1, 5 << 30, 15)
    assert str(e.value) == (
        "EDVR: device must have room for the network beside the frame cache (1000 MiB), got "
        "600 MiB free. Lower core.max_vram_cache_size to 4720, or chunk to 15."
    )
    with pytest.raises(DeviceError, match=r"max_vram_cache_size to 0, or chunk to 1\.$"):
        check_gpu_room("EDVR", device, 9 << 30, 1 << 30, 1)


def test_cupy_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_spec", lambda name: object())
    check_cupy("EDVR")
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with pytest.raises(DeviceError) as e:
        check_cupy("EDVR")
    assert str(e.value) == (
        "EDVR: clip must be in host memory where CuPy is not installed, got a GPU clip. Install "
        '"vs-vsr[cuda12]", or put std.GPUDownload before the filter.'
    )
