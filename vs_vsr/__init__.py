"""Multi-frame video super-resolution as VapourSynth filters.

`core.vsr.BasicVSR(clip)` needs no import of this package. The names below are for scripts that want
types, and for work on tensors.
"""

import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vs_vsr.functions import basicvsr, basicvsrpp, edvr, iconvsr, realbasicvsr, vrt
    from vs_vsr.weights.detect import load_model

__all__ = [
    "__version__",
    "basicvsr",
    "basicvsrpp",
    "edvr",
    "iconvsr",
    "load_model",
    "realbasicvsr",
    "vrt",
]

__version__ = version("vs-vsr")

# torch reads this before its first tensor: large pages for large tensors (Linux). At 960x540 each
# feature map is 66 MB of fresh memory, and its page faults took a tenth of the time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_FUNCTIONS = ("basicvsr", "basicvsrpp", "edvr", "iconvsr", "realbasicvsr", "vrt")
_HOMES = {**dict.fromkeys(_FUNCTIONS, "vs_vsr.functions"), "load_model": "vs_vsr.weights.detect"}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import: only who uses a name that needs it waits.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
