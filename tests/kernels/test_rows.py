"""The rows that measure the kernels on a GPU: each really takes its kernel."""

from functools import partial
from pathlib import Path
from typing import Any

import processor
import pytest
import torch

from vs_vsr.bench.gpu import cases as gpu_cases
from vs_vsr.bench.gpu.cases import KERNEL, cases
from vs_vsr.bench.gpu.right import errors
from vs_vsr.bench.gpu.setting import Setting
from vs_vsr.bench.gpu.timing import poisoned
from vs_vsr.kernels import deform, planes, selection, warps


def test_the_rows_of_kernels_take_the_kernels_that_are_off_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With kernels that run on a processor, and one of them wrong."""
    launched: list[str] = []

    def launch(name: str, types: Any, threads: Any, tensors: Any, numbers: Any) -> None:
        launched.append(name)
        processor.launch(name, types, threads, tensors, numbers)

    for module in (deform, planes, warps):
        monkeypatch.setattr(module, "launch", launch)
    monkeypatch.setattr(selection, "_missing", lambda device: "")
    # As on a GPU, where only the type of the device is another.
    monkeypatch.setattr(Setting, "is_cuda", True)

    def enabled(name: str, device: torch.device) -> bool:
        return selection_enabled(name, torch.device("cuda", 0))

    selection_enabled = selection.enabled
    for module in (deform, planes, warps, gpu_cases):
        monkeypatch.setattr(module, "enabled", enabled)
    monkeypatch.setenv("VSR_KERNELS", "none")
    here = Setting("cpu", True, tmp_path, "")
    for case in cases(here):
        if not case.kernel:
            continue
        launched.clear()
        row = errors(here, case, 7, 9)
        assert row["right"] is True, row
        assert set(launched) == {case.kernel}
        assert row["kernel_name"] == case.kernel and isinstance(row[KERNEL], float)
        # A kernel that is on leaves the plain form plain.
        monkeypatch.setenv("VSR_KERNELS", "all")
        launched.clear()
        poisoned(partial(case.plain, *case.on_device(here, case.inputs(7, 9))))
        assert not launched
        monkeypatch.setenv("VSR_KERNELS", "none")
    monkeypatch.setattr(warps, "launch", lambda *call: call[3][-1].fill_(0))
    warped = next(case for case in cases(here) if case.kernel == "warp")
    assert errors(here, warped, 7, 9)["wrong"] == [KERNEL]
