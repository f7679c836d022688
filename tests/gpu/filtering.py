"""For a child process with a GPU in software: the real filters on clips that are on it.

The networks run on the processor, on tensors over the core's own memory, in streams that do their
work late (pretend.py).
"""

import ctypes as c
import gc
import json
import sys
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs
from fake_cuda import FakeCuda, open_descriptors
from pretend import Eager, Place, Queue
from test_every_filter import CUT, LENGTH, filtered, moving, pixels, small

from vs_vsr import devices
from vs_vsr.models.layers import Upsampler
from vs_vsr.plugin import arguments, bridge, plans, worker
from vs_vsr.plugin.contract import RGBH, ClipInfo, Spec
from vs_vsr.plugin.gpu import GpuDevice
from vs_vsr.transfer.resident import ResidentTransfer
from vs_vsr.transfer.vulkan import GpuFrame, GpuFrames

core = vs.core
CPU = torch.device("cpu")
made: list[ResidentTransfer] = []
reserved: list[int] = []
settings: dict[str, int] = {}
taken: list[int] = []
folder = Path()


class Device(Eager):
    """Its streams have addresses, and CUDA can wait for them."""

    def address(self, stream: Queue) -> int:
        return self._queues.index(stream) + 1


class Cuda(FakeCuda):
    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any]:
        self.device.run_to(Place(self.device, self.device._queues[stream - 1]))
        return super().cudaStreamSynchronize(stream)


class Transfer(ResidentTransfer):
    """It notes which frames are taken."""

    def taken(self, n: int, frame: GpuFrame) -> int:
        taken.append(n)
        return super().taken(n, frame)


def plane_tensor(
    address: int, shape: tuple[int, int], stride: int, dtype: torch.dtype
) -> torch.Tensor:
    memory = (c.c_char * (stride * shape[0])).from_address(address)
    name = str(dtype).removeprefix("torch.")
    return torch.from_numpy(np.ndarray(shape, name, memory, 0, (stride, dtype.itemsize)))


def resident(
    filter_name: str,
    device: torch.device,
    clip: ClipInfo,
    gpu: GpuDevice,
    spec: Spec,
    needed: int,
) -> Any:
    assert device == CPU and gpu.memory > gpu.limit > 0 and needed >= 0
    pretended = Device(Random(len(made)))
    frames = GpuFrames(Cuda(pretended), filter_name, gpu.timelines)
    made.append(
        Transfer(
            pretended,
            frames,
            plane_tensor,
            settings.get("capacity", spec.cache_frames),
            (clip.height, clip.width),
            (spec.height, spec.width),
            torch.float16 if spec.output_format == RGBH else torch.float32,
        )
    )
    return made[-1]


def pretend_that_the_gpu_is_the_processor() -> None:
    vars(worker)["_resident"] = resident
    vars(worker)["formats"] = lambda format, device: plans.formats(format, torch.device("cuda"))
    vars(arguments)["find_device_of_clip"] = lambda filter_name, name, uuid, gpu_name: CPU


def on_gpu(name: str, clip: Any, **options: Any) -> Any:
    out = filtered(name, folder, clip.std.GPUUpload(), **options)
    assert out.gpu_resident
    return out.std.GPUDownload()


def do_equal() -> Any:
    answer = {}
    for name, kind in (("BasicVSR", vs.RGBS), ("BasicVSR", vs.RGBH), ("EDVR", vs.RGBS)):
        # Values beyond [0, 1] go in, and come out of the network.
        clip = moving(cut=CUT).std.Expr("x 3 * 1 -").resize.Point(format=kind)
        want = [pixels(f) for f in filtered(name, folder, clip, **small(name)).frames()]
        orders = list(range(LENGTH)), list(range(LENGTH))[::-1]
        for prefetch in (0, 1):
            out = on_gpu(name, clip, **small(name), prefetch=prefetch)
            for order in orders:
                key = f"{name} {clip.format.name} {prefetch} {order[0]}"
                answer[key] = [n for n in order if pixels(out.get_frame(n)) != want[n]]
            out = on_gpu(name, clip, **small(name), prefetch=prefetch)
            order = Random(1).sample(range(LENGTH), LENGTH)
            futures = [(n, out.get_frame_async(n)) for n in order]
            key = f"{name} {clip.format.name} {prefetch} at random"
            answer[key] = [n for n, future in futures if pixels(future.result(60)) != want[n]]
    return answer


def do_lost() -> Any:
    """Frames are pushed out before their step: they are asked for again."""
    clip = moving(cut=CUT)
    want = [pixels(f) for f in filtered("BasicVSR", folder, clip, **small("BasicVSR")).frames()]
    settings["capacity"] = 1
    taken.clear()
    out = on_gpu("BasicVSR", clip, **small("BasicVSR"))
    wrong = [n for n in range(LENGTH) if pixels(out.get_frame(n)) != want[n]]
    futures = [(n, out.get_frame_async(n)) for n in Random(2).sample(range(LENGTH), LENGTH)]
    wrong += [n for n, future in futures if pixels(future.result(60)) != want[n]]
    settings.clear()
    return {"wrong": wrong, "again": len(taken) > LENGTH, "kept": len(made[-1]._inputs),
            "awaited": len(made[-1]._awaited)}  # fmt: skip


def do_once() -> Any:
    """Read in order, each frame is taken once, though the next chunk reads some again."""
    taken.clear()
    out = on_gpu("BasicVSR", moving(), **small("BasicVSR"))
    for n in range(LENGTH):
        out.get_frame(n).close()
    return sorted(taken)


def do_formats() -> Any:
    """The core's resize on a GPU rounds otherwise, so these are near, not equal."""
    answer = {}
    clip = moving().resize.Bicubic(format=vs.YUV420P8, matrix=1)
    want = filtered("BasicVSR", folder, clip, **small("BasicVSR"))
    got = on_gpu("BasicVSR", clip, **small("BasicVSR"))
    for n in (0, LENGTH - 1):
        a, b = want.get_frame(n), got.get_frame(n)
        answer[str(n)] = max(
            int(np.abs(np.asarray(a[p]).astype(int) - np.asarray(b[p])).max()) for p in range(3)
        )
        assert dict(a.props) == dict(b.props), (dict(a.props), dict(b.props))
    return answer


def do_fail() -> Any:
    """A frame that the source cannot give; then it can."""
    fails = {4}
    clip = moving()

    def give(n: int, f: Any) -> Any:
        if n in fails:
            raise ValueError("not now")
        return f

    flaky = clip.std.ModifyFrame(clip, give)
    out = on_gpu("BasicVSR", flaky, **small("BasicVSR"))
    errors = []
    try:
        out.get_frame(3).close()
    except vs.Error as e:
        errors.append(str(e))
    fails.clear()
    options = small("BasicVSR")
    want = [pixels(f) for f in filtered("BasicVSR", folder, clip, **options).frames()]
    wrong = [n for n in range(LENGTH) if pixels(out.get_frame(n)) != want[n]]
    return {"errors": errors, "wrong": wrong, "awaited": len(made[-1]._awaited)}


def workers() -> list[Any]:
    return list(bridge._workers.values())


def do_overflow() -> Any:
    """As float16 on a GPU: float32 overflows where a frame is bright, float64 not."""
    real = Upsampler.forward

    def forward(self: Upsampler, features: torch.Tensor, base: torch.Tensor, out: Any) -> None:
        real(self, features, base, out)
        if features.dtype == torch.float32 and base.amax() > 0.9:
            out[2][0, 3, 5] = torch.nan

    def draw(n: int, f: Any) -> Any:
        out = f.copy()
        for p in range(3):
            np.asarray(out[p])[:] = 1 if n in (9, 10) else 0.001 * n
        return out

    blank = core.std.BlankClip(format=vs.RGBS, width=24, height=20, length=16)
    clip = blank.std.ModifyFrame(blank, draw)
    plan = {"chunk": 4, "lookahead": 0, "segment": 8, "preroll": 0, "scenes": "off"}
    other = {torch.float32: torch.float64}
    got = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "wider_dtype", lambda device, dtype: other.get(dtype))
        patch.setattr(Upsampler, "forward", forward)
        for order in (range(16), range(15, -1, -1)):
            out = on_gpu("BasicVSR", clip, **plan)
            pictures = {n: pixels(out.get_frame(n)) for n in order}
            got.append([pictures[n] for n in range(16)])
            filter_worker = workers()[-1][1]
    finite = all(np.isfinite(np.frombuffer(data, np.float32)).all() for data in got[0])
    return {"same": got[0] == got[1], "finite": bool(finite),
            "overflowed": list(filter_worker._overflowed),
            "not dropped": len(made[0]._checked)}  # fmt: skip


def do_destroy() -> Any:
    counts = []
    for turn in range(8):
        out = on_gpu("BasicVSR", moving(), **small("BasicVSR"), prefetch=turn % 2)
        futures = [out.get_frame_async(n) for n in range(5)]
        if turn % 3:
            futures[0].result(60).close()
        del out
        for future in futures:
            future.result(60).close()
        del futures, future
        gc.collect()
        end = time.monotonic() + 30
        while workers() and time.monotonic() < end:
            time.sleep(0.01)
        counts.append([open_descriptors(), len(workers())])
    return counts


def do_refuse() -> Any:
    clip = moving().std.GPUUpload()
    errors = []
    for device in ("auto", "cpu"):
        try:
            filtered("BasicVSR", folder, clip, device=device)
        except vs.Error as e:
            errors.append(str(e))
    return {"errors": errors, "descriptors": open_descriptors()}


def main() -> dict[str, Any]:
    answers = {}
    for what in ("refuse", "equal", "once", "lost", "formats", "fail", "overflow", "destroy"):
        try:
            answers[what] = globals()[f"do_{what}"]()
        except Exception:
            answers[what] = traceback.format_exc()
        if what == "refuse":
            pretend_that_the_gpu_is_the_processor()
        made.clear()
        gc.collect()
    return answers


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    Path(sys.argv[2]).write_text(json.dumps(main()))
