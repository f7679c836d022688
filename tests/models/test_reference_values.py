"""Numbers that the authors' own code gave for weights and frames made by formula.

BasicSR 8d56e3a (BasicVSR++, IconVSR, EDVR), EDVR's branch old_version (its second stages) and VRT
94a5f50 with its test script were run in float64 on a CPU, their deformable convolutions through
torchvision; `formula.digest` of what came out stands below.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from formula import digest, fill, frames
from torch import Tensor, nn

from vs_vsr.models.basicvsrpp import BasicVSRPP
from vs_vsr.models.edvr import EDVR
from vs_vsr.models.iconvsr import IconVSR
from vs_vsr.models.vrt import VRT

pytestmark = pytest.mark.slow

Case = tuple[Callable[[], nn.Module], tuple[int, int, int], Callable[[Any, Tensor], Tensor]]


def vrt(**options: Any) -> Callable[[], nn.Module]:
    sizes: dict[str, Any] = {
        "upscale": 1,
        "depths": [4, *[2] * 8],
        "widths": [12] * 7 + [18] * 2,
        "heads": [3] * 9,
        "independent": [8],
        "groups": 4,
    }
    return lambda: VRT(**{**sizes, **options})


def whole(model: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = model(x)
    return out


def window(model: EDVR, x: Tensor) -> Tensor:
    return model.window(x)


CASES: dict[str, Case] = {
    "BasicVSRPP": (lambda: BasicVSRPP(16, 2), (4, 64, 70), whole),
    "BasicVSRPP restore": (lambda: BasicVSRPP(16, 1, low_res=False), (3, 256, 260), whole),
    "IconVSR": (lambda: IconVSR(16, 1, 3, keyframe_stride=3), (8, 64, 66), whole),
    "EDVR without TSA": (lambda: EDVR(16, 7, 1, 2, tsa=False), (7, 64, 64), window),
    "EDVR predeblur": (lambda: EDVR(16, 5, 1, 2, predeblur=True), (5, 64, 64), window),
    "EDVR stage 2": (lambda: EDVR(16, 5, 1, 2, hr_in=True), (5, 64, 64), window),
    "EDVR stage 2 predeblur": (
        lambda: EDVR(16, 5, 1, 2, predeblur=True, hr_in=True),
        (5, 64, 64),
        window,
    ),
    "VRT pa 2": (vrt(upscale=4), (3, 64, 64), whole),
    "VRT pa 4": (vrt(window=(8, 8, 8), pa_frames=4), (4, 64, 72), whole),
    "VRT pa 6": (vrt(window=(8, 8, 8), pa_frames=6, groups=6), (4, 64, 64), whole),
    "VRT denoise": (vrt(denoising=True), (3, 64, 64), lambda model, x: model(x, sigma=25)),
    "VRT interpolate": (vrt(window=(4, 8, 8), pa_frames=0, independent=()), (4, 64, 64), whole),
    "VRT tiled": (
        vrt(),
        (3, 72, 64),
        lambda model, x: model.tiled(x, tile=(2, 64, 64), overlap=(1, 21, 21)),
    ),
}

WANT = {
    "BasicVSRPP": [0.54447, 0.15288, 0.62868, 0.85007, 0.50933, 0.39313, 0.41784],
    "BasicVSRPP restore": [0.54418, 0.16173, 0.62898, 0.48286, 0.71685, 0.23011, 0.65376],
    "IconVSR": [0.54429, 0.15341, 0.62967, 0.8511, 0.43123, 0.48759, 0.67373],
    "EDVR without TSA": [0.54226, 0.15326, 0.77991, 0.5491, 0.62966, 0.58216, 0.69139],
    "EDVR predeblur": [0.54352, 0.15261, 0.85114, 0.49584, 0.39245, 0.71351, 0.63507],
    "EDVR stage 2": [0.5434, 0.16121, 0.85114, 0.5343, 0.81324, 0.45138, 0.63507],
    "EDVR stage 2 predeblur": [0.5434, 0.16121, 0.85113, 0.5343, 0.81325, 0.45139, 0.63507],
    "VRT pa 2": [0.54765, 0.15391, 0.60841, 0.30836, 0.58125, 0.72648, 0.62058],
    "VRT pa 4": [0.66626, 0.2762, 0.48596, 0.68062, 1.19887, 1.28938, 0.3221],
    "VRT pa 6": [0.66386, 0.26525, 0.50618, 0.64616, 0.8685, 0.87167, 0.67548],
    "VRT denoise": [0.72664, 0.26653, 0.49769, 1.20486, 0.65969, 0.96325, 0.98064],
    "VRT interpolate": [0.58133, 0.12564, 0.60055, 0.68753, 0.7059, 0.54019, 0.46419],
    "VRT tiled": [0.60076, 0.2035, 0.45599, 0.82699, 0.45127, 0.5409, 0.62306],
}


@pytest.mark.parametrize("name", CASES)
def test_what_the_authors_code_gives(name: str) -> None:
    build, size, run = CASES[name]
    got = torch.tensor(digest(run(fill(build()), frames(*size))))
    torch.testing.assert_close(got, torch.tensor(WANT[name]), atol=2e-4, rtol=0)
