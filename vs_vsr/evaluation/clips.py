"""Folders of frames and video files as VapourSynth clips of 8-bit RGB."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import vapoursynth as vs
from vapoursynth import core

from vs_vsr.errors import ArgumentError
from vs_vsr.evaluation.separable import Array
from vs_vsr.plugin.arguments import default_matrix

__all__ = ["Clip", "find_clips", "find_inputs", "open_clip"]

_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Clip:
    """Frames that follow each other."""

    name: str
    """Of its folder, or of its file without the suffix."""
    node: vs.VideoNode
    """RGB24. Frames are read when they are asked for."""


def find_clips(paths: Sequence[Path]) -> list[Clip]:
    """The clips of true frames.

    Args:
        paths: Video files, folders of frames, and folders of such folders.

    Raises:
        ArgumentError: A path holds no frames, frames of one clip differ in size, or two clips have
            the same name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        folders = [path]
        if path.is_dir() and not _frames(path):
            folders = sorted((f for f in path.iterdir() if f.is_dir() and _frames(f)), key=_place)
            if not folders:
                raise ArgumentError(
                    "GT must be a video file, a folder of frames, or a folder of such folders, got "
                    f"{path} without any. Frames are files {', '.join(_SUFFIXES)}."
                )
        for folder in folders:
            # Resolved first, as "." has no name.
            name = folder.resolve().name if folder.is_dir() else folder.stem
            if name in found:
                raise ArgumentError(
                    f"GT must be clips of different names, got {found[name]} and {folder}. "
                    "Measure them one after another."
                )
            found[name] = folder
    return [Clip(name, open_clip("GT", path)) for name, path in found.items()]


def find_inputs(path: Path, clips: Sequence[Clip]) -> list[vs.VideoNode]:
    """The low-resolution frames of each clip, RGB24.

    Args:
        path: A folder with a folder of frames for each clip, of the clip's name. For a single clip
            also its folder of frames, or a video file.
        clips: The clips of true frames.

    Raises:
        ArgumentError: A clip has none, or they differ in size.
    """
    if len(clips) == 1 and not (path / clips[0].name).is_dir():
        return [open_clip("input", path)]
    return [open_clip("input", path / clip.name) for clip in clips]


def open_clip(argument: str, path: Path) -> vs.VideoNode:
    """The frames of a folder, in the order of their names' numbers, or those of a video file.

    Args:
        argument: What messages call `path`.
        path: The folder or file.

    Returns:
        RGB24; frames of more bits are rounded.

    Raises:
        ArgumentError: There are no frames, or their size changes.
    """
    if path.is_dir():
        return _folder(argument, path)
    if not path.is_file():
        raise ArgumentError(f"{argument} must be a file or a folder, got {path}. Check the path.")
    return _video(argument, path)


def _frames(folder: Path) -> list[Path]:
    files = (file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)
    # Hidden ones are no frames: some systems put one beside every file.
    return sorted((file for file in files if not file.name.startswith(".")), key=_place)


def _place(path: Path) -> tuple[list[Any], str]:
    """What orders names as people count: frame2 is before frame10."""
    parts = re.split("([0-9]+)", path.name)
    # Every other part is a number, so like is compared with like.
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def _folder(argument: str, folder: Path) -> vs.VideoNode:
    files = _frames(folder)
    if not files:
        raise ArgumentError(
            f"{argument} must be a folder of frames, got {folder} without any. Frames are files "
            f"{', '.join(_SUFFIXES)}."
        )
    # All of them now, as a run may take days until it comes to the last one.
    sizes = [_size(argument, file) for file in files]
    for file, size in zip(files, sizes, strict=True):
        if size != sizes[0]:
            raise ArgumentError(
                f"{argument} must be frames of one size, got {_text(sizes[0])} in {files[0]} and "
                f"{_text(size)} in {file}. Give each clip its own folder."
            )
    width, height = sizes[0]
    blank = core.std.BlankClip(
        format=vs.RGB24, width=width, height=height, length=len(files), keep=True
    )

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame = f.copy()
        picture = _read(argument, files[n])
        for plane in range(3):
            np.asarray(frame[plane])[:] = picture[..., plane]
        return frame

    return blank.std.ModifyFrame(blank, draw)


def _size(argument: str, file: Path) -> tuple[int, int]:
    """Width and height."""
    try:
        with av.open(str(file), options={"protocol_whitelist": "file"}) as container:
            stream = container.streams.video[0]
            size = stream.width, stream.height
    except (OSError, ValueError, IndexError) as e:
        raise _no_picture(argument, file, str(e)) from None
    if not all(size):
        raise _no_picture(argument, file, "no picture in it")
    return size


def _read(argument: str, file: Path) -> Array:
    """The picture of a file, (H, W, 3), uint8."""
    try:
        with av.open(str(file), options={"protocol_whitelist": "file"}) as container:
            return next(container.decode(video=0)).to_ndarray(format="rgb24")
    except (OSError, ValueError, IndexError, StopIteration) as e:
        raise _no_picture(argument, file, str(e)) from None


def _no_picture(argument: str, file: Path, why: str) -> ArgumentError:
    return ArgumentError(
        f"{argument} must be files that hold a picture, got {file} ({why}). Replace or remove it."
    )


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _video(argument: str, path: Path) -> vs.VideoNode:
    try:
        # Without an index file: a measurement leaves nothing beside the file.
        node = core.bs.VideoSource(str(path), cachemode=0)
        with node.get_frame(0) as frame:
            matrix = frame.props.get("_Matrix", vs.MATRIX_UNSPECIFIED)
    except vs.Error as e:
        raise ArgumentError(
            f"{argument} must be a file with video, got {path} ({e}). Check the file."
        ) from None
    if not node.width or not node.height or not node.format:
        raise ArgumentError(
            f"{argument} must be a video of one size and format, got {path}, in which it changes. "
            "Measure its parts one after another."
        )
    if node.format.color_family == vs.RGB:
        return node.resize.Bicubic(format=vs.RGB24)
    if matrix == vs.MATRIX_UNSPECIFIED:
        # As the filters take it.
        matrix = default_matrix(node.width, node.height)
    return node.resize.Bicubic(format=vs.RGB24, matrix_in=matrix)
