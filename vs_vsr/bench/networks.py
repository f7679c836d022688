"""Speed of every network as a stream, beside BasicVSR's in the same run.

    python -m vs_vsr.bench.networks --json result.json

Each network has its published size and seeded weights (speed does not depend on them). It runs
along its filter's default plan over a few frames, as tensors, without a frame server. The networks
run in turn, `--rounds` times. A row gives the seconds for a frame of --size, and their ratio to
BasicVSR's in the same round. VRT is slow, so it computes a part of the area, and its seconds are
scaled up. The peak memory is that of one network only if you name one network and one round. A
table goes to standard error, one JSON object to --json.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from vs_vsr.bench.machine import machine
from vs_vsr.models.animesr import AnimeSR
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.basicvsrpp import BasicVSRPP
from vs_vsr.models.edvr import EDVR
from vs_vsr.models.iconvsr import IconVSR
from vs_vsr.models.realbasicvsr import RealBasicVSR
from vs_vsr.models.vrt import VRT
from vs_vsr.plugin.arguments import Arguments, Options
from vs_vsr.plugin.contract import RGBS, ClipInfo
from vs_vsr.plugin.plans import defaults_for, plan_for
from vs_vsr.streaming.clip import Clip

__all__ = ["ROWS", "VRT_RESTORE", "VRT_UPSCALE", "main", "prepared", "ready"]

# Sizes of the published networks that restore, and of those that upscale.
VRT_RESTORE: dict[str, Any] = {
    "upscale": 1,
    "depths": [8] * 7 + [4] * 4,
    "widths": [96] * 7 + [120] * 4,
    "heads": [6] * 11,
    "independent": [9, 10],
}
VRT_UPSCALE: dict[str, Any] = {
    "depths": [8] * 7 + [4] * 6,
    "widths": [120] * 7 + [180] * 6,
    "heads": [6] * 13,
    "independent": [11, 12],
    "groups": 12,
}
# Filter, network, frames, arguments, and the share of --size each way: less for VRT, which is slow.
ROWS: dict[str, tuple[str, Callable[[], nn.Module], int, dict[str, Any], float]] = {
    "BasicVSR": ("BasicVSR", BasicVSR, 30, {}, 1),
    "IconVSR": ("IconVSR", IconVSR, 30, {}, 1),
    "EDVR M": ("EDVR", EDVR, 6, {}, 1),
    "EDVR L": ("EDVR", lambda: EDVR(128, reconstruction_blocks=40), 3, {}, 1),
    "RealBasicVSR": ("RealBasicVSR", RealBasicVSR, 30, {}, 1),
    "BasicVSR++": ("BasicVSRPP", BasicVSRPP, 20, {"chunk": 20}, 1),
    "VRT x4 (001)": ("VRT", lambda: VRT(**VRT_UPSCALE), 12, {}, 0.4),
    "VRT deblur (005)": ("VRT", lambda: VRT(**VRT_RESTORE), 12, {}, 0.4),
    "AnimeSR": ("AnimeSR", AnimeSR, 30, {}, 1),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m vs_vsr.bench.networks")
    parser.add_argument("--size", default="320x180", help="width x height of the input")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    width, height = (int(n) for n in args.size.split("x"))
    seconds: dict[tuple[str, str], list[float]] = {}
    for i in range(args.rounds):
        for precision in args.precisions:
            for name in args.only:
                took = prepared(name, precision, width, height)()
                seconds.setdefault((name, precision), []).append(took)
                _say(f"round {i}: {name}, {precision}: {took:.2f} s a frame")
    rows = []
    for (name, precision), values in seconds.items():
        row = {"network": name, "precision": precision, "seconds_per_frame": median(values)}
        base = seconds.get(("BasicVSR", precision))
        if base is not None:
            row["times_basicvsr"] = median(v / b for v, b in zip(values, base, strict=True))
        rows.append(row)
        _say("  ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    peak = _peak_mib()
    _say(f"peak resident memory {peak or '?'} MiB")
    if args.json:
        settings = {"size": args.size, "rounds": args.rounds}
        result = {"machine": machine(), "settings": settings, "rows": rows, "peak_mib": peak}
        args.json.write_text(json.dumps(result, indent=1))


def _peak_mib() -> int | None:
    """The most memory that this process has had; None on Windows, which does not tell it so."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> (20 if sys.platform == "darwin" else 10)


def prepared(
    name: str, precision: str, width: int, height: int, device: str = "cpu", count: int = 0
) -> Callable[[], float]:
    """A network ready to run: a function that gives the seconds a frame of one run.

    Args:
        name: A key of `ROWS`.
        precision: "fp32", "bf16" or "fp16".
        width: Of the frames; a network with a share computes less, and its seconds are scaled up.
        height: As `width`.
        device: "cpu" or "cuda:N".
        count: Number of frames; 0 for that of the row.
    """
    filter_name, make, default_count, values, share = ROWS[name]
    count = count or default_count
    width, height = int(width * share), int(height * share)
    torch.manual_seed(0)
    arguments = Arguments(filter_name, {**values, "precision": precision, "device": device})
    options = Options.read(arguments, defaults_for(arguments), width, height)
    network = ready(make(), options.device, options.dtype)
    info = ClipInfo(width, height, count, RGBS, 25, 1)
    setup = plan_for(network, arguments, options, info)
    frames = [x.to(options.device) for x in torch.rand(count, 1, 3, height, width)]

    def run() -> float:
        clip = Clip(setup.stream, setup.plan, frames, parts=setup.tiles)
        _wait(options.device)
        start = time.perf_counter()
        for _ in clip:
            pass
        _wait(options.device)
        return (time.perf_counter() - start) / count / share**2

    return run


def ready[M: nn.Module](network: M, device: torch.device, dtype: torch.dtype) -> M:
    """The network as a filter runs it: weights in `dtype`, buffers in float32, channels_last."""
    network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    for parameter in network.parameters():
        parameter.data = parameter.data.to(dtype)
    return network.to(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
