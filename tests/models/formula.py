"""Weights and frames by formula: the same wherever they are made, whatever a random state is."""

import zlib

import torch
from torch import Tensor, nn


def noise(count: int, phase: float) -> Tensor:
    """Numbers in [0, 1) without order, from the sine of large arguments, float64."""
    i = torch.arange(count, dtype=torch.float64)
    return (torch.sin(i * 12.9898 + phase) * 43758.5453) % 1


def weight(name: str, shape: torch.Size) -> Tensor:
    """The tensor of this name in a network whose features and flows stay alive."""
    values = noise(shape.numel(), 1000 * zlib.crc32(name.encode()) / 2**32).view(shape)
    if len(shape) > 1 or name.endswith("bias_table"):
        gain = 3.0 if "spynet" in name and ".8." in name else 2.0 if "conv_offset" in name else 1.0
        inputs = max(1, shape[1:].numel()) if not name.endswith("bias_table") else 8
        values = (2 * values - 1) * gain * inputs**-0.5
    elif name.endswith("bias"):
        values = 0.1 * values - 0.05
    else:
        values = 0.8 + 0.4 * values
    return values.float()


def fill(model: nn.Module) -> nn.Module:
    """Give each parameter the values of its published (BasicSR's) name."""
    state = model.state_dict()
    for name, parameter in model.named_parameters():
        values = weight(name.replace("upsampler.", ""), parameter.shape)
        state[name] = values.view(state[name].shape)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def frames(count: int, height: int, width: int) -> Tensor:
    """A texture that drifts, and some noise; (1, T, 3, H, W)."""
    t = torch.arange(count, dtype=torch.float64).view(-1, 1, 1, 1)
    c = torch.arange(3, dtype=torch.float64).view(1, -1, 1, 1)
    y = torch.arange(height, dtype=torch.float64).view(1, 1, -1, 1)
    x = torch.arange(width, dtype=torch.float64)
    picture = torch.sin(0.37 * (x + 1.7 * t) + c) * torch.cos(0.29 * (y - 0.9 * t))
    grain = noise(picture.numel(), 0.5).view_as(picture)
    return (0.45 + 0.3 * picture + 0.2 * grain).float()[None]


def digest(pictures: Tensor) -> list[float]:
    """Mean, spread, and five pixels from the first to the last of a result."""
    flat = pictures.double().flatten()
    spots = [int(share * (len(flat) - 1)) for share in (0.0, 0.21, 0.47, 0.73, 1.0)]
    numbers = [flat.mean(), flat.std(), *flat[spots]]
    return [round(float(n), 5) for n in numbers]
