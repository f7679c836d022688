"""The commands of the docs: each is one that the program takes, and is run on a tiny file."""

import argparse
import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from conftest import drifting, environment, small_checkpoint
from docs_blocks import PAGES, ROOT, blocks, commands, runs
from films import film
from networks import checkpoint as network_file
from PIL import Image

from vs_vsr import cli
from vs_vsr.cli.options import requests, seconds
from vs_vsr.errors import JobError
from vs_vsr.job.encoders import NAMES, check_container, encoder
from vs_vsr.job.fields import available
from vs_vsr.job.join import join
from vs_vsr.job.part import part
from vs_vsr.job.plan import Colour, Encoder
from vs_vsr.job.planning import make_plan
from vs_vsr.job.preview import preview
from vs_vsr.job.request import DEINTERLACERS, Request
from vs_vsr.weights.footage import footage

PAGE = ROOT / "docs" / "command.md"
SMALL = "--precision fp32 --chunk 4 --lookahead 2 --segment 8 --preroll 2 --threads 1 --device cpu"
FASTEST = {"x264": "ultrafast", "x265": "ultrafast", "av1": "13"}

SHOWN = [command for block in blocks("sh", "console") for command in commands(block)]
SHOWN = list(dict.fromkeys(re.sub(r"\s+# .*", "", command) for command in SHOWN))
RUN = [command for command in SHOWN if runs(command)]


def test_every_command_is_run_or_is_of_a_kind_that_cannot_be() -> None:
    known = r"vs-vsr (upscale|plan|part|join|models|weights list|info|eval|compare) ?"
    known += "|vspipe |python -c "
    assert [command for command in RUN if not re.match(known, command)] == []


def of(*names: str) -> list[str]:
    """The commands of these names that are run."""
    return [line for line in RUN if re.match(rf"vs-vsr ({'|'.join(names)})\b", line)]


def lines(page: Path) -> list[str]:
    """The commands of vs-vsr that a page shows, each on a line of its own."""
    name = str(page.relative_to(ROOT))
    found = [x for b in blocks("sh", "console") if b.page == name for x in commands(b)]
    return [command for command in found if command.startswith("vs-vsr ")]


def words(line: str) -> list[str]:
    """The arguments of a command, without a comment."""
    return shlex.split(line.replace('"$SLURM_ARRAY_TASK_ID"', "0"), comments=True)[1:]


def parsed(line: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vs-vsr")
    subparsers = parser.add_subparsers(required=True)
    for command in cli._COMMANDS:
        command.add(subparsers)
    return parser.parse_args(words(line))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("weights"), 8, 1)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of 5 pictures in 96 s, and a short one."""
    folder = tmp_path_factory.mktemp("films")
    film(folder / "in.mkv", [12_000 * n for n in (0, 1, 5, 7, 8)])
    film(folder / "a.mkv", [40 * n for n in range(3)])
    return folder


@pytest.fixture
def folder(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the commands name."""
    for name in ("in.mkv", "a.mkv", "b.mkv"):
        (tmp_path / name).symlink_to(films / name.replace("b.", "a."))
    (tmp_path / "up").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line: str, checkpoint: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with a small network; `more` comes first, as --preview takes what follows."""
    name, *rest = words(line)
    small = ["--weights", str(checkpoint), *SMALL.split()] if name == "upscale" else []
    command = [sys.executable, "-m", "vs_vsr", name, *more, *small, *rest]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment())


INLINE = sorted(
    {
        command
        for page in PAGES
        for command in re.findall(r"`(vs-vsr [a-z]+ [^`…]+)(?<!--help)`", page.read_text())
    }
)


@pytest.mark.parametrize(
    "line", dict.fromkeys(x for x in (*SHOWN, *INLINE) if x.startswith("vs-vsr "))
)
def test_the_program_takes_each_command(line: str) -> None:
    parsed(line)


def small(request: Request, folder: Path) -> Request:
    """The same with a small network and, if none is named, the encoder's fastest preset."""
    weights = str(request.arguments.get("weights", ""))
    restores = re.match("ntire|deblur|denoise", weights) and request.filter == "BasicVSRPP"
    name = f"{request.filter} restore" if restores else request.filter
    arguments = {**request.arguments, "weights": str(network_file(name, folder))}
    arguments.setdefault("precision", "fp32")
    preset = request.encoder_preset or FASTEST.get(request.encoder, "")
    return replace(request, arguments=arguments, threads=1, encoder_preset=preset)


def made(request: Request) -> Path:
    """Make a file as `vs-vsr upscale` does, in this process."""
    plan, folder, _ = make_plan(request, "cpu", lambda what, share: None)
    for number in range(len(plan.parts)):
        part(folder, number, lambda progress: None, "cpu")
    join(plan, folder, lambda share: None, force=True)
    return Path(request.out)


@pytest.mark.slow
@pytest.mark.parametrize("line", [x for x in of("upscale") if "--json" not in x])
def test_each_file_is_made(line: str, folder: Path) -> None:
    args = parsed(line)
    for request in (small(request, folder) for request in requests(args)):
        if request.deinterlace and request.deinterlace not in available():
            package = DEINTERLACERS[request.deinterlace][1]
            with pytest.raises(JobError, match=rf"Install it: pip install {package}\."):
                make_plan(request, "cpu", lambda what, share: None)
        elif args.preview is not None:
            times = [seconds(text, "preview") for text in args.preview]
            pictures, _ = preview(request, times, "cpu", lambda what, share: None)
            assert 0 < len(pictures) <= (len(times) or 3) and all(map(Path.exists, pictures))
        elif args.dry_run:
            plan, _, _ = make_plan(request, "cpu", lambda what, share: None)
            assert plan.last > plan.first
        else:
            with av.open(str(made(request))) as file:
                picture = next(file.decode(video=0))
            assert picture.width == (64 * 4 if not request.size else picture.width)
            assert (picture.format.components[0].bits == 10) == (request.bits == 10)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["docs/command.md", "docs/many-machines.md"])
def test_the_three_steps_of_a_scheduler(
    page: str, checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(line: str, *more: str) -> list[str]:
        args = parsed(shlex.join(["vs-vsr", *words(line), *more]))
        assert args.run(args) == 0
        return capsys.readouterr().out.split()

    plan, one, whole = (
        next(line for line in lines(ROOT / page) if line.startswith(f"vs-vsr {step} "))
        for step in ("plan", "part", "join")
    )
    plan = plan.replace("/shared", str(folder))
    job, count = answer(plan, "--weights", str(checkpoint), *SMALL.split())
    assert Path(job).parent == folder / "jobs"
    shown = words(whole)[1]
    for number in range(int(count)):
        answer(one.replace(shown, job).replace('"$SLURM_ARRAY_TASK_ID"', str(number)))
    answer(whole.replace(shown, job))
    assert Path("out.mkv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("line", of("eval"))
def test_each_measurement_is_made(
    line: str, checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("GT/walk", "gt", "walk"):
        Path(name).mkdir(parents=True)
        for n, frame in enumerate(drifting(2, 256, 256)):
            array = (frame[0].permute(1, 2, 0) * 255).round().byte().numpy()
            Image.fromarray(array).save(f"{name}/{n}.png")
    args = parsed(shlex.join(["vs-vsr", *words(line), "--weights", str(checkpoint)]))
    assert args.run(args) == 0
    answer = capsys.readouterr().out
    if args.json:
        # The page has the same fields.
        page = (ROOT / "docs" / "eval.md").read_text()
        assert set(re.findall(r'"\w[\w-]*":', answer)) == set(re.findall(r'"\w[\w-]*":', page))
    else:
        assert re.search(r"^clip +weights .*\n(walk|gt) ", answer)


@pytest.mark.slow
def test_a_file_from_the_first_command_to_the_preview(checkpoint: Path, folder: Path) -> None:
    first = lines(PAGE)[0]
    assert first in lines(ROOT / "README.md")
    done = run(first, checkpoint)
    with av.open("out.mkv") as file:
        assert sum(1 for _ in file.decode(video=0)) == 5
    # As the page shows it.
    for said in (r"in\.mkv: 64x48, 5 frames\.", r"256x192 YUV420P8, 5 pictures, by libx265\."):
        assert re.search(said, done.stderr)
    assert re.search(r"^About .*, judging by a few pictures\.$", done.stderr, re.MULTILINE)

    page = ROOT / "docs" / "preview.md"
    (shown,) = [line for line in lines(page) if "--preview 12 1" in line]
    run(shown, checkpoint, "--force")
    (named,) = re.findall(r"writes `(out\.preview\.\S+\.png)`", page.read_text())
    assert {named, "out.preview.60.000s.png"} == {path.name for path in folder.glob("*.png")}


@pytest.mark.slow
def test_several_files_and_the_lines_for_scripts(checkpoint: Path, folder: Path) -> None:
    (several,) = [line for line in lines(PAGE) if "{name}" in line]
    done = run(several, checkpoint, "--json")
    assert sorted(path.name for path in Path("up").iterdir()) == ["a_x4.mkv", "b_x4.mkv"]
    table = re.findall(r"^\| (`\w+`[^|]*) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    fields = {
        event: set(re.findall(r"`(\w+)`", about))
        for named, about in table
        for event in re.findall(r"`(\w+)`", named)
    }
    seen: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        event = json.loads(line)
        assert event.pop("file") in ("a.mkv", "b.mkv")
        seen.setdefault(event.pop("event"), set()).update(event)
    assert {"plan", "note", "done"} <= set(seen)
    for event, names in seen.items():
        # How long it is upscaling depends on the machine.
        assert names == fields[event] or (event == "progress" and names < fields[event])


@pytest.mark.parametrize("line", of("models", "weights list", "info"))
def test_the_commands_that_only_tell(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = parsed(line)
    assert args.run(args) == 0
    assert re.search("BasicVSR|AnimeSR|vapoursynth", capsys.readouterr().out)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "page",
    [ROOT / "CHANGELOG.md", *PAGES],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not link.startswith("http"):
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_what_the_page_shows_is_what_is_said_today() -> None:
    film = footage("film")
    assert f"\nThat is for {film.what}: {film.why}. See vs-vsr models" in PAGE.read_text()
    for name in re.findall(r"presets \((.*?) and more", PAGE.read_text())[0].split(", "):
        footage(name.strip("`"))


def refusal(name: str, **changes: Any) -> str:
    """What is said of an encoder that is asked for something that it has not."""
    colour = Colour(matrix=1, primaries=1, transfer=1, full_range=False, chroma_location=0)
    given: dict[str, Any] = {"crf": None, "preset": None, "options": {}, "threads": 1, **changes}
    size: dict[str, Any] = {"width": 64, "height": 48, "rate": Fraction(25)}
    with pytest.raises(JobError) as e:
        encoder(name, **given, picture_format="YUV420P8", colour=colour, **size)
    return str(e.value)


def test_the_table_of_encoders() -> None:
    page = (ROOT / "docs" / "encoding.md").read_text()
    rows = re.findall(r"^\| (`\w+`.*?) \| (\.mkv.*?) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    table = {name: row for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert set(table) == set(NAMES)
    for name, (_, files, crf, preset) in table.items():
        ffmpeg = {"x264": "libx264", "x265": "libx265", "av1": "libsvtav1"}.get(name, name)
        with pytest.raises(JobError) as e:
            check_container(Path("out.avi"), Encoder(name=ffmpeg, options={}, threads=1), (1, 1))
        assert f"must end in {' or '.join(files.split())} for" in str(e.value)
        if name == "ffv1":
            assert crf == "loses nothing" and "It loses nothing" in refusal(name, crf=1.0)
            continue
        default, best, worst = re.findall(r"\d+", crf)
        said = refusal(name, crf=1000.0)
        assert f"must be {best} (best) to {worst} for" in said
        assert f" {default} is the default" in said
        assert f"{re.findall('`(.*?)`', preset)[0]} is the default" in refusal(name, preset="x")
