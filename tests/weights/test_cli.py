import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vs_vsr import __version__, cli
from vs_vsr.weights import registry
from vs_vsr.weights.rows import Row

DATA = b"the published bytes"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and three rows: two have a file next to the cache, one has no address."""
    folder, published = tmp_path / "cache", tmp_path / "published.pth"
    published.write_bytes(DATA)
    sha256 = hashlib.sha256(DATA).hexdigest()
    url = published.as_uri()
    rows = (
        Row("EDVR", "one", "one.pth", (url,), sha256, "REDS", "BIx4", "CC0"),
        Row("EDVR", "two", "two.pth", (url,), sha256, "REDS", "BIx4", "CC0"),
        Row(
            *("VRT", "two", "bare.pth", (), "", "DAVIS", "", "CC BY-NC 4.0 (them)"),
            task="denoising",
            scale=1,
            page="https://a.page",
        ),
    )
    monkeypatch.setattr(registry, "ROWS", rows)
    monkeypatch.setenv("VSR_CACHE", str(folder))
    monkeypatch.delenv("VSR_OFFLINE", raising=False)
    return folder


def test_fetch_tells_where_the_file_is(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["weights", "fetch", "one", "EDVR/two"]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines() == [str(cache / "one.pth"), str(cache / "two.pth")]
    assert "fetching EDVR/one" in err
    assert (cache / "one.pth").read_bytes() == DATA


def test_an_unknown_name_stops_before_any_fetch(
    cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["weights", "fetch", "one", "tow"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "Did you mean EDVR/two" in err
    assert not cache.exists()


def test_a_name_of_two_filters_is_not_guessed(
    cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for action in ("fetch", "where"):
        assert cli.main(["weights", action, "two"]) == 1
        assert (
            'got "two", which may be EDVR/two, VRT/two. Choose one of these.'
            in capfd.readouterr().err
        )
        assert cli.main(["weights", action, "edvr/TWO"]) == 0
        assert capfd.readouterr().out == f"{cache / 'two.pth'}\n"


def test_fetch_by_hand_is_told(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["weights", "fetch", "VRT/two"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert f"Fetch bare.pth from https://a.page by hand and put it at {cache / 'bare.pth'}." in err


def test_list_tells_what_is_here(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cache.mkdir()
    (cache / "two.pth").write_bytes(DATA)
    assert cli.main(["weights", "list"]) == 0
    assert capfd.readouterr().out.splitlines() == [
        "EDVR",
        "  one  not here  one.pth",
        "         super-resolution x4, REDS, BIx4; CC0",
        f"  two  here      {cache / 'two.pth'}",
        "         super-resolution x4, REDS, BIx4; CC0",
        "VRT",
        "  two  not here  bare.pth",
        "         denoising, DAVIS; CC BY-NC 4.0 (them); not for commercial use; "
        "no hash is published; fetch by hand from https://a.page",
    ]


def test_list_takes_a_filter(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["weights", "list", "vrt"]) == 0
    assert [line for line in capfd.readouterr().out.splitlines() if line[0] != " "] == ["VRT"]
    assert cli.main(["weights", "list", "none"]) == 1
    assert 'weights: filter must be one of EDVR, VRT, got "none".' in capfd.readouterr().err


def test_where_is_the_cache_or_one_file(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["weights", "where"]) == 0
    assert cli.main(["weights", "where", "one"]) == 1
    cli.main(["weights", "fetch", "one"])
    assert cli.main(["weights", "where", "one"]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines() == [str(cache), str(cache / "one.pth"), str(cache / "one.pth")]
    assert err.startswith("EDVR/one is not on this machine. Run vs-vsr weights fetch EDVR/one.\n")


@pytest.mark.parametrize("action", ["where", "fetch"])
def test_a_filter_is_no_name(action: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["weights", action, "edvr"]) == 1
    assert capfd.readouterr().err == (
        'weights must be a file or a published name, got "edvr", which is a filter. Choose one of '
        "EDVR/one, EDVR/two.\n"
    )


def test_the_version(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capfd.readouterr().out == f"vs-vsr {__version__}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes only on Linux")
@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_a_path_that_is_not_text_comes_out_as_it_is(tmp_path: Path, encoding: str) -> None:
    folder = os.fsencode(tmp_path) + "/caf\xe9/é".encode("latin-1") + "é".encode()
    environment = {**os.environb, b"VSR_CACHE": folder, b"PYTHONIOENCODING": encoding.encode()}
    command = [sys.executable, "-m", "vs_vsr", "weights"]
    done = subprocess.run([*command, "where"], capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == folder + b"\n"
    done = subprocess.run(
        [*command, "fetch", "IconVSR/reds4"],
        capture_output=True,
        env={**environment, b"VSR_OFFLINE": b"1"},
    )
    assert done.returncode == 1
    assert rb"caf\udce9" in done.stderr
    assert b"Traceback" not in done.stderr


def test_verify_fails_for_a_damaged_file(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["weights", "verify"]) == 0
    assert capfd.readouterr().err.startswith("No published file is on this machine. Run vs-vsr")
    cache.mkdir()
    (cache / "one.pth").write_bytes(DATA)
    assert cli.main(["weights", "verify"]) == 0
    (cache / "two.pth").write_bytes(DATA[::-1])
    assert cli.main(["weights", "verify"]) == 1
    lines = capfd.readouterr().out.splitlines()[-2:]
    assert lines == [f"whole  {cache / 'one.pth'}", f"DAMAGED  {cache / 'two.pth'}"]


def test_verify_vouches_for_no_file_without_a_hash(
    cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cache.mkdir()
    torch.save({}, cache / "bare.pth", _use_new_zipfile_serialization=False)
    assert cli.main(["weights", "verify"]) == 0
    assert capfd.readouterr().out == f"no hash is published  {cache / 'bare.pth'}\n"
    (cache / "bare.pth").write_bytes(b"<html>")
    assert cli.main(["weights", "verify"]) == 1
    assert capfd.readouterr().out == f"DAMAGED  {cache / 'bare.pth'}\n"


def test_info_names_versions_and_devices(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capfd.readouterr().out.splitlines())
    assert lines.keys() >= {"python", "vs-vsr", "vapoursynth", "torch", "cpu", "filters"}


def test_the_list_does_not_wait_for_torch() -> None:
    code = "import sys; from vs_vsr.cli import main; main(['weights', 'list']); " + (
        "sys.exit('torch' in sys.modules or 'vapoursynth' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vs_vsr", "weights", "where"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.endswith("\n")
