"""Speed end to end through vspipe, against the peer's algorithm and the machine's own peak.

    python -m vs_vsr.bench --frames 60 210 --json result.json
    python -m vs_vsr.bench --filters BasicVSR AnimeSR

It runs, in turn and `--rounds` times: the convolution peak (64 to 64 channels, 3x3, at --size, in
the default precision of the machine), the peer's algorithm on a few frames, and for each filter
vspipe over a clip of --size with the filter's defaults: to the script's end without a frame, for
one frame, and for all. With two numbers of frames, a clip of each length is run, and what the
frames between them took is the speed of a film: the first chunk, with its start, and the last one,
which has nothing after it, count for nothing.

On a shared machine only the ratios mean something. A line for each round and each filter goes to
standard error, then what each part of a BasicVSR frame takes, and one JSON object to --json.
"""

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vs_vsr.bench import peer
from vs_vsr.bench.machine import machine
from vs_vsr.bench.networks import ready
from vs_vsr.bench.parts import Part, parts
from vs_vsr.devices import default_dtype
from vs_vsr.models.animesr import AnimeSR
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.layers import convolve
from vs_vsr.models.stream import Network
from vs_vsr.plugin.contract import RGBS, ClipInfo
from vs_vsr.plugin.worker import resolve
from vs_vsr.streaming.plan import Plan

__all__ = ["main"]

# Filters, and the networks of their default weights.
_NETWORKS: dict[str, Callable[[], Network]] = {"BasicVSR": BasicVSR, "AnimeSR": AnimeSR}
# Size of the peer's frames and of the clip that is made.
_HEIGHT, _WIDTH = 180, 320
_COUNTED_FRAMES = 30

_SCRIPT = """\
import vapoursynth as vs
from vapoursynth import core
clip = core.bs.VideoSource({path!r}, cachemode=0)
count = int(frames)
clip = clip[:count] if len(clip) >= count else clip.std.Loop()[:count]
clip = clip.resize.Bicubic({width}, {height}, format=vs.RGBS, matrix_in=1)
core.vsr.{name}(clip{arguments}).set_output()
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m vs_vsr.bench")
    parser.add_argument("--filters", nargs="+", choices=list(_NETWORKS), default=["BasicVSR"])
    parser.add_argument("--size", type=_size, default="320x180", help="width x height of the input")
    parser.add_argument("--clip", type=Path, help="a video; by default drifting noise")
    parser.add_argument(
        "--frames", type=int, nargs="+", default=[60], help="one number, or two (see above)"
    )
    parser.add_argument("--peer-frames", type=int, default=2, help="0 leaves the peer out")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--arguments", default="", help="of all filters, as in a script: \"chunk=30, device='cpu'\""
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    width, height = args.size
    with tempfile.TemporaryDirectory() as folder:
        clip = args.clip or _noise(Path(folder) / "noise.y4m", max(args.frames))
        scripts = {}
        for name in args.filters:
            scripts[name] = Path(folder) / f"{name}.vpy"
            scripts[name].write_text(
                _SCRIPT.format(
                    path=str(clip.resolve()),
                    width=width,
                    height=height,
                    name=name,
                    arguments=f", {args.arguments}" if args.arguments else "",
                )
            )
        # The peer's frames are those of BasicVSR at this size.
        beside = "BasicVSR" in args.filters and (width, height) == (_WIDTH, _HEIGHT)
        network = peer.load() if args.peer_frames and beside else None
        frames = [torch.rand(1, 3, _HEIGHT, _WIDTH) for _ in range(15)]
        rounds = []
        for i in range(args.rounds):
            row: dict[str, Any] = {"peak_gflops": _convolution_peak(width, height) / 1e9}
            if network is not None:
                row["peer_fps"] = 1 / peer.seconds_per_frame(network, frames, args.peer_frames)
            for name, script in scripts.items():
                row[name] = _vspipe(script, sorted(args.frames))
            rounds.append(row)
            _say(f"round {i}: {row}")
    result: dict[str, Any] = {"machine": machine(), "settings": settings, "rounds": rounds}
    for name in args.filters:
        work = _gflop(_NETWORKS[name], width, height)
        fps = median(row[name]["fps"] for row in rounds)
        # Each round with its own peak, as the machine is faster at one time than at another.
        share = median(row[name]["fps"] * work / row["peak_gflops"] for row in rounds)
        memory = max(row[name]["memory_mib"] for row in rounds)
        chosen = _chosen(name, args)
        result[name] = {"fps": fps, "gflop": work, "share_of_peak": share}
        result[name] |= {"memory_mib": memory, "arguments": chosen}
        _say(
            f"{name}: {fps:.3f} frames a second, {100 * share:.0f} % of the convolution peak, "
            f"{memory:.0f} MiB, {chosen}"
        )
        if name != args.filters[0]:
            first = [row[name]["fps"] / row[args.filters[0]]["fps"] for row in rounds]
            result[name]["times_first"] = median(first)
            _say(f"{name}: {median(first):.2f} times the frames a second of {args.filters[0]}")
    if network is not None:
        times = [row["BasicVSR"]["fps"] / row["peer_fps"] for row in rounds]
        result["times_peer"] = median(times)
        _say(f"BasicVSR: {result['times_peer']:.1f} times the peer's frames a second")
    if "BasicVSR" in args.filters:
        result["parts"] = _parts(result["BasicVSR"], args)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


def _chosen(name: str, args: argparse.Namespace) -> dict[str, int | str]:
    """The arguments of a filter, with those that it chooses here."""
    call = ast.parse(f"f({args.arguments})", mode="eval").body
    assert isinstance(call, ast.Call)
    given = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    width, height = args.size
    return resolve(name, given, ClipInfo(width, height, max(args.frames), RGBS, 25, 1)).arguments


def _parts(result: dict[str, Any], args: argparse.Namespace) -> dict[str, Part]:
    """Tell what each part of a frame takes, in ms, and how often a frame of a film needs it."""
    chosen = result["arguments"]
    chunk = chosen["chunk"] or max(args.frames)
    plan = Plan(
        frames=max(args.frames),
        chunk=chunk,
        lookahead=chosen["lookahead"],
        segment=max(chunk, chosen["segment"]),
        preroll=chosen["preroll"],
    )
    cpu = torch.device("cpu")
    network = ready(_NETWORKS["BasicVSR"](), cpu, default_dtype(cpu))
    assert isinstance(network, BasicVSR)
    found = parts(network, plan, *args.size)
    whole = 1e3 / result["fps"]
    for name, part in found.items():
        ms = part.ms * part.times
        share = f"{100 * ms / whole:4.1f} %"
        _say(f"{name:<22}{part.ms:8.1f} ms x {part.times:.2f} = {ms:7.1f} ms, {share}")
    rest = whole - sum(part.ms * part.times for part in found.values())
    _say(f"{'everything else':<22}{rest:28.1f} ms, {100 * rest / whole:4.1f} % of {whole:.1f} ms")
    again = sum(part.ms * (part.times - part.least) for part in found.values())
    share = f"{100 * again / whole:4.1f} %"
    _say(f"{'lookahead and preroll':<22}{again:28.1f} ms, {share}, counted above")
    return found


def _size(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    return width, height


def _vspipe(script: Path, frames: Sequence[int]) -> dict[str, float]:
    """Frames a second; seconds of a run without a frame, and with one; the most memory in MiB.

    Python, torch and the network start in the same time for one frame or a film, so the start is
    measured by itself and subtracted; with two lengths, the shorter run is.
    """
    words = ["-a", f"frames={frames[-1]}", str(script)]
    startup, _ = _run("vspipe", "--info", *words)
    first, _ = _run("vspipe", "--end", "0", *words, "--")
    less, before = startup, 0
    if len(frames) > 1:
        before = frames[0]
        less, _ = _run("vspipe", "-a", f"frames={before}", str(script), "--")
    whole, memory = _run("vspipe", *words, "--")
    fps = (frames[-1] - before) / (whole - less)
    return {"fps": fps, "startup_s": startup, "first_s": first, "memory_mib": memory}


def _run(*command: str) -> tuple[float, float]:
    """The seconds that a program takes, and its most memory in MiB."""
    folder = Path(sys.executable).parent
    # vspipe finds its Python through the `vapoursynth` command on the path.
    path = os.pathsep.join((str(folder), os.environ.get("PATH", "")))
    program = [str(folder / command[0]), *command[1:]]
    start = time.perf_counter()
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, env={**os.environ, "PATH": path})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, program)
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _convolution_peak(width: int, height: int) -> float:
    """FLOP/s of the networks' main convolution, the best of many."""
    dtype = default_dtype(torch.device("cpu"))
    x, weight = torch.randn(1, 64, height, width), torch.randn(64, 64, 3, 3)
    x, weight = (t.to(dtype, memory_format=torch.channels_last) for t in (x, weight))
    flop = 2 * weight.numel() * width * height
    # The same work at every size.
    times = max(10, 200 * 320 * 180 // (width * height))
    with torch.inference_mode():
        return flop / min(_seconds(lambda: convolve(x, weight, None)) for _ in range(times))


def _gflop(network: Callable[[], Network], width: int, height: int) -> float:
    """Work for one frame of a clip, without what borders of chunks and segments add."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.inference_mode():
        network()(torch.empty(1, _COUNTED_FRAMES, 3, height, width))
    return float(counter.get_total_flops()) / _COUNTED_FRAMES / 1e9


def _noise(path: Path, frames: int) -> Path:
    """A drifting texture with sharp detail, as y4m."""
    generator = torch.Generator().manual_seed(0)
    big = torch.rand(1, 3, 60, 100, generator=generator)
    big = F.interpolate(big, scale_factor=6, mode="bicubic").clamp(0, 1)

    def part(i: int) -> Tensor:
        top, left = i % 90, (2 * i) % 180
        return big[0, :, top : top + _HEIGHT, left : left + _WIDTH]

    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W%d H%d F25:1 Ip C444\n" % (_WIDTH, _HEIGHT))
        for i in range(frames):
            pixels = (part(i) * 219 + 16).to(torch.uint8).contiguous()
            file.write(b"FRAME\n" + pixels.numpy().tobytes())
    return path


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
