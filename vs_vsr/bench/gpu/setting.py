"""What a visit measures with: the device, the sizes, the network and its weights."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vs_vsr.devices import default_dtype, prepare
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.weights.loader import load_model

__all__ = ["Setting", "drifting", "own_kernels"]

_SWITCH = "VSR_KERNELS"


@dataclass(frozen=True)
class Setting:
    """The same for all stages of a visit."""

    device: str
    """ "cuda:N" or "cpu"."""
    quick: bool
    """Tiny sizes and a tiny network: to see that everything runs, not to measure."""
    folder: Path
    """Where results go."""
    weights: str
    """A published name or a file of BasicVSR, for the filter and for the network."""
    vid4: tuple[Path, Path, float] | None = None
    """Folders of a clip's small and true frames, and its PSNR in float32 on a processor, in dB."""

    @property
    def torch_device(self) -> torch.device:
        """The device as torch names it."""
        return torch.device(self.device)

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.torch_device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """What the filters compute in there by default."""
        return default_dtype(self.torch_device)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of the clips; the first one is that of most stages."""
        if self.quick:
            return [(40, 24), (48, 32), (56, 32)]
        return [(320, 180), (854, 480), (960, 540)]

    def small_or(self, full: int, small: int) -> int:
        """A count or a length: `small` if the visit is quick."""
        return small if self.quick else full

    def network(self, dtype: torch.dtype | None = None) -> BasicVSR:
        """BasicVSR with the weights of the visit, on the device, as the filter builds it.

        Args:
            dtype: Of its weights and features; None is that of the visit.
        """
        prepare(self.torch_device)
        network = load_model(self.weights, model=BasicVSR).to(self.torch_device)
        for parameter in network.parameters():
            parameter.data = parameter.data.to(dtype or self.dtype)
        return network

    def random(self, *shape: int, seed: int = 0) -> Tensor:
        """Seeded normal numbers in the dtype of the visit, on the device; 4D is channels_last."""
        device = self.torch_device
        generator = torch.Generator(device).manual_seed(seed)
        x = torch.randn(shape, generator=generator, device=device).to(self.dtype)
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

    def frames(self, count: int, size: tuple[int, int] | None = None) -> list[Tensor]:
        """Frames on the device, each (1, 3, H, W), float32, of a texture that moves."""
        width, height = size or self.sizes[0]
        return [x.to(self.torch_device) for x in drifting(count, height, width)]


@contextmanager
def own_kernels(names: str) -> Iterator[None]:
    """Turn on these of the package's kernels and no others, in the whole process.

    Args:
        names: As in VSR_KERNELS: by name, "all" or "none".
    """
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = names
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SWITCH]
        else:
            os.environ[_SWITCH] = before


def drifting(count: int, height: int, width: int) -> list[Tensor]:
    """A random texture that moves by two pixels a frame, there and back: no black, no scene cut.

    Returns:
        `count` frames, each (1, 3, H, W), float32, [0, 1].
    """
    generator = torch.Generator().manual_seed(0)
    small: Any = torch.rand(1, 3, height // 6 + 12, width // 6 + 12, generator=generator)
    big = torch.nn.functional.interpolate(small, scale_factor=6, mode="bicubic").clamp(0, 1)
    steps = [abs((i + 24) % 48 - 24) for i in range(count)]
    return [big[..., i : i + height, 2 * i : 2 * i + width].contiguous() for i in steps]
