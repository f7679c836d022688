"""Convolutions of the networks: by torch, and by every fused plan that cuDNN has for them."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vs_vsr.bench.gpu import fused
from vs_vsr.bench.gpu.fused import Choice, Convolution
from vs_vsr.bench.gpu.record import Record, described
from vs_vsr.bench.gpu.setting import Setting
from vs_vsr.bench.gpu.timing import versions_us
from vs_vsr.devices import prepare

__all__ = ["PEAK", "TRUNK", "best_plans", "measure", "tensors"]

TRUNK = "trunk"
PEAK = "peak"
# Relative errors above this are no rounding of half precision.
_WRONG = 2e-2
# All plans that exist for the trunk's convolution, and of others those that were fastest there.
_TRUNK_SHARE = 0.45
_FASTEST = 4
_PROPOSED = 4
_BUILDERS = 8
# Kept, as each of its threads has a handle of cuDNN's.
_builders = ThreadPoolExecutor(_BUILDERS)


def measure(setting: Setting, record: Record) -> None:
    """Measure each shape; the trunk's first, by cuDNN's own choice and then by every plan."""
    prepare(setting.torch_device)
    known: list[Choice] = []
    for i, (role, convolution) in enumerate(_shapes(setting)):
        if not record.has(4, convolution.name):
            continue
        with record.part(convolution.name):
            record.add(convolution.name, role=role, **_row(setting, record, convolution, known))
        if i == 0 and setting.is_cuda and fused.is_available():
            # Its own row: a plan that crashes must not cost the row before.
            with record.part("every plan"):
                plans = _every_plan(setting, record, convolution)
                record.add(convolution.name, role=TRUNK, **_summary(convolution, plans))
                known = [plan["choice"] for plan in _ranked(plans)[:_FASTEST]]


def best_plans(result: dict[str, Any]) -> dict[str, Choice]:
    """The fastest fused plan of each shape in what this stage wrote."""
    plans: dict[str, list[dict[str, Any]]] = {}
    for row in result.get("rows", []):
        plans.setdefault(row["name"], []).extend(row.get("plans", []))
    ranked = {name: _ranked(found) for name, found in plans.items()}
    return {name: tuple(found[0]["choice"]) for name, found in ranked.items() if found}


def tensors(setting: Setting, c: Convolution) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random input, weights, bias and what is added, in the dtype of the visit."""
    x = setting.random(c.n, c.channels, c.height, c.width)
    weight = setting.random(c.outputs, c.channels, *c.size, seed=1)
    weight /= (c.channels * c.size[0] * c.size[1]) ** 0.5
    bias = setting.random(c.outputs, seed=2)
    return x, weight, bias, setting.random(c.n, c.outputs, c.height, c.width, seed=3)


def _shapes(setting: Setting) -> Iterator[tuple[str, Convolution]]:
    """The convolutions, what decides most first."""
    channels = setting.small_or(64, 8)
    sizes = [(h, w) for w, h in setting.sizes]
    h, w = sizes[0]
    trunk = Convolution(1, channels, channels, h, w, after="add")
    yield TRUNK, trunk
    yield TRUNK, trunk.then("maximum")
    yield TRUNK, trunk.then("relu")
    yield PEAK, Convolution(1, 4 * channels, 4 * channels, h, w)
    for height, width in sizes[1:]:
        yield TRUNK, Convolution(1, channels, channels, height, width, after="add")
    yield TRUNK, Convolution(2, channels, channels, h, w, after="add")
    # The upsampler, and its shuffle by storing.
    yield "upsampler", Convolution(1, channels, 4 * channels, h, w, after="leaky_relu")
    yield (
        "upsampler",
        Convolution(1, channels, 2 * channels, h, w, after="leaky_relu", shuffled=True),
    )
    yield "upsampler", Convolution(1, channels, channels, 4 * h, 4 * w, after="leaky_relu")
    yield "upsampler", Convolution(1, channels, 8, 4 * h, 4 * w)
    # The first of a trunk, with the frame's channels: as they are, and padded.
    for wide in (channels + 3, channels + 8):
        yield "first", Convolution(1, wide, channels, h, w, after="leaky_relu")
    h32, w32 = -(-h // 32) * 32, -(-w // 32) * 32
    widths = (8, 32, 64, 32, 16, 2)
    for i in range(5):
        after: fused.After = "maximum" if i < 4 else "none"
        yield "flow", Convolution(1, widths[i], widths[i + 1], h32, w32, (7, 7), after)
    # The first and the last as 7x1, over seven shifted copies and to seven parts.
    yield "flow 7x1", Convolution(1, 56, 32, h32, w32, (7, 1), "maximum")
    yield "flow 7x1", Convolution(1, 16, 16, h32, w32, (7, 1))


def _row(
    setting: Setting, record: Record, c: Convolution, known: Sequence[Choice]
) -> dict[str, Any]:
    """The forms of torch, the plans that cuDNN proposes, and the `known` ones."""
    x, weight, bias, added = tensors(setting, c)
    versions: dict[str, Callable[[], object]]
    versions = {"eager": lambda: _eager(x, weight, bias, added, c)}
    padding = (c.size[0] // 2, c.size[1] // 2)
    ones = (1, 1)
    if setting.is_cuda and c.after in ("relu", "maximum"):
        versions["cudnn_convolution_relu"] = lambda: torch.cudnn_convolution_relu(
            x, weight, bias, ones, padding, ones, 1
        )
    if setting.is_cuda and c.after == "add":
        # It always ends in a ReLU, so it is timed here but cannot be used.
        versions["cudnn_convolution_add_relu"] = lambda: torch.cudnn_convolution_add_relu(
            x, weight, added, 1.0, bias, ones, padding, ones, 1
        )
        versions["no_bias_then_add"] = lambda: F.conv2d(x, weight, None, 1, padding).add_(added)
    times = versions_us(setting.torch_device, versions, 0.15)
    row: dict[str, Any] = {"gflop": c.flop / 1e9}
    for name, found in times.items():
        row[f"{name}_us"] = found.get("us", found.get("error"))
    if not setting.is_cuda or not fused.is_available():
        return row | {"fused": "no GPU, or the package nvidia-cudnn-frontend is missing"}
    deadline = time.monotonic() + 0.2 * record.left_s()
    proposed, _ = fused.choices(c)
    plans = _measured(setting, c, [*proposed[:_PROPOSED], *known], deadline)
    return row | _summary(c, plans)


def _every_plan(setting: Setting, record: Record, c: Convolution) -> list[dict[str, Any]]:
    """All plans that cuDNN has for a shape, as far as the time goes."""
    deadline = time.monotonic() + _TRUNK_SHARE * record.left_s()
    _, others = fused.choices(c)
    return _measured(setting, c, others, deadline)


def _summary(c: Convolution, plans: list[dict[str, Any]]) -> dict[str, Any]:
    ranked = _ranked(plans)
    if not ranked:
        return {"fused": "no plan", "plans": plans}
    us = float(ranked[0]["us"])
    found = {"fused_us": us, "fused": ranked[0]["plan"], "fused_tflops": c.flop / us / 1e6}
    return {**found, "timed": len(ranked), "plans": plans}


def _measured(
    setting: Setting, c: Convolution, wanted: Iterable[Choice], deadline: float
) -> list[dict[str, Any]]:
    """An entry for each plan that exists: its time, or what is wrong with it."""
    inputs = tensors(setting, c)
    # The reference in float32, on the device.
    x, weight, bias, added = (t.float() for t in inputs)
    want = _eager(x, weight, bias, added, c)
    entries = []
    for plan, error in _built(c, wanted, deadline):
        entry = {"choice": plan.choice, "plan": plan.name}
        entries.append(entry | ({"error": error} if error else _timed(setting, plan, inputs, want)))
    return entries


def _eager(x: Tensor, weight: Tensor, bias: Tensor, added: Tensor, c: Convolution) -> Tensor:
    y = F.conv2d(x, weight, bias, padding=(c.size[0] // 2, c.size[1] // 2))
    if c.after == "add":
        return y.add_(added)
    if c.after in ("relu", "maximum"):
        return y.relu_()
    return F.leaky_relu(y, 0.1, inplace=True) if c.after == "leaky_relu" else y


def _built(
    c: Convolution, wanted: Iterable[Choice], deadline: float
) -> Iterator[tuple[fused.Plan, str | None]]:
    """The plans that exist, built by several threads until the time is over; and their errors."""

    def build(choice: Choice) -> tuple[fused.Plan, str | None] | None:
        if time.monotonic() > deadline:
            return None
        try:
            plan = fused.Plan(c, choice)
        except Exception:  # many of those that can be named do not exist
            return None
        try:
            return plan.build(), None
        except Exception as e:  # and some of these are not for this GPU
            return plan, described(e)

    remaining = iter(wanted)
    while time.monotonic() < deadline and (part := list(islice(remaining, _BUILDERS))):
        yield from (found for found in _builders.map(build, part) if found)


def _timed(
    setting: Setting, plan: fused.Plan, inputs: tuple[Tensor, Tensor, Tensor, Tensor], want: Tensor
) -> dict[str, Any]:
    """The plan's time, if its result is right."""
    c = plan.convolution
    x, weight, bias, added = inputs
    out = torch.empty_like(added)
    if c.shuffled:
        whole = x.new_empty(c.n, 2 * c.height, c.width, c.outputs)
        out = whole[:, ::2].permute(0, 3, 1, 2)
    out.fill_(torch.nan)
    call: Callable[[], None] = plan.bound(x, weight, bias, added, out)
    try:
        call()
        wrong = float((out.float() - want).norm() / want.norm())
    except Exception as e:  # the plan's fault: the others are measured
        return {"error": described(e)}
    if not wrong < _WRONG:
        return {"error": f"it is wrong: relative error {wrong:.3g}"}
    times = versions_us(setting.torch_device, {"plan": call}, 0.03)["plan"]
    return {"relative_error": wrong, **times}


def _ranked(plans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The plans that were timed, the fastest first."""
    return sorted((plan for plan in plans if "us" in plan), key=lambda plan: float(plan["us"]))
