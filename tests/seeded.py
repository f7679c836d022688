"""A small network with seeded weights for each filter, as a checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.basicvsrpp import BasicVSRPP
from vs_vsr.models.edvr import EDVR
from vs_vsr.models.iconvsr import IconVSR
from vs_vsr.models.realbasicvsr import RealBasicVSR
from vs_vsr.models.vrt import VRT


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


# What is tested, by name: its filter, its network, and the filter's arguments.
NETWORKS: dict[str, tuple[str, Callable[[], nn.Module], dict[str, Any]]] = {
    "BasicVSR": ("BasicVSR", lambda: BasicVSR(8, 1), {}),
    "IconVSR": ("IconVSR", lambda: IconVSR(8, 1, extraction_blocks=1), {}),
    "IconVSR Vimeo": ("IconVSR", lambda: IconVSR(8, 1, 3, extraction_blocks=1), {"keyframe": 3}),
    "EDVR": ("EDVR", lambda: EDVR(8, 5, 1, 1), {}),
    "EDVR deblur": ("EDVR", lambda: EDVR(8, 5, 1, 1, predeblur=True, hr_in=True), {}),
    "RealBasicVSR": ("RealBasicVSR", lambda: RealBasicVSR(8, 1, 1), {}),
    "BasicVSRPP": ("BasicVSRPP", lambda: BasicVSRPP(16, 1, end_blocks=1), {}),
    "BasicVSRPP restore": ("BasicVSRPP", lambda: BasicVSRPP(16, 1, low_res=False), {}),
    "VRT x4": ("VRT", lambda: vrt(upscale=4), {}),
    "VRT deblur": ("VRT", vrt, {}),
    "VRT denoise": ("VRT", lambda: vrt(denoising=True), {"sigma": 20}),
    "VRT interpolate": (
        "VRT",
        lambda: vrt(window=(4, 8, 8), pa_frames=0, independent=()),
        {},
    ),
}


def network(name: str) -> nn.Module:
    """The network, its flows and offsets large enough to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = NETWORKS[name][1]()
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
