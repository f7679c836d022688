"""The filter as a user runs it: frames a second, copies, how busy the GPU is, memory."""

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from vs_vsr.bench.gpu import vapoursynth_clips as clips
from vs_vsr.bench.gpu.driver import Watch
from vs_vsr.bench.gpu.record import Record
from vs_vsr.bench.gpu.setting import Setting
from vs_vsr.plugin.plans import FILTERS

__all__ = ["copies", "measure", "memory"]

_FORMATS = ("RGBS", "RGBH", "YUV420P8")
_ROUNDS = 2
# Enough for a chunk that is handed out and one that is computed (docs/filters.md).
_REQUESTS = 60
_LONG = (200, 2000)


def measure(setting: Setting, record: Record) -> None:
    """Measure the first size with all that is asked of it, then the other sizes."""
    first, *others = setting.sizes
    for size in (first, *others):
        count = setting.small_or(90 if size == first else 42, 4)
        for name in _FORMATS:
            row = f"{size[0]}x{size[1]} {name}"
            if record.has(5, row):
                with record.part(row):
                    record.add(row, **_speed(setting, size, name, count))
        row = f"{size[0]}x{size[1]} GPU clip"
        if record.has(5, row):
            with record.part(row):
                record.add(row, **_gpu_speed(setting, size, count))
        if size == first:
            with record.part("copies"):
                _profiled(setting, record, size)
            with record.part("long run"):
                _long_run(setting, record, size)
    if record.has(20, "vspipe"):
        with record.part("vspipe"):
            _vspipe(setting, record, first)


def _speed(setting: Setting, size: tuple[int, int], name: str, count: int) -> dict[str, Any]:
    chunk, clip = _made(setting, clips.source(name, size, 100_000))
    return {"driven_by": "Python, async requests", **_steady(setting, clip, chunk, count)}


def _gpu_speed(setting: Setting, size: tuple[int, int], count: int) -> dict[str, Any]:
    if not clips.takes_gpu_clips():
        return {"note": "not there yet: the filter's signature takes clips in host memory only"}
    chunk, clip = _made(setting, clips.source("RGBH", size, 100_000).std.GPUUpload())
    row = {"on_gpu": clips.is_gpu_clip(clip), "driven_by": "Python, async requests"}
    return {**row, **_steady(setting, clip, chunk, count)}


def _made(setting: Setting, clip: Any) -> tuple[int, Any]:
    """The chunk that the filter takes by default, and the filtered clip."""
    from vapoursynth import core

    said: list[str] = []
    handler = core.add_log_handler(lambda kind, text: said.append(text))
    try:
        made = clips.filtered(
            setting, clip, **({"chunk": 4, "lookahead": 2} if setting.quick else {})
        )
    finally:
        core.remove_log_handler(handler)
    smaller = re.search(r"chunk is (\d+)", " ".join(said))
    default = 4 if setting.quick else FILTERS["BasicVSR"].defaults.chunk
    return int(smaller[1]) if smaller else default, made


def _steady(setting: Setting, clip: Any, chunk: int, count: int) -> dict[str, Any]:
    """Frames a second over whole chunks, after the first chunk."""
    begin = time.perf_counter()
    clips.in_order(clip, range(chunk), _REQUESTS)
    first_s = time.perf_counter() - begin
    frames = -(-count // chunk) * chunk
    rates = []
    with Watch(setting.torch_device) as watch:
        for i in range(_ROUNDS):
            start = chunk + i * frames
            took = clips.in_order(clip, range(start, start + frames), _REQUESTS)
            rates.append(frames / took)
    row: dict[str, Any] = {"fps": max(rates), "rounds_fps": rates, "chunk": chunk}
    return row | {"frames": frames, "first_chunk_s": first_s, **watch.values()}


def _profiled(setting: Setting, record: Record, size: tuple[int, int]) -> None:
    """Copies and kernels a frame, over one chunk."""
    chunk, clip = _made(setting, clips.source("RGBS", size, 100_000))
    clips.in_order(clip, range(chunk), _REQUESTS)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if setting.is_cuda else [])]
    with profile(activities=kinds) as profiled:
        clips.in_order(clip, range(chunk, 2 * chunk), _REQUESTS)
        if setting.is_cuda:
            torch.cuda.synchronize()
    names = [e.name for e in profiled.events() or () if e.device_type.name == "CUDA"]
    record.add("copies a frame", frames=chunk, **copies(names, chunk))


def copies(names: list[str], frames: int) -> dict[str, float]:
    """Copies, fills and kernels a frame from the names of what ran on the device."""
    found = {"kernels": 0.0}
    for name in names:
        kind = name if name.startswith(("Memcpy", "Memset")) else "kernels"
        found[kind] = found.get(kind, 0) + 1
    return {kind: count / frames for kind, count in found.items()}


def _long_run(setting: Setting, record: Record, size: tuple[int, int]) -> None:
    """Memory and open descriptors after few and after many frames, and how busy the GPU is."""
    chunk, clip = _made(setting, clips.source("RGBS", size, 100_000))
    few, many = (setting.small_or(n, n // 50) for n in _LONG)
    before = time.perf_counter()
    clips.in_order(clip, range(few), _REQUESTS)
    rate = few / (time.perf_counter() - before)
    record.add(f"memory after {few} frames", **memory(setting))
    wanted = (many - few) / rate
    # Half of what is left is for the other sizes.
    if not record.has(2 * wanted, f"memory after {many} frames"):
        return
    with Watch(setting.torch_device) as watch:
        took = clips.in_order(clip, range(few, many), _REQUESTS)
    record.add(f"memory after {many} frames", **memory(setting))
    record.add("long run", fps=(many - few) / took, chunk=chunk, **watch.values())
    del clip
    record.add("memory without the filter", **memory(setting))


def memory(setting: Setting) -> dict[str, float]:
    """Memory of this process in MiB, and its open descriptors."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    row = {"host_mib": pages * os.sysconf("SC_PAGE_SIZE") / 2**20}
    row["descriptors"] = len(os.listdir("/proc/self/fd"))
    if setting.is_cuda:
        free, total = torch.cuda.mem_get_info(setting.torch_device)
        row["device_used_mib"] = (total - free) / 2**20
        row["torch_reserved_mib"] = torch.cuda.memory_reserved(setting.torch_device) / 2**20
        row["torch_peak_mib"] = torch.cuda.max_memory_allocated(setting.torch_device) / 2**20
    return row


def _vspipe(setting: Setting, record: Record, size: tuple[int, int]) -> None:
    """The same graph by vspipe: a run of many frames less a run of one chunk."""
    why = clips.vspipe_error()
    if why:
        record.add("vspipe", note=f"{why}; so Python asked for all frames")
        return
    chunk = 30
    frames = setting.small_or(10 * chunk, 2 * chunk)
    times = []
    with clips.script(setting, size, frames) as path:
        for last in (chunk - 1, frames - 1):
            command = ["vspipe", "-r", str(_REQUESTS), "--end", str(last), str(path), "--"]
            start = time.perf_counter()
            subprocess.run(
                command,
                env=clips.vspipe_environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=True,
                timeout=record.left_s(),
            )
            times.append(time.perf_counter() - start)
    # On a tiny clip the two may take the same time.
    took = max(times[1] - times[0], 1e-3)
    record.add("vspipe", fps=(frames - chunk) / took, first_chunk_s=times[0], process_s=times)
