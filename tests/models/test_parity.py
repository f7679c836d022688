"""Equal to the reference networks: dumped runs of theirs on seeded weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vs_vsr import load_model
from vs_vsr.plugin.plans import FILTERS

pytestmark = pytest.mark.slow

# Classes of the references that are not named as the filters are.
NAMES = {"MSRSWVSR": "AnimeSR"}
# What no file holds, as the references' constructors call it.
OPTIONS = {
    "keyframe_stride": "keyframe_stride",
    "dynamic_refine_thres": "refine_threshold",
    "max_residue_magnitude": "max_residue_magnitude",
}


def run(meta: dict[str, Any], checkpoint: Path, x: Tensor) -> Tensor:
    given = {o: meta["constructor"][c] for c, o in OPTIONS.items() if c in meta["constructor"]}
    model: Any = load_model(checkpoint, **given)
    if meta["reference_class"].startswith("EDVR"):
        out: Tensor = model.window(x)
    elif "tile" in meta["options"]:
        options = meta["options"]
        out = model.tiled(x, tile=options["tile"], overlap=options["tile_overlap"])
    else:
        out = model(x)
    return out


def test_every_case(shared: Path) -> None:
    found = sorted((shared / "parity").glob("*/meta.json"))
    for meta_file in found:
        meta = json.loads(meta_file.read_text())
        name = NAMES.get(meta["reference_class"], meta["reference_class"])
        if not name.startswith(tuple(FILTERS)):
            continue  # a network that vs_vsr does not have
        with np.load(meta_file.with_name("io.npz")) as dump:
            x, want = torch.from_numpy(dump["input"]), dump["output"]
        got = run(meta, meta_file.with_name("checkpoint.pth"), x).numpy()
        limit = max(1e-4, 4 * meta["float32_error"]["max"])
        assert got.shape == want.shape, meta["name"]
        error = np.abs(got - want).max()
        assert error <= limit, f"{meta['name']}: off by {error:.2e}, limit {limit:.2e}"
    assert found, "the folder exists, but has no case in it"
