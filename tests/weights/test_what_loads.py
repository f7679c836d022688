"""Every row of the registry loads: what makes the table of docs/weights.md."""

import re
import warnings
from pathlib import Path

import pytest
import torch
from conftest import assert_made_table
from networks import layout, published
from torch import nn

from vs_vsr.models.edvr_features import EDVRFeatures
from vs_vsr.weights import store
from vs_vsr.weights.loader import build, read
from vs_vsr.weights.rows import ROWS, Row

PAGE = Path(__file__).resolve().parents[2] / "docs" / "weights.md"


def loaded(row: Row) -> tuple[nn.Module, str]:
    """What loads for a row: its file where it is on this machine, else tensors like it has."""
    path = store.local_file(row) if row.sha256 else None
    with torch.device("meta"):
        if path is not None:
            return build(read(path), path, row.filter), "the file"
        state = layout(row)(published(row).state_dict())
        return build(state, Path(row.file), row.filter), "its layout"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.full_name)
def test_every_row_loads_as_its_authors_built_it(row: Row) -> None:
    with torch.device("meta"):
        want = published(row)
    got, _ = loaded(row)
    assert type(got) is type(want)
    shapes = {key: value.shape for key, value in want.state_dict().items()}
    assert {key: value.shape for key, value in got.state_dict().items()} == shapes
    assert getattr(got, "scale", 1) == (1 if row.filter == "SPyNet" else row.scale) or isinstance(
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
            f"| {row.filter} | `{row.name}` | {what_for} | {row.trained_on} "
            f"| {millions:.2f} M | {licence} | {'the file' if carried else what} |"
        )
    return "\n".join(lines)


@pytest.mark.slow
def test_the_table_on_the_page_is_what_loads() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_made_table(
            PAGE, "<!-- what loads: made by tests/weights/test_what_loads.py -->", table()
        )
