"""The queue with the real command: from an upload to a download, whatever is pressed or killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx2
import pytest
from films import film
from served import Served, upload, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
    pytest.mark.usefixtures("real_weights"),
]

# Parts of a few pictures, encoded fast.
WORDS = (
    "--device cpu --precision fp32 --segment 4 --preroll 2 --threads 1 --encoder-preset ultrafast"
)
OPTIONS = WORDS.split()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path / "serve", *OPTIONS)
    yield served
    served.kill()


def new_job(served: Served, path: Path, name: str = "my film.mkv") -> str:
    id = upload(served.browser, name, path.read_bytes())
    job = served.browser.post("/api/jobs", json={"upload": id})
    assert job.status_code == 201, job.text
    settings = {"choice": "AnimeSR/v2", "footage": "anime", "encoder": "x264"}
    changed = served.browser.patch(f"/api/jobs/{id}", json=settings)
    assert changed.status_code == 200, changed.text
    return id


def ask(served: Served, id: str, what: str, status: int = 200, **more: Any) -> dict[str, Any]:
    answer = served.browser.post(f"/api/jobs/{id}/{what}", json=more)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def until(served: Served, id: str, state: str) -> dict[str, Any]:
    return dict(wait_for(lambda: (j := served.job(id))["state"] in (state, "failed") and j))


def parts(served: Served, id: str) -> int:
    return len(list((served.folder / id).glob("work/*/parts/[0-9]*.json")))


def children(served: Served) -> list[int]:
    """Processes that work for a server, directly or not."""
    mark, found = f"SERVED={served.folder}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if mark in variables and int(path.parent.name) != served.process.pid:
            found.append(int(path.parent.name))
    return found


class Tab(threading.Thread):
    """A page that is open: what it hears."""

    def __init__(self, served: Served) -> None:
        super().__init__(daemon=True)
        self.jobs: dict[str, Any] = {}
        self.states: list[str] = []
        self._address = f"http://127.0.0.1:{served.port}/api/events"
        self._headers = dict(served.browser.headers)
        self.start()

    def run(self) -> None:
        try:
            with httpx2.stream("GET", self._address, headers=self._headers, timeout=None) as stream:
                kind = ""
                for line in stream.iter_lines():
                    word, _, text = line.partition(": ")
                    if word == "event":
                        kind = text
                    elif word == "data":
                        self._hear(kind, json.loads(text))
        except httpx2.HTTPError:
            pass  # the server was killed

    def _hear(self, kind: str, data: Any) -> None:
        if kind == "job":
            self.jobs[data["id"]] = data
            if self.states[-1:] != [data["state"]]:
                self.states.append(data["state"])
        elif kind == "gone":
            self.jobs.pop(data["id"])


def test_from_an_upload_to_a_download_with_a_kill_between(served: Served, tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", [40 * n for n in range(36)], sound=("eng",))
    tabs = [Tab(served), Tab(served)]
    id = new_job(served, source)

    ask(served, id, "previews", 202, times=["0.4", 0.8])
    ask(served, id, "forecast", 202)
    job = wait_for(lambda: (j := served.job(id))["forecast"] and not j["forecasting"] and j)
    assert (job["forecast"]["width"], job["forecast"]["height"]) == (256, 192)
    assert job["forecast"]["pictures"] == 36 and job["forecast"]["seconds"] > 0
    assert [preview["choice"] for preview in job["previews"]] == ["AnimeSR/v2"] * 2
    assert [preview["time"] for preview in job["previews"]] == [0.4, 0.8]
    assert not job["previewing"] and job["problem"] is None
    for preview in job["previews"]:
        assert (preview["width"], preview["height"]) == (512, 192)
        picture = served.browser.get(preview["url"])
        assert picture.headers["content-type"] == "image/png"
        assert picture.content.startswith(b"\x89PNG")
    problem = served.browser.post(f"/api/jobs/{id}/previews", json={"times": ["-1"]})
    assert problem.status_code == 400 and "times must be seconds" in problem.json()["problem"]

    ask(served, id, "start")
    wait_for(lambda: parts(served, id) >= 1)
    refused = served.browser.patch(f"/api/jobs/{id}", json={"size": "2x"})
    assert refused.status_code == 409
    assert ask(served, id, "pause")["state"] == "pausing"
    assert until(served, id, "paused")["problem"] is None
    done = parts(served, id)
    assert 1 <= done < 9 and not children(served)
    # Both tabs have heard the same, in the same order.
    wait_for(lambda: all(tab.jobs.get(id, {}).get("state") == "paused" for tab in tabs))
    assert tabs[0].states == tabs[1].states
    assert tabs[0].states == ["new", "waiting", "running", "pausing", "paused"]

    ask(served, id, "resume")
    wait_for(lambda: parts(served, id) > done)
    assert children(served)
    served.kill()
    wait_for(lambda: not children(served), 20)
    assert json.loads((served.folder / id / "job.json").read_text())["state"] == "running"
    began = parts(served, id)
    served.start()
    assert served.job(id)["state"] in ("waiting", "running", "done")
    job = until(served, id, "done")
    assert job["state"] == "done", job["problem"]
    assert began > done and f"Going on: {began} of 9 parts are done." in job["notes"]
    assert not any(str(served.folder) in note for note in job["notes"])
    assert job["result"]["name"] == "my film upscaled.mkv"
    assert not (served.folder / id / "work").exists() or not parts(served, id)

    result = served.browser.get(job["result"]["url"])
    assert result.headers["content-disposition"].startswith("attachment; filename")
    assert len(result.content) == job["result"]["bytes"]
    some = served.browser.get(job["result"]["url"], headers={"Range": "bytes=10-19"})
    assert some.status_code == 206 and some.content == result.content[10:20]
    saved = tmp_path / "saved.mkv"
    saved.write_bytes(result.content)
    with av.open(str(saved)) as file:
        assert (file.streams.video[0].width, file.streams.video[0].height) == (256, 192)
        assert sum(1 for _ in file.decode(video=0)) == 36 and len(file.streams.audio) == 1

    assert served.browser.delete(f"/api/jobs/{id}").status_code == 200
    assert served.browser.get("/api/jobs").json() == []
    assert not (served.folder / id).exists()
    said = served.stop()
    assert served.token not in said and "Traceback" not in said, said


def test_one_runs_and_others_wait_or_are_cancelled(served: Served, tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", [40 * n for n in range(60)])
    first, second, third = (new_job(served, source, f"{n}.mkv") for n in range(3))
    assert served.browser.patch(f"/api/jobs/{first}", json={"size": "20000p"}).status_code == 200
    for id in (first, second, third):
        ask(served, id, "start")
    # One that fails says why, and the next one runs.
    failed = until(served, first, "failed")
    assert failed["problem"].startswith('size must be a factor ("2x"), a height')
    wait_for(lambda: parts(served, second) >= 1)
    assert served.job(third)["state"] == "waiting"
    fourth = new_job(served, source, "3.mkv")
    job = ask(served, fourth, "forecast", 202)
    assert job["progress"]["phase"] == "waiting for 1.mkv; pause it to go first"
    assert ask(served, fourth, "cancel")["state"] == "new"
    assert not served.job(fourth)["forecasting"]
    assert served.browser.post(f"/api/jobs/{fourth}/resume").status_code == 409
    assert ask(served, third, "pause")["state"] == "paused"

    assert ask(served, second, "cancel")["state"] == "cancelled"
    assert not children(served) and not (served.folder / second / "work").exists()
    assert served.job(second)["progress"] is None
    # What is deleted as it runs leaves nothing.
    ask(served, third, "resume")
    wait_for(lambda: served.job(third)["state"] == "running" and children(served))
    assert served.browser.delete(f"/api/jobs/{third}").status_code == 200
    assert not children(served) and not (served.folder / third).exists()


def test_a_file_of_this_machine_stays_where_it_is(served: Served, tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", [40 * n for n in range(8)])
    before = source.read_bytes()
    listed = served.browser.get("/api/files", params={"folder": str(tmp_path)}).json()
    assert listed["folder"] == str(tmp_path) and listed["parent"] == str(tmp_path.parent)
    (found,) = listed["files"]
    assert found == {"name": "in.mkv", "path": str(source), "bytes": len(before)}
    assert [folder["name"] for folder in listed["folders"]] == ["serve"]
    job = served.browser.post("/api/jobs", json={"path": found["path"]}).json()
    assert (job["source"], job["name"], job["choice"]) == ("file", "in.mkv", None)
    answer = served.browser.post(f"/api/jobs/{job['id']}/start")
    assert answer.status_code == 400 and "must have a network" in answer.json()["problem"]
    assert served.browser.delete(f"/api/jobs/{job['id']}").status_code == 200
    assert source.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_the_command_has_one_server_a_folder_and_ends_at_an_interrupt(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "vs_vsr", "serve", "--folder", str(tmp_path / "s"), "--port"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen([*words, "0"], **pipes)
    try:
        assert first.stdout is not None
        said = first.stdout.readline()
        assert said.startswith("Open http://127.0.0.1:") and said.endswith(" ends the server.\n")
        address = said.split()[1]
        second = subprocess.run([*words, "0"], **{**pipes, "timeout": 60}, check=False)
        assert second.returncode == 1 and second.stdout == ""
        assert "must be of no other vs-vsr serve, got " in second.stderr
        port = address.partition("/?")[0].rpartition(":")[2]
        words[words.index("--folder") + 1] = str(tmp_path / "t")
        third = subprocess.run([*words, port], **{**pipes, "timeout": 60}, check=False)
        assert third.returncode == 1
        assert third.stderr.startswith(f"port must be a free one of this machine, got {port} (")
        # An open stream of events, which has no end, keeps it from nothing.
        with (
            httpx2.Client(follow_redirects=True) as browser,
            browser.stream("GET", address.replace("/?", "/api/events?")) as refused,
        ):
            assert refused.status_code == 403
            assert browser.get(address).status_code == 200
            with browser.stream("GET", address.partition("?")[0] + "api/events") as stream:
                assert next(stream.iter_lines()) == "event: begin"
                began = time.monotonic()
                first.send_signal(signal.SIGINT)
                out, err = first.communicate(timeout=60)
                assert time.monotonic() - began < 30
        assert (out, err, first.returncode) == ("", "", 130)
    finally:
        first.kill()
        first.communicate()
    assert (tmp_path / "s" / "token").stat().st_mode & 0o077 == 0
    assert (tmp_path / "s").stat().st_mode & 0o077 == 0
