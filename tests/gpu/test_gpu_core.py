"""native/gpu.c against a pretended core: its order, its errors, and what it leaves behind."""

import ctypes as c
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import vapoursynth as vs
from compiling import HERE, NATIVE, compiled
from fake_cuda import FakeCuda, open_descriptors

from vs_vsr.plugin.gpu import GpuDeviceStruct, GpuFrameStruct, read_device, read_frame
from vs_vsr.transfer.vulkan import READS, WRITES, GpuFrames

RGB = 2
ADVICE = " Put std.GPUDownload before the filter."


@dataclass
class Core:
    """The pretended core, and gpu.c over it."""

    library: Any

    def set(self, core: int = 81, memory: int = 1, semaphores: int = 1, fails: str = "") -> None:
        self.library.fake_set(core, memory, semaphores, fails.encode())

    @property
    def record(self) -> str:
        text: bytes = self.library.fake_record()
        return text.decode().strip()

    def open(self, width: int = 4, family: int = RGB) -> Any:
        error = c.create_string_buffer(1024)
        return self.library.fake_open(width, family, error) or error.value.decode()

    def call(self, name: str, *arguments: Any) -> Any:
        """A function that takes an `error`: what it gives, or the error."""
        error = c.create_string_buffer(1024)
        result = getattr(self.library, f"fake_{name}")(*arguments, error)
        return error.value.decode() or result


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    target = tmp_path_factory.mktemp("core") / "core.so"
    loaded = c.CDLL(str(compiled(target, NATIVE / "gpu.c", HERE / "fake_core.c")))
    loaded.fake_record.restype = c.c_char_p
    for name in ("open", "take", "make"):
        getattr(loaded, f"fake_{name}").restype = c.c_void_p
    pointer = c.c_void_p
    loaded.fake_take.argtypes = (pointer, c.c_int, pointer, c.c_char_p)
    loaded.fake_make.argtypes = (pointer, pointer, c.c_char_p)
    loaded.fake_describe.argtypes = (pointer, pointer, c.c_char_p)
    loaded.fake_reserve.argtypes = (pointer, c.c_int64, c.c_char_p)
    loaded.fake_publish.argtypes = (pointer, pointer, c.c_int, c.c_uint64)
    for name in ("release", "share", "close", "close_device", "free_frame"):
        getattr(loaded, f"fake_{name}").argtypes = (pointer,)
    return loaded


@pytest.fixture
def core(library: Any) -> Iterator[Core]:
    """Afterwards no descriptor and no frame is left."""
    before = open_descriptors()
    fake = Core(library)
    fake.set()
    yield fake
    assert (open_descriptors(), library.fake_frames()) == (before, 0)


@pytest.fixture
def gpu(core: Core) -> Iterator[Any]:
    opened = core.open()
    core.set()
    yield opened
    core.library.fake_release(opened)


def test_structs_are_laid_out_as_in_c(library: Any) -> None:
    assert library.fake_sizes(0) == c.sizeof(GpuDeviceStruct)
    assert library.fake_sizes(1) == c.sizeof(GpuFrameStruct)


@pytest.mark.parametrize(
    ("settings", "clip", "want"),
    [
        (
            {"core": 84},
            {},
            "clip must be in host memory with this VapourSynth (R84; GPU clips are tested with "
            "R81), got a GPU clip." + ADVICE,
        ),
        ({"core": 80}, {}, "clip must be in host memory with this VapourSynth (R80; GPU clips "),
        (
            {"memory": 0},
            {},
            "clip must be on a GPU whose memory other programs can import, got one that exports "
            "none (Pretended GPU)." + ADVICE,
        ),
        (
            {},
            {"width": 0},
            "clip must be of constant format and size on a GPU, got a variable one. Bring its "
            "parts to one before std.GPUUpload.",
        ),
        ({}, {"family": 0}, "clip must be of constant format and size on a GPU, got a variable "),
        ({"fails": "info:1"}, {}, "the GPU of the clip cannot be used: the reason." + ADVICE),
        ({"fails": "timeline:2"}, {}, "the GPU of the clip gives no semaphore: the reason."),
    ],
)
def test_clips_that_are_refused(
    core: Core, settings: dict[str, Any], clip: dict[str, int], want: str
) -> None:
    core.set(**settings)
    assert core.open(**clip).startswith(f"EDVR: {want}")
    if settings.get("fails") == "timeline:2":
        assert core.record == "info timeline timeline free-timeline"


def test_a_table_of_another_release_is_not_called(core: Core) -> None:
    core.set(core=82)
    assert "R82" in core.open()
    assert core.record == ""


def test_what_python_is_told_of_the_device(core: Core, gpu: Any) -> None:
    struct = GpuDeviceStruct()
    assert core.call("describe", gpu, c.byref(struct)) == 0
    device = read_device(struct, print)
    assert (device.uuid, device.name) == (bytes([1, 2, 3] + [0] * 13), "Pretended GPU")
    assert (device.memory, device.limit) == (8000, 5000)
    first, second = map(os.fstat, device.timelines)
    assert first.st_ino != second.st_ino
    core.library.fake_close_device(c.byref(struct))
    assert list(struct.timeline) == [-1, -1]


@pytest.mark.parametrize("fails", ["info:1", "export-semaphore:1", "export-semaphore:2"])
def test_a_device_that_cannot_be_told_of(core: Core, gpu: Any, fails: str) -> None:
    core.set(fails=fails)
    struct = GpuDeviceStruct()
    assert ": the reason." + ADVICE in core.call("describe", gpu, c.byref(struct))
    assert list(struct.timeline) == [-1, -1]


def test_memory_is_reserved_once_and_changed(core: Core) -> None:
    gpu = core.open()
    core.set(fails="reserve:1")
    assert core.call("reserve", gpu, 1000) == (
        "EDVR: no memory of the GPU can be reserved: the reason." + ADVICE
    )
    core.set()
    for size in (1000, 2000):
        assert core.call("reserve", gpu, size) == 0
    core.library.fake_share(gpu)
    core.library.fake_release(gpu)
    assert core.record == "reserve 1000 update 2000"
    core.library.fake_release(gpu)
    assert core.record.endswith(" free-timeline free-timeline unreserve")


def test_a_frame_is_taken_with_the_highest_value_of_each_semaphore(core: Core, gpu: Any) -> None:
    struct = GpuFrameStruct()
    taken = core.call("take", gpu, 0, c.byref(struct))
    frame = read_frame(struct)
    assert [(w.semaphore, w.value) for w in frame.waits] == [(1, 7), (2, 4)]
    assert [(p.memory, p.memory_size, p.offset, p.stride) for p in frame.planes] == [
        (40, 9000, 0, 64),
        (40, 9000, 100, 128),
        (40, 9000, 200, 192),
    ]
    handles = [plane.handle for plane in frame.planes] + [wait.handle for wait in frame.waits]
    assert len({os.fstat(handle).st_ino for handle in handles}) == 5
    core.library.fake_close(c.byref(struct))
    # A second time there is nothing left to close.
    core.library.fake_close(c.byref(struct))
    core.library.fake_free_frame(taken)


def test_a_frame_that_is_ready_is_not_waited_for(core: Core, gpu: Any) -> None:
    struct = GpuFrameStruct()
    taken = core.call("take", gpu, 1, c.byref(struct))
    assert read_frame(struct).waits == []
    core.library.fake_close(c.byref(struct))
    core.library.fake_free_frame(taken)


@pytest.mark.parametrize(
    ("fails", "want"),
    [
        ("take:1", "frame 2 cannot be read on the GPU: the reason."),
        *((f"export-plane:{n}", "a frame on the GPU cannot be shared: the r") for n in (1, 2, 3)),
        *((f"export-semaphore:{n}", "a semaphore of the GPU cannot be shared") for n in (1, 2, 3)),
        ("plane:2", "clip must give frames on the GPU, got one in host memory. Find the filter"),
    ],
)
def test_frames_that_cannot_be_taken(core: Core, gpu: Any, fails: str, want: str) -> None:
    struct = GpuFrameStruct()
    for _ in range(300):
        core.set(fails=fails)
        assert core.call("take", gpu, 2, c.byref(struct)).startswith(f"EDVR: {want}")


@pytest.mark.parametrize("fails", ["new:1", "export-plane:1", "export-plane:3"])
def test_frames_that_cannot_be_made(core: Core, gpu: Any, fails: str) -> None:
    core.set(fails=fails)
    error = core.call("make", gpu, c.byref(GpuFrameStruct()))
    assert error.startswith(
        "EDVR: the GPU of the clip gives no memory for a frame. Lower core.max_vram_cache_size, or "
        if fails == "new:1"
        else "EDVR: a frame on the GPU cannot be shared: the reason."
    )


def test_a_new_frame_is_handed_over_before_anything_writes_it(core: Core, gpu: Any) -> None:
    struct = GpuFrameStruct()
    made = core.call("make", gpu, c.byref(struct))
    assert core.record == "new 12x8 export-plane export-plane export-plane"
    assert read_frame(struct).waits == []
    core.library.fake_close(c.byref(struct))
    core.library.fake_free_frame(made)


def test_the_signal_is_enqueued_before_it_is_published(
    core: Core, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One frame in and one out, with a CUDA runtime that writes into the record of the core.
    cuda = FakeCuda()
    order: list[str] = []
    monkeypatch.setattr(FakeCuda, "cudaExternalMemoryGetMappedBuffer", lambda *_: (0, 1 << 20))
    monkeypatch.setattr(FakeCuda, "cudaImportExternalMemory", import_descriptor)
    monkeypatch.setattr(FakeCuda, "cudaFree", lambda *_: (0,))
    device, source, target = GpuDeviceStruct(), GpuFrameStruct(), GpuFrameStruct()
    core.call("describe", gpu, c.byref(device))
    frames = GpuFrames(cuda, "EDVR", read_device(device, print).timelines)
    core.library.fake_close_device(c.byref(device))
    core.set()

    def note() -> None:
        order.extend(call[0] for call in cuda.calls if call[0] in ("wait", "signal"))
        order.extend(core.record.split())
        cuda.calls.clear()
        core.set()

    taken = core.call("take", gpu, 0, c.byref(source))
    made = core.call("make", gpu, c.byref(target))
    note()
    with frames.access([read_frame(source)], 5, READS) as access:
        note()
        order.append("read")
    note()
    core.library.fake_publish(gpu, taken, READS, access.value)
    core.library.fake_free_frame(taken)
    note()
    with frames.access([read_frame(target)], 6, WRITES) as access:
        order.append("write")
    note()
    core.library.fake_publish(gpu, made, WRITES, access.value)
    note()
    exported = ["export-plane"] * 3
    assert order[:14] == [
        *("take", *exported, "plane", "export-semaphore", "1"),
        *("plane", "export-semaphore", "2", "plane"),
        *("new", "12x8", exported[0]),
    ]
    rest = [word.split("(")[0] for word in order[16:]]
    assert rest == [
        *("wait", "read", "signal", "publish", "publish", "publish", "free-frame"),
        *("write", "signal", "publish", "publish", "publish"),
    ]
    # Each value is the first one of its timeline.
    published = [word for word in order if word.startswith("publish")]
    reads, writes = ([word.split(",")[2:] for word in published[i : i + 3]] for i in (0, 3))
    assert len({tuple(pair) for pair in reads}) == len({tuple(pair) for pair in writes}) == 1
    assert reads[0][0] != writes[0][0] and reads[0][1] == writes[0][1] == "1)"
    for struct in (source, target):
        core.library.fake_close(c.byref(struct))
    core.library.fake_free_frame(made)
    frames.close()


def import_descriptor(cuda: FakeCuda, description: Any) -> tuple[int, int]:
    return 0, description.handle.fd


def test_without_semaphores_the_host_waits_and_nothing_is_published(core: Core) -> None:
    core.set(semaphores=0)
    gpu = core.open()
    assert core.record == "info"
    device, struct = GpuDeviceStruct(), GpuFrameStruct()
    assert core.call("describe", gpu, c.byref(device)) == 0
    assert read_device(device, print).timelines == (-1, -1)
    core.set(semaphores=0)
    taken = core.call("take", gpu, 0, c.byref(struct))
    assert core.record == "take wait export-plane export-plane export-plane"
    assert read_frame(struct).waits == []
    core.library.fake_publish(gpu, taken, READS, 0)
    core.library.fake_publish(gpu, taken, READS, 3)
    assert "publish" not in core.record
    core.library.fake_close(c.byref(struct))
    core.library.fake_free_frame(taken)
    core.set(fails="wait:1")
    error = core.call("take", gpu, 0, c.byref(struct))
    assert error == "EDVR: frame 0 cannot be read on the GPU: the reason." + ADVICE
    core.library.fake_release(gpu)


OURS = """
#include "vsvulkan.h"
#include <stdio.h>
#define HEADER 0
"""
THEIRS = """
#include "VSVulkan4.h"
#include <stdio.h>
#define HEADER 1
"""
PLACES = """
#define PLACE(type, member) printf("%zu ", offsetof(type, member));
int main(void) {{
    {table}
#if HEADER
    {theirs}
#else
    {ours}
#endif
    printf("%zu\\n", sizeof(VSVULKANAPI));
    return 0;
}}
"""
STRUCTS = {
    ("VulkanPlane", "VSVulkanPlaneInfo"): {
        "size": "bufferSize",
        "semaphore": "readySemaphore",
        "value": "readyValue",
    },
    ("VulkanMemory", "VSVulkanExportedMemory"): {
        "memory_id": "memoryId",
        "memory_size": "memorySize",
        "offset": "offset",
        "size": "size",
        "handle_type": "handleType",
        "handle": "handle",
    },
    ("VulkanSemaphore", "VSVulkanExportedSemaphore"): {"handle": "handle"},
    ("VulkanInfo", "VSVulkanCoreInfo"): {
        "name": "deviceName",
        "memory": "deviceMemory",
        "budget": "budget",
        "allocated": "allocated",
        "limit": "limit",
        "uuid": "deviceUUID",
        "memory_handle_type": "exportHandleType",
        "semaphore_handle_type": "semaphoreExportHandleType",
        "unified_memory": "unifiedMemory",
    },
}
# What VSVulkan4.h takes from Vulkan's own headers, by the specification.
HANDLES = "Instance PhysicalDevice Device CommandBuffer Buffer DeviceMemory Semaphore"
NUMBERS = {
    "VkDeviceSize": "uint64_t",
    "VkDeviceAddress": "uint64_t",
    "VkMemoryPropertyFlags": "uint32_t",
    "VkBufferUsageFlags": "uint32_t",
}


def vulkan_types(header: str) -> str:
    lines = ["#include <stdint.h>", "#define VK_UUID_SIZE 16", "#define VK_LUID_SIZE 8"]
    lines += [f"typedef struct Vk{name}_T *Vk{name};" for name in HANDLES.split()]
    lines += [f"typedef {kind} {name};" for name, kind in NUMBERS.items()]
    lines.append("typedef struct VkMemoryRequirements VkMemoryRequirements;")
    functions = set(re.findall(r"FN\(VS_VK_\w+,\s*VS_VK_\w+,\s*(\w+)\)", header))
    assert len(functions) > 100
    functions.add("GetInstanceProcAddr")
    lines += [f"typedef void (*PFN_vk{name})(void);" for name in functions]
    return "\n".join(lines) + "\n"


def test_the_table_is_where_the_installed_header_has_it(tmp_path: Path) -> None:
    header = (Path(vs.get_include()) / "VSVulkan4.h").read_text()
    if vs.core.core_version.release_major != 81:
        pytest.skip("native/vsvulkan.h describes R81")
    (tmp_path / "vulkan").mkdir()
    (tmp_path / "vulkan" / "vulkan_core.h").write_text(vulkan_types(header))
    ours = (NATIVE / "vsvulkan.h").read_text()
    entries = re.findall(r"VS_CC \*(\w+)\)", ours)
    assert len(entries) == 14
    table = "".join(f"PLACE(VSVULKANAPI, {name})" for name in entries)
    places = PLACES.format(
        table=table,
        ours="".join(
            f'PLACE({mine}, {member}) printf("%zu ", sizeof({mine}));'
            for (mine, _), members in STRUCTS.items()
            for member in members
        ),
        theirs="".join(
            f'PLACE({other}, {member}) printf("%zu ", sizeof({other}));'
            for (_, other), members in STRUCTS.items()
            for member in members.values()
        ),
    )
    printed = []
    for name, head in (("ours", OURS), ("theirs", THEIRS)):
        source = tmp_path / f"{name}.c"
        source.write_text(head + places)
        program = compiled(tmp_path / name, source, options=[f"-I{tmp_path}"])
        printed.append(subprocess.run([program], capture_output=True, check=True).stdout)
    assert printed[0] == printed[1]
