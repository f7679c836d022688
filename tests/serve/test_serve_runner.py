"""The order in which children run, and what becomes of a job when one ends this way or that.

The children are pretended ones: each does at once what a test has laid down for it.
"""

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from vs_vsr.serve import footage, runner
from vs_vsr.serve.answers import Refusal
from vs_vsr.serve.children import INTERRUPTED, Child, Ended
from vs_vsr.serve.jobs import Job, Jobs
from vs_vsr.serve.runner import Runner

PLAN = {"event": "plan", "seconds": 5.0, "bytes": 7, "width": 8, "height": 6, "pictures": 9}
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">2I", 16, 6)


class Pretended:
    """A child that ends when it is told to, as a test wants."""

    all: list["Pretended"]

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words
        self.tell: Callable[[dict[str, Any]], None]
        self._ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        Pretended.all.append(self)

    @classmethod
    async def start(cls, *words: str) -> "Pretended":
        await asyncio.sleep(0)
        return cls(words)

    async def end(self, tell: Callable[[dict[str, Any]], None]) -> Ended:
        self.tell = tell
        return await self._ended

    def ends(self, status: int, said: str = "") -> None:
        if not self._ended.done():
            self._ended.set_result(Ended(status, said))

    def done(self) -> None:
        """End well, the result written."""
        Path(self.words[3]).write_bytes(b"result")
        self.ends(0)

    def interrupt(self) -> None:
        self.ends(130)

    def kill(self) -> None:
        self.ends(-9)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[Pretended]:
    async def in_turn(what: Callable[..., Any], *args: Any, **named: Any) -> Any:
        await asyncio.sleep(0)
        return what(*args, **named)

    monkeypatch.setattr(runner, "Child", Pretended)
    # Threads take as long as they like; this takes its turn.
    monkeypatch.setattr(asyncio, "to_thread", in_turn)
    Pretended.all = []
    return Pretended.all


def play(folder: Path, act: Callable[[Runner, Jobs, list[Job]], Awaitable[None]]) -> None:
    """Run a play with three jobs."""

    async def whole() -> None:
        jobs = Jobs(folder)
        for name in "abc":
            source = folder / f"{name}.mkv"
            job = Job(
                folder=jobs.new_folder(), name=name, bytes=1, source=str(source), seconds=10.0
            )
            job.choice = "AnimeSR/v2"
            jobs.add(job)
        runs = Runner(jobs, ["--device", "cpu"])
        task = asyncio.create_task(runs.run())
        await act(runs, jobs, jobs.all())
        runs.close()
        await asyncio.wait_for(task, 10)

    asyncio.run(whole())


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def states(jobs: list[Job]) -> list[str]:
    return [state(job) for job in jobs]


def state(job: Job) -> str:
    """As it is now, whatever a type checker believes of what it was."""
    return job.state


def test_forecasts_go_before_jobs_that_wait(tmp_path: Path, children: list[Pretended]) -> None:
    async def act(runs: Runner, jobs: Jobs, all: list[Job]) -> None:
        a, b, c = all
        for job in (b, a):
            runs.start(job)
        await settle()
        runs.forecast(c)
        assert states(all) == ["waiting", "running", "new"] and len(children) == 1
        assert c.progress == {"phase": "waiting for b; pause it to go first", "share": 0.0}
        assert children[0].words[:4] == ("vs_vsr", "upscale", b.source, str(b.result))
        children[0].done()
        await settle()
        assert "--dry-run" in children[1].words and children[1].words[2] == c.source
        children[1].tell(PLAN)
        children[1].ends(0)
        await settle()
        assert c.forecast == {k: v for k, v in PLAN.items() if k != "event"}
        assert [c.public()[key] for key in ("forecasting", "progress")] == [False, None]
        assert states(all) == ["running", "done", "new"]

    play(tmp_path, act)


def test_how_a_job_ends(tmp_path: Path, children: list[Pretended]) -> None:
    async def act(runs: Runner, jobs: Jobs, all: list[Job]) -> None:
        a, b, c = all
        for job in all:
            runs.start(job)
        await settle()
        children[0].tell({"event": "note", "text": f"From {a.source}: 8x6."})
        children[0].tell({"event": "note", "text": f"In {a.folder} there is another."})
        children[0].tell({"event": "note", "text": "Press Ctrl-C again."})
        children[0].ends(1, f"input must be a file, got {a.source}. Add --force.")
        await settle()
        assert state(a) == "failed"
        said = "input must be a file, got a. Add --force. Use vs-vsr upscale for this."
        assert a.problem == said
        assert a.notes == ["From a: 8x6."]
        children[1].ends(-9, "some warning")
        await settle()
        assert state(b) == "failed" and "stopped by the system (-9)" in str(b.problem)
        children[2].tell({"event": "note", "text": "Part 0 failed: of no memory."})
        children[2].ends(1)
        await settle()
        assert c.problem == "Part 0 failed: of no memory."
        # Well, but without a file, is not well.
        runs.start(c)
        await settle()
        assert state(c) == "running" and not c.problem
        children[3].ends(0)
        await settle()
        assert state(c) == "failed"
        assert Job.load(c.folder).problem == c.problem

    play(tmp_path, act)


def test_pause_cancel_and_what_they_refuse(tmp_path: Path, children: list[Pretended]) -> None:
    async def act(runs: Runner, jobs: Jobs, all: list[Job]) -> None:
        a, b, c = all
        runs.start(a)
        # Asked before the child is there, it reaches it all the same.
        await asyncio.sleep(0)
        runs.pause(a)
        await settle()
        assert state(a) == "paused"
        # Cancelled before the child is there.
        runs.start(b)
        while state(b) != "running":
            await asyncio.sleep(0)
        await asyncio.wait_for(runs.cancel(b), 5)
        runs.forecast(c)
        while c.progress != {"phase": "starting", "share": 0.0}:
            await asyncio.sleep(0)
        await asyncio.wait_for(runs.cancel(c), 5)
        assert (state(c), c.forecasting, c.problem) == ("new", False, None)
        assert state(b) == "cancelled"
        for what in (runs.pause, runs.resume):
            with pytest.raises(Refusal, match=r"^c must be .*, got one that is new\. Look at"):
                what(c)
        runs.resume(a)
        await settle()
        for what in (runs.forecast, runs.start):
            with pytest.raises(Refusal, match="got one that is running"):
                what(a)
        # Whole at the last moment, and cancelled: what was made must not pass for another's.
        (a.work / "x").mkdir(parents=True)
        a.result.write_bytes(b"result")
        await runs.cancel(a)
        assert state(a) == "cancelled" and not a.work.exists() and not a.result.exists()
        runs.start(a)
        await settle()
        children[-1].done()
        await settle()
        assert state(a) == "done"
        with pytest.raises(Refusal, match="must be unfinished to be cancelled"):
            await runs.cancel(a)
        a.result.unlink()
        runs.start(a)
        assert state(a) == "waiting"
        await runs.delete(a)
        assert not a.folder.exists() and jobs.all() == all[1:]

    play(tmp_path, act)


def test_cancelled_twice_at_once_and_changed_after_a_failure(
    tmp_path: Path, children: list[Pretended], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 10

    async def ever_slower(what: Callable[..., Any], *args: Any, **named: Any) -> Any:
        nonlocal turns
        turns *= 2
        for _ in range(turns):
            await asyncio.sleep(0)
        return what(*args, **named)

    monkeypatch.setattr(asyncio, "to_thread", ever_slower)

    async def act(runs: Runner, jobs: Jobs, all: list[Job]) -> None:
        a, b, _ = all
        runs.start(a)
        await settle()
        children[0].ends(1, "It failed.")
        await settle()
        part = a.work / "x" / "parts" / "0.json"
        part.parent.mkdir(parents=True)
        part.touch()
        with pytest.raises(Refusal, match="must not have been begun to be changed"):
            footage.change(a, {"size": "2x"})
        runs.start(b)
        await settle()
        first = asyncio.create_task(runs.cancel(a))
        await asyncio.sleep(0)
        second = asyncio.create_task(runs.cancel(a))
        while state(a) != "pausing":
            await asyncio.sleep(0)
        # What runs is another's, and not stopped.
        runs.pause(a)
        await first
        assert (state(a), a.problem) == ("cancelled", None) and not a.work.exists()
        footage.change(a, {"size": "2x"})
        runs.start(a)
        await second
        assert states(all) == ["waiting", "running", "new"]

    play(tmp_path, act)


def test_pictures_that_are_not_whole(tmp_path: Path, children: list[Pretended]) -> None:
    async def act(runs: Runner, jobs: Jobs, all: list[Job]) -> None:
        a = all[0]
        runs.forecast(a)
        await settle()
        refused = (
            "source must have progressive pictures, got interlaced ones (top field first). "
            "Add --deinterlace bwdif, after pip install x; or --progressive if they are whole "
            "after all."
        )
        children[0].ends(1, refused)
        await settle()
        assert a.problem == (
            "source must have progressive pictures, got interlaced ones (top field first). "
            'Choose "deinterlace (bwdif)" for Pictures under More, after pip install x; or '
            '"whole pictures" if they are whole after all.'
        )
        assert not {word for word in children[0].words if word[:6] in ("--dein", "--prog")}
        for pictures, word in (("ivtc", "--deinterlace=ivtc"), ("progressive", "--progressive")):
            footage.change(a, {"pictures": pictures})
            runs.forecast(a)
            await settle()
            assert word in children[-1].words
            children[-1].ends(1)
            await settle()
        assert a.public()["pictures"] == "progressive"

    play(tmp_path, act)


def test_a_folder_that_was_moved_and_a_result_that_was_removed(tmp_path: Path) -> None:
    folder = tmp_path / "old" / "0123456789abcdef"
    folder.mkdir(parents=True)
    job = Job(folder=folder, name="a", bytes=1, source=None, seconds=None, state="done")
    job.result.touch()
    job.save()
    about = folder / "job.json"
    # As files were at first.
    at_first = {**json.loads(about.read_text()), "source": str(folder / "source"), "pictures": 3}
    for text in (about.read_text(), json.dumps(at_first)):
        about.write_text(text)
        (tmp_path / "old").rename(tmp_path / "new")
        (job,) = Jobs(tmp_path / "new").all()
        assert job.is_upload and job.path == tmp_path / "new" / folder.name / "source"
        assert (job.state, job.pictures) == ("done", "auto")
        (tmp_path / "new").rename(tmp_path / "old")
    assert job.numbered == 3
    job = Job.load(folder)
    job.result.unlink()
    (job,) = Jobs(tmp_path / "old").all()
    assert job.state == "cancelled"
    assert job.problem == "a must have its upscaled file, got none. Start it again."


def test_previews_and_what_stops_them(tmp_path: Path, children: list[Pretended]) -> None:
    async def act(runs: Runner, jobs: Jobs, all: list[Job]) -> None:
        a = all[0]
        two = ["AnimeSR/v2", "AnimeSR/v1"]
        for choices, times in (
            (["nothing"], None),
            ([], None),
            ("AnimeSR/v2", None),
            ([["AnimeSR/v2"]], None),
            (None, ["-1"]),
            (None, ["--force"]),
            (None, "5"),
            (None, [float("nan")]),
            (["VRT/denoise"], None),
        ):
            with pytest.raises(Refusal, match=r" must be .*, got .*\. \S.*\.$"):
                runs.preview(a, choices, times)
            assert not a.previewing
        runs.preview(a, two, None)
        await settle()
        at = children[0].words.index("--preview")
        assert children[0].words[at + 1 : at + 3] == ("5.000", "--json")
        for turn in range(2):
            child = children[turn]
            assert child.words[5:8:2] == ("AnimeSR", two[turn].partition("/")[2])
            out = Path(child.words[3])
            picture = out.with_name(f"{out.stem}.preview.5.000s.png")
            picture.write_bytes(PNG)
            child.tell({"event": "preview", "out": str(picture)})
            child.ends(0)
            await settle()
        assert [(p.choice, p.time, p.width) for p in a.previews] == [(c, 5.0, 16) for c in two]
        assert not a.previewing and not (a.folder / "fresh").exists()
        seen = {preview.number for preview in a.previews}
        # The same again: another number, as browsers keep pictures by their address.
        for child_number in (2, 3):
            runs.preview(a, [two[0]], ["5"])
            await settle()
            picture.write_bytes(PNG)
            children[child_number].tell({"event": "preview", "out": str(picture)})
            children[child_number].ends(0)
            await settle()
            assert len(a.previews) == 2 and a.previews[-1].number not in seen
            seen.add(a.previews[-1].number)
        kept = {a.preview_file(preview.number) for preview in a.previews}
        assert set((a.folder / "previews").iterdir()) == kept

        runs.preview(a, two, None)
        await settle()
        await runs.cancel(a)
        assert (state(a), a.previewing, a.problem) == ("new", False, None) and len(children) == 5
        runs.preview(a, two, None)
        await settle()
        children[5].ends(1, "It failed.")
        await settle()
        assert (state(a), a.previewing, a.problem) == ("new", False, "It failed.")
        assert len(children) == 6

    play(tmp_path, act)


def test_a_forecast_of_settings_that_have_changed_is_none(
    tmp_path: Path, children: list[Pretended]
) -> None:
    async def act(runs: Runner, jobs: Jobs, all: list[Job]) -> None:
        a = all[0]
        runs.forecast(a)
        await settle()
        footage.change(a, {"size": "2x"})
        children[0].tell(PLAN)
        children[0].ends(0)
        await settle()
        assert a.forecast is None and not a.forecasting
        runs.forecast(a)
        await settle()
        footage.change(a, {"pictures": "progressive"})
        children[1].tell(PLAN)
        children[1].ends(0)
        await settle()
        assert a.forecast is None
        with pytest.raises(Refusal, match=r"^sigma must be a number for VRT/denoise, got none\."):
            footage.change(a, {"choice": "VRT/denoise"})
            runs.forecast(a)
        footage.change(a, {"sigma": 12.5})
        runs.forecast(a)
        await settle()
        assert {"--sigma=12.5", "--size=2x", "--encoder=x265"} <= set(children[2].words)

    play(tmp_path, act)


def test_a_fault_of_the_machine_stops_one_job_only(
    tmp_path: Path, children: list[Pretended], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none_left(*words: str) -> Pretended:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    async def act(runs: Runner, jobs: Jobs, all: list[Job]) -> None:
        a, b, _ = all
        monkeypatch.setattr(Pretended, "start", none_left)
        runs.start(a)
        await settle()
        assert state(a) == "failed" and "Resource temporarily unavailable" in str(a.problem)
        monkeypatch.undo()
        monkeypatch.setattr(runner, "Child", Pretended)
        runs.start(b)
        await settle()
        children[0].done()
        await settle()
        assert state(b) == "done"

    play(tmp_path, act)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"choice": "x"}, "choice must be FILTER/NAME of published weights, got 'x'."),
        ({"choice": ["x"]}, "choice must be FILTER/NAME of published weights, got \"['x']\"."),
        ({"choice": "SPyNet/spynet"}, "choice must be FILTER/NAME of published weights"),
        ({"footage": "x"}, "footage must be one of film, "),
        ({"footage": {}}, "footage must be one of film, "),
        ({"sigma": float("nan")}, "sigma must be a number from 0 to 255, got 'nan'."),
        ({"sigma": True}, "sigma must be a number from 0 to 255"),
        ({"size": "x"}, 'size must be "", a factor'),
        ({"size": "2x --force"}, 'size must be "", a factor'),
        ({"size": "1080p\n"}, 'size must be "", a factor'),
        ({"encoder": "x266"}, "encoder must be one of x264, x265, av1, ffv1, "),
        ({"encoder": {}}, "encoder must be one of x264, "),
        ({"container": "../mkv"}, "container must be one of mkv, mp4, got '../mkv'."),
        ({"encoder": "ffv1", "container": "mp4"}, "container must be mkv for ffv1, got mp4."),
        ({"pictures": "no"}, "pictures must be one of auto, bwdif, ivtc, progressive, got 'no'."),
        ({"name": 5}, "name must be text, got int."),
        ({"state": "done"}, "Settings must be among name, choice, footage, sigma, size, "),
    ],
)
def test_settings_that_break_their_rule_change_nothing(
    tmp_path: Path, given: dict[str, Any], problem: str
) -> None:
    job = Job(folder=tmp_path, name="a", bytes=1, source="/a.mkv", seconds=None)
    before = job.public()
    with pytest.raises(Refusal) as caught:
        footage.change(job, {"name": "other", **given})
    assert str(caught.value).startswith(problem)
    assert job.public() == before
    job.state = "running"
    with pytest.raises(Refusal, match="must not have been begun to be changed"):
        footage.change(job, {"size": "2x"})
    footage.change(job, {"name": "other", "size": ""})
    assert job.name == "other"


def test_an_interrupt_that_comes_before_the_command_can_understand_it() -> None:
    async def whole() -> Ended:
        child = await Child.start("vs_vsr.serve.look", "none.mkv")
        ends = asyncio.create_task(child.end(lambda event: None))
        child.interrupt()
        ended = await ends
        # Again, when it is long gone.
        child.interrupt()
        return ended

    assert asyncio.run(whole()).status == INTERRUPTED
