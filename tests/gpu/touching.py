"""For a child process with a GPU in software: the filters of plugin.c, which turn x into 1 - x."""

import ctypes as c
import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import vapoursynth as vs
from fake_cuda import FakeCuda, open_descriptors

from vs_vsr.bench.gpu import vapoursynth_clips
from vs_vsr.plugin.gpu import GpuFrameStruct, read_frame
from vs_vsr.transfer.vulkan import READS, WRITES, GpuFrames

core = vs.core
cuda = FakeCuda()
frames = GpuFrames(cuda, "Touch", [-1, -1])
fails: set[int] = set()


def renew() -> None:
    global frames
    frames = GpuFrames(cuda, "Touch", [-1, -1])


strides: set[tuple[int, ...]] = set()


class Work(c.Structure):
    _fields_ = (
        ("input", GpuFrameStruct),
        ("output", GpuFrameStruct),
        *((name, c.c_int32) for name in ("n", "width", "height", "sample_bytes")),
        ("read", c.c_uint64),
        ("written", c.c_uint64),
        ("done", c.c_int32),
        ("error", c.c_char * 1024),
    )


def over(address: int, work: Any, stride: int) -> Any:
    """A plane in the core's own memory."""
    memory = (c.c_char * (stride * work.height)).from_address(address)
    kind = {1: "u1", 2: "f2", 4: "f4"}[work.sample_bytes]
    shape = (work.height, work.width)
    return np.ndarray(shape, kind, memory, 0, (stride, work.sample_bytes))


@c.CFUNCTYPE(None, c.POINTER(Work))
def invert(pointer: Any) -> None:
    """Do what a network would: read one frame in place, write another one in place."""
    work = pointer.contents
    try:
        if work.n in fails:
            raise LookupError(f"frame {work.n} fails")
        source, target = read_frame(work.input), read_frame(work.output)
        strides.add(tuple(plane.stride for plane in source.planes))
        with (
            frames.access([source], 1, READS) as reads,
            frames.access([target], 2, WRITES) as writes,
        ):
            for p in range(3):
                from_plane = over(reads.planes[0][p], work, source.planes[p].stride)
                to_plane = over(writes.planes[0][p], work, target.planes[p].stride)
                white = 255 if work.sample_bytes == 1 else 1
                np.subtract(white, from_plane, out=to_plane, casting="unsafe")
        work.read, work.written = reads.value, writes.value
    except Exception as e:
        work.error = str(e).encode()[:1023]


def clip(format_id: int, width: int, height: int, length: int) -> Any:
    """Frames of which no two, and no two planes, are the same."""
    blank = core.std.BlankClip(format=format_id, width=width, height=height, length=length)

    def fill(n: int, f: Any) -> Any:
        frame = f.copy()
        for p in range(3):
            plane = np.asarray(frame[p])
            values = np.random.default_rng([n, p]).random(plane.shape)
            np.copyto(plane, values * (255 if plane.dtype.kind == "u" else 1), casting="unsafe")
        return frame

    return blank.std.ModifyFrame(blank, fill)


def planes(node: Any, n: int) -> list[bytes]:
    with node.get_frame(n) as frame:
        return [np.asarray(frame[p]).tobytes() for p in range(3)]


def inverted(node: Any) -> Any:
    """The same on the processor, through numpy."""

    def invert_frame(n: int, f: Any) -> Any:
        frame = f.copy()
        for p in range(3):
            plane = np.asarray(frame[p])
            np.subtract(255 if plane.dtype.kind == "u" else 1, plane, out=plane, casting="unsafe")
        return frame

    return node.std.ModifyFrame(node, invert_frame)


def main(library: Path, what: str) -> dict[str, Any]:
    core.std.LoadPlugin(str(library))
    c.CDLL(str(library)).set_work(invert)
    return globals()[f"do_{what}"]()  # type: ignore[no-any-return]


def wrong(got: Any, want: Any, numbers: Any) -> list[int]:
    return [n for n in numbers if planes(got, n) != planes(want, n)]


def do_equal() -> dict[str, Any]:
    answer = {}
    for name, size in (("RGBS", (50, 7)), ("RGBH", (33, 5)), ("RGB24", (70, 9))):
        source = clip(getattr(vs, name), *size, 11)
        want = inverted(source)
        for filter_name in ("Touch", "Carry"):
            touched = getattr(core.touch, filter_name)(source.std.GPUUpload())
            answer[f"{name} {filter_name} on the GPU"] = touched.gpu_resident
            numbers = (*range(11), 3, 10, 0, 7, 2)
            got = touched.std.GPUDownload()
            answer[f"{name} {filter_name}"] = wrong(got, want, numbers)
    answer["strides"] = sorted(strides)
    return answer


def do_chain() -> dict[str, Any]:
    # Read by two filters, so the core copies; and written planes are read by the core's own filter.
    source = clip(vs.RGBS, 40, 20, 9)
    upload = source.std.GPUUpload()
    twice = core.touch.Carry(core.touch.Touch(upload).std.BoxBlur(hradius=2))
    other = core.touch.Touch(upload)
    want = inverted(inverted(source).std.GPUUpload().std.BoxBlur(hradius=2).std.GPUDownload())
    got = twice.std.GPUDownload(), other.std.GPUDownload()
    numbers = (0, 5, 8, 1, 2, 3, 4, 6, 7)
    return {
        "blurred": wrong(got[0], want, numbers),
        "other": wrong(got[1], inverted(source), numbers),
    }


def do_many() -> dict[str, Any]:
    source = clip(vs.RGBS, 64, 32, 10).std.Loop(40)
    touched = core.touch.Carry(source.std.GPUUpload()).std.GPUDownload()
    counts = []
    for first in (0, 200):
        for n, frame in enumerate(touched[first : first + 200].frames(close=True)):
            del n, frame
        counts.append(open_descriptors())
    imports = [call for call in cuda.calls if call[0] == "import"]
    return {"descriptors": counts, "imports": len(imports)}


def do_fail() -> dict[str, Any]:
    source = clip(vs.RGBS, 64, 32, 100)
    touched = core.touch.Touch(source.std.GPUUpload()).std.GPUDownload()
    planes(touched, 0)
    before = open_descriptors()
    fails.update(range(1, 90))
    errors = set()
    for n in range(1, 90):
        try:
            planes(touched, n)
        except vs.Error as e:
            errors.add(str(e).replace(str(n), "N"))
    cuda.fails = {"memory"}
    fails.clear()
    # The blocks are known already, so nothing is imported.
    known = wrong(touched, inverted(source), (90, 91))
    frames.close()
    renew()
    for n in range(1, 40):
        try:
            planes(touched, n)
        except vs.Error as e:
            errors.add(str(e))
    cuda.fails = set()
    after = open_descriptors()
    again = wrong(touched, inverted(source), (1, 99))
    return {"errors": sorted(errors), "known": known, "again": again, "left": after - before}


def do_destroy() -> dict[str, Any]:
    counts = []
    for turn in range(12):
        source = clip(vs.RGBH, 64, 32, 30).std.GPUUpload()
        touched = core.touch.Carry(source).std.GPUDownload()
        futures = [touched.get_frame_async(n) for n in range(20)]
        if turn % 2:
            futures[0].result().close()
        del touched, source
        for future in futures:
            future.result().close()
        del futures, future
        frames.close()
        renew()
        counts.append(open_descriptors())
    return {"descriptors": counts}


def do_refuse() -> dict[str, Any]:
    errors = []
    info = core.vulkan_device_info
    host = clip(vs.RGBS, 8, 8, 2)
    for node in (host.std.GPUUpload(), host):
        try:
            core.touch.Touch(node).std.GPUDownload().get_frame(0).close()
            errors.append("")
        except vs.Error as e:
            errors.append(str(e))
    return {
        "errors": errors,
        "exports": [info["export_handle_type"], info["semaphore_export_handle_type"]],
    }


def do_upload() -> dict[str, Any]:
    """The clip that bench.gpu measures with."""
    made = []

    def source(name: str, size: tuple[int, int], length: int) -> Any:
        blank = core.std.BlankClip(width=size[0], height=size[1], length=length, keep=True)

        def count(n: int, f: Any) -> Any:
            made.append(n)
            return f

        return blank.std.ModifyFrame(blank, count)

    with patch.object(vapoursynth_clips, "source", source):
        there = vapoursynth_clips.uploaded("RGB24", (32, 16))
    for n in range(200):
        there.get_frame(n).close()
    return {"on_gpu": vapoursynth_clips.is_gpu_clip(there), "made": sorted(made)}


if __name__ == "__main__":
    answer = main(Path(sys.argv[1]), sys.argv[2])
    Path(sys.argv[3]).write_text(json.dumps(answer))
