"""The filter as a user runs it on host clips: frames a second, copies, how busy, memory."""

import gc
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from vs_vsr.bench.gpu import vapoursynth_clips as clips
from vs_vsr.bench.gpu.driver import Watch
from vs_vsr.bench.gpu.record import Record
from vs_vsr.bench.gpu.setting import Setting, own_kernels
from vs_vsr.bench.gpu.timing import synchronize
from vs_vsr.kernels.selection import describe
from vs_vsr.plugin import bridge
from vs_vsr.plugin.plans import FILTERS
from vs_vsr.transfer.staged import SLOTS, StagedTransfer

__all__ = [
    "VARIANTS",
    "copies",
    "destroyed",
    "long_run",
    "made",
    "measure",
    "memory",
    "profiled",
    "steady",
]

_FORMATS = ("RGBS", "RGBH", "YUV420P8")
_ROUNDS = 2
# Enough for a chunk that is handed out and one that is computed (docs/filters.md).
_REQUESTS = 60
_LONG = (200, 2000)
# Frames of a clip that nothing here comes to the end of.
_MANY = 100_000
# What is measured at all sizes.
_HALF = "RGBH"
# What is measured beside the default, on the clip that most have.
_VARIED = "YUV420P8"
# More threads than requests: then no step waits for a thread while all wait for pictures. The last
# one may crash: no kernel of our own has run on a GPU before this visit.
VARIANTS = ("prefetch=0", "kernels none", "as RGBS", "many threads", "kernels all")
# What a filter has begun ahead is done after this.
_SETTLED_S = 0.5
_SAMPLE_S = 0.001
_DESTROYED_S = 20.0


def measure(setting: Setting, record: Record) -> None:
    """Measure the first size with all that is asked of it, then the other sizes."""
    first, *others = setting.sizes
    count = setting.small_or(90, 4)
    for name in _FORMATS:
        _speed(setting, record, first, name, count)
    *variants, last = VARIANTS
    for variant in variants:
        _varied(setting, record, first, variant, count)
    with record.part("copies"):
        profiled(setting, record, clips.source("RGBS", first, _MANY))
    with record.part("slots"):
        _slots(setting, record, first)
    with record.part("long run"):
        long_run(setting, record, clips.source("RGBS", first, _MANY))
    for size in others:
        _speed(setting, record, size, _HALF, setting.small_or(42, 4))
    if record.has(3, "destroyed mid-stream"):
        with record.part("destroyed mid-stream"):
            destroyed(setting, record, clips.source("RGBS", first, _MANY))
    if record.has(20, "vspipe"):
        with record.part("vspipe"):
            _vspipe(setting, record, first)
    _varied(setting, record, first, last, count)


def _speed(setting: Setting, record: Record, size: tuple[int, int], name: str, count: int) -> None:
    row = f"{size[0]}x{size[1]} {name}"
    if record.has(5, row):
        with record.part(row):
            chunk, clip = made(setting, clips.source(name, size, _MANY))
            record.add(row, **steady(setting, clip, chunk, count))


def _varied(
    setting: Setting, record: Record, size: tuple[int, int], variant: str, count: int
) -> None:
    """The speed with one thing changed."""
    row = f"{size[0]}x{size[1]} {_VARIED}, {variant}"
    if record.has(5, row):
        with record.part(row):
            record.add(row, **_variant(setting, size, variant, count))


def _variant(setting: Setting, size: tuple[int, int], variant: str, count: int) -> dict[str, Any]:
    import vapoursynth as vs

    clip = clips.source(_VARIED, size, _MANY)
    arguments = {"prefetch": 0} if variant == "prefetch=0" else {}
    if variant == "as RGBS":
        clip = clip.resize.Bicubic(format=vs.RGBS, matrix_in_s="170m")

    def run() -> dict[str, Any]:
        chunk, filtered = made(setting, clip, **arguments)
        if variant == "as RGBS":
            filtered = filtered.resize.Bicubic(format=getattr(vs, _VARIED), matrix_s="170m")
        return steady(setting, filtered, chunk, count)

    if variant == "many threads":
        threads, vs.core.num_threads = vs.core.num_threads, 2 * _REQUESTS
        try:
            return {"threads": 2 * _REQUESTS, "of": threads, **run()}
        finally:
            vs.core.num_threads = threads
    if not variant.startswith("kernels "):
        return run()
    with own_kernels(variant.removeprefix("kernels ")):
        return ({"on": describe(setting.torch_device)} if setting.is_cuda else {}) | run()


def made(setting: Setting, clip: Any, **arguments: object) -> tuple[int, Any]:
    """The chunk that the filter takes by default, and the filtered clip."""
    from vapoursynth import core

    said: list[str] = []
    handler = core.add_log_handler(lambda kind, text: said.append(text))
    try:
        filtered = clips.filtered(
            setting, clip, **({"chunk": 4, "lookahead": 2} if setting.quick else {}), **arguments
        )
    finally:
        core.remove_log_handler(handler)
    smaller = re.search(r"chunk is (\d+)", " ".join(said))
    default = 4 if setting.quick else FILTERS["BasicVSR"].defaults.chunk
    return int(smaller[1]) if smaller else default, filtered


def steady(setting: Setting, clip: Any, chunk: int, count: int) -> dict[str, Any]:
    """Frames a second over whole chunks, after the first chunk, asked for by Python."""
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


def profiled(setting: Setting, record: Record, source: Any, of: str = "") -> None:
    """Copies and kernels a frame, over whole chunks from rest to rest.

    Args:
        setting: The visit's.
        record: Gets a row.
        source: The clip, RGBS or RGBH.
        of: Put after the row's name.
    """
    chunk, clip = made(setting, source)
    frames = 2 * chunk
    clips.in_order(clip, range(frames), _REQUESTS)
    _settle(setting)
    kinds = [ProfilerActivity.CUDA] if setting.is_cuda else [ProfilerActivity.CPU]
    with profile(activities=kinds) as trace:
        clips.in_order(clip, range(frames, 2 * frames), _REQUESTS)
        _settle(setting)
    path = setting.folder / "trace.json"
    trace.export_chrome_trace(str(path))
    events = json.loads(path.read_text())["traceEvents"]
    path.unlink()
    planes = 3 * source.format.bytes_per_sample * source.width * source.height
    sizes = {"input_bytes": planes, "output_bytes": 16 * planes}
    record.add(f"copies a frame{of}", frames=frames, **sizes, **copies(events, frames))


def _settle(setting: Setting) -> None:
    """Wait until what has begun is done; chunks computed ahead too."""
    time.sleep(setting.small_or(1, 0) * _SETTLED_S)
    synchronize(setting.torch_device)


def copies(events: Iterable[Mapping[str, Any]], frames: int) -> dict[str, float]:
    """Kernels, copies and fills a frame, and the bytes of each kind of these.

    Args:
        events: As in a trace of torch's profiler; only what ran on the device counts.
        frames: How many were made meanwhile.
    """
    found = {"kernels": 0.0}
    for event in events:
        if event.get("cat") == "kernel":
            found["kernels"] += 1
        elif event.get("cat") in ("gpu_memcpy", "gpu_memset"):
            name, size = event["name"], event.get("args", {}).get("bytes", 0)
            found[name] = found.get(name, 0) + 1
            found[f"{name}, bytes"] = found.get(f"{name}, bytes", 0) + size
    return {kind: count / frames for kind, count in found.items()}


def _slots(setting: Setting, record: Record, size: tuple[int, int]) -> None:
    """How many pinned slots frames were in at a time, each way."""
    before = set(bridge._workers)
    chunk, clip = made(setting, clips.source("RGBS", size, _MANY))
    (number,) = set(bridge._workers) - before
    transfer: Any = bridge._workers[number][1]
    transfer = transfer._transfer
    if not isinstance(transfer, StagedTransfer):
        record.add("pinned slots in use", note="a processor has none")
        return
    clips.in_order(clip, range(chunk), _REQUESTS)
    ways = {"up": transfer._up.qsize, "down": transfer._down.qsize}
    with _sampling(lambda: [SLOTS - free() for free in ways.values()]) as samples:
        clips.in_order(clip, range(chunk, 4 * chunk), _REQUESTS)
    row: dict[str, float] = {}
    for way, values in zip(ways, zip(*samples, strict=True), strict=True):
        row |= {f"{way}_most": max(values), f"{way}_mean": sum(values) / len(values)}
        row[f"{way}_all_percent"] = 100 * values.count(SLOTS) / len(values)
    record.add("pinned slots in use", of=SLOTS, samples=len(samples), **row)


@contextmanager
def _sampling(look: Callable[[], list[int]]) -> Iterator[list[list[int]]]:
    """What `look` gives, again and again by a thread while the block runs; at least once."""
    samples = [look()]
    done = threading.Event()

    def run() -> None:
        while not done.wait(_SAMPLE_S):
            samples.append(look())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def destroyed(setting: Setting, record: Record, source: Any, of: str = "") -> None:
    """A filter that nobody holds any longer while its frames are on their way."""
    _, clip = made(setting, source)
    answers = [clip.get_frame_async(n) for n in range(_REQUESTS)]
    start = time.perf_counter()
    del clip
    # Answered or refused, but not left waiting.
    left = wait(answers, max(min(_DESTROYED_S, record.left_s() - 2), 0)).not_done
    record.add(
        f"destroyed mid-stream{of}",
        right=not left,
        seconds=time.perf_counter() - start,
        asked=len(answers),
        answered=len(answers) - len(left),
    )


def long_run(setting: Setting, record: Record, source: Any, of: str = "") -> None:
    """Memory and open descriptors after few and after many frames, and how busy the GPU is."""
    gc.collect()
    record.add(f"memory before the filter{of}", **memory(setting))
    chunk, clip = made(setting, source)
    few, many = (setting.small_or(n, n // 50) for n in _LONG)
    before = time.perf_counter()
    clips.in_order(clip, range(few), _REQUESTS)
    rate = few / (time.perf_counter() - before)
    record.add(f"memory after {few} frames{of}", **memory(setting))
    wanted = (many - few) / rate
    # Half of what is left is for what comes after it.
    if record.has(2 * wanted, f"memory after {many} frames{of}"):
        with Watch(setting.torch_device) as watch:
            took = clips.in_order(clip, range(few, many), _REQUESTS)
        record.add(f"memory after {many} frames{of}", **memory(setting))
        record.add(f"long run{of}", fps=(many - few) / took, chunk=chunk, **watch.values())
    del clip
    gc.collect()
    record.add(f"memory without the filter{of}", **memory(setting))


def memory(setting: Setting) -> dict[str, float]:
    """Memory of this process in MiB, and its open descriptors."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    row = {"host_mib": pages * os.sysconf("SC_PAGE_SIZE") / 2**20}
    row["descriptors"] = len(os.listdir("/proc/self/fd"))
    if setting.is_cuda:
        free, total = torch.cuda.mem_get_info(setting.torch_device)
        row["device_used_mib"] = (total - free) / 2**20
        row["torch_reserved_mib"] = torch.cuda.memory_reserved(setting.torch_device) / 2**20
        pinned = torch.cuda.host_memory_stats().get("allocated_bytes.current", 0)
        row["pinned_mib"] = pinned / 2**20
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
                # What comes after it is worth a row too.
                timeout=record.left_s() - 8,
            )
            times.append(time.perf_counter() - start)
    # On a tiny clip the two may take the same time.
    took = max(times[1] - times[0], 1e-3)
    record.add("vspipe", fps=(frames - chunk) / took, first_chunk_s=times[0], process_s=times)
