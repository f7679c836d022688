"""What the device can do at most: every "percent of" in the other stages is of one of these."""

import importlib.util
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from vs_vsr.bench.gpu.record import Record
from vs_vsr.bench.gpu.setting import Setting
from vs_vsr.bench.gpu.timing import seconds, synchronize, versions_us

__all__ = ["READ_KERNEL", "measure"]

# Reads a buffer again and again past the L1 cache. The loads are volatile: the compiler may not
# take them out of the loop. All that is read goes into the sum, which is never written.
READ_KERNEL = r"""
extern "C" __global__ void read(const int4* x, int* out, long long count, int times) {
    int sum = 0;
    for (int t = 0; t < times; ++t) {
        long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
        for (; i < count; i += (long long)gridDim.x * blockDim.x) {
            int4 v;
            asm volatile("ld.global.cg.v4.s32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(x + i));
            sum += v.x ^ v.y ^ v.z ^ v.w;
        }
    }
    if (sum == 0x5eed && count < 0) *out = sum;
}
"""
_READS = 20
# Bytes of a frame at 320x180: RGBS in, RGBH out, RGBS out; rounded.
_FRAME_MB = (1, 5, 11)
_THREADS = (1, 2, 4)


def measure(setting: Setting, record: Record) -> None:
    """Measure products, copies and reads."""
    with record.part("matrix product"):
        _product(setting, record)
    with record.part("copy on the device"):
        _copy(setting, record)
    for megabytes in (8, 16, 24, 32, 40, 96):
        with record.part(f"read of {megabytes} MB"):
            _read(setting, record, megabytes)
    for megabytes in _FRAME_MB:
        with record.part(f"host copies of {megabytes} MB"):
            _host_copies(setting, record, megabytes)
    with record.part("plane copies"):
        _plane_copies(setting, record)


def _product(setting: Setting, record: Record) -> None:
    n = setting.small_or(8192, 128)
    a, b = setting.random(n, n), setting.random(n, n, seed=1)
    out = torch.empty_like(a)
    times = versions_us(setting.torch_device, {"torch": lambda: torch.mm(a, b, out=out)}, 1.0)
    us = times["torch"]["us"]
    record.add("matrix product", side=n, tflops=2 * n**3 / us / 1e6, **times["torch"])


def _copy(setting: Setting, record: Record) -> None:
    count = setting.small_or(1 << 30, 1 << 16)
    x = torch.randint(0, 256, (count,), dtype=torch.uint8, device=setting.torch_device)
    y = torch.empty_like(x)
    times = versions_us(setting.torch_device, {"copy": lambda: y.copy_(x)})["copy"]
    # Each byte is read and written.
    record.add("copy on the device", mb=count / 1e6, gb_s=2 * count / times["us"] / 1e3, **times)


def _read(setting: Setting, record: Record, megabytes: int) -> None:
    """Read one buffer again and again: up to the size of the L2 cache, its rate."""
    name = f"read of {megabytes} MB"
    if not setting.is_cuda or importlib.util.find_spec("cupy") is None:
        record.add(name, note="no GPU, or CuPy is missing")
        return
    cupy: Any = importlib.import_module("cupy")
    kernel = cupy.RawKernel(READ_KERNEL, "read")
    x = torch.randint(0, 256, (megabytes * 10**6,), dtype=torch.uint8, device=setting.torch_device)
    out = torch.zeros(1, dtype=torch.int32, device=setting.torch_device)
    blocks = 8 * torch.cuda.get_device_properties(setting.torch_device).multi_processor_count
    count = x.numel() // 16
    values = (x.data_ptr(), out.data_ptr(), np.int64(count), np.int32(_READS))
    device = setting.torch_device.index or 0

    def call() -> None:
        stream = cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)
        with cupy.cuda.Device(device), stream:
            kernel((blocks,), (512,), values)

    times = versions_us(setting.torch_device, {"read": call})["read"]
    record.add(name, gb_s=16 * count * _READS / times["us"] / 1e3 if "us" in times else 0, **times)


def _host_copies(setting: Setting, record: Record, megabytes: int) -> None:
    device, count = setting.torch_device, megabytes * 10**6
    if not setting.is_cuda:
        record.add(f"host copies of {megabytes} MB", note="no GPU to copy to")
        return
    up, down, pageable = (torch.randint(0, 256, (count,), dtype=torch.uint8) for _ in range(3))
    up, down = up.pin_memory(), down.pin_memory()
    there, here = (torch.empty_like(up, device=device) for _ in range(2))
    streams = [torch.cuda.Stream(device) for _ in range(2)]

    def both() -> None:
        for stream in streams:
            stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(streams[0]):
            there.copy_(up, non_blocking=True)
        with torch.cuda.stream(streams[1]):
            down.copy_(here, non_blocking=True)
        for stream in streams:
            torch.cuda.current_stream().wait_stream(stream)

    ways: dict[str, tuple[Callable[[], object], int]] = {
        "pinned_up": (lambda: there.copy_(up, non_blocking=True), 1),
        "pinned_down": (lambda: down.copy_(here, non_blocking=True), 1),
        "pinned_both_ways": (both, 2),
        "pageable_up": (lambda: there.copy_(pageable), 1),
        "pageable_down": (lambda: pageable.copy_(here), 1),
    }
    rates = {}
    for name, (call, times) in ways.items():
        call()
        synchronize(device)
        took = min(seconds(device, call) for _ in range(30))
        rates[f"{name}_gb_s"] = times * count / took / 1e9
    record.add(f"host copies of {megabytes} MB", **rates)


def _plane_copies(setting: Setting, record: Record) -> None:
    """Copies from host memory to host memory, as of a plane to a pinned slot."""
    count = setting.small_or(11 * 10**6, 10**5)
    for threads in _THREADS:
        sources = [np.random.default_rng(i).bytes(count) for i in range(threads)]
        arrays = [np.frombuffer(data, np.uint8) for data in sources]
        targets = [np.empty_like(array) for array in arrays]
        with ThreadPoolExecutor(threads) as pool:

            def call(pool: ThreadPoolExecutor = pool, pairs: Any = (targets, arrays)) -> None:
                list(pool.map(np.copyto, *pairs))

            call()
            took = min(seconds(torch.device("cpu"), call) for _ in range(20))
        rate = threads * count / took / 1e9
        record.add(f"plane copies, {threads} threads", gb_s=rate if math.isfinite(rate) else 0)
