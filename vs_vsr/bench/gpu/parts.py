"""Times of the parts of a frame: what its defaults on a GPU should be."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from vs_vsr.bench.gpu import convolutions, fused
from vs_vsr.bench.gpu.cases import cases
from vs_vsr.bench.gpu.fused import Convolution
from vs_vsr.bench.gpu.record import Record, described, read
from vs_vsr.bench.gpu.setting import Setting
from vs_vsr.bench.gpu.timing import captured, synchronize, versions_us
from vs_vsr.models import layers, spynet
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.recurrent import features_input, flows_between
from vs_vsr.models.stream import Span

__all__ = ["measure"]

_BATCHES = (1, 4, 15, 45)
_STRIPS_MB = (8, 16, 24, 48, 512)


def measure(setting: Setting, record: Record) -> None:
    """Measure each part at the first size."""
    with torch.inference_mode():
        network = setting.network()
        with record.part("trunk"):
            _trunk(setting, record, network)
        with record.part("flows"):
            _flows(setting, record, network)
        with record.part("upsampler"):
            _upsampler(setting, record, network)
        with record.part("step of a branch"):
            _branch(setting, record, network)
        if record.has(8, "chunk"):
            with record.part("chunk"):
                _chunk(setting, record, network)
        # Last, as a kernel of our own that is wrong may end all work on the device.
        _forms(setting, record)


def _forms(setting: Setting, record: Record) -> None:
    """Each form beside the plain one it may replace."""
    width, height = setting.sizes[0]
    for case in cases(setting):
        if not record.has(2, case.name):
            continue
        with record.part(case.name):
            there = case.on_device(setting, case.inputs(height, width))
            forms = {"plain": case.plain, **case.candidates}
            calls = {name: _call(form, there) for name, form in forms.items()}
            times = versions_us(setting.torch_device, calls, 0.2)
            kernel = {"kernel_name": case.kernel} if case.kernel else {}
            found = {f"{k}_us": v.get("us", v) for k, v in times.items()}
            record.add(case.name, **kernel, **found)


def _call(form: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Callable[[], object]:
    return lambda: form(*inputs)


def _trunk(setting: Setting, record: Record, network: BasicVSR) -> None:
    """One step's convolutions: as they are, in a graph, and fused in a graph."""
    width, height = setting.sizes[0]
    x = setting.random(1, network.channels + 3, height, width)
    trunk = network.forward_trunk
    versions: dict[str, Callable[[], object]] = {"eager": lambda: trunk(x)}
    notes = {}
    if setting.is_cuda:
        versions["graph"] = captured(lambda: trunk(x))
        try:
            versions["fused_graph"] = captured(_fused_blocks(setting, trunk))
        except LookupError as e:
            notes["fused_graph"] = str(e)
    times = versions_us(setting.torch_device, versions, 0.5)
    blocks = len(trunk.main[2])  # type: ignore[arg-type]  # a Sequential of blocks
    found = {f"{name}_us": value.get("us", value) for name, value in times.items()}
    record.add("trunk", blocks=blocks, **found, **notes)


def _fused_blocks(setting: Setting, trunk: Any) -> Callable[[], object]:
    """The residual blocks of a trunk by the fastest plans that the stage before found.

    Raises:
        LookupError: It found none.
    """
    width, height = setting.sizes[0]
    channels = trunk.main[0].out_channels
    second = Convolution(1, channels, channels, height, width, after="add")
    best = convolutions.best_plans(read(setting.folder / "stages" / "convolutions.json"))
    firsts = [
        second.then(after) for after in ("maximum", "relu") if second.then(after).name in best
    ]
    if not firsts or second.name not in best:
        raise LookupError("there are no fused plans: see the stage convolutions")
    plans = [fused.Plan(c, best[c.name]).build() for c in (firsts[0], second)]
    x, y, hidden = (setting.random(1, channels, height, width, seed=i) for i in range(3))
    calls = []
    for block in trunk.main[2]:
        one, two = block.conv1, block.conv2
        calls.append(plans[0].bound(x, one.weight, one.bias, None, hidden))
        # Into another buffer: nothing promises that what is added may be the output.
        calls.append(plans[1].bound(hidden, two.weight, two.bias, x, y))
        x, y = y, x

    def run() -> None:
        for call in calls:
            call()

    return run


def _flows(setting: Setting, record: Record, network: BasicVSR) -> None:
    width, height = setting.sizes[0]
    for batch in _BATCHES[: setting.small_or(4, 2)]:
        frames = torch.cat(setting.frames(batch + 1, (width, height)))
        one, other = frames[1:], frames[:-1]
        # All pairs in one call, however many a call takes by default.
        with patch.dict(spynet._GROUP_PIXELS, {setting.torch_device.type: 1 << 40}):
            call = {"flow": lambda one=one, other=other: network.spynet(one, other)}
            times = versions_us(setting.torch_device, call, 0.4)["flow"]
        record.add(f"flows of {batch} pairs", us_a_flow=times.get("us", 0) / batch, **times)


@contextmanager
def _strips(device: torch.device, size: int) -> Iterator[None]:
    with patch.dict(layers._STRIP_BYTES, {device.type: size}):
        yield


def _upsampler(setting: Setting, record: Record, network: BasicVSR) -> None:
    width, height = setting.sizes[0]
    features = setting.random(1, network.channels, height, width)
    frame = setting.frames(1)[0]
    base = layers.upsampled(frame, 4)
    planes = torch.empty_like(base).unbind(1)
    for megabytes in _STRIPS_MB:
        with _strips(setting.torch_device, megabytes << 20):
            call = {"upsampler": lambda: network.upsampler(features, base, planes)}
            times = versions_us(setting.torch_device, call, 0.3)["upsampler"]
        record.add(f"upsampler, strips of {megabytes} MiB", **times)


def _branch(setting: Setting, record: Record, network: BasicVSR) -> None:
    """One step of a branch, the warp included: eager, and in a graph."""
    frames = setting.frames(2)
    height, width = frames[0].shape[-2:]
    feature = setting.random(1, network.channels, height, width)
    (flow,) = flows_between(network.spynet, frames[1:], frames[:1])
    (frame,) = features_input(frames[1:], setting.dtype)
    made: list[Tensor] = []

    def step() -> None:
        made[:] = [network._propagate(network.forward_trunk, frame, feature, flow)]

    _eager_and_graph(setting, record, "step of a branch", step, lambda: made[0])


def _chunk(setting: Setting, record: Record, network: BasicVSR) -> None:
    """A chunk of the default size and its lookahead, from a cold start: eager, and in a graph."""
    count, lookahead = setting.small_or(30, 2), setting.small_or(15, 1)
    frames = setting.frames(count + lookahead)
    height, width = frames[0].shape[-2:]
    out = torch.empty(count, 3, 1, 4 * height, 4 * width, device=setting.torch_device)
    planes = out.unbind()
    total = len(frames)
    span = Span(total, range(count), range(total), cuts=frozenset((0, total)))

    def step() -> None:
        network.step(frames, span, None, planes)

    _eager_and_graph(setting, record, "chunk", step, lambda: out, frames=count)


def _eager_and_graph(
    setting: Setting,
    record: Record,
    name: str,
    step: Callable[[], object],
    result: Callable[[], Tensor],
    **values: object,
) -> None:
    """Times of a step without and with a graph, and whether both give the same bits."""
    step()
    eager = result().clone()
    versions: dict[str, Callable[[], object]] = {"eager": step}
    if setting.is_cuda:
        try:
            versions["graph"] = replay = captured(step)
            # The same kernels must write it anew.
            result().fill_(torch.nan)
            replay()
            synchronize(setting.torch_device)
            values["right"] = torch.equal(result(), eager)
        except Exception as e:  # what cannot be captured is a finding
            values["graph"] = described(e)
            torch.cuda.synchronize()
    else:
        values["graph"] = "no GPU"
    # In a graph only where it is to be: several short steps are not put into one.
    times = versions_us(setting.torch_device, versions, 1.0, short_in_graph=False)
    found = {f"{version}_us": value.get("us", value) for version, value in times.items()}
    record.add(name, **values, **found)
