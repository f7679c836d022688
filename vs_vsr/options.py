"""A filter's arguments: their rules, their defaults, and the sentence for what breaks a rule."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, get_args

import torch

from vs_vsr.errors import ArgumentError, DeviceError
from vs_vsr.streaming.scenes import Scenes

__all__ = ["MATRICES", "Options", "Precision", "Reader", "default_dtype", "default_matrix"]

Precision = Literal["auto", "fp32", "bf16", "fp16"]

# ITU-T H.273 codes of the matrices that the core's resize converts without knowing more.
MATRICES = {"709": 1, "fcc": 4, "470bg": 5, "170m": 6, "240m": 7, "ycgco": 8, "2020ncl": 9}

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Side and overlap of spatial tiles; the reference's for VRT, whose memory grows with the area.
_TILES = {"VRT": (128, 20)}
_NO_TILES = (0, 32)


def default_matrix(width: int, height: int) -> int:
    """The matrix code of a YUV clip that does not say: by its size, as players do.

    Above 1920x1080 BT.2020 would be a guess about HDR, so it is BT.709 from 1280x720 up.
    """
    if width >= 1280 or height > 576:
        return MATRICES["709"]
    return MATRICES["470bg"] if height in (288, 576) else MATRICES["170m"]


@dataclass(frozen=True)
class Options:
    """The arguments that every filter has, checked. Sizes are in pixels."""

    device: torch.device
    dtype: torch.dtype
    tile: int
    overlap: int
    scenes: Scenes
    matrix: int
    prefetch: bool

    @classmethod
    def read(cls, read: "Reader", width: int, height: int) -> "Options":
        """Check the arguments for a clip of this size.

        Raises:
            ArgumentError: A value breaks its rule.
            DeviceError: The device is not there.
        """
        function = read.function
        device = _device(function, read.text("device", "auto"))
        dtype = _dtype(function, read.choice("precision", "auto", get_args(Precision)), device)
        side, shared = _TILES.get(function, _NO_TILES)
        tile = read.at_least("tile", side, 0)
        if 0 < tile < 64:
            raise read.error("tile", "0 (whole frames) or at least 64 pixels", tile, "Use 256.")
        if function == "VRT" and tile % 8:
            raise read.error("tile", "a multiple of 8", tile, f"Use {tile // 8 * 8}.")
        overlap = read.at_least("overlap", min(shared, tile // 4), 0)
        if tile and overlap > tile // 2:
            raise read.error(
                "overlap", f"at most half of tile ({tile})", overlap, f"Use {tile // 4}."
            )
        scenes: Scenes = read.choice("scenes", "auto", get_args(Scenes))
        return cls(
            device=device,
            dtype=dtype,
            tile=tile,
            overlap=overlap,
            scenes=scenes,
            matrix=_matrix(read, default_matrix(width, height)),
            prefetch=bool(read.choice("prefetch", 0, (0, 1))),
        )


class Reader:
    """Reads single arguments of a filter, each with its rule."""

    def __init__(self, function: str, args: Mapping[str, int | float | str]) -> None:
        """Read `args` of `function`."""
        self.function = function
        self._args = args

    def error(self, name: str, rule: str, got: object, what_now: str) -> ArgumentError:
        """What to raise where `name` breaks `rule`."""
        shown = f'"{got}"' if isinstance(got, str) else "none" if got is None else got
        return ArgumentError(f"{self.function}: {name} must be {rule}, got {shown}. {what_now}")

    def given(self, name: str) -> bool:
        """Whether the user gave `name`."""
        return name in self._args

    def text(self, name: str, default: str) -> str:
        """Any text."""
        return str(self._args.get(name, default))

    def at_least(self, name: str, default: int, least: int, rule: str = "") -> int:
        """A whole number from `least` up."""
        value = int(self._args.get(name, default))
        if value < least:
            what_now = f"Leave it out for {default}."
            raise self.error(name, rule or f"at least {least}", value, what_now)
        return value

    def number(self, name: str, least: float, most: float, what_now: str) -> float | None:
        """A number from `least` to `most`; None where it is not given."""
        if not self.given(name):
            return None
        value = float(self._args[name])
        # A NaN is neither.
        if not least <= value <= most:
            raise self.error(name, f"from {least:g} to {most:g}", value, what_now)
        return value

    def choice[T](self, name: str, default: T, allowed: tuple[T, ...]) -> T:
        """One of `allowed`."""
        value = self._args.get(name, default)
        for option in allowed:
            if value == option:
                return option
        shown = [f'"{option}"' if isinstance(option, str) else str(option) for option in allowed]
        raise self.error(name, "one of " + ", ".join(shown), value, _meant(value, allowed))


def _meant(value: object, allowed: Iterable[object]) -> str:
    close = get_close_matches(str(value), [str(option) for option in allowed], n=1)
    return f'Did you mean "{close[0]}"?' if close else "Use one of these."


def _matrix(read: Reader, default: int) -> int:
    """The matrix by its name, or by its number, which VapourSynth hands on as text."""
    given = read.text("matrix", "")
    for name, code in MATRICES.items():
        if given in (name, str(code)):
            return code
    if not given:
        return default
    shown = ", ".join(f'"{name}" ({code})' for name, code in MATRICES.items())
    raise read.error("matrix", f"one of {shown}", given, _meant(given, MATRICES))


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
    # There is one CPU, whatever number it is given.
    return device if device.type == "cuda" else torch.device("cpu")


def _dtype(function: str, precision: Precision, device: torch.device) -> torch.dtype:
    if precision == "auto":
        # What half precision costs VRT has not been measured on its released weights.
        return torch.float32 if function == "VRT" else default_dtype(device)
    allowed = ["fp32", "bf16"] if _multiplies_bf16() else ["fp32"]
    if device.type == "cpu" and precision not in allowed:
        names = " or ".join(f'"{name}"' for name in allowed)
        raise ArgumentError(
            f'{function}: precision must be {names} on this processor, got "{precision}". Leave it '
            "out to take the fastest that it has."
        )
    return _DTYPES[precision]


def _multiplies_bf16() -> bool:
    """Whether convolutions in bfloat16 run on this processor at all, fast or not."""
    # Without oneDNN torch computes them itself, slowly.
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is None or not torch.backends.mkldnn.is_available() or bool(supported())


def default_dtype(device: torch.device) -> torch.dtype:
    """What precision="auto" takes: half precision where the hardware multiplies it itself."""
    if device.type == "cuda":
        return torch.float16
    # A torch that cannot tell (before 2.9) takes float32.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if fast and _multiplies_bf16() else torch.float32
