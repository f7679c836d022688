"""What a figure was measured on."""

import os
import platform
from importlib.metadata import version

import torch

from vs_vsr.devices import default_dtype, kind

__all__ = ["machine"]


def machine() -> dict[str, object]:
    """The processor, its cores and precision, and the versions of what computes."""
    return {
        "processor": kind(torch.device("cpu")),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "precision": str(default_dtype(torch.device("cpu"))),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("vs-vsr", "torch", "vapoursynth", "numpy")},
    }
