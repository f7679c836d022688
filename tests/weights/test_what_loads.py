"""Every row of the registry loads: what makes the table of the README.

Set VSR_WRITE_README=1 to write the table anew.
"""

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lineages import State, basicsr, mmagic, old_edvr
from torch import nn

from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.basicvsrpp import BasicVSRPP
from vs_vsr.models.edvr import EDVR
from vs_vsr.models.edvr_features import EDVRFeatures
from vs_vsr.models.iconvsr import IconVSR
from vs_vsr.models.realbasicvsr import RealBasicVSR
from vs_vsr.models.spynet import SPyNet
from vs_vsr.models.vrt import VRT
from vs_vsr.weights import store
from vs_vsr.weights.detect import build, read
from vs_vsr.weights.registry import ROWS, Row

README = Path(__file__).resolve().parents[2] / "README.md"

# What the authors' configurations say of each file: sizes the loader has to find by itself.
_EDVR: dict[str, dict[str, Any]] = {
    "reds4": {"channels": 128, "reconstruction_blocks": 40},
    "reds4-m": {},
    "vimeo90k": {"channels": 128, "frames": 7, "reconstruction_blocks": 40},
    "srblur": {"channels": 128, "reconstruction_blocks": 40, "predeblur": True},
    "deblur": {"channels": 128, "reconstruction_blocks": 40, "predeblur": True, "hr_in": True},
    "stage2": {"channels": 128, "reconstruction_blocks": 20, "predeblur": True, "hr_in": True},
    "sr-stage2": {"channels": 128, "reconstruction_blocks": 20, "hr_in": True},
}
_RESTORE: dict[str, Any] = {
    "upscale": 1,
    "depths": [8] * 7 + [4] * 4,
    "widths": [96] * 7 + [120] * 4,
    "heads": [6] * 11,
    "independent": [9, 10],
    "groups": 16,
}
_UPSCALE: dict[str, Any] = {
    "depths": [8] * 7 + [4] * 6,
    "widths": [120] * 7 + [180] * 6,
    "heads": [6] * 13,
    "independent": [11, 12],
}
_VRT: dict[str, dict[str, Any]] = {
    "reds-6frames": {**_UPSCALE, "groups": 12},
    "reds-16frames": {**_UPSCALE, "window": (8, 8, 8), "pa_frames": 6, "groups": 24},
    "vimeo90k": {**_UPSCALE, "window": (8, 8, 8), "pa_frames": 4, "groups": 16},
    "deblur": _RESTORE,
    "denoise": {**_RESTORE, "denoising": True},
    "interpolation": {**_RESTORE, "window": (4, 8, 8), "pa_frames": 0, "independent": []},
}


def starting(table: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """The entry whose key `name` starts with; the longest."""
    return table[max((key for key in table if name.startswith(key)), key=len)]


def published(row: Row) -> nn.Module:
    """The network of a row, built to its authors' configuration."""
    name = row.name
    if row.model == "EDVR":
        name = "stage2" if name.endswith("blur-stage2") or "comp-stage2" in name else name
        name = "reds4-m" if name.startswith("reds4-m-w") else name
        name = "reds4" if name in ("reds4-mmagic", "reds4-wotsa-mmagic") else name
        return EDVR(**starting(_EDVR, name), tsa="wotsa" not in row.name)
    if row.model == "VRT":
        return VRT(**starting(_VRT, name))
    if row.model == "BasicVSRPP":
        big = name.startswith("ntire")
        restores = name.startswith(("ntire-decompress", "deblur", "denoise"))
        blocks = 25 if big else 15 if restores else 7
        return BasicVSRPP(128 if big else 64, blocks, low_res=not restores)
    frames = 7 if name.startswith("vimeo90k") else 5
    small: dict[str, Callable[[], nn.Module]] = {
        "BasicVSR": BasicVSR,
        "IconVSR": lambda: IconVSR(temporal_padding=frames // 2),
        "RealBasicVSR": RealBasicVSR,
        "EDVRFeatures": lambda: EDVRFeatures(frames=frames),
        "SPyNet": SPyNet,
    }
    return small[row.model]()


def layout(row: Row) -> Callable[[State], State]:
    """The names the file of a row has."""
    if row.model == "VRT":
        return dict
    if row.page and row.model == "EDVR":
        return old_edvr
    return mmagic if row.licence.endswith(("mmagic)", "VSR)", "PlusPlus)")) else basicsr


def loaded(row: Row) -> tuple[nn.Module, str]:
    """What loads for a row: its file where it is on this machine, else tensors like it has."""
    path = store.present(row) if row.sha256 else None
    with torch.device("meta"):
        if path is not None:
            return build(read(path), path, row.model), "the file"
        state = layout(row)(published(row).state_dict())
        return build(state, Path(row.file), row.model), "its layout"


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.full_name)
def test_every_row_loads_as_its_authors_built_it(row: Row) -> None:
    with torch.device("meta"):
        want = published(row)
    got, _ = loaded(row)
    assert type(got) is type(want)
    shapes = {key: value.shape for key, value in want.state_dict().items()}
    assert {key: value.shape for key, value in got.state_dict().items()} == shapes
    assert getattr(got, "scale", 1) == (1 if row.model == "SPyNet" else row.scale) or isinstance(
        got, EDVRFeatures
    )


def table() -> str:
    lines = [
        "| filter | `weights` | what for | trained on | parameters | licence | seen to load |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        network, what = loaded(row)
        millions = sum(p.numel() for p in network.parameters()) / 1e6
        carried = row.carried_by is not None
        task = f"{row.task} x{row.scale}" if row.scale > 1 else row.task
        what_for = ", ".join(part for part in (task, row.degradation) if part)
        licence = re.sub(r" \(.*", "", row.licence)
        lines.append(
            f"| {row.model} | `{row.name}` | {what_for} | {row.trained_on} "
            f"| {millions:.2f} M | {licence} | {'the file' if carried else what} |"
        )
    return "\n".join(lines)


def test_the_table_in_the_readme_is_what_loads() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = table()
    text = README.read_text()
    start = "<!-- what loads: made by tests/weights/test_what_loads.py -->\n"
    end = "\n<!-- end -->"
    before, rest = text.split(start)
    there, after = rest.split(end)
    if os.environ.get("VSR_WRITE_README"):
        README.write_text(before + start + made + end + after)
        there = made
    assert there == made, "run the test with VSR_WRITE_README=1 and look at what changed"
