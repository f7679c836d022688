"""Each source of the zoo comes out right, or is one sentence and leaves nothing behind."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
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
    "jumps.ts": "must have pictures whose times rise, got picture 12 at 0.040 s after one",
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
    refused: list[str]
    """What was said against the file."""
    status: int
    """Of the command, which may have had other files too."""
    left: list[str]
    """Names in the folder of `out` that begin with its name."""


def plain_checkpoint(folder: Path) -> Path:
    """A network that only enlarges: what it would add is nothing."""
    path = small_checkpoint(folder, 8, 1)
    state = torch.load(path)
    for name, tensor in state["params"].items():
        if name.startswith("conv_last."):
            tensor.zero_()
    torch.save(state, path)
    return path


def upscaled(sources: list[Path], pattern: Path, weights: Path) -> dict[str, Run]:
    """Run the command over files, and sort what it has left and said by file."""
    command = [sys.executable, "-m", "vs_vsr", "upscale", *OPTIONS, "--weights", weights]
    done = subprocess.run(
        [*map(str, command), "--", *map(str, sources), str(pattern)],
        env={**environment(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    told = os.fsdecode(done.stderr).splitlines()
    runs = {}
    for source in sources:
        out = pattern.with_name(pattern.name.replace("{name}", source.stem))
        left = [name for name in os.listdir(out.parent) if name.startswith(f"{out.stem}.")]
        refused = [line for line in told if line.startswith(f"{source}: ")]
        if len(sources) == 1 and done.returncode:
            refused = told
        runs[source.name] = Run(source, out, refused, done.returncode, sorted(left))
    return runs


def runs(folder: Path) -> dict[str, Run]:
    """Runs of the command over the zoo, one for each kind of file: starting one takes seconds."""
    weights = plain_checkpoint(folder)
    by_suffix: dict[str, list[Path]] = {}
    for name in zoo.ANIMALS:
        (folder / Path(name).suffix).mkdir(exist_ok=True)
        source = zoo.make(name, folder / Path(name).suffix)
        by_suffix.setdefault(source.suffix, []).append(source)
    with ThreadPoolExecutor(2) as pool:
        pending = []
        for suffix, sources in by_suffix.items():
            (folder / f"out{suffix}").mkdir()
            kept = suffix if suffix in (".mkv", ".mp4") else ".mkv"
            pattern = folder / f"out{suffix}" / f"{{name}}{kept}"
            pending.append(pool.submit(upscaled, sources, pattern, weights))
    return {name: run for future in pending for name, run in future.result().items()}


def test_each_source_comes_out_right_or_is_one_sentence(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for name, run in runs(tmp_path).items():
        with subtests.test(name):
            if name in REFUSED:
                assert_refused(name, run)
            else:
                assert_right(name, run)


def assert_refused(name: str, run: Run) -> None:
    assert run.status == 1 and run.left == []
    (line,) = run.refused
    assert re.search(REFUSED[name].format(path=r"\S*" + run.source.name), line), line


def assert_right(name: str, run: Run) -> None:
    assert run.refused == []
    assert run.left == [run.out.name]
    # VapourSynth has no half of an odd side, so the last column and line are left out.
    half = name == "odd_half_chroma.mkv"
    if name == "raw.h264":
        assert_at_rate(run.out, 12, 24)
    else:
        assert streams.differences(run.source, run.out, scale=None if half else 2) == []
    assert_alike(run)
    if name.startswith("sync"):
        assert abs(streams.sync(run.out) - streams.sync(run.source)) <= 0.002


def assert_at_rate(path: Path, count: int, rate: int) -> None:
    """What has no times gets even ones, to Matroska's millisecond."""
    video = streams.view(path).video
    assert video is not None and len(video.times) == count
    assert all(abs(time - Fraction(n, rate)) <= video.unit for n, time in enumerate(video.times))


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


def test_names_that_trip_up_programs(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    plain = zoo.make("two_tracks.mkv", tmp_path)
    names = []
    for name in zoo.NAMES:
        try:
            shutil.copy(plain, folder / name)
        except OSError:
            continue  # no file can have this name here
        names.append(name)
    words = [
        *OPTIONS,
        "--weights",
        plain_checkpoint(tmp_path),
        "--",
        *names,
        out / "new {name}.mkv",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "vs_vsr", "upscale", *map(str, words)],
        cwd=folder,
        env={**environment(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(out)) == sorted(f"new {name}" for name in names)
    for name in names:
        assert streams.differences(folder / name, out / f"new {name}", scale=2) == []
