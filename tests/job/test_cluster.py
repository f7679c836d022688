"""The engine of many machines, on a cluster that Ray pretends on this one, with pretended GPUs."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import arguments, command, packets_of, upscale
from conftest import environment, small_checkpoint
from films import film
from test_job_plan import PLAN

from vs_vsr.devices import kind
from vs_vsr.errors import ArgumentError, JobError, StorageError, VsrError
from vs_vsr.job import node
from vs_vsr.job.cluster import run
from vs_vsr.job.exact import Kind, check_parts, settle
from vs_vsr.job.folder import is_done, own_name
from vs_vsr.job.local import Events
from vs_vsr.job.plan import JobPlan
from vs_vsr.job.progress import Progress, Report

if find_spec("ray") is None:
    pytest.skip('Ray is not installed: pip install "vs-vsr[cluster]"', allow_module_level=True)

# Ray's own: it leaves the log files of its processes open, and its nodes to be collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

# A part of 20 pictures, then shorter ones.
PARTS = tuple((n * 20, n * 20 + max(20 - n, 1)) for n in range(8))
WAIT_S = 120.0

Nodes = Callable[..., Any]


def until(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def job(folder: Path) -> JobPlan:
    plan = replace(PLAN, parts=PARTS, versions={"vs-vsr": version("vs-vsr")})
    (folder / "parts").mkdir(parents=True)
    plan.save(folder)
    return plan


def worker(
    notes: Path,
    act: Callable[[Path, int, Report], None] = lambda notes, number, report: None,
    device_name: str = "pretended",
) -> node.Work:
    """What makes a part's file and record, from its number alone, after `act`."""

    def work(folder: Path, number: int, report: Report, device: str) -> None:
        with (notes / f"tries{number}").open("a") as file:
            file.write(f"{device}\n")
        plan = JobPlan.load(folder)
        act(notes, number, report)
        first, last = plan.parts[number]
        temporary = own_name(plan.part_file(folder, number))
        temporary.write_bytes(hashlib.sha256(f"{number}".encode()).digest() * (last - first))
        os.replace(temporary, plan.part_file(folder, number))
        record = {"device": device_name, "versions": plan.versions}
        plan.part_record(folder, number).write_text(json.dumps(record))

    return work


def tries(notes: Path, number: int) -> int:
    path = notes / f"tries{number}"
    return len(path.read_text().splitlines()) if path.is_file() else 0


def only_file(notes: Path, pattern: str) -> str:
    """What is after the dot in the name of the one file that matches, once there is one."""
    until(lambda: list(notes.glob(pattern)))
    (path,) = notes.glob(pattern)
    return path.name.rpartition(".")[2]


class Told:
    """What the engine tells."""

    def __init__(self) -> None:
        self.progress = dict[int, list[Progress]]()
        self.ended = dict[int, bool]()
        self.lines: list[str] = []
        self.on_progress: Callable[[Progress], None] = lambda progress: None
        self.on_line: Callable[[], None] = lambda: None

    def events(self) -> Events:
        return Events(
            phase=lambda what, share: None,
            progress=self._progress,
            ended=self.ended.__setitem__,
            log=self._log,
        )

    def _progress(self, progress: Progress) -> None:
        self.progress.setdefault(progress.part, []).append(progress)
        self.on_progress(progress)

    def _log(self, line: str) -> None:
        self.lines.append(line)
        self.on_line()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster whose head takes no parts."""
    patch = pytest.MonkeyPatch()
    # Ray tells nobody of its use, has no login, and its processes import this package alike.
    for name, value in (("USAGE_STATS_ENABLED", "0"), ("AUTH_MODE", "disabled")):
        patch.setenv(f"RAY_{name}", value)
    patch.setenv("PYTHONPATH", str(Path(node.__file__).parents[2]))
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield made
    finally:
        made.shutdown()
        patch.undo()


@pytest.fixture
def nodes(cluster: Any) -> Iterator[Nodes]:
    """Adds a machine to the cluster, until the end of the test."""
    made = []

    def add(**resources: float) -> Any:
        made.append(cluster.add_node(object_store_memory=80 << 20, **resources))
        return made[-1]

    yield add
    for one in made:
        if one in cluster.worker_nodes:
            cluster.remove_node(one)
    # For the next test, which may otherwise find them.
    cluster.wait_for_nodes()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.mkdir()
    return path


@pytest.fixture
def go(cluster: Any) -> Callable[..., dict[int, str]]:
    def call(folder: Path, told: Told, work: node.Work | None, **changed: Any) -> dict[int, str]:
        settings = {"device": "auto", "exact": False, "stop": threading.Event(), **changed}
        return run(
            folder,
            range(len(PARTS) - 1, -1, -1),
            address=cluster.address,
            events=told.events(),
            work=work,
            **settings,
        )

    return call


def assert_as_by_one_process(plan: JobPlan, folder: Path, tmp_path: Path) -> None:
    alone, notes = tmp_path / "alone", tmp_path / "alone notes"
    notes.mkdir()
    job(alone)
    for number in range(len(PARTS)):
        worker(notes)(alone, number, lambda progress: None, "cpu")
        assert is_done(plan, folder, number)
        assert plan.part_file(folder, number).read_bytes() == (
            plan.part_file(alone, number).read_bytes()
        )
    assert sorted(p.name for p in (folder / "parts").iterdir()) == sorted(
        p.name for p in (alone / "parts").iterdir()
    )


@pytest.mark.slow
def test_three_machines_make_what_one_process_makes(
    nodes: Nodes, go: Any, tmp_path: Path, notes: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan, told = job(tmp_path / "job"), Told()
    for _ in range(3):
        nodes(num_cpus=1, num_gpus=1)

    def act(notes: Path, number: int, report: Report) -> None:
        report(Progress(number, 1, 0.5, 7))
        # So that it is told before the part is done.
        if number == 3:
            while not (notes / "told").exists():
                time.sleep(0.02)

    def on_progress(progress: Progress) -> None:
        if progress == Progress(3, 1, 0.5, 7):
            (notes / "told").touch()

    told.on_progress = on_progress
    handler = signal.getsignal(signal.SIGTERM)
    assert go(tmp_path / "job", told, worker(notes, act)) == {}
    assert_as_by_one_process(plan, tmp_path / "job", tmp_path)
    assert told.ended == dict.fromkeys(range(len(PARTS)), True)
    assert Progress(3, 1, 0.5, 7) in told.progress[3]
    for number in range(len(PARTS)):
        assert (notes / f"tries{number}").read_text() == "cuda:0\n"
    assert signal.getsignal(signal.SIGTERM) is handler
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing_but_time(
    nodes: Nodes, go: Any, tmp_path: Path, notes: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan, told = job(tmp_path / "job"), Told()
    for _ in range(2):
        nodes(num_cpus=1, num_gpus=1)

    def act(notes: Path, number: int, report: Report) -> None:
        if number == 3 and not list(notes.glob("pid.*")):
            (notes / f"pid.{os.getpid()}").touch()
            time.sleep(600)

    def kill() -> None:
        os.kill(int(only_file(notes, "pid.*")), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert go(tmp_path / "job", told, worker(notes, act)) == {}
    killer.join()
    assert tries(notes, 3) == 2
    assert_as_by_one_process(plan, tmp_path / "job", tmp_path)
    # Ray tells of it on standard output if it is let.
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_a_machine_that_is_lost_costs_nothing_but_time(
    cluster: Any, nodes: Nodes, go: Any, tmp_path: Path, notes: Path
) -> None:
    plan, told = job(tmp_path / "job"), Told()
    made = {one.node_id: one for one in (nodes(num_cpus=1, num_gpus=1) for _ in range(2))}

    def act(notes: Path, number: int, report: Report) -> None:
        import ray

        if number == 3 and not list(notes.glob("node.*")):
            (notes / f"node.{ray.get_runtime_context().get_node_id()}").touch()
            time.sleep(600)

    def lose() -> None:
        cluster.remove_node(made[only_file(notes, "node.*")], allow_graceful=False)

    loser = threading.Thread(target=lose)
    loser.start()
    assert go(tmp_path / "job", told, worker(notes, act)) == {}
    loser.join()
    assert tries(notes, 3) == 2
    assert_as_by_one_process(plan, tmp_path / "job", tmp_path)


@pytest.mark.slow
def test_the_command_makes_the_same_file_though_a_machine_is_lost(
    cluster: Any, nodes: Nodes, tmp_path: Path
) -> None:
    source = film(tmp_path / "in.mkv", [40 * n for n in range(96)], sound=("eng",))
    words = arguments(small_checkpoint(tmp_path, 8, 1))
    upscale(source, tmp_path / "one.mkv", *words)
    out, made = tmp_path / "many.mkv", [nodes(num_cpus=1) for _ in range(3)]
    process = subprocess.Popen(
        command("upscale", source, out, *words, "--cluster", cluster.address),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(
        lambda: (
            len(list(tmp_path.glob("many.mkv.job/*/parts/[0-9]*.json"))) >= 2
            or process.poll() is not None
        )
    )
    cluster.remove_node(made[0], allow_graceful=False)
    answer, said = process.communicate()
    assert process.returncode == 0, said
    assert answer == ""
    assert packets_of(out) == packets_of(tmp_path / "one.mkv")
    assert not list(tmp_path.glob("*.job"))


@pytest.mark.slow
def test_a_poisoned_part_is_named_and_what_may_pass_is_tried_again(
    nodes: Nodes, go: Any, tmp_path: Path, notes: Path
) -> None:
    plan, told = job(tmp_path / "job"), Told()
    nodes(num_cpus=2)
    nodes(num_cpus=3)

    def act(notes: Path, number: int, report: Report) -> None:
        import ray

        # All cores of the smaller machine, each time.
        assert ray.get_runtime_context().get_assigned_resources() == {"CPU": 2.0}
        attempt = len((notes / f"tries{number}").read_text().splitlines())
        if number == 2:
            raise JobError("part 2 is poisoned. Leave it out.")
        if number == 4:
            raise ZeroDivisionError("by zero")
        if number == 5 and attempt < 3:
            raise OSError("the storage hiccups")
        if number == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    failed = go(tmp_path / "job", told, worker(notes, act))
    assert failed.pop(2) == "part 2 is poisoned. Leave it out."
    assert failed.pop(4) == "ZeroDivisionError: by zero"
    assert failed.pop(6).startswith("The process that made it was killed each time")
    assert failed == {}
    assert [tries(notes, number) for number in range(8)] == [1, 1, 1, 1, 1, 3, 4, 1]
    assert told.ended == {number: number not in (2, 4, 6) for number in range(8)}
    assert told.ended == {number: is_done(plan, tmp_path / "job", number) for number in range(8)}


@pytest.mark.slow
def test_stopped_it_finishes_what_is_in_hand(
    nodes: Nodes, go: Any, tmp_path: Path, notes: Path
) -> None:
    plan, told, stop = job(tmp_path / "job"), Told(), threading.Event()
    nodes(num_cpus=1, num_gpus=1)

    def act(notes: Path, number: int, report: Report) -> None:
        report(Progress(number, 1, 0, 0))
        while not (notes / "stopped").exists():
            time.sleep(0.02)

    def on_progress(progress: Progress) -> None:
        stop.set()
        (notes / "stopped").touch()

    told.on_progress = on_progress
    assert go(tmp_path / "job", told, worker(notes, act), stop=stop) == {}
    # The longest is the first one.
    assert told.ended == {0: True}
    assert is_done(plan, tmp_path / "job", 0)
    assert [tries(notes, number) for number in range(8)] == [1] + [0] * 7


@pytest.mark.slow
def test_interrupted_it_gives_up_what_is_in_hand(
    nodes: Nodes, go: Any, tmp_path: Path, notes: Path
) -> None:
    told = Told()
    job(tmp_path / "job")
    nodes(num_cpus=1, num_gpus=1)

    def act(notes: Path, number: int, report: Report) -> None:
        (notes / f"pid.{os.getpid()}").touch()
        report(Progress(number, 1, 0, 0))
        time.sleep(600)

    def on_progress(progress: Progress) -> None:
        raise KeyboardInterrupt

    told.on_progress = on_progress
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "job", told, worker(notes, act))
    process = Path("/proc", only_file(notes, "pid.*"))
    until(lambda: not process.exists() or ") Z " in (process / "stat").read_text())


@pytest.mark.slow
def test_machines_that_cannot_take_parts_say_why_and_the_others_do_all(
    nodes: Nodes, go: Any, tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A folder that only processes see whose working folder is this one.
    monkeypatch.chdir(tmp_path)
    folder = Path("/proc/self/cwd/job")
    plan, told = job(folder), Told()
    other_version = tmp_path / "other" / "vs_vsr-9.9.dist-info"
    other_version.mkdir(parents=True)
    (other_version / "METADATA").write_text("Name: vs-vsr\nVersion: 9.9\n")
    nodes(num_cpus=1, num_gpus=1)
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{other_version.parent}:{os.environ['PYTHONPATH']}")
        nodes(num_cpus=1, num_gpus=1)
    with monkeypatch.context() as patch:
        patch.chdir(notes)
        nodes(num_cpus=1, num_gpus=1)

    def act(notes: Path, number: int, report: Report) -> None:
        # So that the other machines come to parts too.
        while not (notes / "refused").exists():
            time.sleep(0.02)

    def on_line() -> None:
        if len(told.lines) == 2:
            (notes / "refused").touch()

    told.on_line = on_line
    assert go(folder, told, worker(notes, act)) == {}
    assert all(is_done(plan, folder, number) for number in range(8))
    blind, other = sorted(told.lines, key=lambda line: "9.9" in line)
    assert f"takes no parts: it does not see the job's folder {folder}" in blind
    assert f"takes no parts: vs-vsr must be {version('vs-vsr')} there" in other


@pytest.mark.slow
def test_a_machine_without_the_package_says_so(
    nodes: Nodes, go: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job(tmp_path / "job")
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['vs_vsr'] = None")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ['PYTHONPATH']}")
    nodes(num_cpus=1)
    told = Told()
    failed = go(tmp_path / "job", told, None)
    assert set(failed) == set(range(8))
    (line,) = told.lines
    assert "takes no parts: this version of vs-vsr is not installed there (No module" in line
    assert failed[7] == f"No machine is left to make it. {line}"


@pytest.mark.slow
def test_exact_refuses_machines_of_another_kind(
    nodes: Nodes, go: Any, tmp_path: Path, notes: Path
) -> None:
    plan, told = job(tmp_path / "job"), Told()
    nodes(num_cpus=1)
    settle(plan, tmp_path / "job", Kind("another processor", plan.versions))
    failed = go(tmp_path / "job", told, worker(notes), exact=True)
    assert set(failed) == set(range(8))
    assert "No machine is left to make it" in failed[7]
    assert "got another processor for the first machine of the job" in failed[7]
    assert len(told.lines) == 1
    (tmp_path / "job" / "kind.json").unlink()
    here = kind(torch.device("cpu"))
    assert go(tmp_path / "job", told, worker(notes, device_name=here), exact=True) == {}
    assert all(is_done(plan, tmp_path / "job", number) for number in range(8))


@pytest.mark.slow
def test_a_cluster_without_gpus_has_none(nodes: Nodes, go: Any, tmp_path: Path) -> None:
    job(tmp_path / "job")
    nodes(num_cpus=1)
    with pytest.raises(JobError, match="device must be auto or cpu on a cluster without GPUs"):
        go(tmp_path / "job", Told(), worker(tmp_path), device="cuda")


@pytest.mark.parametrize(
    ("address", "error", "sentence"),
    [
        ("127.0.0.1:1", JobError, "No cluster of Ray answers at 127.0.0.1:1"),
        ("auto", JobError, "No cluster of Ray answers at 127.0.0.1:2"),
        ("local", ArgumentError, "cluster must be auto or HOST:PORT, got local"),
        ("ray://127.0.0.1:10001", ArgumentError, "cluster must be auto or HOST:PORT, got ray://"),
    ],
)
def test_where_there_is_no_cluster_none_is_started(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    error: type[VsrError],
    sentence: str,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:2")
    job(tmp_path / "job")
    with pytest.raises(error, match=sentence) as caught:
        run(
            tmp_path / "job",
            [0],
            address=address,
            device="auto",
            exact=False,
            events=Told().events(),
            stop=threading.Event(),
        )
    assert "Run ray start --head on one machine" in str(caught.value)


def test_without_ray_the_sentence_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    job(tmp_path / "job")
    with pytest.raises(JobError, match=r'Run pip install "vs-vsr\[cluster\]" on every machine'):
        run(
            tmp_path / "job",
            [0],
            address="auto",
            device="auto",
            exact=False,
            events=Told().events(),
            stop=threading.Event(),
        )


def test_a_process_keeps_to_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "_bound", [])
    ends = list[bool]()
    monkeypatch.setattr(node, "_end_soon", lambda: ends.append(True))
    assert node.keep_to(["1"]) and node.keep_to(["1"])
    assert not node.keep_to(["0"])
    # It goes, so it begins nothing more.
    assert not node.keep_to(["1"])
    assert ends == [True, True]


@pytest.mark.slow
def test_on_a_machine_with_several_gpus_each_process_keeps_to_one(
    nodes: Nodes, go: Any, tmp_path: Path, notes: Path
) -> None:
    plan = job(tmp_path / "job")
    nodes(num_cpus=4, num_gpus=4)

    def act(notes: Path, number: int, report: Report) -> None:
        (notes / f"pid.{os.getpid()}.{os.environ['CUDA_VISIBLE_DEVICES']}").touch()
        # Parts that end at the same time are what makes Ray mix GPUs and processes.
        time.sleep(0.2)

    assert go(tmp_path / "job", Told(), worker(notes, act)) == {}
    assert_as_by_one_process(plan, tmp_path / "job", tmp_path)
    processes = [path.name.split(".")[1] for path in notes.glob("pid.*")]
    assert len(set(processes)) == len(processes)


def test_what_another_machine_may_have_is_no_fault_of_the_part(tmp_path: Path) -> None:
    plan = job(tmp_path / "job")

    def take(work: node.Work, name: str = plan.name) -> tuple[str, str]:
        return node.take(
            tmp_path / "job",
            0,
            name,
            gpus=[],
            exact=False,
            work=work,
            report=lambda progress: None,
        )

    def without_source(folder: Path, number: int, report: Report, device: str) -> None:
        raise StorageError("in.mkv cannot be read. Put it back.")

    refused, failed = take(without_source)
    assert refused.endswith("takes no parts: in.mkv cannot be read. Put it back.") and not failed
    refused, failed = take(without_source, "another")
    assert "takes no parts: another job is in" in refused and not failed


def write_record(plan: JobPlan, folder: Path, number: int, kind: Kind) -> None:
    plan.part_file(folder, number).touch()
    plan.part_record(folder, number).write_text(
        json.dumps({"device": kind.device, "versions": kind.versions})
    )


def test_parts_of_several_kinds_are_refused(tmp_path: Path) -> None:
    plan = job(tmp_path)
    here = Kind("A100", plan.versions)
    check_parts(plan, tmp_path)
    write_record(plan, tmp_path, 0, here)
    write_record(plan, tmp_path, 2, here)
    check_parts(plan, tmp_path)
    write_record(plan, tmp_path, 3, Kind("H100", plan.versions))
    with pytest.raises(JobError, match="got A100 for part 0 and H100 for part 3"):
        check_parts(plan, tmp_path)
    write_record(plan, tmp_path, 3, Kind("A100", {"vs-vsr": "0.1"}))
    with pytest.raises(JobError, match=r"vs-vsr must be .* as in the plan, got 0\.1 for part 3"):
        check_parts(plan, tmp_path)


def test_the_first_machine_settles_the_kind(tmp_path: Path) -> None:
    plan = job(tmp_path)
    settle(plan, tmp_path, Kind("A100", plan.versions))
    settle(plan, tmp_path, Kind("A100", plan.versions))
    with pytest.raises(JobError, match="got A100 for the first machine of the job and H100 for th"):
        settle(plan, tmp_path, Kind("H100", plan.versions))
    write_record(plan, tmp_path, 1, Kind("L4", plan.versions))
    with pytest.raises(JobError, match="got A100 for the first machine of the job and L4 for part"):
        settle(plan, tmp_path, Kind("A100", plan.versions))
    assert not list(tmp_path.glob(".*"))
