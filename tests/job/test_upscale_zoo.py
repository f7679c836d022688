"""Each source of the zoo comes out right, or is one sentence and leaves nothing behind."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import streams
import torch
import zoo
from conftest import environment, small_checkpoint

pytestmark = pytest.mark.slow

# What the sentence must say.
REFUSED = {
    "headless.mp4": "must be a media file that FFmpeg can read, got {path}",
    "text.mkv": "must be a media file that FFmpeg can read, got {path}",
    "empty.mkv": "must be a media file, got {path}, which is empty",
    "sound_only.mkv": "must have a video stream, got {path}, which has audio only",
    "interlaced.mkv": r"must have progressive pictures, got interlaced ones \(top field first\)",
    "interlaced_bottom.mkv": r"got interlaced ones \(bottom field first\)",
    "interlaced_no_flags.mkv": r"got interlaced ones \(top field first\)",
    "telecined.mkv": "must have progressive pictures, got telecined ones",
}
# PyAV reads the chroma of pictures that are flagged as fields line by line.
NOISE = {"whole_but_flagged.mkv": 16}
OPTIONS = (
    *("--filter", "BasicVSR", "--precision", "fp32", "--size", "2x", "--device", "cpu"),
    *("--encoder", "x264", "--crf", "12", "--encoder-preset", "ultrafast", "--threads", "1"),
)


@dataclass(frozen=True)
class Run:
    """What a command has done."""

    source: Path
    out: Path
    status: int
    told: str
    left: list[str]
    """Names in the folder of `out`, and in that of `source` beside it."""


def plain_checkpoint(folder: Path) -> Path:
    """A network that only enlarges: what it would add is nothing."""
    path = small_checkpoint(folder, 8, 1)
    state = torch.load(path)
    for name, tensor in state["params"].items():
        if name.startswith("conv_last."):
            tensor.zero_()
    torch.save(state, path)
    return path


type Runs = Callable[[str], Run]


def upscaled(source: Path, out: Path, weights: Path) -> Run:
    """Run the command in the folder of `source`, as a user does."""
    command = [sys.executable, "-m", "vs_vsr", "upscale", *OPTIONS, "--weights", str(weights)]
    done = subprocess.run(
        [*command, "--", source.name, str(out)],
        cwd=source.parent,
        env={**environment(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=300,
    )
    left = [*os.listdir(out.parent), *(n for n in os.listdir(source.parent) if n != source.name)]
    return Run(source, out, done.returncode, os.fsdecode(done.stderr), sorted(left))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Any:
    """Runs of the command, all begun at once, two at a time: starting one takes seconds."""
    folder = tmp_path_factory.mktemp("zoo")
    weights = plain_checkpoint(folder)

    def run(name: str) -> Run:
        here = folder / name
        (here / "in").mkdir(parents=True)
        (here / "out").mkdir()
        source = zoo.make(name, here / "in")
        suffix = source.suffix if source.suffix in (".mkv", ".mp4") else ".mkv"
        return upscaled(source, here / "out" / f"new{suffix}", weights)

    asked: set[str] = set()
    for item in request.session.items:
        if isinstance(item, pytest.Function) and "runs" in item.fixturenames:
            asked.add(str(item.callspec.params["name"]))
    with ThreadPoolExecutor(2) as pool:
        pending: dict[str, Future[Run]] = {name: pool.submit(run, name) for name in sorted(asked)}
        yield lambda name: pending[name].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_upscaled_is_one_sentence(name: str, runs: Runs) -> None:
    run = runs(name)
    assert run.status == 1 and run.left == []
    # On a busy machine, that something is going on is said every 10 seconds.
    lines = [n for n in run.told.splitlines() if not re.match(r"\S+: [a-z ]+ [0-9.]+ %, ", n)]
    assert len(lines) == 1, run.told
    pattern = REFUSED[name].format(path=r"\S*" + run.source.name)
    assert re.search(pattern, lines[0]), lines[0]


@pytest.mark.parametrize("name", [n for n in zoo.ANIMALS if n not in REFUSED])
def test_what_can_be_upscaled_comes_out_right(name: str, runs: Runs) -> None:
    run = runs(name)
    assert run.status == 0, run.told
    assert run.left == [run.out.name]
    # VapourSynth has no half of an odd side, so the last column and line are left out.
    half = name == "odd_half_chroma.mkv"
    assert streams.differences(run.source, run.out, scale=None if half else 2) == []
    assert_alike(run)
    if name.startswith("sync"):
        assert abs(streams.sync(run.out) - streams.sync(run.source)) <= 0.002


def assert_alike(run: Run) -> None:
    """The network adds nothing, so a picture made smaller again is that of the source."""
    old, new = (pictures(path) for path in (run.source, run.out))
    assert len(old) == len(new)
    height, width = (side // 2 for side in new.shape[1:3])
    old = old[:, :height, :width]
    small = new[:, : 2 * height, : 2 * width].reshape(len(new), height, 2, width, 2, 3).mean((2, 4))
    off = small - old
    # Of 255. Fine detail is lost on the way there and back, more of it in halved chroma; but
    # neither place nor colour may move.
    bias, noise = np.abs(off.mean((1, 2))).max(), np.abs(off).mean((1, 2)).max()
    assert bias < 2.5 and noise < NOISE.get(run.source.name, 9), (bias, noise)


def pictures(path: Path) -> Any:
    """All pictures of a file as RGB, (count, height, width, 3)."""
    with av.open(f"file:{path}") as container:
        stream = next(s for s in container.streams.video if not s.disposition & 1024)
        frames = []
        try:
            for frame in container.decode(stream):
                frames.append(frame.to_ndarray(format="rgb24").astype(np.float32))
        except av.error.InvalidDataError:
            pass  # the file is cut off
    return np.array(frames)


@pytest.mark.parametrize("name", zoo.NAMES, ids=ascii)
def test_names_that_trip_up_programs(name: str, tmp_path: Path) -> None:
    source, out = tmp_path / "in" / name, tmp_path / "out" / f"new {name}"
    source.parent.mkdir()
    out.parent.mkdir()
    try:
        zoo.make("two_tracks.mkv", tmp_path).rename(source)
    except OSError:
        pytest.skip("no file can have this name here")
    run = upscaled(source, out, plain_checkpoint(tmp_path))
    assert run.status == 0, run.told
    assert run.left == [out.name]
    assert streams.differences(source, out, scale=2) == []
