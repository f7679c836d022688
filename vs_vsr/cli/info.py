"""`vs-vsr info`: versions, devices, and whether the filters are loaded."""

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

from vs_vsr.cli import probes
from vs_vsr.cli.answers import Commands, add_command, tell

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Add the command."""
    add_command(
        commands, "info", _info, "show versions, devices, and whether the filters are loaded"
    )


def _info(args: argparse.Namespace) -> int:
    lines = [("python", platform.python_version())]
    for name in ("vs-vsr", "vapoursynth", "torch"):
        try:
            lines.append((name, version(name)))
        except PackageNotFoundError:
            lines.append((name, "not installed"))
    # Imported here because it brings torch, which takes seconds to import.
    from vs_vsr.devices import describe_all

    lines += [*describe_all(), ("filters", _filters())]
    tell(*(f"{name:12}  {value}" for name, value in lines))
    return 0


def _filters() -> str:
    """Whether VapourSynth has loaded the plugin."""
    try:
        found = probes.plugins()
    except ImportError as e:
        return f"not loaded, because VapourSynth cannot be imported ({e})"
    if "filters" not in found:
        return f"not loaded by VapourSynth ({found['reason']}). Run vs-vsr doctor."
    return f"core.vsr: {', '.join(found['filters'])}"
