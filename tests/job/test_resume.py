"""Stopped, killed, without room or folder: the same command goes on, and nothing is lost."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import arguments, command, packets_of, upscale
from conftest import environment, small_checkpoint
from films import film

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("weights"), 16, 2)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film")
    return film(folder / "in.mkv", [40 * n for n in range(160)], sound=("eng",))


@pytest.fixture(scope="module")
def undisturbed(source: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out.mkv"
    upscale(source, out, *arguments(weights))
    assert not list(out.parent.glob("*.job"))
    return out


def start(*words: str | Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command("upscale", *words),
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def parts_done(out: Path) -> int:
    return len(list(out.parent.glob(f"{out.name}.job/*/parts/[0-9]*.json")))


def wait_for_parts(out: Path, count: int, process: "subprocess.Popen[str]") -> None:
    while parts_done(out) < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def wait_for_end(group: int) -> None:
    """Wait until no process of a session is left."""
    for _ in range(1000):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise AssertionError("a worker outlives its parent")


def test_killed_again_and_again(
    source: Path, weights: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mkv"
    moments, kills = random.Random(3), 0
    for _ in range(10):
        process = start(source, out, *arguments(weights))
        # Most while parts are made, the others before.
        time.sleep(moments.uniform(0, 0.5))
        while moments.random() > 0.02 and not parts_done(out) > kills and process.poll() is None:
            time.sleep(0.05)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        process.communicate()
        wait_for_end(process.pid)
    assert kills == 10 and not out.exists()
    said = upscale(source, out, *arguments(weights)).stderr
    assert "Going on: " in said
    assert packets_of(out) == packets_of(undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


def test_a_killed_worker_loses_only_its_part(
    source: Path, weights: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mkv"
    process = start(source, out, *arguments(weights))
    wait_for_parts(out, 2, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    # The one with the most memory; the other only tracks resources.
    worker = max(children, key=lambda pid: int(Path(f"/proc/{pid}/statm").read_text().split()[1]))
    os.kill(int(worker), signal.SIGKILL)
    assert process.wait() == 0, process.communicate()[1]
    process.communicate()
    assert packets_of(out) == packets_of(undisturbed)


def test_interrupted_once_and_twice(
    source: Path, weights: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mkv"
    process = start(source, out, *arguments(weights))
    wait_for_parts(out, 1, process)
    # As a terminal does it: to every process of the group.
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert "Stopping when the parts in hand are done" in said
    assert "The same command goes on" in said
    done = parts_done(out)
    assert 1 <= done < 10
    assert not list(tmp_path.glob("*.job/*/parts/.*"))

    process = start(source, out, *arguments(weights))
    wait_for_parts(out, done + 1, process)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    wait_for_end(process.pid)
    said = upscale(source, out, *arguments(weights)).stderr
    assert "Going on: " in said
    assert packets_of(out) == packets_of(undisturbed)


# In a name space of its own a file system of a given size can be made without any right.
_OWN = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
_FULL = """
mount -t tmpfs -o size=4m none "$FULL" || exit 99
"$@" & process=$!
until [ $(ls "$FULL"/*/parts/*.json 2>/dev/null | wc -l) -ge 2 ]; do sleep 0.02; done
cat /dev/zero >"$FULL/filler" 2>/dev/null
wait $process
echo "status $?" >&2
ls -A "$FULL"/*/parts >&2
rm "$FULL/filler"
exec "$@"
"""


def test_a_disk_that_fills_up(
    source: Path, weights: Path, undisturbed: Path, tmp_path: Path
) -> None:
    full, out = tmp_path / "full", tmp_path / "out.mkv"
    full.mkdir()
    if subprocess.run(
        [*_OWN, 'mount -t tmpfs none "$0"', full], capture_output=True, check=False
    ).returncode:
        pytest.skip("no file system of a given size can be made here")
    words = command("upscale", source, out, *arguments(weights), "--job", full)
    done = subprocess.run(
        [*_OWN, _FULL, "sh", *words],
        capture_output=True,
        text=True,
        env={**environment(), "FULL": str(full)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stderr.split("status 1\n")
    assert "No space left on device" in first and "Make room" in first
    assert "Traceback" not in first
    assert "Going on: " in second
    assert not any(line.startswith(".0") for line in second.splitlines())
    assert packets_of(out) == packets_of(undisturbed)


def test_the_folder_of_the_job_vanishes(
    source: Path, weights: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, jobs = tmp_path / "out.mkv", tmp_path / "jobs"
    jobs.mkdir()
    words: list[str | Path] = [source, out, *arguments(weights), "--job", jobs]
    process = start(*words)
    while len(list(jobs.glob("*/parts/[0-9]*.json"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    jobs.rename(tmp_path / "away")
    said = process.communicate()[1]
    assert process.returncode == 1
    assert not out.exists()
    # What failed, once, and what is there.
    failed = [line for line in said.splitlines() if " failed: " in line]
    assert len(failed) == 1 and "Traceback" not in said, said
    shutil.rmtree(jobs, ignore_errors=True)
    (tmp_path / "away").rename(jobs)
    assert len(list(jobs.glob("*/parts/[0-9]*.json"))) >= 3
    said = upscale(*words).stderr
    assert "Going on: " in said
    assert packets_of(out) == packets_of(undisturbed)
