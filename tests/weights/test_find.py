import hashlib
import io
import os
import pickle
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from vs_vsr.errors import WeightsError
from vs_vsr.weights import registry, store
from vs_vsr.weights.loader import read
from vs_vsr.weights.rows import ROWS, Row

DATA = b"the published bytes"
ROW = Row(
    filter="BasicVSR",
    name="small",
    file="small.pth",
    urls=("https://127.0.0.1/never-asked.pth",),
    sha256=hashlib.sha256(DATA).hexdigest(),
    trained_on="",
    degradation="",
    licence="",
    carried_by=("vsr-test-carrier", "vsr_test_carrier/Small.pth"),
)
BARE = Row("VRT", "bare", "bare.pth", (), "", "", "", "CC BY-NC 4.0 (them)", page="https://a.page")


def zipped() -> bytes:
    """The form of a checkpoint: a zip whose members are stored as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/data/0", bytes(1000))
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("VSR_CACHE", str(folder))
    monkeypatch.setenv("VSR_OFFLINE", "1")
    monkeypatch.setattr(registry, "ROWS", (*ROWS, ROW, BARE))
    store._tell_once.cache_clear()
    return folder


@pytest.fixture
def carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in an installed distribution, whose package must not be imported."""
    site = tmp_path / "site"
    package, info = site / "vsr_test_carrier", site / "vsr_test_carrier-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vsr-test-carrier\nVersion: 1.0\n")
    (package / "__init__.py").write_text("raise AssertionError('imported')\n")
    (package / "Small.pth").write_bytes(DATA)
    monkeypatch.syspath_prepend(str(site))
    return package / "Small.pth"


def test_a_file_of_the_user_goes_first(cache: Path, tmp_path: Path) -> None:
    (cache / "small.pth").write_bytes(DATA)
    own = tmp_path / "small.pth"
    own.write_bytes(b"anything")
    assert store.obtain(own) == own
    assert store.obtain(str(own), "BasicVSR") == own


def test_a_file_needs_no_suffix_and_may_be_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").write_bytes(b"anything")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert store.obtain("~/own") == tmp_path / "own"


def test_the_cache_goes_before_what_is_carried(cache: Path, carried: Path) -> None:
    assert store.obtain("small") == carried
    (cache / "small.pth").write_bytes(DATA)
    assert store.obtain("small") == cache / "small.pth"


def test_a_damaged_file_is_ignored_and_reported_once(
    cache: Path, carried: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (cache / "small.pth").write_bytes(DATA[:-1])
    for _ in range(2):
        assert store.obtain("small") == carried
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("small.pth is ignored: its sha256 begins with") == 1
    carried.write_bytes(b"")
    with pytest.raises(WeightsError, match=r": BasicVSR/small is damaged, and VSR_OFFLINE forbids"):
        store.obtain("small")


def test_a_file_is_hashed_again_only_when_it_changes(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    sha256 = store.sha256_of

    def noted(path: Path) -> str:
        read.append(path)
        return sha256(path)

    monkeypatch.setattr(store, "sha256_of", noted)
    path = cache / "small.pth"
    path.write_bytes(DATA)
    for _ in range(3):
        assert store.obtain("small") == path
    assert read == [path]
    path.write_bytes(b"x" * len(DATA))
    os.utime(path, ns=(1, 1))
    with pytest.raises(WeightsError, match=r": BasicVSR/small is damaged, and VSR_OFFLINE forbids"):
        store.obtain("small")
    assert read == [path, path]


def test_a_file_in_anothers_place_is_read_again(cache: Path, tmp_path: Path) -> None:
    path, other = cache / "small.pth", tmp_path / "other"
    path.write_bytes(DATA)
    other.write_bytes(DATA[::-1])
    for file in (path, other):
        os.utime(file, ns=(1, 1))
    assert store.obtain("small") == path
    os.replace(other, path)
    with pytest.raises(WeightsError, match=r": BasicVSR/small is damaged, and VSR_OFFLINE forbids"):
        store.obtain("small")


def test_a_file_is_identified_by_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.pth").write_bytes(DATA)
        os.utime(tmp_path / folder / "net.pth", ns=(1, 1))
    monkeypatch.chdir(tmp_path / "a")
    first = store.identity(Path("net.pth"))
    assert store.identity(tmp_path / "b" / ".." / "a" / "net.pth") == first
    monkeypatch.chdir(tmp_path / "b")
    assert store.identity(Path("net.pth")) != first
    # Written over in place, with the size and the time of before.
    path = tmp_path / "a" / "net.pth"
    path.write_bytes(DATA[::-1])
    os.utime(path, ns=(1, 1))
    assert store.identity(path) != first


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes only on Linux")
def test_names_that_are_not_text_are_escaped_in_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.pth")).write_bytes(b"")
    monkeypatch.setenv("VSR_CACHE", str(folder))
    screen = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stderr", screen)
    (folder / "small.pth").write_bytes(b"damaged")
    for weights in ("small", folder / "none.pth", folder / os.fsdecode(b"\xff.pth")):
        with pytest.raises(WeightsError) as caught:
            read(store.obtain(weights, "BasicVSR"), "BasicVSR")
        assert str(caught.value).startswith("BasicVSR: ")
        assert r"caf\udce9" in str(caught.value).encode().decode()
    screen.flush()
    assert rb"caf\udce9/small.pth is ignored: " in screen.buffer.getvalue()


def test_a_message_says_where_the_file_belongs(cache: Path) -> None:
    message = r": BasicVSR/small is not on this machine, .*vs-vsr\[weights\]"
    with pytest.raises(WeightsError, match=message) as caught:
        store.obtain("small")
    assert str(cache / "small.pth") in str(caught.value)


@pytest.mark.parametrize("missing", ["none.pth", "folder/none", "none.safetensors"])
def test_a_missing_file_names_its_neighbours(tmp_path: Path, missing: str) -> None:
    (tmp_path / "folder").mkdir()
    for folder in (tmp_path, tmp_path / "folder"):
        for name in ("nona.pth", "other.ckpt", "text.txt"):
            (folder / name).touch()
    with pytest.raises(WeightsError) as caught:
        store.obtain(tmp_path / missing, "BasicVSR")
    message = str(caught.value)
    assert message.startswith("BasicVSR: weights must be a file that exists, got ")
    assert message.endswith(" Check the path; its folder has nona.pth, other.ckpt.")


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"Check the path; its folder \S+none cannot be listed either \("
    ):
        store.obtain(tmp_path / "none" / "x.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"Check the path; its folder has no weights\."):
        store.obtain(tmp_path / "empty" / "x.pth")


def test_the_released_files_are_carried_and_whole(real_weights: None) -> None:
    carried = {row.full_name: row for row in ROWS if row.carried_by}
    assert [*carried] == [
        "BasicVSR/reds4",
        "BasicVSR/vimeo90k-bi",
        "BasicVSR/vimeo90k-bd",
        "AnimeSR/v2",
        "AnimeSR/v1",
    ]
    for row in carried.values():
        path = store.local_file(row)
        assert path is not None and row.carried_by is not None
        assert path.as_posix().endswith("/".join(("site-packages", row.carried_by[1])))
        assert path.stat().st_size == row.size_bytes


def test_a_name_may_say_its_filter_but_a_file_goes_first(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "small.pth").write_bytes(DATA)
    monkeypatch.chdir(tmp_path)
    for name in ("BasicVSR/small", "basicvsr/SMALL"):
        assert store.obtain(name) == store.obtain(name, "BasicVSR") == cache / "small.pth"
    # A folder of that name is no file yet.
    own = tmp_path / "BasicVSR" / "small"
    own.parent.mkdir()
    assert store.obtain("BasicVSR/small") == cache / "small.pth"
    own.write_bytes(b"anything")
    assert store.obtain("BasicVSR/small") == Path("BasicVSR/small")


@pytest.mark.parametrize("text", ["BasicVSR/none.pth", "Basic/small", "./BasicVSR/small"])
def test_what_only_looks_like_a_name_is_a_missing_file(text: str) -> None:
    with pytest.raises(WeightsError, match="weights must be a file that exists"):
        store.obtain(text)


def test_an_unknown_name_of_a_filter_is_no_missing_file() -> None:
    with pytest.raises(
        WeightsError, match=r'^BasicVSR: .*got "BasicVSR/smal"\. Did you mean small'
    ):
        store.obtain("BasicVSR/smal")


def test_the_licence_is_shown_once_if_a_name_is_used(
    cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (cache / "bare.pth").write_bytes(zipped())
    (cache / "small.pth").write_bytes(DATA)
    for name in ("bare", "VRT/bare", "small"):
        store.obtain(name)
    store.obtain(cache / "bare.pth")
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "vs_vsr: VRT bare is CC BY-NC 4.0 (them): not for commercial use\n"


def test_a_file_without_an_address_is_asked_of_the_user(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for offline in ("0", "1"):
        monkeypatch.setenv("VSR_OFFLINE", offline)
        with pytest.raises(WeightsError) as caught:
            store.obtain("bare", "VRT")
        assert str(caught.value) == (
            "VRT: VRT/bare is not on this machine, and it has no direct address. "
            f"Fetch bare.pth from https://a.page by hand and put it at {cache / 'bare.pth'}."
        )


def damaged(kind: str) -> bytes:
    whole = zipped()
    middle = len(whole) // 2
    return {
        "nothing": b"",
        "a page": b"<!DOCTYPE html>",
        "a start": whole[:-1],
        "a hole": whole[:middle] + whole[middle + 1 :],
        "a flipped bit": whole[:middle] + b"\x01" + whole[middle + 1 :],
    }[kind]


@pytest.mark.parametrize("kind", ["nothing", "a page", "a start", "a hole", "a flipped bit"])
def test_without_a_hash_a_damaged_file_is_ignored(
    cache: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (cache / "bare.pth").write_bytes(damaged(kind))
    with pytest.raises(
        WeightsError, match=r": VRT/bare is damaged, and it has no direct address\. "
    ):
        store.obtain("bare")
    assert "bare.pth is ignored: it is " in capfd.readouterr().err


@pytest.mark.parametrize("old", [False, True])
def test_without_a_hash_what_torch_writes_is_taken(cache: Path, old: bool) -> None:
    path = cache / "bare.pth"
    torch.save({"a": torch.arange(99)}, path, _use_new_zipfile_serialization=not old)
    assert store.obtain("bare") == path
