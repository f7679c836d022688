"""One answer: each picture is the same whatever order it is asked in, and in a second process."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vs_vsr.bench.gpu import vapoursynth_clips as clips
from vs_vsr.bench.gpu.record import Record
from vs_vsr.bench.gpu.setting import Setting

__all__ = ["compared", "hashes", "measure", "orders"]

_REQUESTS = 16


def measure(setting: Setting, record: Record) -> None:
    """Hash every picture of a clip in each order."""
    count = setting.small_or(90, 12)
    first = hashes(setting, range(count))
    record.add("in order", pictures=count, distinct=len(set(first)))
    for name, order in orders(count).items():
        with record.part(name):
            record.add(name, **compared(first, hashes(setting, order)))
    with record.part("second process"):
        record.add("second process", **compared(first, _elsewhere(setting, count)))


def orders(count: int) -> dict[str, Sequence[int]]:
    """Other orders to ask for `count` frames in, by name."""
    shuffled = list(range(count))
    random.Random(0).shuffle(shuffled)
    return {"backwards": range(count)[::-1], "at random": shuffled}


def hashes(setting: Setting, order: Sequence[int], clip: Any = None) -> list[str]:
    """The hashes of the first pictures, by number, from a new filter that is asked in `order`.

    Args:
        setting: The visit's.
        order: All numbers from 0, in any order. The clip is cut to as many.
        clip: The filter's input, on the host or on the GPU; by default an RGBS clip on the host.
    """
    if clip is None:
        clip = clips.source("RGBS", setting.sizes[0], len(order))
    arguments = {"chunk": 3, "lookahead": 2, "segment": 6} if setting.quick else {}
    made = clips.filtered(setting, clip[: len(order)], **arguments)
    if clips.is_gpu_clip(made):
        made = made.std.GPUDownload()
    found = [""] * len(order)

    def done(i: int, frame: object) -> None:
        found[order[i]] = clips.digest(frame)

    clips.in_order(made, order, _REQUESTS, done)
    return found


def compared(first: list[str], other: list[str]) -> dict[str, object]:
    """Whether two lists of hashes are the same, and where not."""
    different = [n for n, (a, b) in enumerate(zip(first, other, strict=True)) if a != b]
    return {"right": not different, "different": len(different), "first_ones": different[:5]}


def _elsewhere(setting: Setting, count: int) -> list[str]:
    path = setting.folder / "second_process.json"
    values = {**asdict(setting), "folder": str(setting.folder), "vid4": None}
    path.write_text(json.dumps({"setting": values, "count": count}))
    subprocess.run([sys.executable, "-m", __name__, str(path)], check=True, env={**os.environ})
    found: list[str] = json.loads(path.read_text())
    path.unlink()
    return found


def _second_process(path: Path) -> None:
    asked = json.loads(path.read_text())
    values = {**asked["setting"], "folder": Path(asked["setting"]["folder"])}
    path.write_text(json.dumps(hashes(Setting(**values), range(asked["count"]))))


if __name__ == "__main__":
    _second_process(Path(sys.argv[1]))
