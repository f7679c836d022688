"""The filter in VapourSynth: a source that costs nothing, and requests as a player makes them."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vs_vsr.bench.gpu.setting import Setting, drifting

__all__ = [
    "digest",
    "filtered",
    "in_order",
    "is_gpu_clip",
    "script",
    "source",
    "uploaded",
    "vspipe_environment",
    "vspipe_error",
]

# Frames that the source makes; it gives them again and again.
_DISTINCT = 48


def source(name: str, size: tuple[int, int], length: int) -> Any:
    """A clip of a moving texture whose frames lie in memory.

    Args:
        name: The format: "RGBS", "RGBH", "YUV420P8", ….
        size: Width and height.
        length: Number of frames.

    Returns:
        The clip. Frame n is that of n modulo 48, which is where the texture comes back to its
        start, so no pair of frames looks like a scene cut.
    """
    import vapoursynth as vs
    from vapoursynth import core

    width, height = size
    blank = core.std.BlankClip(
        width=width, height=height, format=vs.RGBS, length=_DISTINCT, keep=True
    )
    pictures = drifting(_DISTINCT, height, width)

    def fill(n: int, f: Any) -> Any:
        frame = f.copy()
        for i in range(3):
            np.copyto(np.asarray(frame[i]), pictures[n][0, i].numpy())
        return frame

    clip = blank.std.ModifyFrame(blank, fill)
    wanted = getattr(vs, name)
    if wanted != vs.RGBS:
        to_yuv = {"matrix_s": "170m"} if name.startswith("YUV") else {}
        clip = clip.resize.Bicubic(format=wanted, **to_yuv)
    frames = list(clip.frames())
    base = core.std.BlankClip(clip, length=length, keep=True)
    return base.std.ModifyFrame(base, lambda n, f: frames[n % _DISTINCT])


def uploaded(name: str, size: tuple[int, int]) -> Any:
    """The frames of `source`, in the memory of a GPU, again and again without end."""
    clip = source(name, size, _DISTINCT).std.GPUUpload()
    clip.std.SetVideoCache(mode=1, fixedsize=1, maxsize=_DISTINCT)
    # From here on nothing is uploaded.
    for _ in clip.frames(close=True):
        pass
    return clip.std.Loop(times=0)


def filtered(setting: Setting, clip: Any, **arguments: object) -> Any:
    """The clip through BasicVSR on the device of the visit."""
    from vapoursynth import core

    values = {"weights": setting.weights, "device": setting.device, **arguments}
    return core.vsr.BasicVSR(clip, **values)


def is_gpu_clip(clip: Any) -> bool:
    """Whether the frames of a clip lie in a GPU's memory."""
    return bool(getattr(clip, "gpu_resident", False))


def in_order(
    clip: Any,
    numbers: Sequence[int],
    requests: int,
    done: Callable[[int, Any], None] = lambda i, frame: None,
) -> float:
    """Ask for frames as a player does: as many requests under way as `requests`, all answered.

    Args:
        clip: The clip.
        numbers: The frames, in the order of the requests.
        requests: How many are under way at a time.
        done: Called with the place in `numbers` and each frame as it arrives, by threads of the
            core.

    Returns:
        Seconds from the first request to the last answer.

    Raises:
        Exception: What the first failed request raised.
    """
    slots = threading.Semaphore(requests)
    failed: list[BaseException] = []

    def arrived(i: int, future: "Future[Any]") -> None:
        try:
            with future.result() as frame:
                done(i, frame)
        except BaseException as e:  # told to the thread that asks
            failed.append(e)
        finally:
            slots.release()

    start = time.perf_counter()
    for i, n in enumerate(numbers):
        slots.acquire()
        if failed:
            slots.release()
            break
        clip.get_frame_async(n).add_done_callback(lambda future, i=i: arrived(i, future))
    for _ in range(requests):
        slots.acquire()
    if failed:
        raise failed[0]
    return time.perf_counter() - start


def digest(frame: Any) -> str:
    """A hash of the pixels of a frame."""
    found = hashlib.blake2b(digest_size=16)
    for plane in frame:
        found.update(np.ascontiguousarray(np.asarray(plane)))
    return found.hexdigest()


@cache
def vspipe_error() -> str:
    """Why vspipe cannot run here; empty if it can. It needs a shared libpython."""
    try:
        done = subprocess.run(
            ["vspipe", "--version"],
            capture_output=True,
            text=True,
            timeout=30,
            env=vspipe_environment(),
        )
    except (OSError, subprocess.SubprocessError) as e:
        return f"vspipe does not run: {e}"
    lines = (done.stderr or done.stdout).strip().split("\n")
    return "" if done.returncode == 0 else f"vspipe does not run: {lines[-1]}"


def vspipe_environment() -> dict[str, str]:
    """This environment, with the programs beside this Python and beside VapourSynth found first."""
    import vapoursynth

    package = Path(vapoursynth.__file__).parent
    # Where `pip install --target` puts programs.
    folders = (Path(sys.executable).parent, package.parent / "bin", package)
    path = os.pathsep.join((*map(str, folders), os.environ.get("PATH", "")))
    return {**os.environ, "PATH": path}


@contextmanager
def script(setting: Setting, size: tuple[int, int], length: int) -> Iterator[Path]:
    """A script for vspipe with the same graph, RGBS."""
    path = setting.folder / "basicvsr.vpy"
    path.write_text(
        "from pathlib import Path\n"
        "from vs_vsr.bench.gpu.setting import Setting\n"
        "from vs_vsr.bench.gpu.vapoursynth_clips import filtered, source\n"
        f"setting = Setting({setting.device!r}, {setting.quick}, Path(), {setting.weights!r})\n"
        f"filtered(setting, source('RGBS', {size}, {length})).set_output()\n"
    )
    try:
        yield path
    finally:
        path.unlink()
