"""What longer chunks and work side by side gain, without a frame server."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from vs_vsr.bench.gpu.record import LEFT_OUT, Record
from vs_vsr.bench.gpu.setting import Setting
from vs_vsr.bench.gpu.timing import seconds
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.stream import Span
from vs_vsr.streaming.clip import Clip
from vs_vsr.streaming.plan import Plan

__all__ = ["measure"]

_CHUNKS = (30, 60, 90)
_LOOKAHEAD = 15
_ROUNDS = 2


def measure(setting: Setting, record: Record) -> None:
    """Measure chunks, then clips side by side, then two clips as one batch."""
    network = setting.network()
    chunks = [setting.small_or(n, n // 15) for n in _CHUNKS]
    count, lookahead = 2 * chunks[-1], setting.small_or(_LOOKAHEAD, 2)
    frames = setting.frames(count + lookahead)
    versions: dict[str, Callable[[], int]] = {}
    for chunk in chunks:
        versions[f"chunk {chunk}"] = _clip(network, frames, chunk, lookahead, count)
    with record.part("chunks"):
        _compare(setting, record, versions)
    versions = {}
    for lanes in (1, 2, 3):
        one = _clip(network, frames, chunks[0], lookahead, chunks[-1])
        versions[f"{lanes} clips side by side"] = _side_by_side(setting, one, lanes)
    if record.has(12, "clips side by side"):
        with record.part("clips side by side"):
            _compare(setting, record, versions)
    if record.has(5, "batch"):
        with record.part("batch"):
            length = setting.small_or(15, 2)
            batches = {f"batch of {b}": _batch(network, frames[:length], b) for b in (1, 2)}
            _compare(setting, record, batches)


def _compare(setting: Setting, record: Record, versions: dict[str, Callable[[], int]]) -> None:
    """Frames a second of each version, in turn, after one run of each."""
    rates: dict[str, list[float]] = {name: [] for name in versions}
    start = time.perf_counter()
    for call in versions.values():
        call()
    for _ in range(_ROUNDS):
        # A round too many would cost all rows.
        if record.left_s() < 1.5 * (time.perf_counter() - start):
            break
        start = time.perf_counter()
        for name, call in versions.items():
            made = 0

            def run(call: Callable[[], int] = call) -> None:
                nonlocal made
                made = call()

            took = seconds(setting.torch_device, run)
            rates[name].append(made / took)
    for name, values in rates.items():
        row = {"fps": max(values), "rounds_fps": values} if values else {"note": LEFT_OUT}
        record.add(name, **row)


def _clip(
    network: BasicVSR, frames: Sequence[Tensor], chunk: int, lookahead: int, count: int
) -> Callable[[], int]:
    """Make the first `count` pictures; the lookahead of the last chunk is there too."""
    plan = Plan(frames=len(frames), chunk=chunk, lookahead=lookahead, segment=8 * chunk)

    def run() -> int:
        clip = Clip(network, plan, frames)
        for k in range(count // chunk):
            clip.chunk(k)
        return count // chunk * chunk

    return run


def _side_by_side(setting: Setting, call: Callable[[], int], lanes: int) -> Callable[[], int]:
    """The same work several times at once, each in its own thread and on its own stream."""
    device = setting.torch_device
    streams = [torch.cuda.Stream(device) for _ in range(lanes)] if setting.is_cuda else []

    def work(lane: int) -> int:
        if not streams:
            return call()
        with torch.cuda.stream(streams[lane]):
            made = call()
            streams[lane].synchronize()
        return made

    def run() -> int:
        with ThreadPoolExecutor(lanes) as pool:
            return sum(pool.map(work, range(lanes)))

    return run


def _batch(network: BasicVSR, frames: Sequence[Tensor], count: int) -> Callable[[], int]:
    """Several clips as one batch through the network's step."""
    batch = [torch.cat([frame] * count) for frame in frames]
    height, width = frames[0].shape[-2:]
    out = torch.empty(len(frames), 3, count, 4 * height, 4 * width, device=frames[0].device)
    planes = [picture.unbind() for picture in out]

    def run() -> int:
        with torch.inference_mode():
            network.step(batch, Span.whole(len(batch)), None, planes)
        return count * len(frames)

    return run
