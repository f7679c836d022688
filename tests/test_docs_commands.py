"""The commands of the docs: each is one that the program takes, and the main ones are run."""

import argparse
import json
import re
import shlex
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from conftest import environment, small_checkpoint
from films import film

from vs_vsr.cli import doctor, eval, info, models, parts, serve, upscale, weights
from vs_vsr.cli.options import requests
from vs_vsr.errors import JobError
from vs_vsr.job.encoders import NAMES, check_container, encoder
from vs_vsr.job.plan import Colour, Encoder
from vs_vsr.job.planning import make_plan
from vs_vsr.weights.footage import footage

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "command.md"
SMALL = "--precision fp32 --chunk 4 --lookahead 2 --segment 8 --preroll 2 --threads 1 --device cpu"


def lines(page: Path) -> list[str]:
    """The commands that a page shows, each on a line of its own."""
    return re.findall(r"^    (?:\$ )?(vs-vsr .*)$", page.read_text(), re.MULTILINE)


def words(line: str) -> list[str]:
    """The arguments of a command, without a comment."""
    return shlex.split(line.replace('"$SLURM_ARRAY_TASK_ID"', "0"), comments=True)[1:]


def parsed(line: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vs-vsr")
    commands = parser.add_subparsers(required=True)
    for command in (upscale, serve, parts, models, eval, weights, doctor, info):
        command.add(commands)
    return parser.parse_args(words(line))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("weights"), 8, 1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the commands name: 9 pictures in 96 s each."""
    for name in ("in.mkv", "in.mp4", "a.mkv", "b.mkv"):
        film(tmp_path / name, [12_000 * n for n in range(9)])
    (tmp_path / "up").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line: str, checkpoint: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with a small network; `more` comes first, as --preview takes what follows."""
    name, *rest = words(line)
    small = ["--weights", str(checkpoint), *SMALL.split()] if name in ("upscale", "plan") else []
    command = [sys.executable, "-m", "vs_vsr", name, *more, *small, *rest]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment())


@pytest.mark.parametrize(
    ("page", "line"),
    [(p.name, line) for p in (ROOT / "README.md", *ROOT.glob("docs/*.md")) for line in lines(p)],
)
def test_the_program_takes_each_command(page: str, line: str) -> None:
    parsed(line)


@pytest.mark.parametrize(
    "line", [x for p in (PAGE, ROOT / "README.md") for x in lines(p) if "upscale " in x]
)
def test_each_file_that_is_upscaled_can_be_planned(
    line: str, checkpoint: Path, folder: Path
) -> None:
    args = parsed(line)
    for request in requests(args):
        if request.filter == "BasicVSR" and not request.deinterlace:
            request.arguments["weights"] = str(checkpoint)
            plan, _, _ = make_plan(request, "cpu", lambda what, share: None)
            assert plan.last > plan.first


@pytest.mark.slow
def test_a_file_from_the_first_command_to_the_preview(checkpoint: Path, folder: Path) -> None:
    first = lines(PAGE)[0]
    assert first in lines(ROOT / "README.md")
    done = run(first, checkpoint)
    with av.open("out.mkv") as file:
        assert sum(1 for _ in file.decode(video=0)) == 9
    # As the page shows it.
    for part in (r"in\.mkv: 64x48, 9 frames\.", r"256x192 YUV420P8, 9 pictures, by libx265\."):
        assert re.search(part, done.stderr)
    assert re.search(r"^About .*, judging by a few pictures\.$", done.stderr, re.MULTILINE)

    (preview,) = [line for line in lines(PAGE) if "--preview 12" in line]
    run(preview, checkpoint, "--force")
    (named,) = re.findall(r"writes `(out\.preview\.\S+\.png)`", PAGE.read_text())
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


@pytest.mark.slow
def test_the_three_steps_of_a_scheduler(checkpoint: Path, folder: Path) -> None:
    plan, part, join = (
        next(line for line in lines(PAGE) if line.startswith(f"vs-vsr {step} "))
        for step in ("plan", "part", "join")
    )
    job, count = run(plan, checkpoint).stdout.split()
    assert Path(job).parent == folder / "jobs"
    shown = words(join)[1]
    for number in range(int(count)):
        step = part.replace(shown, job).replace('"$SLURM_ARRAY_TASK_ID"', str(number))
        run(step, checkpoint)
    run(join.replace(shown, job), checkpoint)
    assert Path("out.mkv").exists()


def test_the_other_commands_that_only_tell(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = [line for line in lines(PAGE) if re.match(r"vs-vsr (models|weights list)", line)]
    assert len(told) == 3
    for line in told:
        args = parsed(line)
        assert args.run(args) == 0
        assert "BasicVSR" in capsys.readouterr().out or "AnimeSR" in line


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "page",
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")],
    ids=lambda page: page.name,
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
    rows = re.findall(
        r"^\| (`\w+`.*?) \| (\.mkv.*?) \| (.*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE
    )
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
