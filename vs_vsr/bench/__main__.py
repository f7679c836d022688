"""Speed end to end through vspipe, against the peer's algorithm and the machine's own peak.

    python -m vs_vsr.bench --filters BasicVSR AnimeSR --json result.json

It runs, in turn and `--rounds` times: the convolution peak (64 to 64 channels, 3x3, at --size, in
the default precision of the machine), the peer's algorithm on a few frames, and for each filter
vspipe over a clip of --size with the filter's defaults: to the script's end without a frame, for
one frame, and for all. On a shared machine only the ratios mean something. A line for each round
and each filter goes to standard error, one JSON object to --json.
"""

import argparse
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
from vs_vsr.devices import default_dtype
from vs_vsr.models.animesr import AnimeSR
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.layers import convolve
from vs_vsr.models.stream import Network

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
clip = clip[:{frames}] if len(clip) >= {frames} else clip.std.Loop()[:{frames}]
clip = clip.resize.Bicubic({width}, {height}, format=vs.RGBS, matrix_in=1)
core.vsr.{name}(clip{arguments}).set_output()
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m vs_vsr.bench")
    parser.add_argument("--filters", nargs="+", choices=list(_NETWORKS), default=["BasicVSR"])
    parser.add_argument("--size", type=_size, default="320x180", help="width x height of the input")
    parser.add_argument("--clip", type=Path, help="a video; by default drifting noise")
    parser.add_argument("--frames", type=int, default=60)
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
        clip = args.clip or _noise(Path(folder) / "noise.y4m", args.frames)
        scripts = {}
        for name in args.filters:
            scripts[name] = Path(folder) / f"{name}.vpy"
            scripts[name].write_text(
                _SCRIPT.format(
                    path=str(clip.resolve()),
                    frames=args.frames,
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
                row[name] = _vspipe(script, args.frames)
            rounds.append(row)
            _say(f"round {i}: {row}")
    peak = median(row["peak_gflops"] for row in rounds)
    result: dict[str, Any] = {"machine": machine(), "settings": settings, "rounds": rounds}
    for name in args.filters:
        fps = median(row[name]["fps"] for row in rounds)
        work = _gflop(_NETWORKS[name], width, height)
        result[name] = {"fps": fps, "gflop": work, "share_of_peak": fps * work / peak}
        _say(
            f"{name}: {fps:.3f} frames a second, {100 * fps * work / peak:.0f} % of the "
            "convolution peak"
        )
        if name != args.filters[0]:
            first = [row[name]["fps"] / row[args.filters[0]]["fps"] for row in rounds]
            result[name]["times_first"] = median(first)
            _say(f"{name}: {median(first):.2f} times the frames a second of {args.filters[0]}")
    if network is not None:
        times = [row["BasicVSR"]["fps"] / row["peer_fps"] for row in rounds]
        result["times_peer"] = median(times)
        _say(f"BasicVSR: {result['times_peer']:.1f} times the peer's frames a second")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


def _size(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    return width, height


def _vspipe(script: Path, frames: int) -> dict[str, float]:
    """Frames a second of the whole run; seconds of a run without a frame, and with one.

    Python, torch and the network start in the same time for one frame or a film, so the start is
    measured by itself and subtracted.
    """
    startup = _seconds(lambda: _run("vspipe", "--info", str(script)))
    first = _seconds(lambda: _run("vspipe", "--end", "0", str(script), "--"))
    whole = _seconds(lambda: _run("vspipe", str(script), "--"))
    return {"fps": frames / (whole - startup), "startup_s": startup, "first_s": first}


def _run(*command: str) -> None:
    folder = Path(sys.executable).parent
    # vspipe finds its Python through the `vapoursynth` command on the path.
    path = os.pathsep.join((str(folder), os.environ.get("PATH", "")))
    program = [str(folder / command[0]), *command[1:]]
    subprocess.run(program, stdout=subprocess.DEVNULL, check=True, env={**os.environ, "PATH": path})


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
