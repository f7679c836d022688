"""What is right: no form is used, and none is worth a time, that gives other pictures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vs_vsr.bench import peer
from vs_vsr.bench.gpu.cases import Case, cases
from vs_vsr.bench.gpu.record import Record, described
from vs_vsr.bench.gpu.setting import Setting, own_kernels
from vs_vsr.bench.gpu.timing import captured, poisoned, synchronize
from vs_vsr.kernels.planes import unpack
from vs_vsr.kernels.selection import KERNELS, describe, enabled
from vs_vsr.models.stream import Span

__all__ = ["NETWORK", "errors", "measure"]

NETWORK = "whole network, float32 on a processor"

# A form may be this many times as far from float32 as plain torch in the same precision.
_TIMES_PLAIN = 2.0
# Plain torch itself: more than this is no rounding of half precision.
_PLAIN_MOST = 2e-2
# Below this an error is nothing, whatever the plain one is.
_NOTHING = 1e-6


def measure(setting: Setting, record: Record) -> None:
    """Check the whole network, then each form on an even and on odd sizes."""
    frames, want = _clip(setting)
    with record.part("network"):
        _network(setting, record, frames, want)
    with record.part("streams"):
        _streams(setting, record)
    with record.part("NaN"):
        _nan(setting, record)
    with record.part("graph"):
        _graph(setting, record)
    # Last, as a kernel of our own that is wrong may end all work on the device.
    for case in cases(setting):
        for height, width in ((48, 64), (37, 53), (1, 7)):
            if case.name == "flow of a pair" and height == 1:
                continue  # six levels of one row say nothing
            name = f"{case.name}, {width}x{height}"
            with record.part(name):
                record.add(name, **errors(setting, case, height, width))
    with record.part("network with all kernels"):
        _network_with_kernels(setting, record, frames, want)


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


def _network(setting: Setting, record: Record, frames: list[Tensor], want: Tensor) -> None:
    """The middle of a clip against float32 on the processor, beside the peer's plain torch."""
    middle = len(frames) // 2
    found, plain = _error(_pictures(setting, frames)[middle], want), None
    note = {}
    try:
        file = Path(setting.weights)
        network = peer.load(file if file.is_file() else None)
        network = network.to(setting.torch_device, setting.dtype)
        clip = torch.stack(frames, dim=1).to(setting.dtype)
        with torch.inference_mode():
            plain = _error(network(clip)[0], want)
    except Exception as e:  # no such package, or weights that are not for it
        note = {"note": f"no plain form: {described(e)}"}
    bound = _PLAIN_MOST if plain is None else max(_TIMES_PLAIN * plain, _NOTHING)
    right = found <= min(bound, _PLAIN_MOST)
    record.add(NETWORK, right=right, relative_error=found, plain_error=plain, **note)


def _network_with_kernels(
    setting: Setting, record: Record, frames: list[Tensor], want: Tensor
) -> None:
    """The same with all kernels of our own."""
    name = "whole network with all kernels"
    if not setting.is_cuda:
        record.add(name, note="no GPU")
        return
    with own_kernels("all"), torch.inference_mode():
        if not all(enabled(kernel, setting.torch_device) for kernel in KERNELS):
            record.add(name, note=f"none can run: {describe(setting.torch_device)}")
            return
        error = _error(_pictures(setting, frames)[len(frames) // 2], want)
    record.add(name, right=error <= _PLAIN_MOST, relative_error=error)


def _clip(setting: Setting) -> tuple[list[Tensor], Tensor]:
    """Frames on the device, and the picture of the middle one in float32 on the processor."""
    frames = setting.frames(setting.small_or(9, 3), (128, 96) if not setting.quick else (64, 64))
    network = Setting("cpu", setting.quick, setting.folder, setting.weights).network(torch.float32)
    with torch.inference_mode():
        pictures = network(torch.stack([x.cpu() for x in frames], dim=1))[0]
    return frames, pictures[len(frames) // 2]


def _error(picture: Tensor, want: Tensor) -> float:
    return float((picture.float().cpu() - want).norm() / want.norm())


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
