"""What computing ahead gains where the source or the reader takes time too.

    python -m vs_vsr.bench.ahead --filter BasicVSR --wait 20 --json result.json

Frames are read in order, one at a time, with prefetch=0 and prefetch=1 in turn. The source waits
--wait ms for each frame, as a disk or a network does, or the reader does, as an encoder on another
machine; or neither, or both. Waiting takes no processor time, so this is the most that can be
gained. A table goes to standard error, one JSON object to --json.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import vapoursynth as vs

from vs_vsr.bench.machine import machine

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m vs_vsr.bench.ahead")
    parser.add_argument("--filter", default="BasicVSR")
    parser.add_argument("--size", default="96x64", help="width x height of the input")
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--wait", type=float, default=20, help="ms for each frame")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    rows = []
    for source, reader in ((0, 0), (1, 0), (0, 1), (1, 1)):
        seconds: dict[int, list[float]] = {0: [], 1: []}
        for _ in range(args.rounds):
            for prefetch in (0, 1):
                took = _seconds(args, source * args.wait / 1e3, reader * args.wait / 1e3, prefetch)
                seconds[prefetch].append(took)
        fps = {prefetch: args.frames / median(took) for prefetch, took in seconds.items()}
        rows.append({"source_waits": bool(source), "reader_waits": bool(reader), "fps": fps})
        sys.stderr.write(
            f"source waits: {source}, reader waits: {reader}: {fps[0]:.2f} frames a second, with "
            f"prefetch=1 {fps[1]:.2f} ({fps[1] / fps[0]:.2f} times)\n"
        )
    if args.json:
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
        result = {"machine": machine(), "settings": settings, "rows": rows}
        args.json.write_text(json.dumps(result, indent=1))


def _seconds(args: argparse.Namespace, source: float, reader: float, prefetch: int) -> float:
    """The time of one reading, from the first frame to the last one."""
    width, height = map(int, args.size.split("x"))
    clip = vs.core.std.BlankClip(
        format=vs.RGBS, width=width, height=height, length=args.frames, keep=True
    )

    def wait(n: int, f: Any) -> Any:
        time.sleep(source)
        return f

    if source:
        clip = clip.std.ModifyFrame(clip, wait)
    out = getattr(vs.core.vsr, args.filter)(clip, prefetch=prefetch)
    start = time.perf_counter()
    for n in range(args.frames):
        out.get_frame(n).close()
        time.sleep(reader)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
