"""A filter's arguments: their rules, and the message for a value that breaks one.

The defaults of each filter are rows in plans.py.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import get_args

import torch

from vs_vsr.devices import Precision, find_device_of_clip, find_devices, find_dtype
from vs_vsr.errors import ArgumentError
from vs_vsr.plugin.gpu import GpuDevice
from vs_vsr.streaming.scenes import Scenes

__all__ = ["MATRICES", "Arguments", "Defaults", "Options", "default_matrix"]

# ITU-T H.273 codes of the matrices that the core's resize converts without further properties.
MATRICES = {"709": 1, "fcc": 4, "470bg": 5, "170m": 6, "240m": 7, "ycgco": 8, "2020ncl": 9}

_LEAST_TILE = 64


def default_matrix(width: int, height: int) -> int:
    """The matrix code of an SDR YUV clip that names none: by its size, as players do it.

    Above 1920x1080, BT.2020 would be a guess about HDR, so it is BT.709 from 1280x720 up. Frames
    that say that they are HDR do not come here: see `Options.hdr_matrix`.
    """
    if width >= 1280 or height > 576:
        return MATRICES["709"]
    return MATRICES["470bg"] if height in (288, 576) else MATRICES["170m"]


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a filter takes where the user leaves an argument out. Lengths in frames."""

    weights: str | None = "reds4"
    """A name of the registry; None where the user must name them."""
    dtype: torch.dtype | None = None
    """None is the fastest that the device has."""
    chunk: int
    cpu_chunk: int | None = None
    """`chunk` on a processor; None for the same."""
    lookahead: int = 0
    segment_chunks: int = 1
    """Chunks in a segment, at least."""
    segment_frames: int = 0
    """Frames in a segment, at least."""
    preroll: int = 0
    tile: int = 0
    """Side in pixels of spatial tiles; 0 is whole frames."""
    tile_multiple: int = 1
    overlap: int = 32
    """Pixels that neighbouring tiles share."""


@dataclass(frozen=True)
class Options:
    """The arguments that every filter has, checked. Sizes are in pixels."""

    device: torch.device
    """One of `devices`: the one that a network, its tiles and its runner are for."""
    devices: tuple[torch.device, ...]
    """All that serve the filter, by the same plan."""
    dtype: torch.dtype
    tile: int
    overlap: int
    scenes: Scenes
    matrix: int
    """The code for YUV and GRAY frames that name none."""
    hdr_matrix: int
    """The same for those whose transfer is PQ or HLG."""
    prefetch: bool

    @classmethod
    def read(
        cls,
        arguments: "Arguments",
        defaults: Defaults,
        width: int,
        height: int,
        gpu: GpuDevice | None = None,
    ) -> "Options":
        """Check the arguments for a clip of this size, in the host's memory or on `gpu`.

        Raises:
            ArgumentError: A value breaks its rule.
            DeviceError: This machine does not have the device.
        """
        name = arguments.filter_name
        asked = arguments.text("device", "auto")
        devices = (
            (find_device_of_clip(name, asked, gpu.uuid, gpu.name),)
            if gpu
            else find_devices(name, asked)
        )
        device = devices[0]
        precision: Precision = arguments.choice("precision", "auto", get_args(Precision))
        dtype = find_dtype(name, precision, device, defaults.dtype)
        tile = arguments.at_least("tile", defaults.tile, 0)
        if 0 < tile < _LEAST_TILE:
            rule = f"0 (whole frames) or at least {_LEAST_TILE} pixels"
            raise arguments.error("tile", rule, tile, "Use 256.")
        multiple = defaults.tile_multiple
        if tile % multiple:
            hint = f"Use {tile // multiple * multiple}."
            raise arguments.error("tile", f"a multiple of {multiple}", tile, hint)
        overlap = arguments.at_least("overlap", min(defaults.overlap, tile // 4), 0)
        if tile and overlap > tile // 2:
            rule = f"at most half of tile ({tile})"
            raise arguments.error("overlap", rule, overlap, f"Use {tile // 4}.")
        return cls(
            device=device,
            devices=devices,
            dtype=dtype,
            tile=tile,
            overlap=overlap,
            scenes=arguments.choice("scenes", "auto", get_args(Scenes)),
            matrix=_matrix(arguments, default_matrix(width, height)),
            # Both transfers are defined for BT.2020 (BT.2100), whatever the size.
            hdr_matrix=_matrix(arguments, MATRICES["2020ncl"]),
            # A processor would only be busy with a chunk that nobody may want.
            prefetch=bool(arguments.choice("prefetch", int(device.type != "cpu"), (0, 1))),
        )


class Arguments:
    """What the user gave a filter; each argument is read with its rule."""

    def __init__(self, filter_name: str, values: Mapping[str, int | float | str]) -> None:
        """Hold `values`, by name, of the filter `filter_name`."""
        self.filter_name = filter_name
        self._values = values

    def error(self, name: str, rule: str, got: object, hint: str) -> ArgumentError:
        """The error to raise if `name` breaks `rule`; `hint` says what to do now."""
        shown = f'"{got}"' if isinstance(got, str) else "none" if got is None else got
        return ArgumentError(f"{self.filter_name}: {name} must be {rule}, got {shown}. {hint}")

    def given(self, name: str) -> bool:
        """Whether the user gave `name`."""
        return name in self._values

    def text(self, name: str, default: str) -> str:
        """Any text; `default` if the user gave none."""
        return str(self._values.get(name, default))

    def at_least(self, name: str, default: int, least: int, rule: str = "") -> int:
        """A whole number, at least `least`."""
        value = int(self._values.get(name, default))
        if value < least:
            hint = f"Leave it out for {default}."
            raise self.error(name, rule or f"at least {least}", value, hint)
        return value

    def number(self, name: str, least: float, most: float, hint: str) -> float | None:
        """A number from `least` to `most`; None if the user gave none."""
        if not self.given(name):
            return None
        value = float(self._values[name])
        # Written so that a NaN breaks the rule too.
        if not least <= value <= most:
            raise self.error(name, f"from {least:g} to {most:g}", value, hint)
        return value

    def choice[T](self, name: str, default: T, allowed: tuple[T, ...]) -> T:
        """One of `allowed`."""
        value = self._values.get(name, default)
        for option in allowed:
            if value == option:
                return option
        shown = [f'"{option}"' if isinstance(option, str) else str(option) for option in allowed]
        raise self.error(name, "one of " + ", ".join(shown), value, _meant(value, allowed))


def _meant(value: object, allowed: Iterable[object]) -> str:
    close = get_close_matches(str(value), [str(option) for option in allowed], n=1)
    return f'Did you mean "{close[0]}"?' if close else "Use one of these."


def _matrix(arguments: Arguments, default: int) -> int:
    """The matrix by its name, or by its number, which VapourSynth passes on as text."""
    name = arguments.text("matrix", "")
    for known, code in MATRICES.items():
        if name in (known, str(code)):
            return code
    if not name:
        return default
    shown = ", ".join(f'"{known}" ({code})' for known, code in MATRICES.items())
    raise arguments.error("matrix", f"one of {shown}", name, _meant(name, MATRICES))
