"""The Python half of the compiled plugin: structs, callbacks, and which filter a call belongs to.

It mirrors native/abi.h. The plugin imports this module whenever a filter is created and calls
`attach`; after that it calls the functions below from its own threads. Pixels stay where they are:
frames arrive as arrays over the frame server's memory.

A KeyboardInterrupt can come at any instruction of a callback, before its `try` and within its
`except` too, and no exception reaches C. So each callback writes its answer last, as one attribute
and with nothing after it. If there is no answer, C assumes that the call was interrupted.
"""

import ctypes as c
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from vs_vsr.errors import BridgeError, DeviceError, VsrError
from vs_vsr.plugin.contract import ClipInfo, Frame, Job
from vs_vsr.plugin.gpu import (
    GpuDevice,
    GpuDeviceStruct,
    GpuFrameStruct,
    read_device,
    read_frame,
)
from vs_vsr.streaming.plan import Step

__all__ = ["ABI", "attach"]

ABI = 8
# VSR_MESSAGE_SIZE.
_TEXT = 1024


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
        ("gpu", c.POINTER(GpuDeviceStruct)),
    )


class _Spec(c.Structure):
    _fields_ = (
        *((name, c.c_int32) for name in ("input_format", "output_format")),
        *((name, c.c_int32) for name in ("width", "height", "num_frames")),
        ("fps_num", c.c_int64),
        ("fps_den", c.c_int64),
        *((name, c.c_int32) for name in ("frames_per_input", "chunk", "cache_frames")),
        *((name, c.c_int32) for name in ("matrix", "hdr_matrix", "prefetch", "arrivals")),
        ("message", c.c_char * _TEXT),
        ("made", c.c_int32),
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
        *((name, c.c_int32) for name in ("in_width", "in_height", "in_sample_bytes")),
        *((name, c.c_int32) for name in ("out_width", "out_height", "out_sample_bytes")),
        *((name, c.c_int32) for name in ("in_count", "out_count")),
        ("inputs", c.POINTER(_Frame)),
        ("outputs", c.POINTER(_Frame)),
        ("host", c.c_void_p),
        ("late", c.c_int64),
        ("gpu_outputs", c.POINTER(GpuFrameStruct)),
        ("value", c.c_uint64),
        ("lost", c.c_int32),
        ("stale", c.c_int32),
        ("done", c.c_int32),
    )


# Errors are written to a c_void_p: a c_char_p would arrive here as a copy.
_Create = c.CFUNCTYPE(
    None,
    c.c_int64,
    c.c_char_p,
    c.POINTER(_Argument),
    c.c_int32,
    c.POINTER(_Clip),
    c.POINTER(_Spec),
    c.c_void_p,
)
_Next = c.CFUNCTYPE(None, c.c_int64, c.c_int32, c.c_int32, c.POINTER(_Step), c.c_void_p)
_Arrived = c.CFUNCTYPE(
    None, c.c_int64, c.c_int32, c.POINTER(_Frame), c.c_int32, c.c_int32, c.c_int32
)
_Taken = c.CFUNCTYPE(
    None,
    c.c_int64,
    c.c_int32,
    c.POINTER(GpuFrameStruct),
    c.POINTER(c.c_uint64),
    c.POINTER(c.c_int32),
    c.c_void_p,
)
_Has = c.CFUNCTYPE(None, c.c_int64, c.c_int32, c.POINTER(c.c_int32))
_Run = c.CFUNCTYPE(None, c.c_int64, c.POINTER(_Job), c.c_void_p)
_Wait = c.CFUNCTYPE(None, c.c_int64, c.c_int64)
_Deliver = c.CFUNCTYPE(None, c.c_int64, c.c_int64, c.c_int32, c.POINTER(c.c_int32), c.c_void_p)
_Drop = c.CFUNCTYPE(None, c.c_int64, c.c_int64)
_Ended = c.CFUNCTYPE(None, c.c_int64, c.c_int32, c.POINTER(_Step))
_Destroy = c.CFUNCTYPE(None, c.c_int64, c.POINTER(c.c_int32))


class _Callbacks(c.Structure):
    _fields_ = (
        ("abi", c.c_int32),
        ("create", _Create),
        ("next", _Next),
        ("arrived", _Arrived),
        ("taken", _Taken),
        ("has", _Has),
        ("run", _Run),
        ("wait", _Wait),
        ("deliver", _Deliver),
        ("drop", _Drop),
        ("ended", _Ended),
        ("destroy", _Destroy),
    )


class _Exports(c.Structure):
    _fields_ = (
        ("abi", c.c_int32),
        # By address, because a reload in another thread makes another class `_Callbacks`.
        ("set_callbacks", c.CFUNCTYPE(c.c_int32, c.c_void_p)),
        ("log", c.CFUNCTYPE(None, c.c_void_p, c.c_char_p)),
        ("reserve", c.CFUNCTYPE(c.c_int32, c.c_void_p, c.c_int64, c.c_char_p)),
    )


# Each is a HostWorker or a GpuWorker. When this module is loaded anew (previews do that), it keeps
# the filters that are in use.
_workers: dict[int, tuple[str, Any]] = globals().get("_workers", {})
_log: Callable[[int, bytes], None] = globals().get("_log", lambda host, text: None)
_reserve: Callable[[int, int, Any], int] = globals().get("_reserve", lambda gpu, size, error: 0)


def attach(address: int) -> None:
    """Give the functions below to the plugin, whose VsrExports are at `address`.

    Raises:
        BridgeError: The plugin was built for another version of this package.
    """
    global _log, _reserve
    exports = _Exports.from_address(address)
    # Checked first: in a struct of another version nothing after the number can be trusted.
    if exports.abi != ABI or exports.set_callbacks(c.addressof(_callbacks)):
        raise BridgeError(
            f"bridge: the compiled plugin has ABI {exports.abi}, and this package needs {ABI}. "
            "Reinstall vs-vsr."
        )
    _log, _reserve = exports.log, exports.reserve


def _report(error: int, filter_name: str, e: BaseException) -> None:
    """Write to `error` what happened."""
    try:
        text = str(e)
    except Exception:
        text = ""
    # Compared by name, because a reload makes another class.
    if not text or all(kind.__name__ != VsrError.__name__ for kind in type(e).__mro__):
        text = f"{filter_name}: {type(e).__name__}: {text or 'no reason was given'}"
    data = text.replace("\0", "\\0").encode(errors="backslashreplace")
    # Cut between characters, not within one.
    data = data[: _TEXT - 1].decode(errors="ignore").encode() + b"\0"
    c.memmove(error, data, len(data))


@_Create
def _create(
    instance: int, filter_name: bytes, arguments: Any, count: int, clip: Any, spec: Any, error: int
) -> None:
    try:
        # Imported here, so that an error from importing torch becomes a message of this filter.
        from vs_vsr.plugin.worker import create

        name = filter_name.decode()
        values = {a.name.decode(): _value(a) for a in arguments[:count]}
        sizes = {field: getattr(clip.contents, field) for field in _names(_Clip)[:-1]}
        info = ClipInfo(**sizes, gpu=_gpu(clip.contents.gpu))
        answer, worker = create(name, values, info)
        for field in _names(_Spec)[:-1]:
            value = getattr(answer, field)
            if isinstance(value, str):
                value = value.encode()[: _TEXT - 1].decode(errors="ignore").encode()
            setattr(spec.contents, field, value)
        _workers[instance] = name, worker
        spec.contents.made = 1
    except KeyboardInterrupt:
        return  # C reports it
    except BaseException as e:
        _report(error, filter_name.decode(), e)


def _gpu(device: Any) -> GpuDevice | None:
    """Where a clip's frames are, if that is a GPU."""
    if not device:
        return None

    def reserve(size: int) -> None:
        error = c.create_string_buffer(_TEXT)
        if _reserve(device.contents.gpu, size, error):
            raise DeviceError(error.value.decode(errors="replace"))

    return read_device(device.contents, reserve)


def _names(struct: type[c.Structure]) -> list[str]:
    return [field[0] for field in struct._fields_]


def _value(argument: Any) -> int | float | str:
    value: int | float = (argument.i, argument.f)[argument.type] if argument.type < 2 else 0
    return argument.s.decode(errors="replace") if argument.type == 2 else value


def _worker(instance: int) -> tuple[str, Any]:
    try:
        return _workers[instance]
    except KeyError:
        raise BridgeError("bridge: the filter is no longer known. Create it again.") from None


@_Next
def _next(instance: int, chunk: int, initial: int, step: Any, error: int) -> None:
    name = "bridge"
    try:
        name, worker = _worker(instance)
        wanted = worker.next(chunk, initial=bool(initial))
        for field in ("render", "first", "last"):
            setattr(step.contents, field, getattr(wanted, field))
        step.contents.chunk = wanted.chunk
    except BaseException as e:
        _report(error, name, e)


@_Arrived
def _arrived(instance: int, n: int, frame: Any, width: int, height: int, sample_bytes: int) -> None:
    # A filter that is gone, or that cannot take the frame now, gets it with the step that needs it.
    with suppress(BaseException):
        _, worker = _worker(instance)
        worker.arrived(n, _input(frame.contents, height, width, np.dtype(f"f{sample_bytes}")))


@_Taken
def _taken(instance: int, n: int, frame: Any, value: Any, done: Any, error: int) -> None:
    name = "bridge"
    try:
        name, worker = _worker(instance)
        value.contents.value = worker.taken(n, read_frame(frame.contents))
        done.contents.value = 1
    except BaseException as e:
        _report(error, name, e)


@_Has
def _has(instance: int, n: int, has: Any) -> None:
    # A filter that is gone has nothing.
    if instance in _workers:
        has.contents.value = _workers[instance][1].has(n)


@_Run
def _run(instance: int, job: Any, error: int) -> None:
    name = "bridge"
    try:
        name, worker = _worker(instance)
        j = job.contents
        read = np.dtype(f"f{j.in_sample_bytes}")
        written = np.dtype(f"f{j.out_sample_bytes}")
        inputs = [_input(j.inputs[i], j.in_height, j.in_width, read) for i in range(j.in_count)]
        outputs, gpu_outputs = [], []
        for i in range(j.out_count):
            if j.gpu_outputs:
                gpu_outputs.append(read_frame(j.gpu_outputs[i]))
            else:
                outputs.append(_frame(j.outputs[i], j.out_height, j.out_width, written))
        host = j.host

        def log(text: str) -> None:
            _log(host, text.encode())

        step_job = Job(_step(j.step), inputs, outputs, log, gpu_outputs)
        outcome = worker.run(step_job)
        if outcome.lost:
            j.lost = 1
            return
        j.stale = outcome.stale
        j.late = outcome.late
        j.value = outcome.value
        j.done = 1
    except BaseException as e:
        _report(error, name, e)


@_Wait
def _wait(instance: int, late: int) -> None:
    # What fails here fails again in `_deliver`, which can say so.
    with suppress(BaseException):
        _worker(instance)[1].wait(late)


@_Deliver
def _deliver(instance: int, late: int, index: int, done: Any, error: int) -> None:
    name = "bridge"
    try:
        name, worker = _worker(instance)
        done.contents.value = 1 if worker.deliver(late, index) else 2
    except BaseException as e:
        _report(error, name, e)


@_Drop
def _drop(instance: int, late: int) -> None:
    if instance in _workers:
        _workers[instance][1].drop(late)


@_Ended
def _ended(instance: int, chunk: int, missing: Any) -> None:
    # If the filter is gone, there is nothing to note, and nobody to tell.
    if instance in _workers:
        _, worker = _workers[instance]
        worker.ended(chunk, _step(missing.contents) if missing else None)


@_Destroy
def _destroy(instance: int, gone: Any) -> None:
    # Taken off the list last: an interrupt before makes C call again.
    if instance in _workers:
        with suppress(Exception):
            _workers[instance][1].close()
    _workers.pop(instance, None)
    gone.contents.value = 1


def _step(step: Any) -> Step:
    return Step(step.chunk, bool(step.render), step.first, step.last)


def _input(frame: Any, height: int, width: int, dtype: np.dtype[Any]) -> Frame:
    view = _frame(frame, height, width, dtype)
    for plane in view.planes:
        # The planes are shared with other filters.
        plane.flags.writeable = False
    return view


def _frame(frame: Any, height: int, width: int, dtype: np.dtype[Any]) -> Frame:
    planes = []
    for plane in frame.plane:
        if not plane.data:
            continue
        memory = (c.c_char * (plane.stride * height)).from_address(plane.data)
        strides = (plane.stride, dtype.itemsize)
        planes.append(np.ndarray((height, width), dtype, memory, 0, strides))
    prev, following = (
        None if mark < 0 else bool(mark) for mark in (frame.scene_prev, frame.scene_next)
    )
    return Frame(planes, prev, following)


_callbacks = _Callbacks(
    ABI, _create, _next, _arrived, _taken, _has, _run, _wait, _deliver, _drop, _ended, _destroy
)
# Never freed: the plugin calls them as long as a filter is in use, whatever becomes of this module.
c.pythonapi.Py_IncRef(c.py_object(_callbacks))
