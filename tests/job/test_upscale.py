"""A file to a file: its pictures are the filter's and the preview's; what is refused and said."""

import argparse
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import vapoursynth as vs
from commands import arguments, upscale
from conftest import small_checkpoint
from films import film
from vapoursynth import core

from vs_vsr.cli.options import add_options, requests
from vs_vsr.errors import VsrError
from vs_vsr.job.plan import JobPlan
from vs_vsr.job.planning import make_plan
from vs_vsr.job.source import seconds

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("weights"), 8, 1)


def planned(*words: str | Path) -> JobPlan:
    """The plan that the command makes, in this process."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    (request,) = requests(parser.parse_args([*map(str, words)]))
    plan, _, _ = make_plan(request, "cpu", lambda what, share: None)
    return plan


def filtered(source: Path, weights: Path, **changes: Any) -> vs.VideoNode:
    """What a script makes of a file."""
    clip = core.bs.VideoSource(str(source), cachemode=0)
    options = {"precision": "fp32", "chunk": 4, "lookahead": 2, "segment": 8, "preroll": 2}
    return core.vsr.BasicVSR(clip, weights=str(weights), device="cpu", **{**options, **changes})


def decoded(path: Path) -> list[list[np.ndarray[Any, Any]]]:
    """The planes of each picture of a file."""
    clip = core.bs.VideoSource(str(path), cachemode=0)
    return [[np.asarray(plane).copy() for plane in frame] for frame in clip.frames(close=True)]


def assert_same(path: Path, clip: vs.VideoNode) -> None:
    pictures = decoded(path)
    assert len(pictures) == len(clip)
    for picture, frame in zip(pictures, clip.frames(close=True), strict=True):
        for plane, want in zip(picture, frame, strict=True):
            np.testing.assert_array_equal(plane, np.asarray(want))


def cut_film(path: Path) -> Path:
    """Two scenes, the second one begins with picture 13."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        squares = np.random.default_rng(1).integers(20, 230, (2, 9, 12), np.uint8)
        scenes = squares.repeat(8, 1).repeat(8, 2)
        for n in range(24):
            seen = scenes[int(n >= 13), :, n : n + 64]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(seen), format="yuv420p")
            frame.pts = n
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def test_the_pictures_are_those_of_the_filter(weights: Path, tmp_path: Path) -> None:
    source, out = cut_film(tmp_path / "in.mkv"), tmp_path / "out.mkv"
    words = [*arguments(weights), "--encoder", "ffv1"]
    words = [w for w in words if w not in ("--encoder-preset", "ultrafast")]
    upscale(source, out, *words, "--preview", "0", "0.5")
    previews = sorted(tmp_path.glob("out.preview.*.png"))
    assert [path.name for path in previews] == [
        "out.preview.0.000s.png",
        "out.preview.0.480s.png",
    ]
    plan = planned(source, out, *words)
    assert plan.cuts == (13,)
    assert plan.parts == ((0, 8), (8, 16), (16, 24))

    upscale(source, out, *words)
    assert_same(out, filtered(source, weights))
    clip = core.bs.VideoSource(str(out), cachemode=0)
    rgb = clip.resize.Bicubic(format=vs.RGB24, matrix_in=6)
    for path, n in zip(previews, (0, 12), strict=True):
        with av.open(str(path)) as file:
            picture = next(file.decode(video=0)).to_ndarray(format="rgb24")
        after = np.dstack([np.asarray(plane) for plane in rgb.get_frame(n)])
        np.testing.assert_array_equal(picture[:, 256:], after)
        assert (picture[:, :256] != after).any()


def test_a_range_has_the_pictures_that_the_whole_has(weights: Path, tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", [40 * n for n in range(30)], sound=("eng",))
    out = tmp_path / "out.mkv"
    words = [w for w in arguments(weights) if w not in ("--encoder-preset", "ultrafast")]
    upscale(source, out, *words, "--encoder", "ffv1", "--start", "0:00.24", "--end", "0.8")
    assert_same(out, filtered(source, weights)[6:20])
    with av.open(str(out)) as file:
        sound = file.streams.audio[0]
        unit = seconds(sound.time_base)
        times = [(p.pts or 0) * unit for p in file.demux(sound) if p.size]
        assert times[0] < 0.03 and abs(times[-1] + Fraction(1024, 48000) - 0.56) < 0.03


@pytest.mark.parametrize(
    ("words", "size", "aspect", "format"),
    [
        ("--size 2x", (128, 96), "4/3", "YUV420P8"),
        ("--size 120p", (160, 120), "4/3", "YUV420P8"),
        ("--size 100x100", (100, 100), "16/9", "YUV420P8"),
        ("--square-pixels", (342, 192), "1", "YUV420P8"),
        ("--bits 10", (256, 192), "4/3", "YUV420P10"),
        ("--bits 16 --encoder ffv1 --square-pixels", (342, 192), "1", "YUV420P16"),
    ],
)
def test_the_size_of_pictures(
    words: str, size: tuple[int, int], aspect: str, format: str, weights: Path, tmp_path: Path
) -> None:
    source = film(tmp_path / "in.mkv", [0, 40, 80], aspect=Fraction(4, 3))
    plan = planned(source, tmp_path / "out.mkv", "--weights", str(weights), *words.split())
    assert (plan.recipe.width, plan.recipe.height) == size
    assert Fraction(*plan.sample_aspect) == Fraction(aspect)
    assert plan.recipe.format == format


def test_several_files_and_lines_for_scripts(weights: Path, tmp_path: Path) -> None:
    sources = [film(tmp_path / f"{name}.mkv", [40 * n for n in range(9)]) for name in "ab"]
    (tmp_path / "bad.mkv").write_text("no film")
    pattern = tmp_path / "{name}_x4.mkv"
    done = upscale(
        sources[0],
        tmp_path / "bad.mkv",
        sources[1],
        pattern,
        *arguments(weights),
        "--json",
        check=False,
    )
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert "bad.mkv" in sentence
    assert (tmp_path / "a_x4.mkv").exists() and (tmp_path / "b_x4.mkv").exists()
    assert not (tmp_path / "bad_x4.mkv").exists()
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [(event["event"], event["file"]) for event in events]
    assert kinds.count(("done", "a.mkv")) == kinds.count(("done", "b.mkv")) == 1
    plan = next(event for event in events if event["event"] == "plan")
    assert plan["pictures"] == 9 and plan["seconds"] > 0 and plan["bytes"] > 0


def test_a_dry_run_says_what_would_be_done(weights: Path, tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", [40 * n for n in range(9)])
    out = tmp_path / "out.mkv"
    said = upscale(source, out, *arguments(weights), "--dry-run").stderr
    for part in ("64x48, 9 frames", "256x192 YUV420P8, 9 pictures, by libx264", "BasicVSR with"):
        assert part in said
    assert "judging by a few pictures" in said
    assert not out.exists()
    # Another option is another job, and the one that is there is named with the difference.
    said = upscale(source, out, *arguments(weights), "--dry-run", "--crf", "30").stderr
    assert "Another job for this file is in" in said and "crf (17 and 30)" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("{here} {here}", "OUT must be another file than IN"),
        ("{here} {folder}", "OUT must be a file, got the folder"),
        ("{here} {there}", "OUT must be a new file, got .* Choose another name, or add --force"),
        ("{here} {folder}/none/x.mkv", "OUT must be in a folder that exists"),
        ("{here} {folder}/x.avi", "output must end in .mkv"),
        ("{folder}/none.mkv {folder}/x.mkv", "input must be a file, got .* does not exist"),
        ("{here} {there} {folder}/x.mkv", "OUT must have {name} in it for several inputs"),
        ("{here} {folder}/x.mkv --size big", 'size must be a factor .*, got "big"'),
        ("{here} {folder}/x.mkv --size 9x9", 'size must be a factor .*, got "9x9"'),
        ("{here} {folder}/x.mkv --start 5", "start and end must have pictures between them"),
        ("{here} {folder}/x.mkv --start 1:x", 'start must be seconds or H:MM:SS, got "1:x"'),
        ("{here} {folder}/x.mkv --bits 9", "bits must be 8, 10 or 12"),
        ("{here} {folder}/x.mkv --encoder x266", "encoder must be one of .* Did you mean x26"),
        ("{here} {folder}/x.mkv --crf 99", "crf must be 0 .best. to 51 for x265, got 99"),
        ("{here} {folder}/x.mkv --preset cinema", "cinema"),
        ("{here} {folder}/x.mkv --preset noise-known", "sigma must be given for the preset"),
        ("{here} {folder}/x.mkv --preset film --filter EDVR", "preset must be left out where"),
        ("{here} {folder}/x.mkv --weights none-such", "BasicVSR: weights must be a file or one of"),
        ("{here} {folder}/x.mkv --encoder-options x", "encoder-options must be KEY=VALUE pairs"),
        ("{here} {folder}/x.mkv --job {here}", "The folder of the job, .* cannot be made"),
    ],
)
def test_what_is_refused(words: str, sentence: str, weights: Path, tmp_path: Path) -> None:
    here = film(tmp_path / "in.mkv", [0, 40, 80])
    there = tmp_path / "there.mkv"
    there.write_text("kept")
    before = sorted(tmp_path.iterdir())
    filled = [
        word.replace("{here}", str(here))
        .replace("{there}", str(there))
        .replace("{folder}", str(tmp_path))
        for word in words.split()
    ]
    if "--weights" not in filled and "--preset" not in filled:
        filled += ["--weights", str(weights)]
    with pytest.raises(VsrError, match=sentence):
        planned(*filled)
    assert sorted(tmp_path.iterdir()) == before
    assert there.read_text() == "kept"


def test_a_refusal_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", [0, 40, 80])
    done = upscale(source, tmp_path / "out.mkv", "--device", "cuda:7", check=False)
    assert done.returncode == 1
    assert re.fullmatch(r".*device must be one that this machine has .*\n", done.stderr)
    assert list(tmp_path.iterdir()) == [source]
