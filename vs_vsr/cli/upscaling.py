"""What `vs-vsr upscale` does: a file to a file, in parts that a power cut cannot lose."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from vs_vsr.cli.display import Display, duration, size
from vs_vsr.cli.options import requests, seconds
from vs_vsr.errors import VsrError
from vs_vsr.job.exact import check_parts
from vs_vsr.job.folder import check_room, is_done, locked, remove, remove_leftovers, unfinished
from vs_vsr.job.forecast import Forecast
from vs_vsr.job.local import Events, Workers
from vs_vsr.job.plan import JobPlan
from vs_vsr.job.request import Request

__all__ = ["run"]

# As shells have it: 128 and the signal.
_INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class _Stop:
    """What Ctrl-C does now."""

    asked: threading.Event = field(default_factory=threading.Event)
    """Whether to stop when the parts in hand are done."""
    in_parts: bool = False
    """Whether there are parts to wait for. Otherwise all is left at once: nothing is lost."""


def run(args: argparse.Namespace) -> int:
    """Upscale all that is asked for; return the exit status."""
    status = 0
    asked = requests(args)
    for request in asked:
        try:
            status = max(status, _one(request, args))
        except VsrError as e:
            # One bad file does not keep the others from being upscaled.
            sys.stderr.write(f"{e}\n")
            status = 1
        if status == _INTERRUPTED:
            break
    return status


def _one(request: Request, args: argparse.Namespace) -> int:
    plan: JobPlan | None = None

    def ended(part: int, done: bool) -> None:
        assert plan is not None
        first, last = plan.parts[part]
        display.ended(part, last - first if done else 0)

    name = Path(request.source).name
    with Display(name, as_json=args.json) as display, _stoppable(display) as stop:
        events = Events(
            phase=display.phase, progress=display.progress, ended=ended, log=display.say
        )
        display.phase("starting", 0)
        with Workers(args.device, events) as workers:
            if args.preview is not None:
                return _preview(request, args.preview, workers, display)
            plan, folder, notes = workers.plan(request)
            with locked(folder):
                remove_leftovers(folder)
                for note in (*notes, *unfinished(folder, plan)):
                    display.say(note)
                display.phase("trying a few pictures", 0)
                forecast = workers.sample(folder)
                _announce(plan, folder, request.why, forecast, workers.devices, display)
                if args.dry_run:
                    return 0
                pending = _begin(plan, folder, forecast, len(workers.devices), display)
                stop.in_parts = True
                if args.cluster:
                    # The cluster may be this machine too.
                    workers.close()
                    failed = _on_cluster(folder, pending, args, events, stop)
                else:
                    if args.exact:
                        workers.settle(folder)
                    failed = workers.run(folder, pending, stop.asked)
                if args.exact:
                    check_parts(plan, folder)
                return _ending(plan, folder, failed, display)


def _begin(
    plan: JobPlan, folder: Path, forecast: Forecast, devices: int, display: Display
) -> list[int]:
    """The parts that are to be made, once there is room for them."""
    pending = [k for k in range(len(plan.parts)) if not is_done(plan, folder, k)]
    to_make = _pictures(plan, pending)
    check_room(plan, folder, forecast.bytes * to_make)
    total = plan.last - plan.first
    display.parts(
        total=total,
        done=total - to_make,
        chunk=int(plan.recipe.arguments.get("chunk", 0)) * plan.recipe.frames_per_input or total,
        seconds_each=forecast.seconds / devices,
        bytes_each=forecast.bytes,
    )
    return pending


def _on_cluster(
    folder: Path, pending: Sequence[int], args: argparse.Namespace, events: Events, stop: _Stop
) -> dict[int, str]:
    from vs_vsr.job import cluster

    return cluster.run(
        folder,
        pending,
        address=args.cluster,
        device=args.device,
        exact=args.exact,
        events=events,
        stop=stop.asked,
    )


def _ending(plan: JobPlan, folder: Path, failed: dict[int, str], display: Display) -> int:
    """Join the parts if all are done, and say what has become of the job."""
    from vs_vsr.job.join import join

    count = len(plan.parts)
    missing = [k for k in range(count) if not is_done(plan, folder, k)]
    for part, sentence in sorted(failed.items()):
        first, last = plan.parts[part]
        display.say(f"Part {part} (pictures {first} to {last - 1}) failed: {sentence}")
    if missing:
        how = "failed" if failed else "stopped"
        display.say(
            f"{plan.out} is not written: {count - len(missing)} of {count} parts are done, in "
            f"{folder}. The same command goes on."
        )
        display.event(how, parts=count, done=count - len(missing), folder=str(folder))
        return 1 if failed else _INTERRUPTED
    join(plan, folder, lambda share: display.phase("joining the parts", share))
    remove(plan, folder)
    display.say(f"{plan.out} is done: {size(os.path.getsize(plan.out))}.")
    display.event("done", out=plan.out, bytes=os.path.getsize(plan.out))
    return 0


def _pictures(plan: JobPlan, parts: Sequence[int]) -> int:
    return sum(plan.parts[k][1] - plan.parts[k][0] for k in parts)


def _announce(
    plan: JobPlan,
    folder: Path,
    why: str,
    forecast: Forecast,
    devices: Sequence[str],
    display: Display,
) -> None:
    """Say what will be done, before it is."""
    recipe, source = plan.recipe, plan.source
    pending = [k for k in range(len(plan.parts)) if not is_done(plan, folder, k)]
    count, total = _pictures(plan, pending), plan.last - plan.first
    arguments = ", ".join(f"{k} {v}" for k, v in recipe.arguments.items())
    lines = [
        f"{source.path}: {source.width}x{source.height}, {source.frames} frames.",
        f"{plan.out}: {recipe.width}x{recipe.height} {recipe.format}, {total} pictures, by "
        f"{plan.encoder.name}.",
        f"{recipe.filter} with {recipe.weights} on {', '.join(devices)} ({arguments}).",
        *([f"That is {why}. See vs-vsr models for others."] if why else []),
    ]
    if len(pending) < len(plan.parts):
        done = len(plan.parts) - len(pending)
        lines.append(f"Going on: {done} of {len(plan.parts)} parts are done.")
    lines.append(
        f"About {duration(forecast.seconds * count / len(devices))}, {size(forecast.bytes * total)}"
        f" of pictures, {size(forecast.memory)} of memory or more, by a sample of a few pictures."
    )
    for line in lines:
        display.say(line)
    display.event(
        "plan",
        folder=str(folder),
        pictures=total,
        width=recipe.width,
        height=recipe.height,
        seconds=round(forecast.seconds * count / len(devices), 1),
        bytes=round(forecast.bytes * total),
    )


def _preview(request: Request, times: Sequence[str], workers: Workers, display: Display) -> int:
    wanted = [seconds(text, "preview") for text in times]
    files, notes = workers.preview(request, wanted)
    for note in notes:
        display.say(note)
    for path in files:
        display.say(f"{path}  (before | after)")
        display.event("preview", out=str(path))
    return 0


@contextmanager
def _stoppable(display: Display) -> Iterator[_Stop]:
    """Within this the first Ctrl-C lets the parts in hand be finished; the second does not."""
    stop = _Stop()

    def interrupted(number: int, frame: FrameType | None) -> None:
        if stop.asked.is_set() or not stop.in_parts:
            # The workers see that this process is gone. What they were writing is removed by the
            # next run.
            display.give_up()
            os._exit(_INTERRUPTED)
        stop.asked.set()
        # From a thread of its own: this one may be within the display.
        text = "Stopping when the parts in hand are done. Press Ctrl-C again to stop at once."
        threading.Thread(target=display.say, args=(text,)).start()

    before = [signal.signal(kind, interrupted) for kind in _SIGNALS]
    try:
        yield stop
    finally:
        for kind, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(kind, handler)
