"""What the user sees while a file is upscaled: a bar, or plain lines, or JSON for scripts."""

import json
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from vs_vsr.cli.answers import tell
from vs_vsr.job.progress import Progress as PartProgress

__all__ = ["Display", "duration", "size"]

# The bar moves at least this often.
_TICK_S = 0.5
# Where no terminal shows a bar, and for scripts, a line comes this often.
_LINE_S, _JSON_S = 10.0, 1.0


def duration(seconds: float) -> str:
    """A time as people say it: "42 s", "3 min 20 s", "5 h 7 min", "2 d 4 h"."""
    whole = round(seconds)
    for unit, below, length in (("d", "h", 86400), ("h", "min", 3600), ("min", "s", 60)):
        if whole >= length:
            count, rest = divmod(whole, length)
            lower = {"h": 3600, "min": 60, "s": 1}[below]
            return f"{count} {unit} {rest // lower} {below}"
    return f"{whole} s"


def size(count: float) -> str:
    """Bytes as people say them: "12 MB", "3.4 GB"."""
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= power:
            return (
                f"{count / power:.1f} {unit}"
                if count < 100 * power
                else f"{count / power:.0f} {unit}"
            )
    return f"{count:.0f} B"


class Display:
    """Shows how far one file is; told so from several threads."""

    def __init__(self, name: str, *, as_json: bool = False) -> None:
        """Show nothing yet.

        Args:
            name: Of the file, for the user.
            as_json: Write JSON lines to standard output, and nothing else.
        """
        self._name, self._json = name, as_json
        self._console = Console(stderr=True, quiet=as_json, highlight=False)
        self._has_bar = self._console.is_terminal and not as_json
        self._bar = Progress(
            TextColumn("{task.fields[what]}", style="bold"),
            BarColumn(),
            TextColumn("{task.fields[about]}"),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1.0, what=name, about="")
        self._lock = threading.Lock()
        self._what, self._share = "starting", 0.0
        # Of the parts: pictures in all, done before this run, done in parts that ended since.
        self._total, self._before, self._ended = 0, 0, 0
        self._chunk, self._bytes_each, self._seconds_each = 1, 0.0, 0.0
        self._running: dict[int, PartProgress] = {}
        self._done: set[int] = set()
        self._began = self._said = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._has_bar:
            self._bar.start()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        self._stop.set()
        self._thread.join()
        if self._has_bar:
            self._bar.stop()

    def give_up(self) -> None:
        """Leave the terminal as it was, as the process ends at once; for a signal's handler."""
        if self._has_bar:
            self._console.show_cursor()

    def say(self, line: str) -> None:
        """A line that stays."""
        if self._json:
            self.event("note", text=line)
        else:
            self._console.print(line, markup=False, soft_wrap=True)

    def event(self, kind: str, **fields: Any) -> None:
        """A line for scripts; nothing where a person reads."""
        if self._json:
            with self._lock:
                tell(json.dumps({"event": kind, "file": self._name, **fields}))

    def phase(self, what: str, share: float) -> None:
        """What is being done beside the parts, and how much of it is, 0 to 1."""
        with self._lock:
            self._what, self._share, self._total = what, share, 0

    def parts(
        self, *, total: int, done: int, chunk: int, seconds_each: float, bytes_each: float
    ) -> None:
        """The parts begin.

        Args:
            total: Pictures of the file.
            done: Of them, those of parts that were made before.
            chunk: Pictures that come out together.
            seconds_each: Forecast for a picture, on all devices together; 0 for none.
            bytes_each: Forecast for a picture.
        """
        with self._lock:
            self._what, self._total, self._before, self._chunk = "upscaling", total, done, chunk
            self._seconds_each, self._bytes_each = seconds_each, bytes_each
            self._began = time.monotonic()

    def progress(self, progress: PartProgress) -> None:
        """How far a part is."""
        with self._lock:
            # What a part told last may come after its end.
            if progress.part not in self._done:
                self._running[progress.part] = progress

    def ended(self, part: int, done: int) -> None:
        """A part has ended; `done` pictures of it, 0 if it failed."""
        with self._lock:
            self._running.pop(part, None)
            self._ended += done
            if done:
                self._done.add(part)

    def _state(self) -> Mapping[str, Any]:
        """What is known now; the lock is held."""
        if not self._total:
            return {"phase": self._what, "share": round(self._share, 4)}
        running = self._running.values()
        fresh = self._ended + sum(p.pictures + p.fraction * self._chunk for p in running)
        fresh = min(fresh, self._total - self._before)
        seconds = time.monotonic() - self._began
        # At first the forecast knows better than the clock.
        each = seconds / fresh if fresh >= self._chunk else self._seconds_each
        left = each * (self._total - self._before - fresh)
        return {
            "phase": self._what,
            "share": round((self._before + fresh) / self._total, 4),
            "pictures": int(self._before + self._ended + sum(p.pictures for p in running)),
            "total": self._total,
            "fps": round(fresh / seconds, 3) if fresh and seconds > 1 else 0.0,
            "seconds_left": round(left) if each else None,
            "memory": sum(p.memory for p in running),
            "expected_bytes": round(self._bytes_each * self._total),
        }

    def _tick(self) -> None:
        spin = 0
        while not self._stop.wait(_TICK_S):
            spin += 1
            with self._lock:
                state = self._state()
            elapsed = duration(time.monotonic() - self._began)
            about = f"{elapsed}{'.' * (spin % 4)}"
            if "total" in state:
                left, fps = state["seconds_left"], state["fps"]
                about = ", ".join(
                    filter(
                        None,
                        (
                            f"{state['pictures']}/{state['total']}",
                            f"{fps:.2f} fps" if fps else "",
                            f"{duration(left)} left" if left is not None else elapsed,
                            f"memory {size(state['memory'])}" if state["memory"] else "",
                            f"about {size(state['expected_bytes'])}" if self._bytes_each else "",
                        ),
                    )
                )
            self._bar.update(
                self._task,
                completed=state["share"],
                what=f"{self._name}: {state['phase']} {100 * state['share']:.1f} %",
                about=about,
            )
            if self._has_bar:
                self._bar.refresh()
            now = time.monotonic()
            if self._json and now - self._said >= _JSON_S:
                self._said = now
                self.event("progress", **state)
            elif not self._has_bar and now - self._said >= _LINE_S:
                self._said = now
                self.say(f"{self._name}: {state['phase']} {100 * state['share']:.1f} %, {about}")
