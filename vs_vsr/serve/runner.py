"""What runs and what waits: one child at a time, as each wants the whole device.

Forecasts and previews are short and go before the jobs that wait, but not before one that runs.
"""

import asyncio
import re
import shutil
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vs_vsr.serve.answers import Refusal
from vs_vsr.serve.children import INTERRUPTED, Child, Ended
from vs_vsr.serve.footage import PICTURES, needs_of, ready
from vs_vsr.serve.jobs import Job, Jobs, Preview
from vs_vsr.serve.names import download_name

__all__ = ["Runner"]

_NOTES_KEPT = 30
_MOST_CHOICES, _MOST_TIMES, _PREVIEWS_KEPT = 12, 12, 48
# A PNG begins with its signature and the header's length and kind; then come width and height.
_PNG = struct.Struct(">16x2I")
_TIME = re.compile(r"\d{1,6}(\.\d{1,6})?|(\d{1,3}:)?\d{1,2}:\d{1,2}(\.\d{1,6})?")
# Options in the command's sentences: the one that the page has by another name, and any.
_DEINTERLACE = re.compile(r"(?:Add|Use) --deinterlace (\w+)")
_ANY_OPTION = re.compile(r"(?<!\S)--[a-z]")
# Of the events of the command.
_FORECAST = ("seconds", "bytes", "width", "height", "pictures")
_PROGRESS = ("phase", "share", "pictures", "total", "fps", "seconds_left", "expected_bytes")


@dataclass(frozen=True)
class _Side:
    """A forecast, or previews of some networks at some times."""

    job: Job
    choices: tuple[str, ...] = ()
    """None of them for a forecast."""
    times: tuple[str, ...] = ()


class Runner:
    """Runs children, one after another, and lets them be stopped."""

    def __init__(self, jobs: Jobs, options: Sequence[str]) -> None:
        """Nothing runs yet.

        Args:
            jobs: Those that wait are run.
            options: Of `vs-vsr upscale`, for every job.
        """
        self._jobs, self._options = jobs, tuple(options)
        self._sides: list[_Side] = []
        self._cancels: dict[str, asyncio.Task[None]] = {}
        self._now: Job | _Side | None = None
        self._child: Child | None = None
        self._closed = self._stopping = False
        self._wake, self._free = asyncio.Event(), asyncio.Event()

    # ---- what a user asks ----

    def forecast(self, job: Job) -> None:
        """Find out how long a job takes, and how large its file becomes."""
        ready(job, job.choice)
        self._check_idle(job)
        if job.forecasting:
            raise Refusal(409, f"{job.name} is being forecast. Wait for it.")
        job.forecasting = True
        self._add(_Side(job))

    def preview(self, job: Job, choices: object, times: object) -> None:
        """Make pictures before and after.

        Args:
            job: Of its source.
            choices: FILTER/NAME each, or None for the job's own.
            times: In seconds or H:MM:SS each; None for three of one choice, one of several.
        """
        wanted = [job.choice] if choices is None else choices
        if not isinstance(wanted, list) or not 0 < len(wanted) <= _MOST_CHOICES:
            raise Refusal(
                400,
                f"choices must be a list of 1 to {_MOST_CHOICES} networks, got {str(wanted)[:40]}. "
                "Choose fewer, or at least one.",
            )
        checked = tuple(dict.fromkeys(ready(job, choice) for choice in wanted))
        at = [] if times is None else times
        if not isinstance(at, list) or len(at) > _MOST_TIMES:
            raise Refusal(
                400,
                f"times must be a list of at most {_MOST_TIMES}, got {str(at)[:40]}. Leave some "
                "out.",
            )
        seconds = tuple(map(_time, at))
        if not seconds and len(checked) > 1:
            seconds = (f"{(job.seconds or 0) / 2:.3f}",)
        self._check_idle(job)
        if job.previewing:
            raise Refusal(409, f"Pictures of {job.name} are being made. Wait for them.")
        job.previewing = True
        self._add(_Side(job, checked, seconds))

    def start(self, job: Job) -> None:
        """Let a job wait for its turn."""
        self._jobs.check(job)
        ready(job, job.choice)
        if job.state not in ("new", "failed", "cancelled", "paused"):
            raise _wrong_state(job, "new, paused, failed or cancelled to be started")
        job.state, job.problem, job.queued = "waiting", None, time.time()
        self._jobs.keep(job)
        self._wake.set()

    def pause(self, job: Job) -> None:
        """Stop a job when the parts in hand are done."""
        if job.state == "waiting":
            job.state = "paused"
        elif job.state in ("running", "pausing"):
            # Once more, and the parts in hand are not waited for.
            job.state = "pausing"
            # Another's child may run by now, as this one is being cancelled.
            if self._child is not None and self._now is job:
                self._child.interrupt()
        else:
            raise _wrong_state(job, "waiting or running to be paused")
        self._jobs.keep(job)

    def resume(self, job: Job) -> None:
        """Go on with a job that was paused."""
        if job.state != "paused":
            raise _wrong_state(job, "paused to go on")
        self.start(job)

    async def cancel(self, job: Job) -> None:
        """Stop what is done for a job at once, and throw the parts away."""
        if job.state == "done":
            raise _wrong_state(job, "unfinished to be cancelled")
        # Two that ask at once wait for the same: the later one must not undo what comes after.
        if job.id not in self._cancels:
            task = self._cancels[job.id] = asyncio.create_task(self._cancel(job))
            task.add_done_callback(lambda task: self._cancels.pop(job.id))
        await asyncio.shield(self._cancels[job.id])

    async def _cancel(self, job: Job) -> None:
        was_new = job.state == "new"
        if not was_new:
            # Until all of it is removed, nothing can be begun with it.
            job.state = "pausing"
        await self._stop(job)
        job.forecasting = job.previewing = False
        job.progress = None
        if not was_new:
            await asyncio.to_thread(shutil.rmtree, job.work, ignore_errors=True)
            # It may have become whole at the last moment.
            job.result.unlink(missing_ok=True)
            job.state, job.problem = "cancelled", None
        self._jobs.keep(job)

    async def delete(self, job: Job) -> None:
        """Forget a job and all that was made of it."""
        if job.state != "done":
            await self.cancel(job)
        else:
            await self._stop(job)
        await self._jobs.forget(job)

    # ---- what runs ----

    async def run(self) -> None:
        """Run what there is to run, until `close`."""
        while not self._closed:
            self._now = task = self._next()
            if task is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            job = task if isinstance(task, Job) else task.job
            try:
                await (self._upscale(task) if isinstance(task, Job) else self._aside(task))
            except Exception as e:
                # Of this machine (no room, say) or of this program: the others run all the same.
                job.problem = f"{job.name} was not finished ({type(e).__name__}: {e}). Try again."
                if isinstance(task, Job):
                    job.state = "failed"
            finally:
                self._child, self._now, self._stopping = None, None, False
                self._free.set()
            job.progress = None
            if not isinstance(task, Job) and not task.choices:
                job.forecasting = False
            elif not isinstance(task, Job):
                job.previewing = False
            if not self._closed:
                self._jobs.keep(job)

    def close(self) -> None:
        """Stop what runs, which goes on when a server starts again."""
        self._closed = True
        self._wake.set()
        if self._child is not None:
            self._child.kill()

    def _next(self) -> Job | _Side | None:
        if self._sides:
            return self._sides.pop(0)
        waiting = [job for job in self._jobs.all() if job.state == "waiting"]
        return min(waiting, key=lambda job: job.queued, default=None)

    def _add(self, side: _Side) -> None:
        self._sides.append(side)
        job = side.job
        job.problem = None
        if job.progress is None:
            name = self._now.name if isinstance(self._now, Job) else ""
            what = f"waiting for {name}; pause it to go first" if name else "waiting"
            job.progress = {"phase": what, "share": 0.0}
        self._jobs.keep(job)
        self._wake.set()

    def _check_idle(self, job: Job) -> None:
        if job.state in ("waiting", "running", "pausing"):
            raise _wrong_state(job, "neither waiting nor running")

    async def _stop(self, job: Job) -> None:
        """End whatever is done for a job, and wait for that."""
        self._sides = [side for side in self._sides if side.job is not job]
        while self._now is not None and job is getattr(self._now, "job", self._now):
            self._stopping = True
            self._free.clear()
            if self._child is not None:
                self._child.kill()
            await self._free.wait()

    async def _upscale(self, job: Job) -> None:
        if job.result.exists():  # it was whole when the server was killed
            job.state = "done"
            return
        job.state, job.notes = "running", []
        self._jobs.keep(job)
        ended = await self._command(job, job.choice, job.result, [], lambda event: None)
        if self._closed:
            return
        if self._stopping:
            # Or it stays as whoever stops it has set it.
            job.state = "paused" if job.state == "running" else job.state
            return
        if ended.status == 0 and job.result.exists():
            job.state = "done"
        elif ended.status == INTERRUPTED:
            job.state = "paused"
        else:
            job.state, job.problem = "failed", self._problem(job, ended)

    async def _aside(self, side: _Side) -> None:
        job = side.job
        job.notes = []
        if not side.choices:
            await self._forecast(job)
            return
        for choice in side.choices:
            if self._closed or self._stopping:
                return
            ended = await self._previews(job, choice, side.times)
            if ended.status:
                job.problem = None if self._stopping else self._problem(job, ended)
                return

    async def _forecast(self, job: Job) -> None:
        asked = _settings(job)
        found: list[dict[str, Any]] = []

        def tell(event: dict[str, Any]) -> None:
            if event.get("event") == "plan":
                found.append({k: event[k] for k in _FORECAST})

        ended = await self._command(job, job.choice, job.result, ["--dry-run"], tell)
        if ended.status == 0 and found and _settings(job) == asked:
            job.forecast = found[0]
        elif ended.status and not self._stopping:
            job.problem = self._problem(job, ended)

    async def _previews(self, job: Job, choice: str, times: Sequence[str]) -> Ended:
        made: list[Path] = []

        def tell(event: dict[str, Any]) -> None:
            if event.get("event") == "preview":
                made.append(Path(str(event["out"])))

        fresh = job.folder / "fresh"
        await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
        fresh.mkdir()
        try:
            out = fresh / f"p.{job.container}"
            ended = await self._command(job, choice, out, ["--preview", *times], tell)
            if ended.status == 0:
                sizes = await asyncio.to_thread(lambda: [_png_size(path) for path in made])
                # All at once, so that the page shows the first of them.
                for path, size in zip(made, sizes, strict=True):
                    self._keep_preview(job, choice, path, size)
        finally:
            await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
        return ended

    def _keep_preview(self, job: Job, choice: str, path: Path, size: tuple[int, int]) -> None:
        """Take a picture that the command has named after its time."""
        at = float(path.name.removeprefix("p.preview.").removesuffix("s.png"))
        width, height = size
        job.numbered += 1
        file = job.preview_file(job.numbered)
        file.parent.mkdir(exist_ok=True)
        path.replace(file)
        new = Preview(number=job.numbered, choice=choice, time=at, width=width, height=height)
        others = [p for p in job.previews if (p.choice, p.time) != (choice, at)]
        job.previews = [*others, new][-_PREVIEWS_KEPT:]
        kept = {preview.number for preview in job.previews}
        for other in file.parent.iterdir():
            if other.stem.isdecimal() and int(other.stem) not in kept:
                with suppress(OSError):  # being read (Windows): the next one removes it
                    other.unlink()
        self._jobs.keep(job)

    async def _command(
        self,
        job: Job,
        choice: str | None,
        out: Path,
        more: Sequence[str],
        tell: Callable[[dict[str, Any]], None],
    ) -> Ended:
        """Run the command on a job's source, and show how far it is."""

        def told(event: dict[str, Any]) -> None:
            tell(event)
            if event.get("event") == "note":
                note = self._plainly(job, str(event.get("text")))
                # Of no use here: what to press in a terminal, and where this server keeps files.
                if "Ctrl-C" not in note and str(job.folder) not in note:
                    job.notes = [*job.notes, note][-_NOTES_KEPT:]
            elif event.get("event") == "progress":
                job.progress = {k: event[k] for k in _PROGRESS if k in event}
            self._jobs.moved(job)

        filter_name, _, weights = str(choice).partition("/")
        words = [str(job.path), str(out), "--filter", filter_name, "--weights", weights]
        words += [f"--job={job.work}", f"--encoder={job.encoder}", f"--size={job.size}"]
        if job.sigma is not None and "sigma" in needs_of(str(choice)):
            words += [f"--sigma={job.sigma:g}"]
        if job.pictures == "progressive":
            words += ["--progressive"]
        elif job.pictures != "auto":
            words += [f"--deinterlace={job.pictures}"]
        job.progress = {"phase": "starting", "share": 0.0}
        self._jobs.moved(job)
        self._child = await Child.start(
            "vs_vsr", "upscale", *words, *self._options, *more, "--json", "--end-with-input"
        )
        # It may have been asked to stop while it was started.
        if self._closed or self._stopping:
            self._child.kill()
        elif job.state == "pausing":
            self._child.interrupt()
        return await self._child.end(told)

    def _plainly(self, job: Job, sentence: str) -> str:
        """A sentence of the command, as the page's user knows its files and settings."""
        result = download_name(job.name, job.container)
        for path, name in ((str(job.path), job.name), (str(job.result), result)):
            sentence = sentence.replace(path, name)
        sentence = _DEINTERLACE.sub(
            lambda found: f'Choose "{PICTURES[found[1]]}" for Pictures under More', sentence
        ).replace("or --progressive if", f'or "{PICTURES["progressive"]}" if')
        has_option = _ANY_OPTION.search(sentence)
        return f"{sentence} Use vs-vsr upscale for this." if has_option else sentence

    def _problem(self, job: Job, ended: Ended) -> str:
        failed = [note for note in job.notes if " failed: " in note]
        said = failed[-1] if failed else ended.said
        if ended.status < 0 or not said:
            return (
                f"{job.name} was stopped by the system ({ended.status}), maybe because memory ran "
                "out. Close other programs, and start it again."
            )
        return self._plainly(job, said)


def _settings(job: Job) -> tuple[object, ...]:
    return job.choice, job.sigma, job.size, job.encoder, job.container, job.pictures


def _png_size(path: Path) -> tuple[int, int]:
    with path.open("rb") as file:
        width, height = _PNG.unpack(file.read(_PNG.size))
    return width, height


def _time(text: object) -> str:
    text = f"{text:.3f}" if isinstance(text, int | float) else text
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise Refusal(400, f"times must be seconds or H:MM:SS, got {str(text)[:40]!r}. Write 1:30.")
    return text


def _wrong_state(job: Job, rule: str) -> Refusal:
    return Refusal(
        409, f"{job.name} must be {rule}, got one that is {job.state}. Look at the list of jobs."
    )
