"""Equal to the reference networks: dumped runs of theirs on seeded weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vs_vsr import load_model

# What no file holds, as the references' constructors call it.
OPTIONS = {
    "keyframe_stride": "keyframe_stride",
    "dynamic_refine_thres": "refine_threshold",
    "max_residue_magnitude": "max_residue_magnitude",
}


NETWORKS = ("BasicVSR", "IconVSR", "EDVR", "RealBasicVSR", "BasicVSRPP", "VRT")


def run(meta: dict[str, Any], checkpoint: Path, x: Tensor) -> Tensor:
    given = {o: meta["constructor"][c] for c, o in OPTIONS.items() if c in meta["constructor"]}
    model = load_model(checkpoint, **given)
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
        if not meta["reference_class"].startswith(NETWORKS):
            continue  # of a network that is not here
        with np.load(meta_file.with_name("io.npz")) as dump:
            x, want = torch.from_numpy(dump["input"]), dump["output"]
        got = run(meta, meta_file.with_name("checkpoint.pth"), x).numpy()
        limit = max(1e-4, 4 * meta["float32_error"]["max"])
        assert got.shape == want.shape, meta["name"]
        error = np.abs(got - want).max()
        assert error <= limit, f"{meta['name']}: off by {error:.2e}, limit {limit:.2e}"
    assert found, "there is the folder, but no case in it"


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("size", [(9, 5), (33, 64), (50, 78)])
def test_any_size_and_length(frames: int, size: tuple[int, int]) -> None:
    from conftest import small_network

    x = torch.rand(2, frames, 3, *size)
    y = small_network()(x)
    assert y.shape == (2, frames, 3, 4 * size[0], 4 * size[1])
    torch.testing.assert_close(small_network()(x[1:]), y[1:], atol=1e-5, rtol=0)
