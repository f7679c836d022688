"""What a figure was measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from vs_vsr.devices import default_dtype

__all__ = ["machine"]


def machine() -> dict[str, object]:
    """The processor, its cores and precision, and the versions of what computes."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "precision": str(default_dtype(torch.device("cpu"))),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("vs-vsr", "torch", "vapoursynth", "numpy")},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "")
