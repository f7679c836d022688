"""`vs-vsr serve` where it cannot start: a sentence each."""

from pathlib import Path

import pytest

from vs_vsr.cli import main, serve


def test_without_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    assert main(["serve"]) == 1
    assert capsys.readouterr() == (
        "",
        "vs-vsr serve must have starlette and uvicorn, which are not installed. Run pip install "
        '"vs-vsr[serve]".\n',
    )


@pytest.mark.parametrize("port", ["-1", "65536", "99999999999"])
def test_ports_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], port: str) -> None:
    assert main(["serve", "--folder", str(tmp_path / "s"), "--port", port]) == 1
    out, said = capsys.readouterr()
    assert out == "" and said.startswith(f"port must be a free one of this machine, got {port} (")


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["serve", "--folder", str(tmp_path / "file" / "s"), "--port", "0"]) == 1
    assert "cannot be read or written" in capsys.readouterr().err
