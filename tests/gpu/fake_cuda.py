"""A CUDA runtime without a GPU: an import is a mapping of the file that a descriptor names.

The descriptions are the real ones of cuda-bindings, so a wrong field is an error. Like CUDA it
takes a descriptor for itself when an import succeeds, and only then. `calls` tells what was called.
"""

import mmap
import os
from typing import Any

import numpy as np
import pytest

real: Any = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")

OK = real.cudaError_t.cudaSuccess
FAILED = real.cudaError_t.cudaErrorInvalidValue


class FakeCuda:
    """`cuda.bindings.runtime`, as far as vs_vsr.transfer.vulkan uses it."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails: set[str] = set()
        self._maps: dict[int, mmap.mmap] = {}

    def __getattr__(self, name: str) -> Any:
        # The descriptions and the enumerations.
        return getattr(real, name)

    def _fails(self, name: str) -> bool:
        if name in self.fails:
            self.calls.append(("failed", name))
        return name in self.fails

    def cudaImportExternalMemory(self, description: Any) -> tuple[Any, Any]:
        if self._fails("memory"):
            return FAILED, None
        assert description.type == real.cudaExternalMemoryHandleType(1)
        memory, size = description.handle.fd, description.size
        assert os.fstat(memory).st_size > size > 0
        self.calls.append(("import", size))
        return OK, memory

    def cudaExternalMemoryGetMappedBuffer(self, memory: int, buffer: Any) -> tuple[Any, Any]:
        if self._fails("map"):
            return FAILED, None
        mapped = mmap.mmap(memory, os.fstat(memory).st_size)
        start = np.frombuffer(mapped, np.uint8)
        # Mesa puts the size of the file first, and where the memory itself begins in it.
        lead = int(np.frombuffer(mapped, np.uint64, 2)[1])
        assert (buffer.offset, lead + buffer.size <= len(start)) == (0, True)
        base = start.ctypes.data + lead
        self._maps[base] = mapped
        return OK, base

    def cudaFree(self, base: int) -> tuple[Any]:
        # Python unmaps it when no array uses it any longer.
        del self._maps[base]
        self.calls.append(("free",))
        return (OK,)

    def cudaDestroyExternalMemory(self, memory: int) -> tuple[Any]:
        os.close(memory)
        self.calls.append(("destroy",))
        return (OK,)

    def cudaImportExternalSemaphore(self, description: Any) -> tuple[Any, Any]:
        if self._fails("semaphore"):
            return FAILED, None
        kinds = real.cudaExternalSemaphoreHandleType
        assert description.type == kinds.cudaExternalSemaphoreHandleTypeTimelineSemaphoreFd
        self.calls.append(("import semaphore", os.fstat(description.handle.fd).st_ino))
        return OK, description.handle.fd

    def cudaDestroyExternalSemaphore(self, semaphore: int) -> tuple[Any]:
        os.close(semaphore)
        self.calls.append(("destroy semaphore",))
        return (OK,)

    def cudaWaitExternalSemaphoresAsync(
        self, semaphores: list[int], parameters: list[Any], count: int, stream: int
    ) -> tuple[Any]:
        assert count == len(semaphores) == len(parameters)
        values = [p.params.fence.value for p in parameters]
        inodes = [os.fstat(s).st_ino for s in semaphores]
        self.calls.append(("wait", dict(zip(inodes, values, strict=True)), stream))
        return (OK,)

    def cudaSignalExternalSemaphoresAsync(
        self, semaphores: list[int], parameters: list[Any], count: int, stream: int
    ) -> tuple[Any]:
        if self._fails("signal"):
            return (FAILED,)
        assert count == 1
        inode = os.fstat(semaphores[0]).st_ino
        self.calls.append(("signal", inode, parameters[0].params.fence.value, stream))
        return (OK,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any]:
        self.calls.append(("synchronise", stream))
        return (OK,)


def open_descriptors() -> int:
    """How many file descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))
