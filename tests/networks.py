"""The networks that tests run: for each filter small ones, and those that were published.

A new network joins `NETWORKS` and `published`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lineages import State, basicsr, mmagic, old_edvr
from torch import nn

from vs_vsr.bench.networks import VRT_RESTORE, VRT_UPSCALE
from vs_vsr.models.animesr import AnimeSR
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.basicvsrpp import BasicVSRPP
from vs_vsr.models.edvr import EDVR
from vs_vsr.models.edvr_features import EDVRFeatures
from vs_vsr.models.iconvsr import IconVSR
from vs_vsr.models.realbasicvsr import RealBasicVSR
from vs_vsr.models.spynet import SPyNet
from vs_vsr.models.vrt import VRT
from vs_vsr.streaming.plan import Plan
from vs_vsr.weights.rows import Row
from vs_vsr.weights.sizes import NetworkOptions


def vrt(**options: Any) -> VRT:
    sizes: dict[str, Any] = {
        "upscale": 1,
        "depths": [2] * 9,
        "widths": [8] * 7 + [8] * 2,
        "heads": [2] * 9,
        "independent": [8],
        "groups": 4,
    }
    return VRT(**{**sizes, **options})


@dataclass(frozen=True)
class Small:
    """A network that is quick to run."""

    filter: str
    make: Callable[[], nn.Module]
    plan: Plan | None = None
    """One with many borders and few frames; None if other tests cover its plan."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments that the filter needs."""
    options: NetworkOptions = field(default_factory=NetworkOptions)
    """Options that `load_model` needs for the same."""
    state_weights: str = r"trunk\.main\.0\.weight$"
    """Pattern of the first weights that see a state, after the frame's 3 channels."""
    gain: float = 4
    """Times these weights the network remembers all of a short clip, and stays finite."""
    sees_ahead: bool = True
    """Whether a frame changes all pictures before it too."""


_ALONE = Plan(frames=14, chunk=3, segment=3, context=4, state_is_cache=True)
_CARRIED = Plan(frames=14, chunk=3, lookahead=2, segment=6, preroll=2)
_BESIDE = Plan(frames=14, chunk=3, lookahead=2, segment=3, preroll=2)


def _coupled(lookahead: int, context: int) -> Plan:
    return Plan(
        frames=14, chunk=3, lookahead=lookahead, segment=6, preroll=2, context=context, coupled=True
    )


def _animesr(plan: Plan) -> Small:
    return Small(
        "AnimeSR",
        lambda: AnimeSR(8, (3, 2, 1)),
        plan,
        state_weights=r"conv_s1_first\.0\.weight$",
        gain=6,
        sees_ahead=False,
    )


_PP = r"backbone.*main\.0\.weight$"

NETWORKS = {
    "BasicVSR": Small("BasicVSR", lambda: BasicVSR(8, 1), _CARRIED, gain=2),
    "IconVSR": Small("IconVSR", lambda: IconVSR(8, 1, extraction_blocks=1), _coupled(2, 4)),
    "IconVSR Vimeo": Small(
        "IconVSR",
        lambda: IconVSR(8, 1, 3, extraction_blocks=1),
        _coupled(1, 6),
        {"keyframe": 3},
        {"keyframe_stride": 3},
    ),
    "EDVR": Small("EDVR", lambda: EDVR(8, 5, 1, 1), _ALONE),
    "EDVR deblur": Small("EDVR", lambda: EDVR(8, 5, 1, 1, predeblur=True, hr_in=True), _ALONE),
    "RealBasicVSR": Small("RealBasicVSR", lambda: RealBasicVSR(8, 1, 1), _CARRIED),
    "BasicVSRPP": Small(
        "BasicVSRPP", lambda: BasicVSRPP(16, 1, end_blocks=1), _BESIDE, state_weights=_PP, gain=8
    ),
    "BasicVSRPP restore": Small(
        "BasicVSRPP", lambda: BasicVSRPP(16, 1, low_res=False), _BESIDE, state_weights=_PP, gain=8
    ),
    "AnimeSR": _animesr(Plan(frames=14, chunk=3, segment=6, preroll=2, context=1, coupled=True)),
    "AnimeSR chunk 1": _animesr(
        Plan(frames=14, chunk=1, segment=6, preroll=4, context=1, coupled=True)
    ),
    "VRT x4": Small("VRT", lambda: vrt(upscale=4)),
    "VRT deblur": Small("VRT", vrt),
    "VRT denoise": Small("VRT", lambda: vrt(denoising=True), arguments={"sigma": 20}),
    "VRT interpolate": Small("VRT", lambda: vrt(window=(4, 8, 8), pa_frames=0, independent=())),
}
STREAMED = [name for name, small in NETWORKS.items() if small.plan is not None]
# One for each way of streaming, for tests that do not depend on the network.
ONE_EACH = [
    "BasicVSR",
    "IconVSR",
    "EDVR",
    "RealBasicVSR",
    "BasicVSRPP",
    "AnimeSR",
    "VRT deblur",
    "VRT interpolate",
]


def network(name: str) -> nn.Module:
    """The network, its flows and offsets large enough to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = NETWORKS[name].make()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "spynet" in key and ".8." in key:
                parameter.mul_(20)
            elif "conv_offset" in key:
                parameter.mul_(4)
    return model.eval().requires_grad_(False)


def checkpoint(name: str, folder: Path) -> Path:
    """The network of this name in a file, made once a folder."""
    path = folder / f"{name.replace(' ', '_')}.pth"
    if not path.exists():
        torch.save(network(name).state_dict(), path)
    return path


# What the authors' configurations say about each file: sizes that the loader must find by itself.
_EDVR: dict[str, dict[str, Any]] = {
    "reds4": {"channels": 128, "reconstruction_blocks": 40},
    "reds4-m": {},
    "vimeo90k": {"channels": 128, "frames": 7, "reconstruction_blocks": 40},
    "srblur": {"channels": 128, "reconstruction_blocks": 40, "predeblur": True},
    "deblur": {"channels": 128, "reconstruction_blocks": 40, "predeblur": True, "hr_in": True},
    "stage2": {"channels": 128, "reconstruction_blocks": 20, "predeblur": True, "hr_in": True},
    "sr-stage2": {"channels": 128, "reconstruction_blocks": 20, "hr_in": True},
}
_VRT: dict[str, dict[str, Any]] = {
    "reds-6frames": {**VRT_UPSCALE, "groups": 12},
    "reds-16frames": {**VRT_UPSCALE, "window": (8, 8, 8), "pa_frames": 6, "groups": 24},
    "vimeo90k": {**VRT_UPSCALE, "window": (8, 8, 8), "pa_frames": 4, "groups": 16},
    "deblur": VRT_RESTORE,
    "denoise": {**VRT_RESTORE, "denoising": True},
    "interpolation": {**VRT_RESTORE, "window": (4, 8, 8), "pa_frames": 0, "independent": []},
}


def _starting(table: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """The entry with the longest key that `name` starts with."""
    return table[max((key for key in table if name.startswith(key)), key=len)]


def published(row: Row) -> nn.Module:
    """The network of a row, built to its authors' configuration."""
    name = row.name
    if row.filter == "EDVR":
        name = "stage2" if name.endswith("blur-stage2") or "comp-stage2" in name else name
        name = "reds4-m" if name.startswith("reds4-m-w") else name
        name = "reds4" if name in ("reds4-mmagic", "reds4-wotsa-mmagic") else name
        return EDVR(**_starting(_EDVR, name), tsa="wotsa" not in row.name)
    if row.filter == "VRT":
        return VRT(**_starting(_VRT, name))
    if row.filter == "BasicVSRPP":
        big = name.startswith("ntire")
        restores = name.startswith(("ntire-decompress", "deblur", "denoise"))
        blocks = 25 if big else 15 if restores else 7
        return BasicVSRPP(128 if big else 64, blocks, low_res=not restores)
    frames = 7 if name.startswith("vimeo90k") else 5
    makes: dict[str, Callable[[], nn.Module]] = {
        "BasicVSR": BasicVSR,
        "IconVSR": lambda: IconVSR(temporal_padding=frames // 2),
        "RealBasicVSR": RealBasicVSR,
        "EDVRFeatures": lambda: EDVRFeatures(frames=frames),
        "SPyNet": SPyNet,
        "AnimeSR": AnimeSR,
    }
    return makes[row.filter]()


def layout(row: Row) -> Callable[[State], State]:
    """The names that the file of a row has."""
    if row.filter in ("VRT", "AnimeSR"):
        return dict
    if row.page and row.filter == "EDVR":
        return old_edvr
    return mmagic if row.licence.endswith(("mmagic)", "VSR)", "PlusPlus)")) else basicsr
