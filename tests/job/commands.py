"""The command, run as users run it, and what it leaves."""

import hashlib
import subprocess
import sys
from pathlib import Path

import av
from conftest import environment

__all__ = ["arguments", "command", "packets_of", "upscale"]


def command(*words: str | Path) -> list[str]:
    """A command line of `vs-vsr`."""
    return [sys.executable, "-m", "vs_vsr", *map(str, words)]


def arguments(weights: Path) -> list[str]:
    """Options for a small network in float32, with parts of a few pictures, encoded fast."""
    words = f"--weights {weights} --device cpu --precision fp32 --chunk 4 --lookahead 2"
    return [*words.split(), *"--segment 8 --preroll 2 --encoder x264 --threads 1".split(),
            *"--encoder-preset ultrafast".split()]  # fmt: skip


def upscale(*words: str | Path, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run `vs-vsr upscale` to its end."""
    done = subprocess.run(
        command("upscale", *words), capture_output=True, text=True, env=environment(), check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def packets_of(path: Path) -> list[tuple[int, int | None, int | None, str]]:
    """Every packet of a file: stream, times, and a hash of its bytes."""
    with av.open(str(path)) as file:
        return [
            (p.stream.index, p.pts, p.dts, hashlib.sha256(bytes(p)).hexdigest())
            for p in file.demux()
            if p.size
        ]
