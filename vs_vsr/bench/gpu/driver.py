"""What the NVIDIA driver says about a GPU, by nvidia-smi; it only reads."""

import subprocess
import tempfile
from contextlib import suppress
from statistics import mean, median
from types import TracebackType
from typing import Self

import torch

__all__ = ["Watch", "query"]

_PROGRAM = "nvidia-smi"
_EVERY_MS = 100


def query(device: torch.device, *fields: str) -> dict[str, str]:
    """Values of these fields (nvidia-smi --help-query-gpu); empty if there is no such program."""
    try:
        done = subprocess.run(
            _command(device, fields), capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    values = done.stdout.strip().split("\n")[0].split(", ")
    return dict(zip(fields, values, strict=False))


class Watch:
    """Samples the GPU while the block runs: how busy it was, how fast, how full.

    "Busy" is the driver's own figure: the share of its sampling period in which a kernel ran. The
    profiler would tell it by kernel, but it slows down what it watches.
    """

    _FIELDS = ("utilization.gpu", "clocks.sm", "power.draw", "memory.used")

    def __init__(self, device: torch.device) -> None:
        """Watch this device; on a CPU nothing is watched."""
        self._device = device
        self._file = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in __exit__
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Begin to sample."""
        command = [*_command(self._device, self._FIELDS), "-lms", str(_EVERY_MS)]
        if self._device.type == "cuda":
            with suppress(OSError):
                self._process = subprocess.Popen(command, stdout=self._file, text=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End sampling."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)

    def values(self) -> dict[str, float]:
        """Means over the samples, less the first and last tenth; empty without samples."""
        self._file.seek(0)
        samples = []
        for line in self._file:
            with suppress(ValueError):
                samples.append([float(value) for value in line.split(",")])
        self._file.close()
        cut = len(samples) // 10
        columns = list(zip(*samples[cut : len(samples) - cut], strict=True))
        if not columns:
            return {}
        busy, clock, power, memory = columns
        return {
            "busy_percent": round(mean(busy), 1),
            "sm_mhz": median(clock),
            "watt": median(power),
            "memory_used_mib": max(memory),
            "samples": len(busy),
        }


def _command(device: torch.device, fields: tuple[str, ...]) -> list[str]:
    command = [_PROGRAM, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    if device.type == "cuda" and torch.cuda.is_available():
        # By its name for the driver: its number there may be another one.
        command += ["-i", f"GPU-{torch.cuda.get_device_properties(device).uuid}"]
    return command
