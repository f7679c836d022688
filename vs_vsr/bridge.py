"""The Python half of the compiled plugin: structs, callbacks, and which filter a call belongs to.

It mirrors native/abi.h. The plugin imports this module when its first filter is created and calls
`attach`; after that it calls the functions below from its own threads. Pixels stay where they are:
frames arrive as arrays over the frame server's memory.
"""

import ctypes as c
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vs_vsr.errors import BridgeError, VsrError
from vs_vsr.streaming.plan import Step

if TYPE_CHECKING:
    from vs_vsr.transfer.host import Array

__all__ = ["ABI", "ClipInfo", "Frame", "Job", "Spec", "Worker", "attach"]

ABI = 2
_TEXT = 1024


@dataclass(frozen=True)
class ClipInfo:
    """The user's clip; a size or format of 0 is variable."""

    width: int
    height: int
    num_frames: int
    format: int
    fps_num: int
    fps_den: int


@dataclass(frozen=True)
class Spec:
    """What a filter turns the clip into, and how its work is laid out; as VsrSpec in abi.h."""

    work_format: int
    width: int
    height: int
    num_frames: int
    fps_num: int
    fps_den: int
    rate: int
    chunk: int
    cache_frames: int
    matrix: int
    prefetch: bool
    message: str = ""


@dataclass(frozen=True)
class Frame:
    """One frame in the frame server's memory."""

    planes: Sequence["Array"]
    """R, G, B: (H, W), float32 or float16, with the frame's row stride; inputs are read-only."""
    scene_prev: bool = False
    scene_next: bool = False


@dataclass(frozen=True)
class Job:
    """A step and its frames; outputs are there for rendering steps."""

    step: Step
    inputs: Sequence[Frame]
    outputs: Sequence[Frame]


class Worker(Protocol):
    """What runs one filter."""

    def next(self, chunk: int, *, initial: bool) -> Step:
        """What to do now for `chunk`; `initial`: before its turn has come."""

    def run(self, job: Job) -> None:
        """Do one step; returns when its outputs are written."""

    def failed(self, step: Step) -> None:
        """Take note that the source could not give the frames of `step`."""


class _Argument(c.Structure):
    _fields_ = (
        ("name", c.c_char_p),
        ("type", c.c_int32),
        ("i", c.c_int64),
        ("f", c.c_double),
        ("s", c.c_char_p),
    )


class _Clip(c.Structure):
    _fields_ = (
        *((name, c.c_int32) for name in ("width", "height", "num_frames", "format")),
        ("fps_num", c.c_int64),
        ("fps_den", c.c_int64),
    )


class _Spec(c.Structure):
    _fields_ = (
        *((name, c.c_int32) for name in ("work_format", "width", "height", "num_frames")),
        ("fps_num", c.c_int64),
        ("fps_den", c.c_int64),
        *((name, c.c_int32) for name in ("rate", "chunk", "cache_frames", "matrix", "prefetch")),
        ("message", c.c_char * _TEXT),
    )


class _Plane(c.Structure):
    _fields_ = (("data", c.c_void_p), ("stride", c.c_int64))


class _Frame(c.Structure):
    _fields_ = (("plane", _Plane * 3), ("scene_prev", c.c_int32), ("scene_next", c.c_int32))


class _Step(c.Structure):
    _fields_ = tuple((name, c.c_int32) for name in ("chunk", "render", "first", "last"))


class _Job(c.Structure):
    _fields_ = (
        ("step", _Step),
        *((name, c.c_int32) for name in ("in_width", "in_height", "out_width", "out_height")),
        *((name, c.c_int32) for name in ("sample_bytes", "in_count", "out_count")),
        ("inputs", c.POINTER(_Frame)),
        ("outputs", c.POINTER(_Frame)),
    )


# Error texts are c_void_p: a c_char_p would arrive as a copy.
_Create = c.CFUNCTYPE(
    c.c_int64,
    c.c_char_p,
    c.POINTER(_Argument),
    c.c_int32,
    c.POINTER(_Clip),
    c.POINTER(_Spec),
    c.c_void_p,
)
_Next = c.CFUNCTYPE(c.c_int32, c.c_int64, c.c_int32, c.c_int32, c.POINTER(_Step), c.c_void_p)
_Run = c.CFUNCTYPE(c.c_int32, c.c_int64, c.POINTER(_Job), c.c_void_p)
_Failed = c.CFUNCTYPE(None, c.c_int64, c.POINTER(_Step))
_Destroy = c.CFUNCTYPE(None, c.c_int64)


class _Callbacks(c.Structure):
    _fields_ = (
        ("abi", c.c_int32),
        ("create", _Create),
        ("next", _Next),
        ("run", _Run),
        ("failed", _Failed),
        ("destroy", _Destroy),
    )


class _Exports(c.Structure):
    _fields_ = (
        ("abi", c.c_int32),
        ("set_callbacks", c.CFUNCTYPE(c.c_int32, c.POINTER(_Callbacks))),
    )


_numbers = itertools.count(1)
_workers: dict[int, tuple[str, Worker]] = {}


def attach(address: int) -> None:
    """Give the plugin whose VsrExports lie at `address` the functions below.

    Raises:
        BridgeError: The plugin was built for another version of this package.
    """
    exports = _Exports.from_address(address)
    # Asked first: of a struct of another version nothing after the number can be trusted.
    if exports.abi != ABI or exports.set_callbacks(c.byref(_callbacks)):
        raise BridgeError(
            f"bridge: the compiled plugin must have ABI {ABI}, got {exports.abi}. Reinstall vs-vsr."
        )


def _guarded(function: str, error: int, call: Callable[[], int | None], failed: int) -> int:
    """Run `call`; an exception becomes text at `error`, for no exception may reach C."""
    try:
        return call() or 0
    except BaseException as e:
        text = str(e) if isinstance(e, VsrError) else f"{function}: {type(e).__name__}: {e}"
        # Cut between characters, not within one.
        data = text.encode()[: _TEXT - 1].decode(errors="ignore").encode() + b"\0"
        c.memmove(error, data, len(data))
        return failed


@_Create
def _create(function: bytes, arguments: Any, count: int, clip: Any, spec: Any, error: int) -> int:
    def call() -> int:
        # Imported at the first filter: it brings torch, which a script may never need.
        from vs_vsr.filters import create

        values = {a.name.decode(): _value(a) for a in arguments[:count]}
        info = ClipInfo(*(getattr(clip.contents, field) for field in _names(_Clip)))
        made, worker = create(name, values, info)
        for field in _names(_Spec):
            value = getattr(made, field)
            setattr(spec.contents, field, value.encode() if isinstance(value, str) else value)
        number = next(_numbers)
        _workers[number] = name, worker
        return number

    name = function.decode()
    return _guarded(name, error, call, 0)


def _names(struct: type[c.Structure]) -> list[str]:
    return [field[0] for field in struct._fields_]


def _value(argument: Any) -> int | float | str:
    value: int | float = (argument.i, argument.f)[argument.type] if argument.type < 2 else 0
    return argument.s.decode(errors="replace") if argument.type == 2 else value


@_Next
def _next(instance: int, chunk: int, initial: int, step: Any, error: int) -> int:
    name, worker = _workers[instance]

    def call() -> None:
        wanted = worker.next(chunk, initial=bool(initial))
        for field in _names(_Step):
            setattr(step.contents, field, getattr(wanted, field))

    return _guarded(name, error, call, -1)


@_Run
def _run(instance: int, job: Any, error: int) -> int:
    name, worker = _workers[instance]

    def call() -> None:
        j = job.contents
        dtype = np.dtype(f"f{j.sample_bytes}")
        into = [_frame(j.inputs[i], j.in_height, j.in_width, dtype) for i in range(j.in_count)]
        out = [_frame(j.outputs[i], j.out_height, j.out_width, dtype) for i in range(j.out_count)]
        for frame in into:
            # Input planes are shared with other filters.
            for plane in frame.planes:
                plane.flags.writeable = False
        worker.run(Job(_step(j.step), into, out))

    return _guarded(name, error, call, -1)


@_Failed
def _failed(instance: int, step: Any) -> None:
    _, worker = _workers[instance]
    worker.failed(_step(step.contents))


@_Destroy
def _destroy(instance: int) -> None:
    _workers.pop(instance, None)


def _step(step: Any) -> Step:
    return Step(step.chunk, bool(step.render), step.first, step.last)


def _frame(frame: Any, height: int, width: int, dtype: np.dtype[Any]) -> Frame:
    planes = []
    for plane in frame.plane:
        memory = (c.c_char * (plane.stride * height)).from_address(plane.data)
        strides = (plane.stride, dtype.itemsize)
        planes.append(np.ndarray((height, width), dtype, memory, 0, strides))
    return Frame(planes, bool(frame.scene_prev), bool(frame.scene_next))


_callbacks = _Callbacks(ABI, _create, _next, _run, _failed, _destroy)
