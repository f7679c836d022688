"""Multi-frame video super-resolution as VapourSynth filters.

`core.vsr.BasicVSR(clip)` needs no import of this package. The names below are for scripts that want
types, and for work on tensors.
"""

import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from vs_vsr import filters
from vs_vsr.filters import *  # noqa: F403

if TYPE_CHECKING:
    from vs_vsr.weights.loader import load_model

__all__ = ["__version__", "load_model"]
__all__ += filters.__all__

__version__ = version("vs-vsr")

# torch reads this before its first tensor: large pages for large tensors (Linux). At 960x540 each
# feature map is 66 MB of new memory, and page faults took a tenth of the time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def __getattr__(name: str) -> Any:
    # It needs torch, which takes seconds to import: only those who ask for it wait.
    if name == "load_model":
        from vs_vsr.weights.loader import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
