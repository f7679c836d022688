"""What the visit runs on: versions, clocks, memory, the link to the host, Vulkan devices."""

import importlib.util
import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from vs_vsr.bench.gpu import driver
from vs_vsr.bench.gpu.record import Record
from vs_vsr.bench.gpu.setting import Setting
from vs_vsr.bench.gpu.vapoursynth_clips import vspipe_error
from vs_vsr.bench.machine import machine

__all__ = ["measure"]

_PACKAGES = (
    "torchvision",
    "triton",
    "cupy-cuda13x",
    "cupy-cuda12x",
    "cuda-bindings",
    "nvidia-cudnn-frontend",
)
_DRIVER = (
    "driver_version",
    "pcie.link.gen.current",
    "pcie.link.gen.max",
    "pcie.link.width.current",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.limit",
    "compute_mode",
    "mig.mode.current",
)


def measure(setting: Setting, record: Record) -> None:
    """Write down what every other figure depends on."""
    found = {name: _version(name) for name in _PACKAGES}
    record.add("machine", **machine(), **{k: v for k, v in found.items() if v})
    settings = {"device": setting.device, "quick": setting.quick, "weights": setting.weights}
    record.add("settings", **settings, sizes=setting.sizes, dtype=str(setting.dtype))
    with record.part("gpu"):
        _gpu(setting, record)
    record.add("vspipe", note=vspipe_error() or "it runs")
    with record.part("cudnn device"):
        _cudnn_device(setting, record)
    # Last, as a driver's first call may crash.
    with record.part("vulkan"):
        _vulkan(record)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _gpu(setting: Setting, record: Record) -> None:
    if not setting.is_cuda:
        record.add("gpu", note="no GPU is measured: the device is the processor")
        return
    device = setting.torch_device
    properties = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    record.add(
        "gpu",
        model=properties.name,
        uuid=str(properties.uuid),
        multiprocessors=properties.multi_processor_count,
        l2_mib=properties.L2_cache_size >> 20,
        capability=f"{properties.major}.{properties.minor}",
        free_mib=free >> 20,
        total_mib=total >> 20,
        torch_cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES", "all"),
        **driver.query(device, *_DRIVER),
    )


def _cudnn_device(setting: Setting, record: Record) -> None:
    """What cuDNN must be told to build plans for this GPU on a machine without one."""
    if not setting.is_cuda or importlib.util.find_spec("cudnn") is None:
        record.add("cudnn device", note="no GPU, or the package nvidia-cudnn-frontend is missing")
        return
    cudnn: Any = importlib.import_module("cudnn")
    device = cudnn.create_device_properties(setting.torch_device.index or 0)
    record.add("cudnn device", json=device.serialize())


def _vulkan(record: Record) -> None:
    from vapoursynth import Error, core

    loader = os.environ.get("LD_LIBRARY_PATH", "")
    try:
        devices = core.vulkan_devices
    except AttributeError:
        record.add("vulkan", note="this VapourSynth has no GPU clips")
        return
    except Error as e:
        record.add("vulkan", error=str(e), ld_library_path=loader)
        return
    for device in devices:
        record.add("vulkan device", properties=dict(device))
    if not any(device["usable"] for device in devices):
        record.add("vulkan", error="no usable device", ld_library_path=loader)
        return
    # The types of handles that planes and semaphores can be exported as; 0 is none.
    record.add("vulkan", properties=dict(core.vulkan_device_info))
