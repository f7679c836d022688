"""What a network would launch on a GPU, counted without one.

torch's meta device has shapes and no values, and takes the branches that a GPU takes. So a whole
network runs there in seconds, and every operation it asks for can be looked at.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vs_vsr.models.stream import run_clip
from vs_vsr.streaming.clip import Clip
from vs_vsr.streaming.plan import Plan

__all__ = ["Launches", "chunk", "counted", "on_meta"]

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
# They make memory without writing to it, or say something about a tensor.
_FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"}
# A number read by the host, or a size that depends on values: the host waits for the device.
_WAITS = {
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "nonzero_static",
    "repeat_interleave",
    "unique_consecutive",
    "_unique2",
}


@dataclass
class Launches:
    """What was asked of the device.

    An operation is one call into torch after the composite ones are taken apart. Views, memory that
    nothing is written to, questions about tensors, and `arange` are left out (`arange` has its own
    count). A launch is an operation; a convolution with a bias is two, as the bias is added after
    cuDNN's kernel. What an operation launches beyond that is not known here.
    """

    operations: Counter[str] = field(default_factory=Counter)
    """By name, as `convolution`."""
    biases: int = 0
    """Convolutions with a bias."""
    arange: int = 0
    breaks: list[str] = field(default_factory=list)
    """What a CUDA graph cannot capture: waits, sizes that depend on values, copies of the host's
    memory."""
    wide: Counter[str] = field(default_factory=Counter)
    """float32 maps of 64 channels or more, by the operation that made them."""
    strided: list[str] = field(default_factory=list)
    """Inputs and weights of convolutions that are not channels_last."""

    @property
    def total(self) -> int:
        """Number of operations."""
        return self.operations.total()

    @property
    def launches(self) -> int:
        """Number of launches."""
        return self.total + self.biases


class _Counting(TorchDispatchMode):
    def __init__(self, found: Launches) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.split("::")[1]
        if name == "deform_conv2d":
            # torchvision has its rule for meta tensors in its Python package.
            x, weight = args[:2]
            out = x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:])
        elif name == "scaled_dot_product_attention":
            # One kernel on a GPU, where meta tensors take the slow form.
            out = torch.empty_like(args[0])
        elif torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE):
            # As `decompose` does, but without the Python forms, which take more apart than a GPU.
            with self:
                return func._op_dk(_COMPOSITE, *args, **kwargs)
        else:
            out = func(*args, **kwargs)
            if name == "convolution":
                # As cuDNN's path gives it.
                out = out.contiguous(memory_format=torch.channels_last)
        self._note(name, func, args, kwargs, out)
        return out

    def _note(
        self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> None:
        found = self.found
        inputs = [t for a in (*args, *kwargs.values()) for t in _tensors(a)]
        outputs = list(_tensors(out))
        # A number of Python beside a tensor travels with the launch; a tensor on the host does not.
        hosts = [t for t in inputs if t.device.type == "cpu"]
        if hosts and any(t.is_meta for t in (*inputs, *outputs)):
            found.breaks.append(f"{name}: from the host")
        elif name in _WAITS or (name == "index" and _by_mask(args)):
            found.breaks.append(name)
        if name in ("lift_fresh", "lift_fresh_copy"):
            found.breaks.append(f"{name}: a tensor made of Python's numbers")
        if hosts or all(t.device.type == "cpu" for t in outputs):
            return
        if name == "arange":
            found.arange += 1
        elif name not in _FREE and not _is_view(func):
            found.operations[name] += 1
            self._look_at(name, args, outputs)

    def _look_at(self, name: str, args: tuple[Any, ...], outputs: Sequence[Tensor]) -> None:
        found = self.found
        if name == "convolution":
            x, weight, bias = args[:3]
            found.biases += bias is not None
            for what, t in (("input", x), ("weight", weight)):
                if t.ndim == 4 and not t.is_contiguous(memory_format=torch.channels_last):
                    found.strided.append(f"{what} {tuple(t.shape)} {t.stride()}")
        for t in outputs:
            if t.dtype == torch.float32 and t.ndim == 4 and t.shape[1] >= 64 and t.shape[-1] > 1:
                found.wide[name] += 1


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _is_view(func: Any) -> bool:
    returned = [r.alias_info for r in func._schema.returns]
    return bool(returned) and all(a is not None and not a.is_write for a in returned)


def _by_mask(args: tuple[Any, ...]) -> bool:
    return any(t.dtype == torch.bool for t in _tensors(args[1]))


@contextmanager
def counted() -> Iterator[Launches]:
    """Count what is asked of the meta device inside."""
    found = Launches()
    with _Counting(found):
        yield found


def on_meta(network: nn.Module, dtype: torch.dtype = torch.float16) -> nn.Module:
    """The network as a filter has it on a GPU: on the device, its weights in half precision."""
    network = network.eval().requires_grad_(False).to("meta")
    network = network.to(memory_format=torch.channels_last)
    for parameter in network.parameters():
        parameter.data = parameter.data.to(dtype)
    return network


def chunk(
    network: Any, plan: Plan, number: int, *, height: int = 180, width: int = 320
) -> Launches:
    """What the pictures of a chunk take after those of the chunks before.

    What is made once for a size has been made before, as a CUDA graph asks for.
    """
    frames = list(torch.empty(plan.frames, 1, 3, height, width, device="meta"))
    clip = Clip(network, plan, frames)
    with counted():
        for before in range(number):
            clip.chunk(before)
        if not number:
            run_clip(network, torch.stack(frames[:3], dim=1))
    with counted() as found:
        clip.chunk(number)
    return found
