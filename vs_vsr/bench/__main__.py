"""Speed end to end through vspipe, against the peer's algorithm and the machine's own peak.

    python -m vs_vsr.bench --json result.json

It runs, in turn and `--rounds` times: the convolution peak (64 to 64 channels, 3x3, 320x180, in the
default precision of the machine), the peer's algorithm on a few frames, and vspipe over a clip of
320x180 with the filter's defaults. On a shared machine only the ratios mean something. A table goes
to standard error, one JSON object to --json.
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

import torch
import torch.nn.functional as F
from torch import Tensor

from vs_vsr.bench import peer
from vs_vsr.bench.machine import machine
from vs_vsr.devices import default_dtype
from vs_vsr.models.layers import convolve

__all__ = ["main"]

_HEIGHT, _WIDTH = 180, 320
_CONVOLUTION_FLOP = 2 * 64 * 64 * 9 * _HEIGHT * _WIDTH
# Useful work of one frame: two trunks, two flows, fusion and upsampler, no lookahead.
_FRAME_FLOP = 0.72e12

_SCRIPT = """\
import vapoursynth as vs
from vapoursynth import core
clip = core.bs.VideoSource({path!r}, cachemode=0)
clip = clip[:{frames}] if len(clip) >= {frames} else clip.std.Loop()[:{frames}]
clip = clip.resize.Bicubic(320, 180, format=vs.RGBS, matrix_in=1)
core.vsr.BasicVSR(clip{arguments}).set_output()
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m vs_vsr.bench")
    parser.add_argument("--clip", type=Path, help="a video; by default drifting noise")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--peer-frames", type=int, default=2, help="0 leaves the peer out")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--arguments", default="", help="as in a script: \"chunk=30, device='cpu'\""
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    with tempfile.TemporaryDirectory() as folder:
        clip = args.clip or _noise(Path(folder) / "noise.y4m", args.frames)
        script = Path(folder) / "bench.vpy"
        arguments = f", {args.arguments}" if args.arguments else ""
        source = str(clip.resolve())
        script.write_text(_SCRIPT.format(path=source, frames=args.frames, arguments=arguments))
        network = peer.load() if args.peer_frames else None
        frames = [torch.rand(1, 3, _HEIGHT, _WIDTH) for _ in range(15)]
        rounds = []
        for i in range(args.rounds):
            row = {"peak_gflops": _convolution_peak() / 1e9}
            if network is not None:
                row["peer_fps"] = 1 / peer.seconds_per_frame(network, frames, args.peer_frames)
            row["fps"], row["startup_s"] = _vspipe(script, args.frames)
            rounds.append(row)
            _say(f"round {i}: " + ", ".join(f"{k} {v:.3f}" for k, v in row.items()))
    peak = median(row["peak_gflops"] for row in rounds)
    fps = median(row["fps"] for row in rounds)
    result = {
        "machine": machine(),
        "settings": settings,
        "rounds": rounds,
        "fps": fps,
        "share_of_peak": fps * _FRAME_FLOP / (peak * 1e9),
    }
    if args.peer_frames:
        result["times_peer"] = fps / median(row["peer_fps"] for row in rounds)
        _say(f"{result['times_peer']:.1f} times the peer's frames per second")
    _say(f"{100 * fps * _FRAME_FLOP / (peak * 1e9):.0f} % of the convolution peak")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


def _vspipe(script: Path, frames: int) -> tuple[float, float]:
    """Frames per second of the whole run, and the seconds that an empty run of the script takes.

    Python, torch and the network start in the same time for one frame or a film, so the start is
    measured by itself and subtracted.
    """
    info = _seconds(lambda: _run("vspipe", "--info", str(script)))
    whole = _seconds(lambda: _run("vspipe", str(script), "--"))
    return frames / (whole - info), info


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


def _convolution_peak() -> float:
    """FLOP/s of the network's main convolution, the best of many."""
    dtype = default_dtype(torch.device("cpu"))
    x, weight = torch.randn(1, 64, _HEIGHT, _WIDTH), torch.randn(64, 64, 3, 3)
    x, weight = (t.to(dtype, memory_format=torch.channels_last) for t in (x, weight))
    with torch.inference_mode():
        return _CONVOLUTION_FLOP / min(
            _seconds(lambda: convolve(x, weight, None)) for _ in range(200)
        )


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
