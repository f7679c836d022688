"""The importer, over files that are laid out as Mesa's memory is."""

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda, open_descriptors

from vs_vsr.errors import DeviceError
from vs_vsr.transfer.vulkan import (
    READS,
    WRITES,
    Blocks,
    GpuFrame,
    GpuFrames,
    GpuPlane,
    Semaphores,
    Wait,
    plane_array,
)

LEAD, SIZE = 4096, 1 << 16
STREAM = 77
numbers = count(1)


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@pytest.fixture
def handles() -> Iterator[list[int]]:
    """Descriptors that stay ours, closed at the end."""
    made: list[int] = []
    yield made
    for handle in made:
        os.close(handle)


def block(handles: list[int]) -> int:
    """A handle of a new block of SIZE bytes."""
    handle = os.memfd_create("block")
    os.truncate(handle, LEAD + SIZE)
    os.pwrite(handle, struct.pack("QQ", LEAD + SIZE, LEAD), 0)
    handles.append(handle)
    return handle


def plane(handle: int, number: int, offset: int = 0) -> GpuPlane:
    return GpuPlane(number, SIZE, offset, 64, handle)


def over(address: int, shape: tuple[int, int], stride: int, dtype: str) -> np.ndarray[Any, Any]:
    """A plane in memory that numpy can reach."""
    import ctypes

    memory = (ctypes.c_char * (stride * shape[0])).from_address(address)
    return np.ndarray(shape, dtype, memory, 0, (stride, np.dtype(dtype).itemsize))


def names(cuda: FakeCuda) -> list[str]:
    return [call[0] for call in cuda.calls]


@pytest.mark.parametrize("dtype", ["f4", "f2", "u1"])
def test_a_plane_is_where_offset_and_stride_say(handles: list[int], dtype: str) -> None:
    cuda, handle = FakeCuda(), block(handles)
    blocks = Blocks(cuda, "EDVR")
    with blocks.addresses([plane(handle, 1, 128), plane(handle, 1, 8192)], STREAM) as addresses:
        for address, first in zip(addresses, (128, 8192), strict=True):
            picture = over(address, (3, 5), 64, dtype)
            picture[:] = np.arange(15).reshape(3, 5)
            for y in range(3):
                row = os.pread(handle, 64, LEAD + first + 64 * y)
                want = np.arange(5 * y, 5 * y + 5).astype(dtype).tobytes()
                # The rest of the row is not ours.
                assert row == want + bytes(64 - len(want))
        del picture
    blocks.close()


def test_a_block_is_imported_once_whatever_its_handle(handles: list[int]) -> None:
    cuda, handle = FakeCuda(), block(handles)
    blocks = Blocks(cuda, "EDVR")
    for _ in range(5):
        again = os.dup(handle)
        with blocks.addresses([plane(handle, 7), plane(again, 7, 64)], STREAM) as (first, second):
            assert second == first + 64
        os.close(again)
    assert cuda.calls == [("import", SIZE)]
    blocks.close()
    assert names(cuda) == ["import", "synchronise", "free", "destroy"]


def test_the_block_used_longest_ago_goes_after_the_stream_is_done(handles: list[int]) -> None:
    cuda = FakeCuda()
    blocks = Blocks(cuda, "EDVR")
    made = [block(handles) for _ in range(18)]
    for number in (*range(16), 0, 16):
        with blocks.addresses([plane(made[number], number)], STREAM):
            pass
    assert names(cuda) == ["import"] * 17 + ["synchronise", "free", "destroy"]
    # Block 1 went, as 0 had been used again; now 2 goes for it.
    del cuda.calls[:]
    for number in (0, 1):
        with blocks.addresses([plane(made[number], number)], STREAM):
            pass
    assert names(cuda) == ["import", "synchronise", "free", "destroy"]
    blocks.close()


def test_more_blocks_are_kept_where_the_pictures_of_a_chunk_are_large(handles: list[int]) -> None:
    cuda = FakeCuda()
    blocks = Blocks(cuda, "EDVR")
    planes = [plane(block(handles), number) for number in range(18)]
    # Three chunks go round.
    for _ in range(2):
        for first in (0, 6, 12):
            with blocks.addresses(planes[first : first + 6], STREAM):
                pass
    assert names(cuda) == ["import"] * 18
    blocks.close()


def test_no_block_goes_while_somebody_is_within_it(handles: list[int]) -> None:
    cuda = FakeCuda()
    blocks = Blocks(cuda, "EDVR")
    planes = [plane(block(handles), number) for number in range(20)]
    with ExitStack() as within:
        addresses = [within.enter_context(blocks.addresses([p], STREAM))[0] for p in planes]
        with blocks.addresses([plane(block(handles), 20)], STREAM + 1):
            pass
        # Block 20 alone was free to go.
        assert names(cuda).count("free") == 1
        for address in addresses:
            over(address, (4, 16), 64, "f4")[:] = 1
    # All streams that may use them are waited for, before any goes.
    assert names(cuda)[-4:] == ["synchronise", "synchronise", "free", "destroy"]
    assert names(cuda).count("free") == 5
    blocks.close()
    assert names(cuda).count("free") == names(cuda).count("destroy") == 21


@pytest.mark.parametrize("step", ["memory", "map"])
def test_what_cannot_be_imported(handles: list[int], step: str) -> None:
    cuda = FakeCuda()
    blocks = Blocks(cuda, "EDVR")
    planes = [plane(block(handles), 1), plane(block(handles), 2)]
    with blocks.addresses(planes[:1], STREAM):
        pass
    before = open_descriptors()
    cuda.fails = {step}
    for _ in range(3):
        with pytest.raises(DeviceError) as e, blocks.addresses(planes, STREAM):
            pytest.fail("the block of the with statement must not run")
        assert str(e.value) == (
            "EDVR: clip must be in memory that CUDA can import, got cudaErrorInvalidValue. Put "
            "std.GPUDownload before the filter, and report this with the driver's version."
        )
    assert open_descriptors() == before
    cuda.fails = set()
    with blocks.addresses(planes, STREAM):
        pass
    blocks.close()


@pytest.fixture
def semaphores(handles: list[int]) -> list[int]:
    """Descriptors in place of four semaphores, known by their inodes."""
    made = [os.memfd_create("semaphore") for _ in range(4)]
    handles += made
    return made


def inode(handle: int) -> int:
    return os.fstat(handle).st_ino


def test_a_stream_waits_for_the_highest_value_of_each_semaphore(semaphores: list[int]) -> None:
    cuda = FakeCuda()
    known = Semaphores(cuda, "EDVR")
    a, b = semaphores[:2]
    known.wait([Wait(1, 5, a), Wait(2, 9, b), Wait(1, 7, a), Wait(1, 6, a)], STREAM)
    known.wait([Wait(1, 8, a)], STREAM)
    known.wait([], STREAM)
    assert cuda.calls == [
        ("import semaphore", inode(a)),
        ("import semaphore", inode(b)),
        ("wait", {inode(a): 7, inode(b): 9}, STREAM),
        ("wait", {inode(a): 8}, STREAM),
    ]
    known.close()
    assert names(cuda).count("destroy semaphore") == 2


def test_a_frame_is_waited_for_then_used_then_signalled(
    handles: list[int], semaphores: list[int]
) -> None:
    cuda = FakeCuda()
    core, reads, writes = semaphores[:3]
    frames = GpuFrames(cuda, "EDVR", [reads, writes])
    del cuda.calls[:]
    handle = block(handles)
    planes = [plane(handle, 1, 256 * p) for p in range(3)]
    for turn in (1, 2):
        with frames.access([GpuFrame(planes, [Wait(4, turn, core)])], STREAM, READS) as access:
            ((r, g, b),) = access.planes
            assert (g - r, b - r, access.value) == (256, 512, 0)
            cuda.calls.append(("kernel",))
        assert access.value == turn
    with frames.access([GpuFrame(planes), GpuFrame(planes)], STREAM + 1, WRITES) as access:
        assert [len(addresses) for addresses in access.planes] == [3, 3]
        cuda.calls.append(("kernel",))
    assert access.value == 1
    assert cuda.calls == [
        ("import", SIZE),
        ("import semaphore", inode(core)),
        ("wait", {inode(core): 1}, STREAM),
        ("kernel",),
        ("signal", inode(reads), 1, STREAM),
        ("wait", {inode(core): 2}, STREAM),
        ("kernel",),
        ("signal", inode(reads), 2, STREAM),
        ("kernel",),
        ("signal", inode(writes), 1, STREAM + 1),
    ]
    del cuda.calls[:]
    frames.close()
    # Both streams come first.
    assert sorted(names(cuda)[:2]) == ["synchronise"] * 2
    assert names(cuda).count("destroy semaphore") == 3 and "destroy" in names(cuda)


def test_without_semaphores_the_stream_is_done_and_nothing_is_published(handles: list[int]) -> None:
    cuda = FakeCuda()
    frames = GpuFrames(cuda, "EDVR", [-1, -1])
    with frames.access([GpuFrame([plane(block(handles), 1)])], STREAM, WRITES) as access:
        cuda.calls.append(("kernel",))
    assert access.value == 0
    assert cuda.calls == [("import", SIZE), ("kernel",), ("synchronise", STREAM)]
    frames.close()


def test_work_that_fails_is_waited_for_and_not_published(
    handles: list[int], semaphores: list[int]
) -> None:
    cuda = FakeCuda()
    frames = GpuFrames(cuda, "EDVR", semaphores[:2])
    frame = GpuFrame([plane(block(handles), 1)])
    with pytest.raises(ZeroDivisionError), frames.access([frame], STREAM, WRITES) as access:
        raise ZeroDivisionError
    assert (access.value, names(cuda)[-1]) == (0, "synchronise")
    cuda.fails = {"signal"}
    with (
        pytest.raises(RuntimeError, match="cudaErrorInvalidValue"),
        frames.access([frame], STREAM, WRITES) as access,
    ):
        pass
    assert (access.value, names(cuda)[-1]) == (0, "synchronise")
    # No value is left out: the next one is the first.
    cuda.fails = set()
    with frames.access([frame], STREAM, WRITES) as access:
        pass
    assert access.value == 1
    frames.close()


def test_semaphores_that_cannot_be_imported(handles: list[int], semaphores: list[int]) -> None:
    cuda = FakeCuda()
    message = "EDVR: clip must be in memory with semaphores that CUDA can import, got cudaErrorInv"
    cuda.fails = {"semaphore"}
    with pytest.raises(DeviceError, match=message):
        GpuFrames(cuda, "EDVR", semaphores[:2])
    cuda.fails = set()
    frames = GpuFrames(cuda, "EDVR", semaphores[:2])
    cuda.fails = {"semaphore"}
    frame = GpuFrame([plane(block(handles), 1)], [Wait(1, 1, semaphores[2])])
    with pytest.raises(DeviceError, match=message), frames.access([frame], STREAM, READS):
        pytest.fail("the block of the with statement must not run")
    assert names(cuda)[-1] == "synchronise"
    frames.close()


def test_of_two_timelines_one_may_fail(semaphores: list[int]) -> None:
    class Second(FakeCuda):
        def cudaImportExternalSemaphore(self, description: Any) -> Any:
            if names(self):
                self.fails = {"semaphore"}
            return super().cudaImportExternalSemaphore(description)

    cuda = Second()
    with pytest.raises(DeviceError):
        GpuFrames(cuda, "EDVR", semaphores[:2])
    assert names(cuda) == ["import semaphore", "failed", "destroy semaphore"]


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2), ("uint8", 1)])
def test_a_plane_as_a_cupy_array(dtype: str, size: int) -> None:
    pytest.importorskip("cupy")
    array = plane_array(0x7F0000001080, (3, 5), 64, dtype, 0)
    assert (array.data.ptr, array.shape) == (0x7F0000001080, (3, 5))
    assert (array.strides, array.dtype.name, array.data.mem.size) == ((64, size), dtype, 192)
