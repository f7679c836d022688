"""How near to ideal many machines come, with Ray and a network whose cost is a sleep.

    python -m vs_vsr.bench.cluster --workers 8 16 --json result.json

Each of --workers pretended machines (a process of Ray with one pretended GPU) takes one part at a
time; there are --parts parts a machine, with pictures within 20 % of each other, but a fifth of
them shorter, and each picture takes --picture ms of sleep. So the machines are never short of
processor time, and what is lost is lost by starting, handing parts out, and the end, when some
machines have no part any more. Ideal is all of the sleep divided by the machines.

First nothing goes wrong; then, with --kills above 0, that share of the parts is interrupted by
killing (SIGKILL) its process at a random moment, and done again from the start by Ray. Starting the
cluster is not counted: it is there before a job comes. A line for each run goes to standard error,
one JSON object to --json.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vs_vsr.bench.machine import machine
from vs_vsr.job.cluster import run
from vs_vsr.job.local import Events
from vs_vsr.job.node import Work
from vs_vsr.job.plan import Colour, Encoder, JobPlan, Recipe, Source
from vs_vsr.job.progress import Progress, Report

__all__ = ["main"]

# Pictures of a part, about; in files it is about 480.
_PICTURES = 100


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m vs_vsr.bench.cluster")
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--parts", type=int, default=10, help="a worker")
    parser.add_argument("--picture", type=float, default=100, help="ms of sleep")
    parser.add_argument("--kills", type=float, default=0.05, help="share of the parts; 0: none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    # Ray tells nobody of its use.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    rows = []
    for workers in args.workers:
        for kills in (0.0, args.kills) if args.kills else (0.0,):
            row = _measure(args, workers, kills)
            rows.append(row)
            sys.stderr.write(
                f"{workers} workers, {row['killed']} of {row['parts']} parts killed: "
                f"{row['seconds']:.1f} s, {row['of_ideal']:.3f} of ideal\n"
            )
    if args.json:
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
        about = {**machine(), "ray": version("ray")}
        result = {"machine": about, "settings": settings, "rows": rows}
        args.json.write_text(json.dumps(result, indent=1))


def _measure(args: argparse.Namespace, workers: int, kills: float) -> dict[str, Any]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        # Machines of this many GPUs rather than of one: a machine of Ray takes 200 MB.
        cluster.add_node(num_cpus=workers, num_gpus=workers, object_store_memory=80 << 20)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            plan = _plan(folder, workers * args.parts, args.seed)
            rng = random.Random(args.seed)
            killed = rng.sample(range(len(plan.parts)), round(kills * len(plan.parts)))
            moments = {k: rng.random() for k in killed}
            work = _sleeping(folder, args.picture / 1e3, moments)
            began = time.perf_counter()
            failed = run(
                folder,
                range(len(plan.parts)),
                address=cluster.address,
                device="cuda",
                exact=False,
                events=Events(
                    phase=lambda what, share: None,
                    progress=lambda progress: None,
                    ended=lambda part, done: None,
                    log=lambda line: None,
                ),
                stop=threading.Event(),
                work=work,
            )
            seconds = time.perf_counter() - began
        if failed:
            raise RuntimeError(f"parts failed: {failed}")
    finally:
        cluster.shutdown()
    ideal = (plan.last - plan.first) * args.picture / 1e3 / workers
    return {
        "workers": workers,
        "parts": len(plan.parts),
        "killed": len(killed),
        "seconds": seconds,
        "of_ideal": ideal / seconds,
    }


def _sleeping(notes: Path, seconds: float, moments: dict[int, float]) -> Work:
    """What makes a part by sleeping; the first time, those of `moments` are killed in between.

    It is made here so that Ray sends it whole: its workers know no module `__main__`.
    """

    def work(folder: Path, number: int, report: Report, device: str) -> None:
        plan = JobPlan.load(folder)
        first, last = plan.parts[number]
        mark = notes / f"killed{number}"
        fatal = round(moments[number] * (last - first)) if number in moments else -1
        for n in range(last - first):
            if n == fatal and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(seconds)
            if n % 20 == 0:
                report(Progress(number, n, 0.0, 0))
        plan.part_file(folder, number).touch()
        plan.part_record(folder, number).write_text("{}")

    return work


def _plan(folder: Path, count: int, seed: int) -> JobPlan:
    """A plan whose parts alone mean something."""
    rng = random.Random(seed)
    parts, first = [], 0
    for k in range(count):
        length = round(_PICTURES * rng.uniform(0.9, 1.1))
        if k % 5 == 4:
            # The end of a scene or of the file.
            length = round(_PICTURES * rng.uniform(0.2, 0.9))
        parts.append((first, first + length))
        first += length
    plan = _EMPTY
    plan = replace(plan, parts=tuple(parts), versions={"vs-vsr": version("vs-vsr")})
    (folder / "parts").mkdir()
    plan.save(folder)
    return plan


_EMPTY = JobPlan(
    source=Source(path="", size=0, modified_ns=0, packets="", track=0, width=0, height=0, frames=0),
    recipe=Recipe(
        filter="",
        weights="",
        weights_sha256="",
        arguments={},
        deinterlace="",
        top_field_first=False,
        frames_per_input=1,
        width=0,
        height=0,
        format="",
    ),
    encoder=Encoder(name="", options={}, threads=1),
    colour=Colour(matrix=2, primaries=2, transfer=2, full_range=False, chroma_location=-1),
    sample_aspect=(1, 1),
    rotation=0,
    time_base=(1, 1),
    times=(),
    last_duration=1,
    cuts=(),
    parts=(),
    versions={},
    out="",
)


if __name__ == "__main__":
    main()
