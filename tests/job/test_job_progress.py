"""How far a part is: what networks compute is counted, and times and sizes read well."""

import pytest
import torch
from conftest import drifting, small_network

from vs_vsr.cli.display import duration, size
from vs_vsr.job.progress import WorkMeter, memory_in_use


def test_a_layer_counts_with_its_multiplications() -> None:
    layer = torch.nn.Conv2d(3, 8, 3, padding=1)
    meter = WorkMeter()
    layer(torch.zeros(1, 3, 5, 7))
    with meter.counting():
        layer(torch.zeros(1, 3, 5, 7))
    layer(torch.zeros(1, 3, 5, 7))
    assert meter.done == 5 * 7 * 8 * 3 * 9


def test_layers_whose_weights_a_block_uses_itself_count_too() -> None:
    network = small_network(8, 3)
    frames = torch.stack([frame[0] for frame in drifting(3, 48, 64)])[None]
    meter = WorkMeter()
    with meter.counting():
        network(frames)
        once = meter.done
        network(frames)
    # The residual blocks alone: two branches of three, two convolutions each, three frames.
    blocks = 2 * 3 * 2 * 3 * (48 * 64 * 8 * 8 * 9)
    assert once > blocks
    assert meter.done == 2 * once


def test_memory_is_that_of_a_process_with_torch() -> None:
    assert 1e8 < memory_in_use() < 1e11


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (200000, "2 d 7 h")],
)
def test_a_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12 B"), (1234, "1.2 kB"), (3.4e8, "340 MB"), (2.5e9, "2.5 GB")]
)
def test_a_size(count: float, text: str) -> None:
    assert size(count) == text
