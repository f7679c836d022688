"""What the tests of GPU clips compile: the plugin's own files, with a few of theirs."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import vapoursynth as vs

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "native"


def compiled(target: Path, *sources: Path, options: Sequence[str] = ("-shared", "-fPIC")) -> Path:
    """Compile C files to `target`, a library or a program."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler here")
    flags = ("-std=c11", "-D_GNU_SOURCE", "-DVS_USE_API_43", "-Wall", "-Wextra", "-Werror")
    includes = (f"-I{NATIVE}", "-isystem", vs.get_include())
    command = [compiler, *flags, *options, *includes, *sources, "-o", target, "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return target
