"""Equal to the reference networks: dumped runs of theirs on seeded weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vs_vsr import load_model

CLASSES = ("BasicVSR", "BasicVSRNet")


def test_every_case_of_basicvsr(shared: Path) -> None:
    found = 0
    for meta_file in sorted((shared / "parity").glob("*/meta.json")):
        meta = json.loads(meta_file.read_text())
        if meta["reference_class"] not in CLASSES:
            continue
        found += 1
        with np.load(meta_file.with_name("io.npz")) as dump:
            x, want = torch.from_numpy(dump["input"]), dump["output"]
        got = load_model(meta_file.with_name("checkpoint.pth"))(x).numpy()
        limit = max(2e-4, 4 * meta["float32_error"]["max"])
        error = np.abs(got - want).max()
        assert error <= limit, f"{meta['name']}: off by {error:.2e}, limit {limit:.2e}"
    assert found, "there are cases, but none of BasicVSR"


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("size", [(9, 5), (33, 64), (50, 78)])
def test_any_size_and_length(frames: int, size: tuple[int, int]) -> None:
    from conftest import small_network

    x = torch.rand(2, frames, 3, *size)
    y = small_network()(x)
    assert y.shape == (2, frames, 3, 4 * size[0], 4 * size[1])
    torch.testing.assert_close(small_network()(x[1:]), y[1:], atol=1e-5, rtol=0)
