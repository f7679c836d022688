"""The plugin for other systems: it compiles without a warning, links, and has the right entry."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CMAKE = (ROOT / "CMakeLists.txt").read_text()
VAPOURSYNTH = importlib.util.find_spec("vapoursynth")
# How a library of the system begins.
SYSTEMS = {
    "x86_64-windows-gnu": b"MZ",
    "x86_64-macos": b"\xcf\xfa\xed\xfe\x07",
    "aarch64-macos": b"\xcf\xfa\xed\xfe\x0c",
    "aarch64-linux-gnu.2.17": b"\x7fELF",
}


def test_the_build_names_every_source() -> None:
    named = re.findall(r"native/\w+\.c\b", CMAKE)
    assert sorted(named) == sorted(f"native/{path.name}" for path in ROOT.glob("native/*.c"))


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_plugin_compiles_and_links(system: str, tmp_path: Path) -> None:
    ziglang = importlib.util.find_spec("ziglang")
    if ziglang is None or ziglang.origin is None:
        pytest.skip("no compiler for other systems: pip install ziglang (500 MB)")
    assert VAPOURSYNTH is not None and VAPOURSYNTH.origin is not None
    zig, include = Path(ziglang.origin).with_name("zig"), Path(VAPOURSYNTH.origin).parent
    defines = ["-DVS_USE_API_43", '-DVSR_VERSION="1.2"', "-DVSR_VERSION_MAJOR=1"]
    defines += ["-DVSR_VERSION_MINOR=2", *(["-D_GNU_SOURCE"] if "linux" in system else [])]
    flags = ["-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden"]
    # VLAs are what Microsoft's compiler has not.
    flags += ["-Wall", "-Wextra", "-Wpedantic", "-Wvla", "-Werror"]
    folders = ["-I", str(ROOT / "native"), "-isystem", str(include / "include")]
    out = tmp_path / "libvsr"
    command = [str(zig), "cc", "-target", system, *flags, *defines, *folders, "-o", str(out)]
    command += map(str, ROOT.glob("native/*.c"))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = out.read_bytes()
    assert made.startswith(SYSTEMS[system]) and b"VapourSynthPluginInit2" in made


def test_without_a_compiler_there_is_one_sentence(tmp_path: Path) -> None:
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("no cmake")
    command = [cmake, "-S", str(ROOT), "-B", str(tmp_path), "-DSKBUILD_PROJECT_VERSION=1.2"]
    environment = {**os.environ, "CC": "no-such-compiler"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert "vs-vsr: a C compiler must be installed to build the plugin, got none. Install" in said
    assert said.count("CMake Error") == 1
