"""One part: made once or twice, refused in a sentence; and what is beside it in the folder."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import small_checkpoint
from films import film

from vs_vsr.errors import JobError, StorageError, VsrError
from vs_vsr.job.exact import kind_here
from vs_vsr.job.folder import (
    check_room,
    is_done,
    locked,
    own_name,
    record_of,
    remove,
    remove_leftovers,
    rename,
    unfinished,
)
from vs_vsr.job.forecast import sample
from vs_vsr.job.part import part
from vs_vsr.job.plan import JobPlan
from vs_vsr.job.planning import make_plan
from vs_vsr.job.progress import Progress
from vs_vsr.job.request import Request


def request(folder: Path, **changes: object) -> Request:
    source = folder / "in.mkv"
    if not source.exists():
        film(source, [40 * n for n in range(24)])
        small_checkpoint(folder, 8, 1)
    out = folder / "out.mkv"
    arguments: dict[str, int | float | str] = {
        "weights": str(folder / "small_8_1.pth"),
        "precision": "fp32",
        "chunk": 4,
        "lookahead": 2,
        "segment": 8,
        "preroll": 2,
    }
    asked = Request(
        source=str(source),
        out=str(out),
        folder=f"{out}.job",
        filter="BasicVSR",
        arguments=arguments,
        encoder="x264",
        encoder_preset="ultrafast",
        threads=1,
    )
    return replace(asked, **changes)  # type: ignore[arg-type]


@pytest.fixture
def job(tmp_path: Path) -> Iterator[tuple[JobPlan, Path]]:
    plan, folder, _ = make_plan(request(tmp_path), "cpu", lambda what, share: None)
    yield plan, folder


def ignore(progress: Progress) -> None:
    pass


@pytest.mark.slow
def test_a_part_made_twice_is_the_same(job: tuple[JobPlan, Path]) -> None:
    plan, folder = job
    assert plan.parts == ((0, 8), (8, 16), (16, 24))
    part(folder, 1, ignore, device="cpu")
    assert is_done(plan, folder, 1) and not is_done(plan, folder, 0)
    bytes_before, record = plan.part_file(folder, 1).read_bytes(), record_of(plan, folder, 1)
    assert record["pictures"] == 8 and record["bytes"] == len(bytes_before)
    kind = kind_here("cpu")
    assert (record["device"], record["versions"]) == (kind.device, kind.versions)
    plan.part_record(folder, 1).unlink()
    part(folder, 1, ignore, device="cpu")
    assert plan.part_file(folder, 1).read_bytes() == bytes_before
    assert record_of(plan, folder, 1)["decoded_sha256"] == record["decoded_sha256"]
    assert {path.name for path in (folder / "parts").iterdir()} == {"00001.mp4", "00001.json"}


@pytest.mark.slow
def test_what_a_part_refuses(job: tuple[JobPlan, Path], tmp_path: Path) -> None:
    plan, folder = job
    with pytest.raises(JobError, match="part must be from 0 to 2, got 3"):
        part(folder, 3, ignore)
    with pytest.raises(VsrError, match="device must be one that this machine has"):
        part(folder, 0, ignore, device="cuda:7")
    with pytest.raises(StorageError, match=r"The folder of the job, .*, is gone"):
        part(tmp_path / "none", 0, ignore)
    weights = Path(plan.recipe.weights)
    other = small_checkpoint(tmp_path, 16, 1)
    whole = weights.read_bytes()
    shutil.copy(other, weights)
    with pytest.raises(JobError, match="must be the weights of the plan"):
        part(folder, 0, ignore, device="cpu")
    weights.write_bytes(whole)
    source = Path(plan.source.path)
    os.utime(source)  # a copy has another time, and is the same film
    part(folder, 0, ignore, device="cpu")
    film(source, [40 * n for n in range(20)])
    with pytest.raises(JobError, match=r"in\.mkv has changed since the job was planned"):
        part(folder, 1, ignore, device="cpu")
    source.unlink()
    with pytest.raises(StorageError, match=r"in\.mkv cannot be read .* Put it back"):
        part(folder, 1, ignore, device="cpu")


@pytest.mark.slow
def test_progress_within_a_chunk(
    job: tuple[JobPlan, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = job
    monkeypatch.setattr("vs_vsr.job.part._REPORT_S", 0.001)
    forecast = sample(folder, "cpu")
    assert forecast.work > 0 and forecast.bytes > 0 and forecast.seconds > 0
    said: list[Progress] = []
    part(folder, 0, said.append, device="cpu")
    # Before the first picture comes out, the share of its chunk grows.
    first = [progress.fraction for progress in said if progress.pictures == 0]
    assert first == sorted(first) and 0 < max(first) <= 1


def test_what_a_killed_process_was_writing_goes(job: tuple[JobPlan, Path]) -> None:
    _, folder = job
    (folder / "parts").mkdir()
    mine = own_name(folder / "parts" / "00000.mp4")
    mine.touch()
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead = mine.with_name(mine.name.replace(f".{os.getpid()}.", f".{ended.pid}."))
    dead.touch()
    remove_leftovers(folder)
    assert mine.exists() and not dead.exists()


def test_a_file_that_a_scanner_holds_is_renamed_a_moment_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("new")
    other.write_text("old")
    held = [2]  # more times
    real = os.replace

    def replace(a: Path, b: Path) -> None:
        if held[0]:
            held[0] -= 1
            raise PermissionError(13, "held by a scanner")
        real(a, b)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(PermissionError):
        rename(one, other)  # here another has no right to hold it
    with monkeypatch.context() as windows:
        windows.setattr(os, "name", "nt")
        rename(one, other)
    assert other.read_text() == "new" and not one.exists()
    held[0] = 9
    with pytest.raises(PermissionError), monkeypatch.context() as windows:
        windows.setattr(os, "name", "nt")
        windows.setattr(time, "sleep", lambda seconds: None)
        rename(other, one)


def test_a_job_has_one_process_at_a_time(job: tuple[JobPlan, Path]) -> None:
    _, folder = job
    with locked(folder), pytest.raises(JobError, match="is being run by another process"):  # noqa: SIM117
        with locked(folder):
            pass


def test_another_job_for_the_file_is_named(job: tuple[JobPlan, Path], tmp_path: Path) -> None:
    _, folder = job
    asked = request(tmp_path, crf=30.0, threads=2)
    plan, second, _ = make_plan(asked, "cpu", lambda what, share: None)
    assert second != folder
    (sentence,) = unfinished(second, plan)
    assert f"in {folder}, with 0 of 3 parts done" in sentence
    assert "crf (17 and 30)" in sentence and "threads (1 and 2)" in sentence
    # The index stays for the other job.
    remove(plan, second)
    assert list(folder.parent.glob("*.bsindex"))


def test_a_disk_without_room(job: tuple[JobPlan, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    plan, folder = job
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=3e9))
    check_room(plan, folder, 1.4e9)  # the parts, and the joined file
    with pytest.raises(StorageError, match=r"about 3\.2 GB free .*, got 3\.0 GB"):
        check_room(plan, folder, 1.6e9)
