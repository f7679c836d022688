"""What the command costs beside the filter, and what a second worker brings.

    python -m vs_vsr.bench.jobs CLIP --filter BasicVSR --frames 150
    python -m vs_vsr.bench.jobs CLIP --what workers

`overhead`: `vs-vsr upscale` (x264, superfast) against `vspipe script.vpy --`, of the same filter,
arguments and frames. `workers`: two processes of `vs-vsr part`, each pinned to one core and with
half of the parts, against one pinned process with all of them; torch on one thread. Both in turn
(A B A B); the seconds are those of whole processes. Tables go to standard error.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from vs_vsr.bench.machine import machine
from vs_vsr.job.plan import JobPlan

__all__ = ["main"]

_SCRIPT = """from vapoursynth import core
clip = core.bs.VideoSource({source!r}, cachemode=0)
core.vsr.{filter}(clip, **{arguments!r})[:{frames}].set_output()
"""
_VSR = (sys.executable, "-m", "vs_vsr")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m vs_vsr.bench.jobs")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--what", choices=("overhead", "workers"), default="overhead")
    parser.add_argument("--filter", default="BasicVSR")
    parser.add_argument("--frames", type=int, default=150, help="from the clip's beginning")
    parser.add_argument("--segment", type=int, help="as the filter's; parts are no shorter")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args(argv)
    sys.stderr.write(f"{json.dumps(machine())}\n{json.dumps(vars(args), default=str)}\n")
    with tempfile.TemporaryDirectory() as folder:
        measure = {"overhead": _overhead, "workers": _workers}[args.what]
        one, other = measure(args, Path(folder))
    sys.stderr.write(f"{median(one) / median(other):.3f} times\n")


def _words(args: argparse.Namespace, out: Path) -> list[str]:
    """The arguments of `vs-vsr upscale`."""
    from vs_vsr.job.clips import open_source

    opened = open_source(str(args.clip), 0, out.parent / "index")
    end = float((opened.times[min(args.frames, len(opened.times)) - 1] + 1) * opened.time_base)
    words = [str(args.clip), str(out), "--filter", args.filter, "--end", f"{end:.6f}"]
    words += [f"--segment={args.segment}"] if args.segment else []
    return [*words, "--encoder", "x264", "--encoder-preset", "superfast"]


def _overhead(args: argparse.Namespace, folder: Path) -> tuple[list[float], list[float]]:
    out = folder / "out.mkv"
    arguments = {"segment": args.segment} if args.segment else {}
    script = folder / "script.vpy"
    script.write_text(
        _SCRIPT.format(
            source=str(args.clip.resolve()),
            filter=args.filter,
            arguments=arguments,
            frames=args.frames,
        )
    )
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(args.rounds):
        seconds[0].append(_timed([[*_VSR, "upscale", *_words(args, out), "--force"]]))
        seconds[1].append(_timed([["vspipe", str(script), "--"]]))
        sys.stderr.write(f"upscale {seconds[0][-1]:.1f} s, vspipe {seconds[1][-1]:.1f} s\n")
    return seconds


def _workers(args: argparse.Namespace, folder: Path) -> tuple[list[float], list[float]]:
    words = [*_VSR, "plan", *_words(args, folder / "out.mkv")]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    job = Path(done.stdout.rpartition(" ")[0])
    count = len(JobPlan.load(job).parts)
    if not hasattr(os, "sched_getaffinity"):
        raise SystemExit("--what workers pins processes to cores, which only Linux can.")
    cores = sorted(os.sched_getaffinity(0))[:2]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(args.rounds):
        for k, workers in enumerate((1, 2)):
            shutil.rmtree(job / "parts", ignore_errors=True)
            commands = [
                ["taskset", "-c", str(core), *_VSR, "part", str(job), "--device", "cpu"]
                + [str(n) for n in range(worker, count, workers)]
                for worker, core in enumerate(cores[:workers])
            ]
            seconds[k].append(_timed(commands))
        sys.stderr.write(
            f"{count} parts: one worker {seconds[0][-1]:.1f} s, two {seconds[1][-1]:.1f} s\n"
        )
    return seconds


def _timed(commands: Sequence[Sequence[str]]) -> float:
    """Seconds until all of them have ended."""
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if commands[0][0] == "taskset" else {})
    start = time.perf_counter()
    running = [
        subprocess.Popen(words, stderr=subprocess.DEVNULL, env=environment) for words in commands
    ]
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit(f"{' '.join(commands[0])} failed.")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
