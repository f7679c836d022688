"""Which kernels are used: those that were measured faster than the plain form, or are asked for.

The environment variable VSR_KERNELS turns kernels on by name for a process, as `warp,deform`, or
`all`, or `none`. Where a kernel cannot run, the plain form does.
"""

import os
from functools import cache
from importlib.util import find_spec

import torch

from vs_vsr.errors import ArgumentError

__all__ = ["KERNELS", "MEASURED_FASTER", "describe", "enabled"]

KERNELS = frozenset({"deform", "pack", "spynet", "unpack", "warp"})
# A name comes in here with a row in docs/measurements.md.
MEASURED_FASTER: frozenset[str] = frozenset()
_OLDEST = (7, 5)
_OLDEST_CUPY = 14
_SWITCH = "VSR_KERNELS"


def enabled(name: str, device: torch.device) -> bool:
    """Whether to use a kernel for tensors on this device.

    Args:
        name: One of KERNELS.
        device: Where the tensors are.

    Raises:
        ArgumentError: VSR_KERNELS names a kernel that does not exist.
    """
    return (
        device.type == "cuda"
        and name in _asked_for(os.environ.get(_SWITCH))
        # The kernels have no derivative.
        and not torch.is_grad_enabled()
        and not _missing(device)
    )


def describe(device: torch.device) -> str:
    """The kernels that are on for a CUDA device, "none", or why there are none."""
    names = ", ".join(sorted(_asked_for(os.environ.get(_SWITCH)))) or "none"
    missing = _missing(device)
    return f"none ({missing})" if missing else names


@cache
def _asked_for(switch: str | None) -> frozenset[str]:
    if switch is None:
        return MEASURED_FASTER
    names = frozenset(name.strip() for name in switch.split(",")) - {""}
    if names == {"all"}:
        return KERNELS
    if names == {"none"}:
        return frozenset()
    if not names <= KERNELS:
        raise ArgumentError(
            f'vs_vsr: {_SWITCH} must be "all", "none" or some of '
            f'"{",".join(sorted(KERNELS))}", got "{switch}". Unset it for the default.'
        )
    return names


@cache
def _missing(device: torch.device) -> str:
    """What a device lacks for the kernels, or ""."""
    if torch.version.cuda is None:
        return "torch is not built for CUDA"
    if find_spec("cupy") is None:
        # CuPy takes the libraries of CUDA that torch brings, so their major versions are the same.
        major = torch.version.cuda.partition(".")[0]
        return f'CuPy is not installed: pip install "vs-vsr[cuda{major}]"'
    try:
        import cupy
    except ImportError as e:
        return f"CuPy cannot be imported: {e}"
    # By this CuPy takes torch's streams.
    has_streams = hasattr(torch.cuda.Stream, "__cuda_stream__")
    if int(cupy.__version__.split(".")[0]) < _OLDEST_CUPY or not has_streams:
        return f"they need CuPy 14 and torch 2.10, got {cupy.__version__} and {torch.__version__}"
    if torch.cuda.get_device_capability(device) < _OLDEST:
        return f"it is older than compute capability {_OLDEST[0]}.{_OLDEST[1]}"
    return ""
