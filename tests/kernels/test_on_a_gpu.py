"""What only a GPU shows: CUDA graphs, and torch's other streams."""

from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from vs_vsr.kernels import deform, planes, warps

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or find_spec("cupy") is None,
    reason="no CUDA device with CuPy, which graphs and streams need",
)


def kernels() -> dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """An input for each kernel, and what it makes of it."""
    gpu = torch.device("cuda", 0)
    flow = 3 * torch.randn(2, 2, 30, 40, device=gpu)
    offsets, mask = torch.randn(2, 36, 30, 40, device=gpu), torch.rand(2, 18, 30, 40, device=gpu)
    weight = torch.randn(24, 16, 3, 3, device=gpu).half()
    weight = weight.contiguous(memory_format=torch.channels_last)
    bias = torch.randn(24, device=gpu).half()
    features = torch.randn(2, 16, 30, 40, device=gpu).half()
    features = features.contiguous(memory_format=torch.channels_last)
    frames = torch.rand(2, 3, 30, 40, device=gpu)

    def unpacked(x: Tensor) -> Tensor:
        out = torch.empty_like(x[:1])
        planes.unpack(list(x[0]), out, None)
        return out

    def packed(x: Tensor) -> Tensor:
        out = torch.empty(3, 30, 40, dtype=torch.uint8, device=x.device)
        planes.pack(list(x[0]), list(out), 255)
        return out

    return {
        "warp": (features, lambda x: warps.warp(x, flow, padding="zeros")),
        "spynet": (frames, lambda x: warps.join(x, x, flow, torch.float16)),
        "deform": (features, lambda x: deform.deform(x, offsets, mask, weight, bias, 2)),
        "unpack": (frames, unpacked),
        "pack": (frames, packed),
    }


@pytest.fixture(params=["deform", "pack", "spynet", "unpack", "warp"])
def kernel(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    monkeypatch.setenv("VSR_KERNELS", "all")
    return kernels()[request.param]


def test_in_a_graph(kernel: tuple[Tensor, Callable[[Tensor], Tensor]]) -> None:
    x, run = kernel
    run(x)  # compiles and loads
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run(x)
    for _ in range(2):
        x.copy_(torch.rand_like(x))
        out.zero_()
        graph.replay()
        assert torch.equal(out, run(x))


def test_on_a_stream_of_torch(kernel: tuple[Tensor, Callable[[Tensor], Tensor]]) -> None:
    x, run = kernel
    want = run(x)
    late = torch.zeros_like(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # The kernel must wait for this on its stream, without being told.
        torch.cuda._sleep(10_000_000)
        late.copy_(x)
        got = run(late)
    stream.synchronize()
    assert torch.equal(got, want)
