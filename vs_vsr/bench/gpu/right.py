"""What is right: no form is used, and none is worth a time, that gives other pictures."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vs_vsr.bench.gpu.cases import Case, cases
from vs_vsr.bench.gpu.record import Record, described
from vs_vsr.bench.gpu.setting import Setting, own_kernels
from vs_vsr.bench.gpu.timing import captured, poisoned, synchronize
from vs_vsr.kernels.planes import unpack
from vs_vsr.models.stream import Span

__all__ = ["errors", "measure"]

# A form may be this many times as far from float32 as plain torch in the same precision.
_TIMES_PLAIN = 2.0
# Plain torch itself: more than this is no rounding of half precision.
_PLAIN_MOST = 2e-2
# Below this an error is nothing, whatever the plain one is.
_NOTHING = 1e-6


def measure(setting: Setting, record: Record) -> None:
    """Check each form on an even and on odd sizes, then the whole network."""
    for case in cases(setting):
        for height, width in ((48, 64), (37, 53), (1, 7)):
            if case.name == "flow of a pair" and height == 1:
                continue  # six levels of one row say nothing
            name = f"{case.name}, {width}x{height}"
            with record.part(name):
                record.add(name, **errors(setting, case, height, width))
    with record.part("network"):
        _network(setting, record)
    with record.part("streams"):
        _streams(setting, record)
    with record.part("NaN"):
        _nan(setting, record)
    # Last, as a capture that fails may spoil what comes after it.
    with record.part("graph"):
        _graph(setting, record)


def errors(setting: Setting, case: Case, height: int, width: int) -> dict[str, object]:
    """Relative errors of each form of a case, and "right": whether each is within its bound.

    "wrong" has the forms that are not, if there are any.
    """
    inputs = case.inputs(height, width)
    want = case.reference(*(x.clone() for x in case.rounded(setting, inputs))).double()

    def error(form: Callable[..., Tensor]) -> float:
        there = case.on_device(setting, inputs)
        got = poisoned(lambda: form(*there)).double().cpu()
        return float((got - want).norm() / want.norm().clamp_min(1e-30))

    plain = error(case.plain)
    row: dict[str, object] = {"plain": plain}
    wrong = [] if plain <= _PLAIN_MOST else ["plain"]
    for name, form in case.candidates.items():
        try:
            row[name] = found = error(form)
        except Exception as e:  # a form that this device does not have
            row[name] = described(e)
            continue
        # A NaN is never at most anything.
        if not found <= max(_TIMES_PLAIN * plain, _NOTHING):
            wrong.append(name)
    kernel = {"kernel_name": case.kernel} if case.kernel else {}
    return {"right": not wrong, **kernel, **row, **({"wrong": wrong} if wrong else {})}


def _network(setting: Setting, record: Record) -> None:
    """The whole network against float32 on the CPU."""
    count = setting.small_or(5, 3)
    size = (64, 48)
    frames = setting.frames(count, size)
    cpu = Setting("cpu", setting.quick, setting.folder, setting.weights)
    network = cpu.network().float()
    want = network(torch.stack([x.cpu() for x in frames], dim=1))[0]

    def error() -> float:
        return float((_pictures(setting, frames).cpu() - want).norm() / want.norm())

    default = error()
    with own_kernels("none"):
        plain = error()
    row: dict[str, object] = {"relative_error": default, "plain_error": plain}
    try:
        with own_kernels("all"):
            row["kernels_error"] = error()
    except Exception as e:  # a kernel that fails must not hide what the default gives
        row["kernels_error"] = described(e)
    right = default <= _PLAIN_MOST and default <= max(_TIMES_PLAIN * plain, _NOTHING)
    record.add("whole network, float32 on the CPU", right=right, **row)


def _pictures(setting: Setting, frames: list[Tensor]) -> Tensor:
    with torch.inference_mode():
        pictures: Tensor = setting.network()(torch.stack(frames, dim=1))[0]
    return pictures


def _graph(setting: Setting, record: Record) -> None:
    """A span of frames in a CUDA graph gives the same bits as without."""
    if not setting.is_cuda:
        record.add("graph against none", note="no GPU")
        return
    network = setting.network()
    frames = setting.frames(3, (64, 48))
    height, width = frames[0].shape[-2:]
    out = torch.full((3, 3, 1, 4 * height, 4 * width), torch.nan, device=setting.torch_device)
    planes = [picture.unbind() for picture in out]

    def call() -> None:
        with torch.inference_mode():
            network.step(frames, Span.whole(3), None, planes)

    call()
    plain = out.clone()
    replay = captured(call)
    out.fill_(torch.nan)
    replay()
    synchronize(setting.torch_device)
    record.add("graph against none", right=torch.equal(out, plain))


def _streams(setting: Setting, record: Record) -> None:
    """Two clips at a time on two streams give the bits of one after the other."""
    frames = [setting.frames(4, size) for size in ((64, 48), (56, 40))]
    alone = [_pictures(setting, part) for part in frames]
    if not setting.is_cuda:
        again = [_pictures(setting, part) for part in frames]
        same = all(map(torch.equal, alone, again))
        record.add("twice the same bits", right=same)
        return
    streams = [torch.cuda.Stream() for _ in frames]
    beside = []
    for stream, part in zip(streams, frames, strict=True):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            beside.append(_pictures(setting, part))
    synchronize(setting.torch_device)
    record.add("streams against none", right=all(map(torch.equal, alone, beside)))


def _nan(setting: Setting, record: Record) -> None:
    """NaN and what lies outside [0, 1] in a frame does not reach the network."""
    plane = np.linspace(-1, 2, 48 * 64, dtype=np.float32).reshape(48, 64)
    plane[3, 5] = np.nan
    planes = torch.from_numpy(np.stack([plane] * 3)).to(setting.torch_device)
    frame = planes.new_empty(1, *planes.shape)
    unpack(planes, frame, None)
    right = bool(((frame >= 0) & (frame <= 1)).all()) and float(frame[0, 0, 3, 5]) == 0
    record.add("NaN in a frame", right=right)
