"""How far a part is, while a chunk of it is being computed too."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Progress", "Report", "WorkMeter", "memory_in_use"]


@dataclass(frozen=True)
class Progress:
    """How far one part is."""

    part: int
    pictures: int
    """Encoded so far."""
    fraction: float
    """How much of a chunk is computed beyond these pictures, 0 to 1."""
    memory: int
    """Bytes of main memory that the process takes now."""


Report = Callable[[Progress], None]


class WorkMeter:
    """Counts what the networks of this process compute, without a change to them.

    A chunk can take minutes on a processor, and nothing comes out meanwhile. So the multiplications
    of every layer with weights are counted when it is done. What a chunk takes in all is known from
    the one before, or from a sample.
    """

    def __init__(self) -> None:
        """Start at zero; nothing is counted before `counting`."""
        self.done = 0.0
        """Multiplications so far."""
        self._called: set[Any] = set()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count while this is open."""
        from torch.nn.modules.module import register_module_forward_hook

        handle = register_module_forward_hook(self._note)
        try:
            yield
        finally:
            handle.remove()

    def _note(self, module: Any, inputs: Any, output: Any) -> None:
        self._called.add(module)
        if not hasattr(output, "numel"):
            return
        # Layers that are not called, as their block uses their weights itself, count with it.
        layers = [module, *(m for m in module._modules.values() if m not in self._called)]
        for layer in layers:
            weight = None if layer is None else layer._parameters.get("weight")
            if weight is not None:
                # Each number of the output sums over all but the first dimension of the weights.
                self.done += output.numel() * weight.numel() / weight.shape[0]


def memory_in_use() -> int:
    """Bytes of main memory that this process takes now; its peak where only that is known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
