"""A filter's arguments: their rules, their defaults, and the sentence for what breaks a rule."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, get_args

import torch

from vs_vsr.errors import ArgumentError, DeviceError
from vs_vsr.streaming.plan import Plan
from vs_vsr.streaming.scenes import Scenes

__all__ = ["MATRICES", "Options", "Precision", "default_dtype", "default_matrix"]

Precision = Literal["auto", "fp32", "bf16", "fp16"]

# ITU-T H.273 codes of the matrices that the core's resize converts without knowing more.
MATRICES = {"709": 1, "fcc": 4, "470bg": 5, "170m": 6, "240m": 7, "ycgco": 8, "2020ncl": 9}

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Measured: docs/measurements.md.
_CHUNK, _LOOKAHEAD, _SEGMENT_CHUNKS, _PREROLL = 30, 15, 4, 10
# A chunk's pictures are held together; by default they take no more than this.
_CHUNK_BYTES = 2 << 30
_TILE_OVERLAP = 32


def default_matrix(width: int, height: int) -> int:
    """The matrix code of a YUV clip that does not say: by its size, as players do.

    Above 1920x1080 BT.2020 would be a guess about HDR, so it is BT.709 from 1280x720 up.
    """
    if width >= 1280 or height > 576:
        return MATRICES["709"]
    return MATRICES["470bg"] if height in (288, 576) else MATRICES["170m"]


@dataclass(frozen=True)
class Options:
    """The arguments that every filter has, checked. Sizes are in pixels, times in frames."""

    function: str
    weights: str
    device: torch.device
    dtype: torch.dtype
    plan: Plan
    tile: int
    overlap: int
    scenes: Scenes
    matrix: int
    prefetch: bool
    message: str
    """What the user should know about the defaults taken; may be empty."""

    @classmethod
    def read(
        cls,
        function: str,
        args: Mapping[str, int | float | str],
        *,
        width: int,
        height: int,
        frames: int,
        scale: int,
        weights: str,
    ) -> "Options":
        """Check `args` of a filter for a clip of this size.

        Raises:
            ArgumentError: A value breaks its rule.
            DeviceError: The device is not there.
        """
        read = _Reader(function, args)
        device = _device(function, read.text("device", "auto"))
        dtype = _dtype(function, read.choice("precision", "auto", get_args(Precision)), device)
        frame_bytes = 12 * width * height * scale * scale
        plan, message = _plan(read, frames, frame_bytes)
        tile = read.at_least("tile", 0, 0)
        if 0 < tile < 64:
            raise read.error("tile", "0 (whole frames) or at least 64 pixels", tile, "Use 256.")
        overlap = read.at_least("overlap", min(_TILE_OVERLAP, tile // 4), 0)
        if tile and overlap > tile // 2:
            raise read.error(
                "overlap", f"at most half of tile ({tile})", overlap, f"Use {tile // 4}."
            )
        scenes: Scenes = read.choice("scenes", "props", get_args(Scenes))
        matrix = read.choice("matrix", "", ("", *MATRICES))
        prefetch = read.choice("prefetch", 0, (0, 1))
        return cls(
            function=function,
            weights=read.text("weights", weights),
            device=device,
            dtype=dtype,
            plan=plan,
            tile=tile,
            overlap=overlap,
            scenes=scenes,
            matrix=MATRICES[matrix] if matrix else default_matrix(width, height),
            prefetch=bool(prefetch),
            message=message,
        )


class _Reader:
    """Reads single arguments, each with its rule."""

    def __init__(self, function: str, args: Mapping[str, int | float | str]) -> None:
        self.function = function
        self._args = args

    def error(self, name: str, rule: str, got: object, what_now: str) -> ArgumentError:
        shown = f'"{got}"' if isinstance(got, str) else got
        return ArgumentError(f"{self.function}: {name} must be {rule}, got {shown}. {what_now}")

    def given(self, name: str) -> bool:
        return name in self._args

    def text(self, name: str, default: str) -> str:
        return str(self._args.get(name, default))

    def at_least(self, name: str, default: int, least: int, rule: str = "") -> int:
        value = int(self._args.get(name, default))
        if value < least:
            what_now = f"Leave it out for {default}."
            raise self.error(name, rule or f"at least {least}", value, what_now)
        return value

    def choice[T](self, name: str, default: T, allowed: tuple[T, ...]) -> T:
        value = self._args.get(name, default)
        for option in allowed:
            if value == option:
                return option
        shown = [f'"{option}"' if isinstance(option, str) else str(option) for option in allowed]
        close = get_close_matches(str(value), [str(option) for option in allowed if option], n=1)
        what_now = f'Did you mean "{close[0]}"?' if close else "Use one of these."
        raise self.error(
            name, "one of " + ", ".join(s for s in shown if s != '""'), value, what_now
        )


def _plan(read: _Reader, frames: int, frame_bytes: int) -> tuple[Plan, str]:
    chunk = read.at_least("chunk", _CHUNK, 0, rule="at least 1, or 0 for the whole clip at once")
    lookahead = read.at_least("lookahead", _LOOKAHEAD, 0)
    preroll = read.at_least("preroll", _PREROLL, 0)
    if chunk == 0:
        needed, there = frames * frame_bytes, _memory_bytes()
        if needed > there:
            rule = f"at least 1 for a clip whose pictures take {needed >> 30} GiB of {there >> 30}"
            raise read.error("chunk", rule, 0, "Leave it out to stream the clip.")
        return Plan(frames, frames, 0, frames, 0), ""
    message = ""
    fitting = max(1, _CHUNK_BYTES // frame_bytes)
    if not read.given("chunk") and chunk > fitting:
        chunk = fitting
        message = (
            f"{read.function}: chunk is {chunk} instead of {_CHUNK} frames, so that its pictures "
            f"of {frame_bytes >> 20} MiB each stay under {_CHUNK_BYTES >> 30} GiB."
        )
    segment = read.at_least("segment", _SEGMENT_CHUNKS * chunk, 1)
    if segment % chunk:
        below, above = segment // chunk * chunk, -(-segment // chunk) * chunk
        nearest = f"{below} or {above}" if below else f"{above}"
        raise read.error("segment", f"a multiple of chunk ({chunk})", segment, f"Use {nearest}.")
    return Plan(frames, chunk, lookahead, segment, preroll), message


def _device(function: str, name: str) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ArgumentError(
            f'{function}: device must be "auto", "cpu" or "cuda:N", got "{name}". '
            "Leave it out to take a GPU where there is one."
        )
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        if device.index >= count:
            there = ", ".join(["cpu", *(f"cuda:{i}" for i in range(count))])
            raise DeviceError(
                f'{function}: device must be one of those here ({there}), got "{name}". '
                'Choose one of them, or "auto".'
            )
    return device


def _dtype(function: str, precision: Precision, device: torch.device) -> torch.dtype:
    if precision == "auto":
        return default_dtype(device)
    if precision == "fp16" and device.type == "cpu":
        raise ArgumentError(
            f'{function}: precision must be "fp32" or "bf16" on a CPU, got "fp16". '
            "Leave it out to take the faster one this processor has."
        )
    return _DTYPES[precision]


def default_dtype(device: torch.device) -> torch.dtype:
    """What precision="auto" takes: half precision where the hardware multiplies it itself."""
    if device.type == "cuda":
        return torch.float16
    # A torch that cannot tell (before 2.9) takes float32.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32


def _memory_bytes() -> int:
    """Memory of the machine; without limit where the system does not tell."""
    if not hasattr(os, "sysconf"):
        return sys.maxsize
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
