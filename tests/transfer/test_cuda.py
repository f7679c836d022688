"""The runtime of a GPU, as far as it can be seen without one."""

import threading
import time

import pytest
import torch

from vs_vsr.transfer import cuda


def test_filters_that_are_made_at_once_share_one_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        def __init__(self, device: torch.device) -> None:
            time.sleep(0.05)

    monkeypatch.setattr(cuda, "CudaRuntime", Slow)
    cuda._made.cache_clear()
    found: list[object] = []
    device = torch.device("cuda", 7)
    threads = [
        threading.Thread(target=lambda: found.append(cuda.runtime(device))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    cuda._made.cache_clear()
    assert len(found) == 8 and len(set(map(id, found))) == 1
