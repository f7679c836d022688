"""Uploads: bytes to disk, cut off anywhere and continued, never more than was said."""

import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from films import film
from served import Served, app, client, upload, wait_for

from vs_vsr.errors import ArgumentError
from vs_vsr.serve import files, server
from vs_vsr.serve.answers import Refusal
from vs_vsr.serve.jobs import Job

SIZE = 3 * 10**9


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("serve"))
    yield served
    served.stop()


def begin(browser: Any, size: int, name: str = "a.mkv") -> str:
    return str(browser.post("/api/uploads", json={"name": name, "bytes": size}).json()["id"])


def send(browser: Any, id: str, offset: object, data: Any) -> Any:
    headers = {"Upload-Offset": str(offset)}
    return browser.patch(f"/api/uploads/{id}", content=data, headers=headers)


def offset_of(browser: Any, id: str) -> int:
    return int(browser.get(f"/api/uploads/{id}").json()["offset"])


def begin_to_send(served: Served, id: str, offset: int, length: int) -> socket.socket:
    """A connection on which `length` bytes are promised."""
    connection = socket.create_connection(("127.0.0.1", served.port))
    head = (
        f"PATCH /api/uploads/{id} HTTP/1.1",
        f"Host: 127.0.0.1:{served.port}",
        f"Authorization: Bearer {served.token}",
        f"Upload-Offset: {offset}",
        f"Content-Length: {length}",
    )
    connection.sendall("\r\n".join((*head, "", "")).encode())
    return connection


def test_an_upload_in_pieces(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    with client(app(tmp_path)) as browser:
        id = begin(browser, len(data))
        assert [u["id"] for u in browser.get("/api/uploads").json()] == [id]
        for wrong, offset in ((1, 0), (100_001, 0)):
            answer = send(browser, id, wrong, b"x")
            assert answer.status_code == 409 and answer.json()["offset"] == offset
            assert answer.json()["problem"].startswith(f"Upload-Offset must be {offset}, got")
        for text in ("", "-1", "1.0", "9" * 5000, "0x0"):
            assert send(browser, id, text, b"x").status_code == 400
        here = 0
        for length in (1, 0, 65_536, 10_000, 24_463):
            answer = send(browser, id, here, data[here : here + length])
            here += length
            assert answer.status_code == 200 and answer.json()["offset"] == here
        assert (tmp_path / id / "source").read_bytes() == data
        # A whole file takes no more.
        answer = send(browser, id, here, b"x")
        assert answer.status_code == 413 and "must have 100000 bytes" in answer.json()["problem"]
        assert browser.delete(f"/api/uploads/{id}").status_code == 200
        assert browser.get(f"/api/uploads/{id}").status_code == 404
        assert not (tmp_path / id).exists()


def test_more_than_was_said_is_not_written(tmp_path: Path) -> None:
    with client(app(tmp_path)) as browser:
        id = begin(browser, 1000)
        assert send(browser, id, 0, b"x" * 1001).status_code == 413
        assert offset_of(browser, id) == 0

        def pieces() -> Iterator[bytes]:
            for _ in range(100):
                yield b"y" * 300

        # Of no length that was said before.
        answer = send(browser, id, 0, pieces())
        assert answer.status_code == 413 and answer.json()["offset"] <= 1000
        assert set((tmp_path / id / "source").read_bytes()) <= {ord("y")}
        assert (tmp_path / id / "source").stat().st_size <= 1000


def test_sizes_that_are_none_and_disks_that_are_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client(app(tmp_path)) as browser:
        for size in (0, -1, 1.5, "5", None, True, 2**60, 10**400):
            answer = browser.post("/api/uploads", json={"name": "a.mkv", "bytes": size})
            assert answer.status_code == 400, size
            assert answer.json()["problem"].startswith("bytes must be a whole number from 1 to ")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
        # What others under way still need is no room either.
        id = begin(browser, 500 * 10**6)
        answer = browser.post("/api/uploads", json={"name": "b.mkv", "bytes": 500 * 10**6})
        assert answer.status_code == 507
        problem = f"{tmp_path} must have 1.3 GB free for this file and those under way, got 1.0 GB."
        assert answer.json()["problem"].startswith(problem)
        browser.delete(f"/api/uploads/{id}")
        begin(browser, 500 * 10**6)


def test_an_upload_cut_off_goes_on_also_after_a_kill(served: Served) -> None:
    data, half = os.urandom(3_000_000), 1_234_567
    id = begin(served.browser, len(data))
    with begin_to_send(served, id, 0, len(data)) as connection:
        connection.sendall(data[:half])
    wait_for(lambda: offset_of(served.browser, id) == half)
    served.kill()
    served.start()
    assert offset_of(served.browser, id) == half
    assert send(served.browser, id, half, data[half:]).json()["offset"] == len(data)
    assert (served.folder / id / "source").read_bytes() == data


def test_what_a_killed_server_leaves_is_sorted_out(tmp_path: Path) -> None:
    folder = tmp_path / "serve"
    data = film(tmp_path / "in.mkv", [40 * n for n in range(4)]).read_bytes()
    with client(app(folder)) as browser:
        id = upload(browser, "a.mkv", data)
        about = (folder / id / "upload.json").read_text()
        job = browser.post("/api/jobs", json={"upload": id}).json()
    # It had become a job, and was not struck off the uploads; another was half removed.
    (folder / id / "upload.json").write_text(about)
    own = ("0123456789abcdef", "the user's own", ".gone-own")
    for name in (".gone-0123456789abcdef", "fedcba9876543210", *own):
        (folder / name).mkdir()
        (folder / name / "source").write_bytes(data)
    (folder / "fedcba9876543210" / ".gone").touch()
    with client(app(folder)) as browser:
        assert browser.get("/api/uploads").json() == []
        assert browser.get("/api/jobs").json() == [job]
        assert not (folder / ".gone-0123456789abcdef").exists()
        assert not (folder / "fedcba9876543210").exists()
        assert all((folder / name / "source").exists() for name in own)
        # Removed as it is on the page, and by hand.
        begun = [begin(browser, 5) for _ in range(3)]
        browser.delete(f"/api/uploads/{begun[0]}")
        shutil.rmtree(folder / begun[1])
        assert [upload["id"] for upload in browser.get("/api/uploads").json()] == begun[2:]
        assert browser.get(f"/api/uploads/{begun[1]}").status_code == 404
        begin(browser, 5)


def test_what_cannot_be_removed_is_removed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "0123456789abcdef"
    folder.mkdir()
    (folder / "source").touch()

    def held(*_: object, **__: object) -> None:
        raise PermissionError(13, "held by a program")

    with monkeypatch.context() as windows:
        windows.setattr(Path, "rename", held)
        windows.setattr(shutil, "rmtree", lambda *_, **__: None)
        files.remove(folder)
    assert (folder / "source").exists()
    files.sweep(tmp_path)
    assert not folder.exists()
    files.remove(folder)
    assert not folder.exists()


def test_a_disk_that_is_full_when_a_job_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(job: Job) -> None:
        raise OSError(28, "No space left on device")

    source = film(tmp_path / "in.mkv", [40 * n for n in range(4)])
    with client(app(tmp_path / "serve")) as browser:
        id = upload(browser, "a.mkv", source.read_bytes())
        with monkeypatch.context() as patch:
            patch.setattr(Job, "save", full)
            for asked in ({"upload": id}, {"path": str(source)}):
                answer = browser.post("/api/jobs", json=asked)
                assert answer.status_code == 507 and "No space left" in answer.json()["problem"]
        assert [path.name for path in (tmp_path / "serve").iterdir()] == [id]
        answer = browser.post("/api/jobs", json={"upload": id})
        assert answer.status_code == 201 and answer.json()["id"] == id


def test_when_a_file_was_changed_is_kept(tmp_path: Path) -> None:
    with client(app(tmp_path)) as browser:
        about = {"name": "a.mkv", "bytes": 5}
        for wrong in ("1", 1.5, True, 10**40):
            answer = browser.post("/api/uploads", json={**about, "modified": wrong})
            assert answer.status_code == 400
            assert answer.json()["problem"].startswith("modified must be a whole number of ")
        for time in (None, -1, 1_760_000_000_000):
            answer = browser.post("/api/uploads", json={**about, "modified": time})
            assert answer.json()["modified"] == time
            browser.delete(f"/api/uploads/{answer.json()['id']}")
        browser.post("/api/uploads", json={**about, "modified": 5})
    with client(app(tmp_path)) as browser:
        assert [upload["modified"] for upload in browser.get("/api/uploads").json()] == [5]


def test_files_of_this_machine_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a.mkv", "b.mkv", "c.txt"):
        (tmp_path / name).touch()
    found = files.listing("~")
    assert found["folder"] == str(tmp_path) and not found["more"]
    assert [file["name"] for file in found["files"]] == ["a.mkv", "b.mkv"]
    assert files.picked("~/a.mkv") == tmp_path / "a.mkv"
    monkeypatch.setattr(files, "_MOST_ENTRIES", 1)
    found = files.listing(None)
    assert len(found["files"]) == 1 and found["more"]
    for folder, problem in (
        ("a", f"folder must be a whole path, got a. Begin it with {tmp_path.anchor}."),
        ("~\0", "~\0 cannot be read (no path). Choose another folder."),
    ):
        with pytest.raises(Refusal) as caught:
            files.listing(folder)
        assert str(caught.value) == problem


@pytest.mark.skipif(os.name != "posix", reason="owners of POSIX")
def test_a_folder_or_a_token_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    made = server.token_of(tmp_path)
    assert server.token_of(tmp_path) == made and token.stat().st_mode & 0o777 == 0o600
    page = server.opening(tmp_path, f"http://127.0.0.1:1/?token={made}")
    assert page.stat().st_mode & 0o777 == 0o600 and f"url=http://127.0.0.1:1/?token={made}" in (
        page.read_text()
    )
    # One that was cut short.
    token.write_text("short")
    assert len(server.token_of(tmp_path)) >= 32
    token.chmod(0o640)
    rule = r"token must be a file that you alone can read, got another\. Remove it: "
    with pytest.raises(ArgumentError, match=rule):
        server.token_of(tmp_path)
    token.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").chmod(0o600)
    token.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArgumentError, match=rule):
        server.token_of(tmp_path)
    token.unlink()
    token.mkdir(0o700)
    with pytest.raises(ArgumentError, match=rule):
        server.token_of(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(ArgumentError, match=r"^folder must be your own, got .* another user\. "):
        server.serve(tmp_path, 0, [], lambda address: None)


def test_two_that_send_the_same_file(served: Served) -> None:
    data = os.urandom(2_000_000)
    id = begin(served.browser, len(data))
    with begin_to_send(served, id, 0, len(data)) as first:
        first.sendall(data[:10])
        answer = wait_for(lambda: (a := send(served.browser, id, 0, b"")).status_code == 409 and a)
        assert "another tab" in answer.json()["problem"]
        # A job of a file that is still coming is none.
        assert served.browser.post("/api/jobs", json={"upload": id}).status_code == 409
    wait_for(lambda: send(served.browser, id, 10, b"").status_code == 200)
    statuses: list[int] = []

    def race() -> None:
        statuses.append(send(served.browser, id, 10, data[10:]).status_code)

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses)[0] == 200 and set(statuses[1:]) <= {200, 409, 413}
    assert statuses.count(200) == 1
    assert (served.folder / id / "source").read_bytes() == data


def test_more_than_was_said_is_refused_before_it_comes(served: Served) -> None:
    id = begin(served.browser, 1000)
    with begin_to_send(served, id, 0, 1001) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_file_deleted_while_it_comes(served: Served) -> None:
    id = begin(served.browser, 1000)
    with begin_to_send(served, id, 0, 1000) as connection:
        connection.sendall(b"x" * 10)
        assert served.browser.delete(f"/api/uploads/{id}").status_code == 200
        connection.sendall(b"x" * 10)
        assert connection.recv(100).startswith(b"HTTP/1.1 404 ")
    assert not (served.folder / id).exists()


@pytest.mark.slow
def test_three_gigabytes_cut_off_and_continued(tmp_path: Path) -> None:
    # In memory where there is as much, as disks may take half a minute for it.
    places = [place for place in (Path("/dev/shm"), tmp_path) if place.is_dir()]
    roomy = [place for place in places if shutil.disk_usage(place).free > 2 * SIZE]
    if not roomy:
        pytest.skip("no room for a file of 3 GB")
    sparse = tmp_path / "zeros.mkv"
    with sparse.open("wb") as file:
        file.truncate(SIZE)
    with TemporaryDirectory(dir=roomy[0]) as folder:
        served = Served(Path(folder))
        id = begin(served.browser, SIZE)
        with begin_to_send(served, id, 0, SIZE) as connection, sparse.open("rb") as file:
            connection.sendfile(file, 0, SIZE // 3)
        # All that was sent before the break is kept.
        here = wait_for(lambda: (n := offset_of(served.browser, id)) == SIZE // 3 and n)
        with begin_to_send(served, id, here, SIZE - here) as connection, sparse.open("rb") as file:
            connection.sendfile(file, here)
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        assert offset_of(served.browser, id) == SIZE
        # It is none, though: nothing is left of it.
        answer = served.browser.post("/api/jobs", json={"upload": id})
        assert answer.status_code == 400
        assert not (served.folder / id).exists()
        served.stop()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "../../etc/passwd"),
        ("a" * 4096 + ".mkv", "a" * 111 + "…" + "aaaa.mkv"),
        ("<script>alert(1)</script>.mp4", "<script>alert(1)</script>.mp4"),
        ("a\0b\r\nc\u202e\ud800.mp4", "ab c.mp4"),
        ("C:\\x\\..\\é.mp4", "C:\\x\\..\\é.mp4"),
        ("--force", "--force"),
        ("{name}*.mkv", "{name}*.mkv"),
    ],
)
def test_names_are_shown_and_are_no_paths(tmp_path: Path, name: str, shown: str) -> None:
    data = film(tmp_path / "in.mkv", [40 * n for n in range(4)]).read_bytes()
    folder = tmp_path / "serve"
    with client(app(folder)) as browser:
        id = upload(browser, name, data)
        job = browser.post("/api/jobs", json={"upload": id}).json()
        assert job["name"] == shown and job["source"] == "upload"
        assert browser.get("/api/uploads").json() == []
        inside = {str(path.relative_to(folder)) for path in folder.rglob("*")}
        assert inside == {id, f"{id}/job.json", f"{id}/source"}
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "serve"]
        renamed = browser.patch(f"/api/jobs/{id}", content=json.dumps({"name": name})).json()
        assert renamed["name"] == shown


@pytest.mark.parametrize("name", ["", " \n\0", "\u202e", None, 5, ["a"]])
def test_names_that_cannot_be_shown(tmp_path: Path, name: object) -> None:
    with client(app(tmp_path)) as browser:
        answer = browser.post("/api/uploads", json={"name": name, "bytes": 5})
        assert answer.status_code == 400
        assert answer.json()["problem"].startswith("name must ")
        assert not list(tmp_path.iterdir())


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    secret = film(tmp_path / "secret.mp4", [40 * n for n in range(4)])
    track = f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{secret}\n#EXT-X-ENDLIST\n"
    folder = tmp_path / "serve"
    with client(app(folder)) as browser:
        # A list that names another file of the folder, by a name that FFmpeg calls safe.
        shutil.copy(secret, folder / "secret.mp4")
        for text in (
            "This is a text, and no video.\n" * 100,
            "ffconcat version 1.0\nfile secret.mp4\n",
            f"ffconcat version 1.0\nfile {secret}\n",
            "ffconcat version 1.0\nfile ../secret.mp4\n",
            track,
            track.replace("secret.mp4", "secret.ts"),
            "\0" * 1000,
        ):
            id = upload(browser, "a video.mp4", text.encode())
            answer = browser.post("/api/jobs", json={"upload": id})
            assert answer.status_code == 400, text
            assert answer.json()["problem"].startswith("input must be a media file that ")
            assert "got a video.mp4" in answer.json()["problem"]
            assert str(tmp_path) not in answer.json()["problem"]
            assert not (folder / id).exists()
        for path in (str(tmp_path), "/nowhere/a.mp4", "a.mp4", "/dev/zero", "a\0b", None, 5, ""):
            answer = browser.post("/api/jobs", json={"path": path})
            assert answer.status_code == 400
            assert answer.json()["problem"].startswith("path must be a file on this machine, got")
        assert browser.get("/api/jobs").json() == []
        assert [path.name for path in folder.iterdir()] == ["secret.mp4"]
