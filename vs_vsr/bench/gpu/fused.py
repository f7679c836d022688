"""cuDNN's fused convolutions, through the package nvidia-cudnn-frontend where it is installed.

A convolution with its bias and what follows is one kernel. Which engines and configurations there
are depends on cuDNN's version and the GPU, so they are enumerated.
"""

import importlib
import importlib.util
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["After", "Choice", "Convolution", "Plan", "choices", "is_available"]

After = Literal["none", "add", "relu", "maximum", "leaky_relu"]
Choice = tuple[Literal["heuristic"], int] | tuple[int, int]
"""The place in cuDNN's own list, or an engine and its KERNEL_CFG."""

_SLOPE = 0.1
_handles = threading.local()


@dataclass(frozen=True)
class Convolution:
    """One convolution in half precision, channels_last, stride 1, of the input's size."""

    n: int
    channels: int
    outputs: int
    height: int
    width: int
    size: tuple[int, int] = (3, 3)
    after: After = "none"
    """What follows the bias; "maximum" is a ReLU written as the maximum with zero, for which cuDNN
    has other engines."""
    shuffled: bool = False
    """Whether the outputs are stored as one row of a pixel shuffle's two: outputs are (j, c)."""

    @property
    def flop(self) -> int:
        """Operations, a multiply-add being two."""
        pixels = self.n * self.height * self.width
        return 2 * pixels * self.channels * self.outputs * self.size[0] * self.size[1]

    @property
    def name(self) -> str:
        """What it is, in a word for a table."""
        batch = f"N={self.n} " if self.n > 1 else ""
        store = " shuffled" if self.shuffled else ""
        return (
            f"{batch}{self.channels} -> {self.outputs}{store}, {self.size[0]}x{self.size[1]}, "
            f"{self.after}, {self.width}x{self.height}"
        )

    def then(self, after: After) -> "Convolution":
        """The same convolution with something else after it."""
        return replace(self, after=after)


def is_available() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("cudnn") is not None


class Plan:
    """One way to run a convolution; it is not built before `build`."""

    def __init__(
        self, convolution: Convolution, choice: Choice, *, device_json: str | None = None
    ) -> None:
        """Describe it to cuDNN.

        Args:
            convolution: What to compute.
            choice: Which engine.
            device_json: The GPU to build for, as cuDNN writes it; by default the current one.

        Raises:
            Exception: cuDNN has no such plan; the package has several exceptions for it.
        """
        self.convolution, self.choice = convolution, choice
        self._graph, self._tensors = _graph(convolution, device_json)
        cudnn = _package()
        if choice[0] == "heuristic":
            modes = [cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK]
            self._graph.create_execution_plans(modes)
            self._index = choice[1]
        else:
            # Never split: that adds up in another order.
            knobs = {cudnn.knob_type.KERNEL_CFG: choice[1], cudnn.knob_type.SPLIT_K_SLC: 1}
            self._graph.create_execution_plan(choice[0], knobs)
            self._index = 0
        self.name: str = self._graph.get_plan_name_at_index(self._index)

    def build(self) -> "Plan":
        """Compile the kernel, up to seconds; raises as the constructor."""
        self._graph.build_plan_at_index(self._index)
        return self

    def bound(
        self, x: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None, out: Tensor
    ) -> Callable[[], None]:
        """A function that runs the plan on these tensors, on the current stream of its caller.

        Args:
            x: (N, C, H, W), half, channels_last.
            weight: (K, C, R, S), half, channels_last.
            bias: (K,), half.
            added: As `out`; only for "add". Not the same memory as `out`.
            out: (N, K, H, W), half, channels_last, or strided as `shuffled` says.
        """
        t = self._tensors
        values: dict[Any, Any] = {t["x"]: x, t["weight"]: weight, t["out"]: out}
        values[t["bias"]] = bias.view(1, -1, 1, 1)
        if "added" in t:
            assert added is not None
            values[t["added"]] = added
        if "zero" in t:
            values[t["zero"]] = torch.zeros(1, 1, 1, 1)
        workspace_bytes = max(1, self._graph.get_workspace_size_plan_at_index(self._index))
        workspace = torch.empty(workspace_bytes, dtype=torch.uint8, device=x.device)

        def call() -> None:
            handle = _handle()
            _package().set_stream(handle, torch.cuda.current_stream().cuda_stream)
            self._graph.execute_plan_at_index(values, workspace, self._index, handle)

        return call


def choices(
    convolution: Convolution, *, device_json: str | None = None
) -> tuple[list[Choice], Iterator[Choice]]:
    """The plans that cuDNN proposes, its best guess first, and all others that it can be told.

    Engines that it proposes come first in the second list. Not all of these exist.
    """
    cudnn = _package()
    graph, _ = _graph(convolution, device_json)
    graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    count = graph.get_execution_plan_count()
    proposed: list[Choice] = [("heuristic", i) for i in range(count)]
    # Names are "eng4_k24=3": the engine, then its knobs.
    names = [graph.get_plan_name_at_index(i) for i in range(count)]
    engines = [int(name.removeprefix("eng").split("_")[0]) for name in names]
    order = dict.fromkeys([*engines, *range(graph.get_engine_count())])

    def others() -> Iterator[Choice]:
        for engine in order:
            try:
                knobs = graph.get_knobs_for_engine(engine)
            except Exception:  # not for this GPU
                continue
            for knob in knobs:
                if knob.type == cudnn.knob_type.KERNEL_CFG:
                    for config in range(knob.min_value, knob.max_value + 1):
                        yield engine, config

    return proposed, others()


@cache
def _package() -> Any:
    return importlib.import_module("cudnn")


def _handle() -> Any:
    """This thread's handle: one must not be used by two threads."""
    if not hasattr(_handles, "value"):
        _handles.value = _package().create_handle()
    return _handles.value


def _graph(convolution: Convolution, device_json: str | None) -> tuple[Any, dict[str, Any]]:
    """The operations, checked, and their tensors by name."""
    cudnn = _package()
    half, full = cudnn.data_type.HALF, cudnn.data_type.FLOAT
    where: dict[str, Any] = {"handle": _handle()} if device_json is None else {}
    if device_json is not None:
        where["device_property"] = cudnn.create_device_properties(device_json)
    graph = cudnn.pygraph(
        io_data_type=half, intermediate_data_type=full, compute_data_type=full, **where
    )
    c = convolution
    n, h, w, (r, s) = c.n, c.height, c.width, c.size

    def nhwc(n: int, channels: int, height: int, width: int) -> Any:
        strides = [channels * height * width, 1, channels * width, channels]
        return graph.tensor(dim=[n, channels, height, width], stride=strides, data_type=half)

    x, weight = nhwc(n, c.channels, h, w), nhwc(c.outputs, c.channels, r, s)
    bias = nhwc(1, c.outputs, 1, 1)
    tensors = {"x": x, "weight": weight, "bias": bias}
    y = graph.conv_fprop(
        image=x, weight=weight, padding=[r // 2, s // 2], stride=[1, 1], dilation=[1, 1]
    )
    y = graph.bias(input=y, bias=bias)
    if c.after == "add":
        tensors["added"] = nhwc(n, c.outputs, h, w)
        y = graph.add(a=y, b=tensors["added"])
    elif c.after == "maximum":
        tensors["zero"] = graph.tensor(
            dim=[1, 1, 1, 1], stride=[1, 1, 1, 1], data_type=full, is_pass_by_value=True
        )
        y = graph.max(input0=y, input1=tensors["zero"])
    elif c.after == "relu":
        y = graph.relu(input=y)
    elif c.after == "leaky_relu":
        y = graph.leaky_relu(input=y, negative_slope=_SLOPE)
    y.set_output(True).set_data_type(half)
    if c.shuffled:
        # A row of the input fills every other row of the picture, which is twice as wide.
        y.set_dim([n, c.outputs, h, w])
        y.set_stride([2 * h * w * c.outputs, 1, 2 * w * c.outputs, c.outputs])
    tensors["out"] = y
    graph.validate()
    graph.build_operation_graph()
    return graph, tensors
