"""Whether a file is a video: `python -m vs_vsr.serve.look FILE`, in a process of its own.

FFmpeg reads whatever the user gives, and what that does to it must not happen to the server.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from vs_vsr.errors import JobError
from vs_vsr.job.lifeline import end_with_input
from vs_vsr.serve.answers import Refusal, as_json
from vs_vsr.serve.children import Child

__all__ = ["look", "main"]

_LIMIT_S = 60.0


async def look(path: Path, name: str) -> float | None:
    """Seconds of a video; None where it does not tell.

    Args:
        path: The file.
        name: As it is shown.

    Raises:
        Refusal: It is no video.
    """
    child = await Child.start("vs_vsr.serve.look", str(path))
    try:
        ended = await asyncio.wait_for(child.end(lambda event: None), _LIMIT_S)
        found: dict[str, Any] = json.loads(ended.said)
    except TimeoutError:
        raise Refusal(
            400, f"{name} could not be read within {_LIMIT_S:.0f} seconds. Try to play it."
        ) from None
    except ValueError:
        raise Refusal(
            400, f"{name} ended the program that looked at it. Get another copy of the file."
        ) from None
    if "problem" in found:
        raise Refusal(400, str(found["problem"]).replace(str(path), name))
    return float(found["seconds"]) or None


def main() -> None:
    """Look at the file that the command line names; what it is goes to standard error."""
    parser = argparse.ArgumentParser(prog="vs_vsr.serve.look")
    parser.add_argument("file", type=Path)
    path = parser.parse_args().file
    end_with_input()
    # Only the child brings FFmpeg in.
    from vs_vsr.job.source import probe

    try:
        found: dict[str, object] = {"seconds": float(probe(path).duration)}
    except JobError as e:
        found = {"problem": str(e)}
    sys.stderr.write(f"\n{as_json(found)}\n")


if __name__ == "__main__":
    main()
