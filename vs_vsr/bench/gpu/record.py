"""The results of one stage, on disk as soon as they exist."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["LEFT_OUT", "Record", "described", "read", "write"]

LEFT_OUT = "left out"
"""What the note of a part begins with for which there was no time."""


class Record:
    """Rows of one stage; each is in the file before the next one is measured."""

    def __init__(self, path: Path, stage: str, box_s: float) -> None:
        """Begin the file.

        Args:
            path: The JSON file.
            stage: The name of the stage.
            box_s: Seconds after which the stage is ended.
        """
        self.path = path
        self._end = time.monotonic() + box_s
        self._result: dict[str, Any] = {"stage": stage, "box_s": box_s, "state": "running"}
        self._result |= {"error": None, "rows": []}
        write(path, self._result)

    def add(self, name: str, **values: object) -> None:
        """Add a row."""
        self._result["rows"].append({"name": name, **values})
        write(self.path, self._result)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is measured within is one part: if it fails, its row says so and others go on."""
        try:
            yield
        except Exception as e:  # whatever one part raises, the others are worth measuring
            self.add(name, error=described(e))

    def left_s(self) -> float:
        """Seconds until the stage is ended."""
        return self._end - time.monotonic()

    def has(self, seconds: float, name: str) -> bool:
        """Whether there is time for a part; if not, its row says so."""
        left = self.left_s()
        if left < seconds:
            self.add(name, note=f"{LEFT_OUT}: {left:.0f} s left, needs {seconds:.0f}")
        return left >= seconds

    def finish(self, error: str | None = None) -> None:
        """Say how the stage ended."""
        self._result |= {"state": "failed" if error else "done", "error": error}
        write(self.path, self._result)


def described(error: BaseException) -> str:
    """An exception in one line."""
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def read(path: Path) -> dict[str, Any]:
    """What a stage has written; nothing if it has written nothing."""
    try:
        result: dict[str, Any] = json.loads(path.read_text())
    except OSError:
        return {}
    return result


def write(path: Path, result: object) -> None:
    """Write JSON such that no reader ever sees half of it."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1, default=str))
    os.replace(part, path)
