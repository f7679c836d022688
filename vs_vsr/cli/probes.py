"""Looks at what is installed: one function for each thing that may be slow, missing or broken.

`ask` runs one of them in a process of its own, so that a module that ends its process or never
comes back costs no more than its own answer.
"""

import importlib
import json
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from importlib.metadata import files, version
from typing import Any

from vs_vsr.cli.answers import tell

__all__ = [
    "Answer",
    "Broken",
    "answer",
    "ask",
    "cupy",
    "encoders",
    "last_line",
    "module",
    "plugins",
    "torch_build",
    "trial",
]

type Answer = dict[str, Any]
"""What a probe found, as JSON can carry it."""

# The filters that a trial may run, most used first; VRT takes a minute on a processor.
_TRIED = ("BasicVSR", "AnimeSR", "RealBasicVSR", "IconVSR", "BasicVSRPP", "EDVR")


class Broken(Exception):
    """A probe failed; its text says how."""


def ask(probe: str, *arguments: str | Sequence[str], limit_s: float) -> Answer:
    """The answer of a probe, which runs in a process of its own.

    Args:
        probe: The name of a function of this module.
        arguments: Its arguments.
        limit_s: Seconds after which the process is ended.

    Raises:
        Broken: The probe raised, its process ended, or it took too long.
    """
    code = "from vs_vsr.cli.probes import answer; answer()"
    command = [sys.executable, "-c", code, probe, json.dumps(arguments)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        raise Broken(f"no answer within {limit_s:g} s") from None
    lines = done.stdout.decode(errors="replace").splitlines()
    try:
        found = json.loads(lines[-1])
        if isinstance(found["failed"], str):
            raise Broken(found["failed"])
        return dict(found)
    except (IndexError, KeyError, TypeError, ValueError):
        # It never came to its answer.
        raise Broken(_how_it_ended(done)) from None


def _how_it_ended(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        return f"its process was ended by {signal.Signals(-done.returncode).name}"
    return f"its process ended with status {done.returncode}: {last_line(done.stderr)}"


def last_line(said: bytes) -> str:
    """The last words of a program's standard error, where most say why they fail."""
    lines = said.decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def answer() -> None:
    """Run the probe that the process's arguments name, and write what it found."""
    name, arguments = sys.argv[1:]
    found: Answer = {"failed": None}
    try:
        found |= globals()[name](*json.loads(arguments))
    # An import may raise anything, SystemExit too.
    except BaseException as e:
        found["failed"] = f"{type(e).__name__}: {' '.join(str(e).split())}".removesuffix(": ")
    # What was imported may have written without a line's end.
    tell("", json.dumps(found))


def module(name: str) -> Answer:
    """Whether the module of a distribution of the same name can be imported; its version."""
    importlib.import_module(name)
    return {"version": version(name)}


def plugins() -> Answer:
    """VapourSynth's release, the namespaces of its plugins, and what core.vsr says of itself.

    Without core.vsr, "reason" is why, as far as that can be told.
    """
    import vapoursynth as vs

    core = vs.core
    found: Answer = {
        "release": core.core_version.release_major,
        "namespaces": sorted(plugin.namespace for plugin in core.plugins()),
        "reason": "",
    }
    if hasattr(core, "vsr"):
        found["filters"] = sorted(
            f.name for f in core.vsr.functions() if f.signature.startswith("clip:")
        )
        said = core.vsr.Version()["version"]
        found["version"] = said.decode() if isinstance(said, bytes) else str(said)
        return found
    built = [file for file in files("vs-vsr") or () if file.stem == "libvsr"]
    found["reason"] = "" if built else "the compiled plugin is missing"
    for file in built:
        try:
            core.std.LoadPlugin(str(file.locate()))
            found["reason"] = f"{file.locate()} is not where VapourSynth looks for plugins"
        except vs.Error as e:
            found["reason"] = str(e)
    return found


def torch_build() -> Answer:
    """Versions of torch and torchvision, the CUDA that torch is built for, and its devices."""
    import torch
    import torchvision

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        # torch says only in a warning that the driver is too old.
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    from vs_vsr.devices import describe_all

    return {
        "version": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "cuda": str(torch.version.cuda or ""),
        "gpus": int(gpus),
        "devices": [list(line) for line in describe_all()],
        "warning": " ".join(str(said[-1].message).split()) if said else "",
    }


def cupy() -> Answer:
    """CuPy's version and the CUDA it is built for, after a sum on the GPU."""
    import cupy

    runtime = int(cupy.cuda.runtime.runtimeGetVersion())
    total = float(cupy.ones(8).sum())
    if total != 8:
        raise RuntimeError(f"a sum of eight ones on the GPU is {total}")
    return {"version": str(cupy.__version__), "cuda": f"{runtime // 1000}"}


def encoders(names: Sequence[str]) -> Answer:
    """PyAV's version, and for each encoder why it cannot be opened, or nothing if it can."""
    from fractions import Fraction

    import av

    faults = {}
    for name in names:
        try:
            context: Any = av.CodecContext.create(name, "w")
            context.width = context.height = 256
            context.pix_fmt = "yuv420p"
            context.time_base = Fraction(1, 25)
            context.open()
            faults[name] = ""
        except Exception as e:
            faults[name] = f"{type(e).__name__}: {e}"
    return {"version": av.__version__, "faults": faults}


def trial() -> Answer:
    """Upscale two small frames by the filter whose weights are here; none if there are none."""
    from vs_vsr.weights import store
    from vs_vsr.weights.registry import rows_of

    local = ((row, store.local_file(row)) for name in _TRIED for row in rows_of(name))
    row, path = next(((row, path) for row, path in local if path), (None, None))
    if row is None:
        return {"weights": ""}
    import vapoursynth as vs

    clip = vs.core.std.BlankClip(format=vs.YUV420P8, width=64, height=48, length=2, color=[128] * 3)
    start = time.monotonic()
    out = getattr(vs.core.vsr, row.filter)(clip, weights=str(path), chunk=2)
    frame = out.get_frame(1)
    return {
        "weights": row.full_name,
        "size": f"{frame.width}x{frame.height}",
        "seconds": time.monotonic() - start,
    }
