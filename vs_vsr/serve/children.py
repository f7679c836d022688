"""Children: `vs-vsr upscale --json`, whose lines are read as they come.

A child ends when its standard input does, and that is held by this process alone: whatever ends
the server, no child outlives it.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

__all__ = ["INTERRUPTED", "Child", "Ended"]

# As shells have it: 128 and the signal.
INTERRUPTED = 130

_MOST_LINE_BYTES = 1 << 20
_LINES_KEPT = 20


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    status: int
    """Of its exit; negative for a signal."""
    said: str
    """The last line of its standard error, or ""."""


class Child:
    """A process that is working."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Take a process that `start` has started."""
        self._process = process
        self._has_told = self._was_stopped = False

    @classmethod
    async def start(cls, module: str, *words: str) -> "Child":
        """Run a module of this package.

        Args:
            module: Its name.
            words: Its arguments.
        """
        # -P: not the modules of whatever folder the server was started in; utf8: what it says is
        # read so, also on Windows. Apart: Ctrl-C in the server's terminal is for the server.
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-X", "utf8", "-m", module, *words),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_MOST_LINE_BYTES,
                start_new_session=True,
                # What Windows has in its place.
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        )

    async def end(self, tell: Callable[[dict[str, Any]], None]) -> Ended:
        """Wait until it ends.

        Args:
            tell: Told each event that it writes.
        """
        try:
            said, _ = await asyncio.gather(self._complaints(), self._events(tell))
            status = await self._process.wait()
            return Ended(INTERRUPTED if self._was_stopped else status, said)
        finally:
            self.kill()

    async def _events(self, tell: Callable[[dict[str, Any]], None]) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._has_told = True
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    tell(event)

    async def _complaints(self) -> str:
        assert self._process.stderr is not None
        lines: deque[str] = deque(maxlen=_LINES_KEPT)
        async for line in self._process.stderr:
            lines.append(line.decode(errors="replace").strip())
        return next((line for line in reversed(lines) if line), "")

    def interrupt(self) -> None:
        """Let it finish the parts in hand; at once where a system has no such signal.

        Before its first event it has none in hand, and may not know the signal yet: Python alone
        would end with the status of an error.
        """
        if os.name != "posix" or not self._has_told:
            self._was_stopped |= self._process.returncode is None
            self.kill()
        elif self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it, and all that it has started, at once."""
        if self._process.returncode is not None:
            return  # its number may be another's by now; what it has started sees that it is gone
        with suppress(ProcessLookupError):
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
