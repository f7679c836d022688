"""Built networks are kept for the process: each for what its file is, not for how it was named."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import vapoursynth as vs
from conftest import small_network

from vs_vsr.plugin import worker

TIME = 1_700_000_000


def weights(path: Path, seed: int) -> Path:
    """A file whose modification time says nothing, as after unpacking or copying."""
    path.parent.mkdir(exist_ok=True)
    torch.save(small_network(8, 1, seed).state_dict(), path)
    os.utime(path, (TIME, TIME))
    return path


def mean(name: str | Path) -> float:
    blank = vs.core.std.BlankClip(
        format=vs.RGBS, width=32, height=24, length=1, color=[0.2, 0.5, 0.7]
    )
    out = vs.core.vsr.BasicVSR(blank, weights=str(name), precision="fp32")
    return float(np.asarray(out.get_frame(0)[0]).mean())


def test_one_name_in_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    means = []
    for folder, seed in (("a", 1), ("b", 2)):
        path = weights(tmp_path / folder / "net.pth", seed)
        monkeypatch.chdir(path.parent)
        means.append((mean("net.pth"), mean(path)))
    (a, whole_a), (b, whole_b) = means
    assert (a, b) == (whole_a, whole_b)
    assert a != b


def test_a_file_that_another_has_replaced(tmp_path: Path) -> None:
    path = weights(tmp_path / "net.pth", 1)
    before = mean(path)
    other = weights(tmp_path / "alt.pth", 2)
    assert other.stat().st_size == path.stat().st_size
    # In place: path, size and modification time stay the same.
    path.write_bytes(other.read_bytes())
    os.utime(path, (TIME, TIME))
    assert mean(path) != before


def test_one_file_by_several_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = weights(tmp_path / "net.pth", 1)
    monkeypatch.chdir(tmp_path)
    mean(path)
    kept = len(worker._built)
    (tmp_path / "link.pth").symlink_to(path)
    for name in ("net.pth", "./net.pth", "link.pth"):
        mean(name)
    assert len(worker._built) == kept
    # A copy is another file.
    mean(shutil.copy2(path, tmp_path / "copy.pth"))
    assert len(worker._built) == kept + 1
