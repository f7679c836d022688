"""Which kernels are on, and how they are launched: with a CuPy that only writes down."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vs_vsr.errors import ArgumentError
from vs_vsr.kernels import launch as launching
from vs_vsr.kernels import selection

CUDA = torch.device("cuda", 1)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    caches = (launching._kernel, launching._for_cupy, selection._missing)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def capable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(__version__="14.0.0"))
    monkeypatch.setattr(torch.cuda.Stream, "__cuda_stream__", None, raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.delenv("VSR_KERNELS", raising=False)


@pytest.mark.usefixtures("capable")
def test_no_kernel_is_on_that_was_not_measured() -> None:
    assert not selection.MEASURED_FASTER
    assert not any(selection.enabled(name, CUDA) for name in selection.KERNELS)
    assert selection.describe(CUDA) == "none"


@pytest.mark.usefixtures("capable")
@pytest.mark.parametrize(
    ("switch", "on"),
    [
        ("all", {"deform", "pack", "spynet", "unpack", "warp"}),
        ("none", set()),
        ("", set()),
        ("warp", {"warp"}),
        ("warp, pack", {"pack", "warp"}),
    ],
)
def test_the_switch(monkeypatch: pytest.MonkeyPatch, switch: str, on: set[str]) -> None:
    monkeypatch.setenv("VSR_KERNELS", switch)
    assert {name for name in selection.KERNELS if selection.enabled(name, CUDA)} == on
    assert selection.describe(CUDA) == (", ".join(sorted(on)) or "none")
    for elsewhere in ("cpu", "meta"):
        assert not any(selection.enabled(name, torch.device(elsewhere)) for name in on)
    # There is no derivative.
    with torch.inference_mode(False), torch.enable_grad():
        assert not any(selection.enabled(name, CUDA) for name in on)


@pytest.mark.usefixtures("capable")
@pytest.mark.parametrize("switch", ["wrap", "warp,all", "warp;pack"])
def test_a_name_that_does_not_exist(monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    monkeypatch.setenv("VSR_KERNELS", switch)
    with pytest.raises(ArgumentError) as caught:
        selection.enabled("warp", CUDA)
    assert str(caught.value) == (
        'vs_vsr: VSR_KERNELS must be "all", "none" or some of "deform,pack,spynet,unpack,warp", '
        f'got "{switch}". Unset it for the default.'
    )


@pytest.mark.usefixtures("capable")
@pytest.mark.parametrize(
    ("what", "name", "value", "reason"),
    [
        (torch.version, "cuda", None, "torch is not built for CUDA"),
        (
            selection,
            "find_spec",
            lambda name: None,
            'CuPy is not installed: pip install "vs-vsr[cuda13]"',
        ),
        (
            sys.modules,
            "cupy",
            SimpleNamespace(__version__="13.6.0"),
            f"they need CuPy 14 and torch 2.10, got 13.6.0 and {torch.__version__}",
        ),
        (
            sys.modules,
            "cupy",
            None,
            "CuPy cannot be imported: import of cupy halted; None in sys.modules",
        ),
        (
            torch.cuda,
            "Stream",
            object,
            f"they need CuPy 14 and torch 2.10, got 14.0.0 and {torch.__version__}",
        ),
        (
            torch.cuda,
            "get_device_capability",
            lambda device: (7, 0),
            "it is older than compute capability 7.5",
        ),
    ],
)
def test_where_kernels_cannot_run_the_plain_form_does(
    monkeypatch: pytest.MonkeyPatch, what: object, name: str, value: object, reason: str
) -> None:
    monkeypatch.setenv("VSR_KERNELS", "all")
    if what is sys.modules:
        monkeypatch.setitem(sys.modules, name, value)
    else:
        monkeypatch.setattr(what, name, value)
    assert not any(selection.enabled(name, CUDA) for name in selection.KERNELS)
    assert selection.describe(CUDA) == f"none ({reason})"


class Recorder:
    """What launch asks of CuPy and of torch's current stream."""

    def __init__(self) -> None:
        self.kernels: list[tuple[str, tuple[str, ...]]] = []
        self.launches: list[tuple[Any, ...]] = []
        self.around: list[object] = []
        self.cuda = SimpleNamespace(
            Device=lambda index: self.inside(("device", index)),
            Stream=SimpleNamespace(from_external=lambda stream: self.inside(("stream", stream))),
        )

    def inside(self, what: object) -> Any:
        @contextmanager
        def entered() -> Iterator[None]:
            self.around.append(what)
            yield
            self.around.remove(what)

        # CuPy's streams and devices are entered again and again.
        return SimpleNamespaceContext(entered)

    def RawKernel(self, code: str, name: str, options: tuple[str, ...]) -> Any:
        assert f"KERNEL {name}(" in code and "#include" not in code.replace("#include <", "")
        self.kernels.append((name, options))
        return lambda *call: self.launches.append((name, *call, tuple(self.around)))


class SimpleNamespaceContext:
    def __init__(self, make: Any) -> None:
        self.make = make

    def __enter__(self) -> None:
        self.entered = self.make()
        self.entered.__enter__()

    def __exit__(self, *error: object) -> None:
        self.entered.__exit__(*error)


class OnDevice(torch.Tensor):
    """A tensor that says it is on a GPU."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA


def test_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "cupy", recorder)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"current of {device}")
    x = torch.zeros(4).as_subclass(OnDevice)
    address = x.data_ptr()
    for threads, grid, block in (
        ((1, 2, 3), (1, 2, 3), (32,)),
        ((33, 1, 1), (1, 1, 1), (64,)),
        ((256, 1, 1), (1, 1, 1), (256,)),
        ((257, 7, 1), (2, 7, 1), (256,)),
    ):
        types = {"VALUE": torch.float16, "PLANE": torch.uint16}
        launching.launch("pack", types, threads, (x, None), (5, True))
        around = (("device", 1), ("stream", "current of cuda:1"))
        assert recorder.launches == [("pack", grid, block, (address, 0, 5, 1), around)]
        assert {type(argument) for argument in recorder.launches.pop()[3]} == {int}
    assert recorder.around == []
    # It was compiled once.
    assert recorder.kernels == [("pack", ("-DVALUE=half", "-DPLANE=uint16"))]


def test_threads_that_launch_at_once_share_what_wraps_their_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = Recorder()
    made = []

    def from_external(stream: object) -> Any:
        made.append(stream)
        time.sleep(0.05)
        return recorder.inside(("stream", stream))

    recorder.cuda.Stream.from_external = from_external
    monkeypatch.setitem(sys.modules, "cupy", recorder)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the current one")
    x = torch.zeros(4).as_subclass(OnDevice)

    def run() -> None:
        launching.launch(
            "pack", {"VALUE": torch.float16, "PLANE": torch.uint16}, (1, 1, 1), (x,), ()
        )

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # CuPy destroys the stream of one that is forgotten.
    assert made == ["the current one"]
    assert len(recorder.launches) == 8
