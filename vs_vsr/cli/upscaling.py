"""What `vs-vsr upscale` does: a file to a file, in parts that a power cut cannot lose."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from vs_vsr.cli.answers import sentence_of
from vs_vsr.cli.display import Display, duration, size
from vs_vsr.cli.options import requests, seconds
from vs_vsr.errors import VsrError
from vs_vsr.job.exact import check_parts
from vs_vsr.job.folder import check_room, is_done, locked, remove, remove_leftovers, unfinished
from vs_vsr.job.forecast import Forecast
from vs_vsr.job.lifeline import end_with_input
from vs_vsr.job.local import Events, Workers
from vs_vsr.job.plan import JobPlan
from vs_vsr.job.progress import Progress
from vs_vsr.job.request import Request

__all__ = ["run"]

# As shells have it: 128 and the signal.
_INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(args: argparse.Namespace) -> int:
    """Upscale all that is asked for; return the exit status."""
    status = 0
    if args.end_with_input:
        end_with_input()
    asked = requests(args)
    shown = _Shown()
    # One set of workers for all files, as starting them takes seconds.
    with Workers(args.device, shown.events()) as workers, _stoppable(shown):
        for request in asked:
            try:
                status = max(status, _one(request, args, workers, shown))
            except (VsrError, OSError) as e:
                # One bad file does not keep the others from being upscaled.
                sentence = sentence_of(e)
                sys.stderr.write(
                    f"{request.source}: {sentence}\n" if asked[1:] else f"{sentence}\n"
                )
                status = max(status, 1)
            if shown.stop.is_set() and (status or request is not asked[-1]):
                return _INTERRUPTED
    return status


class _Shown:
    """The file that is being upscaled, for what the workers tell."""

    def __init__(self) -> None:
        self.display: Display | None = None
        self.plan: JobPlan | None = None
        self.stop = threading.Event()
        """Whether to stop when the parts in hand are done."""
        self.in_parts = False
        """Whether there are parts to wait for. Otherwise Ctrl-C leaves all at once: what is lost
        is no part."""

    def events(self) -> Events:
        """Who tells it on."""
        return Events(phase=self._phase, progress=self._progress, ended=self._ended, log=self._log)

    def _phase(self, what: str, share: float) -> None:
        # A worker that took the place of another reads the index again.
        if self.display and not self.in_parts:
            self.display.phase(what, share)

    def _progress(self, progress: Progress) -> None:
        if self.display:
            self.display.progress(progress)

    def _ended(self, part: int, done: bool) -> None:
        if self.display and self.plan:
            first, last = self.plan.parts[part]
            self.display.ended(part, last - first if done else 0)

    def _log(self, line: str) -> None:
        if self.display:
            self.display.say(line)


def _one(request: Request, args: argparse.Namespace, workers: Workers, shown: _Shown) -> int:
    name = Path(request.source).name
    with Display(name, as_json=args.json) as display:
        shown.display = display
        if args.preview is not None:
            return _preview(request, args.preview, workers, display)
        shown.plan, folder, notes = workers.plan(request)
        plan = shown.plan
        with locked(folder):
            remove_leftovers(folder)
            for note in (*notes, *unfinished(folder, plan)):
                display.say(note)
            display.phase("trying a few pictures", 0)
            forecast = workers.sample(folder)
            devices = len(workers.devices)
            _announce(plan, folder, request.why, forecast, devices, display, args)
            if args.dry_run:
                return 0
            pending = _begin(plan, folder, forecast, 0 if args.cluster else devices, display)
            shown.in_parts = True
            try:
                if args.cluster:
                    # The cluster may be this machine too.
                    workers.close()
                    failed = _on_cluster(folder, pending, args, shown)
                else:
                    if args.exact:
                        workers.settle(folder)
                    failed = workers.run(folder, pending, shown.stop)
            finally:
                shown.in_parts = False
            if args.exact:
                check_parts(plan, folder)
            status = _ending(plan, folder, failed, display, force=args.force)
        if status == 0:
            # Not within the lock, whose file is in the folder.
            remove(plan, folder)
        return status


def _begin(
    plan: JobPlan, folder: Path, forecast: Forecast, devices: int, display: Display
) -> list[int]:
    """The parts that are to be made, once there is room for them.

    `devices` is 0 where it is not known how many there are.
    """
    pending = [k for k in range(len(plan.parts)) if not is_done(plan, folder, k)]
    to_make = _pictures(plan, pending)
    check_room(plan, folder, forecast.bytes * to_make)
    total = plan.last - plan.first
    display.parts(
        total=total,
        done=total - to_make,
        chunk=int(plan.recipe.arguments.get("chunk", 0)) * plan.recipe.frames_per_input or total,
        seconds_each=forecast.seconds / devices if devices else 0,
        bytes_each=forecast.bytes,
    )
    return pending


def _on_cluster(
    folder: Path, pending: Sequence[int], args: argparse.Namespace, shown: _Shown
) -> dict[int, str]:
    from vs_vsr.job import cluster

    return cluster.run(
        folder,
        pending,
        address=args.cluster,
        device=args.device,
        exact=args.exact,
        events=shown.events(),
        stop=shown.stop,
    )


def _ending(
    plan: JobPlan, folder: Path, failed: dict[int, str], display: Display, *, force: bool
) -> int:
    """Join the parts if all are done, and say what has become of the job."""
    from vs_vsr.job.join import join

    count = len(plan.parts)
    missing = [k for k in range(count) if not is_done(plan, folder, k)]
    # One cause may fail them all.
    for sentence in dict.fromkeys(failed.values()):
        parts = sorted(k for k, why in failed.items() if why == sentence)
        named = f"Part {parts[0]}" if len(parts) == 1 else f"Parts {', '.join(map(str, parts[:8]))}"
        display.say(f"{named}{', …' if parts[8:] else ''} failed: {sentence}")
    if missing:
        how = "failed" if failed else "stopped"
        display.say(
            f"{plan.out} is not written: {count - len(missing)} of {count} parts are done, in "
            f"{folder}. The same command goes on."
        )
        display.event(how, parts=count, done=count - len(missing), folder=str(folder))
        return 1 if failed else _INTERRUPTED
    join(plan, folder, partial(display.phase, "joining the parts"), force=force)
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
    devices: int,
    display: Display,
    args: argparse.Namespace,
) -> None:
    """Say what will be done, before it is."""
    recipe, source = plan.recipe, plan.source
    pending = [k for k in range(len(plan.parts)) if not is_done(plan, folder, k)]
    count, total = _pictures(plan, pending), plan.last - plan.first
    arguments = ", ".join(f"{k} {v}" for k, v in recipe.arguments.items())
    seconds = forecast.seconds * count / devices
    alone = " on this machine alone" if args.cluster else ""
    lines = [
        f"From {source.path}: {source.width}x{source.height}, {source.frames} frames.",
        f"To {plan.out}: {recipe.width}x{recipe.height} {recipe.format}, {total} pictures, by "
        f"{plan.encoder.name}.",
        f"{recipe.filter} with {recipe.weights} on {forecast.device} ({arguments}).",
        *([f"That is {why}. See vs-vsr models for others."] if why else []),
    ]
    if len(pending) < len(plan.parts):
        done = len(plan.parts) - len(pending)
        lines.append(f"Going on: {done} of {len(plan.parts)} parts are done.")
    # Windows does not tell it.
    memory = f", {size(forecast.memory)} of memory or more" if forecast.memory else ""
    lines.append(
        f"About {duration(seconds)}{alone}, {size(forecast.bytes * total)} of pictures{memory}, "
        "judging by a few pictures."
    )
    for line in lines:
        display.say(line)
    display.event(
        "plan",
        folder=str(folder),
        pictures=total,
        width=recipe.width,
        height=recipe.height,
        seconds=round(seconds, 1),
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
def _stoppable(shown: _Shown) -> Iterator[None]:
    """Within this the first Ctrl-C lets the parts in hand be finished; the second does not."""

    def interrupted(number: int, frame: FrameType | None) -> None:
        display = shown.display
        if display is None or shown.stop.is_set() or not shown.in_parts:
            # The workers see that this process is gone. What they were writing is removed by the
            # next run.
            if display is not None:
                display.give_up()
            os._exit(_INTERRUPTED)
        shown.stop.set()
        # From a thread of its own: this one may be within the display.
        text = "Stopping when the parts in hand are done. Press Ctrl-C again to stop at once."
        threading.Thread(target=display.say, args=(text,)).start()

    before = [signal.signal(kind, interrupted) for kind in _SIGNALS]
    try:
        yield
    finally:
        for kind, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(kind, handler)
