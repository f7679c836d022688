"""Clips on the GPU: their pictures, speed, copies and addresses, and what stays of a filter."""

from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from vs_vsr.bench.gpu import vapoursynth_clips as clips
from vs_vsr.bench.gpu.answers import compared, hashes, orders
from vs_vsr.bench.gpu.end_to_end import destroyed, long_run, made, profiled, steady
from vs_vsr.bench.gpu.record import Record
from vs_vsr.bench.gpu.setting import Setting
from vs_vsr.plugin import worker
from vs_vsr.transfer.vulkan import plane_tensor

__all__ = ["OF", "every_row", "measure"]

_FORMAT = "RGBH"
# After the names of rows that host clips have too.
OF = ", GPU clips"


def measure(setting: Setting, record: Record) -> None:
    """Check the pictures first, then measure; what may hang comes last."""
    if not setting.is_cuda:
        record.add("GPU clips", note="only on a GPU")
        return
    every_row(setting, record)


def every_row(setting: Setting, record: Record) -> None:
    """All rows of the stage."""
    first, *others = setting.sizes
    source = clips.uploaded(_FORMAT, first)
    with record.part(f"pictures{OF}"):
        _pictures(setting, record, source)
    _speed(setting, record, first, source, setting.small_or(90, 4))
    with record.part(f"copies{OF}"):
        profiled(setting, record, source, OF)
    with record.part(f"long run{OF}"):
        long_run(setting, record, source, OF)
    for size in others:
        with record.part(f"{size[0]}x{size[1]} GPU clip"):
            there = clips.uploaded(_FORMAT, size)
            _speed(setting, record, size, there, setting.small_or(42, 4))
    with record.part(f"destroyed mid-stream{OF}"):
        destroyed(setting, record, source, OF)


def _pictures(setting: Setting, record: Record, source: Any) -> None:
    """The bits of the host clip's pictures in every order; tensors lie at the core's addresses."""
    is_equal: list[bool] = []

    def counted(address: int, shape: tuple[int, int], stride: int, dtype: torch.dtype) -> Tensor:
        tensor = plane_tensor(address, shape, stride, dtype)
        is_equal.append(tensor.data_ptr() == address)
        return tensor

    count = setting.small_or(60, 12)
    want = hashes(setting, range(count), clips.source(_FORMAT, setting.sizes[0], count))
    with patch.object(worker, "plane_tensor", counted):
        for name, order in {"in order": range(count), **orders(count)}.items():
            with record.part(f"{name}{OF}"):
                record.add(f"{name}{OF}", **compared(want, hashes(setting, order, source)))
    record.add(f"addresses{OF}", planes=len(is_equal), equal=sum(is_equal))


def _speed(
    setting: Setting, record: Record, size: tuple[int, int], source: Any, count: int
) -> None:
    row = f"{size[0]}x{size[1]} GPU clip"
    if record.has(5, row):
        with record.part(row):
            chunk, filtered = made(setting, source)
            on_gpu = clips.is_gpu_clip(filtered)
            record.add(row, on_gpu=on_gpu, **steady(setting, filtered, chunk, count))
