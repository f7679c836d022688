"""Child processes in which the bridge meets the stand-in filters instead of the networks."""

import subprocess
import sys
from pathlib import Path

from conftest import environment

STAND_IN = Path(__file__).parent / "stand_in"

HEAD = "import vapoursynth as vs\nfrom vapoursynth import core\n"


def stand_in_environment() -> dict[str, str]:
    """For a process that imports the stand-in instead of `vs_vsr.plugin.worker`."""
    return {**environment(), "PYTHONPATH": str(STAND_IN)}


def start(*command: str | Path) -> subprocess.Popen[bytes]:
    """Start a command with pipes for its output, in a new process group."""
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=stand_in_environment(),
        start_new_session=True,
    )


def run(*command: str | Path, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever its status."""
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=stand_in_environment(),
    )


def python(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh Python, to its end, whatever its status."""
    return run(sys.executable, "-c", HEAD + script)
