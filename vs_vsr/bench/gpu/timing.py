"""Times of short pieces of work, on a GPU by its own clock."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor

__all__ = ["captured", "poisoned", "seconds", "synchronize", "versions_us"]

# Kernels shorter than this are timed in a graph: launched one by one, the launch would be timed.
_GRAPH_BELOW_S = 50e-6
_CALLS_IN_GRAPH = 20
_ROUNDS = 2
_WARM_UP = 3


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(device: torch.device, call: Callable[[], object]) -> float:
    """The seconds of one call, from an idle device to an idle device."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def versions_us(
    device: torch.device,
    versions: Mapping[str, Callable[[], object]],
    budget_s: float = 0.4,
    *,
    short_in_graph: bool = True,
) -> dict[str, dict[str, Any]]:
    """The time of one call of each version, in turn: A B A B.

    Args:
        device: Where they run.
        versions: Each is called without arguments, many times; it may overwrite its outputs.
        budget_s: Seconds for each version and round, about.
        short_in_graph: Whether what takes less than a launch may be timed in a graph.

    Returns:
        For each version "us", the median of all its calls, "rounds_us", the medians by round, and
        "in_graph", whether it was timed as replays of a CUDA graph. A version that fails has
        "error" alone.
    """
    if device.type == "cpu":
        # Nothing is decided by a processor's times here: they only have to be there.
        budget_s /= 20
    ready: dict[str, tuple[Callable[[], object], int, bool]] = {}
    times: dict[str, dict[str, Any]] = {}
    for name, call in versions.items():
        try:
            ready[name] = _ready(device, call, short_in_graph=short_in_graph)
        except Exception as e:  # one version that a device does not have must not cost the others
            times[name] = {"error": f"{type(e).__name__}: {str(e)[:200]}"}
    rounds: dict[str, list[list[float]]] = {name: [] for name in ready}
    for _ in range(_ROUNDS):
        for name, (call, calls, _) in ready.items():
            rounds[name].append(_times(device, call, calls, budget_s))
    for name, values in rounds.items():
        times[name] = {
            "us": round(1e6 * median(t for part in values for t in part), 3),
            "rounds_us": [round(1e6 * median(part), 3) for part in values],
            "in_graph": ready[name][2],
        }
    return {name: times[name] for name in versions}


def captured(call: Callable[[], object]) -> Callable[[], object]:
    """Replay of `call`, captured once in a CUDA graph on a side stream."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    # Not by torch.cuda.graph, which gives all cached memory back each time: there are hundreds.
    with torch.cuda.stream(stream):
        # Other threads may call CUDA meanwhile.
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            call()
        finally:
            graph.capture_end()

    # The graph knows addresses alone: what `call` holds must stay as long.
    def replay(_: object = call) -> None:
        graph.replay()

    return replay


def poisoned(call: Callable[[], Tensor]) -> Tensor:
    """The result of `call`, whose new tensors are NaN at first: what stays unwritten is seen."""
    before = torch.are_deterministic_algorithms_enabled()
    # torch fills what it allocates in this mode (fill_uninitialized_memory, by default on). Some
    # operators only warn that they are not deterministic.
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        return call()
    finally:
        torch.use_deterministic_algorithms(before)


def _ready(
    device: torch.device, call: Callable[[], object], *, short_in_graph: bool
) -> tuple[Callable[[], object], int, bool]:
    """What to time, how many calls it makes, and whether it is a graph."""
    for _ in range(_WARM_UP):
        call()
    if (
        device.type != "cuda"
        or not short_in_graph
        or min(_times(device, call, 1, 0.02)) > _GRAPH_BELOW_S
    ):
        return call, 1, False

    def several() -> None:
        for _ in range(_CALLS_IN_GRAPH):
            call()

    try:
        return captured(several), _CALLS_IN_GRAPH, True
    except Exception:  # it synchronises, say: then it is timed with its launches
        torch.cuda.synchronize(device)
        return call, 1, False


def _times(
    device: torch.device, call: Callable[[], object], calls: int, budget_s: float
) -> list[float]:
    """Seconds of one of the `calls` in a `call`: two measurements at least, 200 at most."""
    values: list[float] = []
    end = time.perf_counter() + budget_s
    while len(values) < 200 and (len(values) < 2 or time.perf_counter() < end):
        if device.type == "cuda":
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            call()
            last.record()
            last.synchronize()
            values.append(first.elapsed_time(last) / 1000 / calls)
        else:
            start = time.perf_counter()
            call()
            values.append((time.perf_counter() - start) / calls)
    return values
