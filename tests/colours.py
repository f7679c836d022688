"""Eight flat fields of colour in a file, and how that file shows them by its own tags."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import vapoursynth as vs
from av.video.stream import VideoStream
from conftest import small_network
from vapoursynth import core

__all__ = ["COLOURS", "HEIGHT", "WIDTH", "fields", "film_of", "middles", "plain_network", "shown"]

# No component is at the end of its range.
COLOURS = np.array([[r, g, b] for r in (60, 200) for g in (60, 200) for b in (60, 200)], np.uint8)
WIDTH, HEIGHT = 176, 144

# FFV1 has no planes for 8 bits of RGB.
_PIXELS = {
    vs.YUV420P8: "yuv420p",
    vs.YUV422P8: "yuv422p",
    vs.YUV420P10: "yuv420p10le",
    vs.GRAY8: "gray",
    vs.RGB30: "gbrp10le",
}


def plain_network(folder: Path) -> Path:
    """A checkpoint that adds nothing to its bilinearly upscaled input: colours stay as they are."""
    state = small_network(8, 1).state_dict()
    for name in state:
        if "conv_last" in name:
            state[name] = torch.zeros_like(state[name])
    path = folder / "plain.pth"
    torch.save(state, path)
    return path


def fields(format: int, length: int = 3, **conversion: Any) -> vs.VideoNode:
    """The colours side by side."""
    clip = core.std.BlankClip(
        format=vs.RGB24, width=WIDTH, height=HEIGHT, length=length, fpsnum=24000, fpsden=1001
    )

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        out = f.copy()
        for p in range(3):
            np.asarray(out[p])[:] = COLOURS[:, p].repeat(WIDTH // len(COLOURS))
        return out

    return clip.std.ModifyFrame(clip, draw).resize.Bicubic(format=format, **conversion)


def film_of(path: Path, clip: vs.VideoNode, **tags: Any) -> Path:
    """A clip in a file without loss, with only these tags.

    `tags` are attributes of PyAV's codec context, such as codes of ITU-T H.273; what is not among
    them the file does not say.
    """
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = clip.width, clip.height
        stream.pix_fmt = _PIXELS[vs.PresetVideoFormat(clip.format.id)]
        for name, tag in tags.items():
            setattr(stream.codec_context, name, tag)
        for n, frame in enumerate(clip.frames(close=True)):
            picture = av.VideoFrame(clip.width, clip.height, stream.pix_fmt)
            planes = [np.asarray(plane) for plane in frame]
            if clip.format.color_family == vs.RGB:
                planes = [planes[1], planes[2], planes[0]]  # FFmpeg's order
            for target, plane in zip(picture.planes, planes, strict=True):
                rows = np.frombuffer(target, plane.dtype).reshape(target.height, -1)
                rows[:, : target.width] = plane
            picture.pts = n
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


def middles(frame: vs.VideoFrame, plane: int) -> "np.ndarray[Any, Any]":
    """The values in the middle of each field."""
    values = np.asarray(frame[plane]).astype(int)
    step = values.shape[1] // len(COLOURS)
    return values[values.shape[0] // 2, step // 2 :: step]


def shown(path: Path) -> "np.ndarray[Any, Any]":
    """The colours of a file by its own tags, (fields, 3)."""
    clip = core.bs.VideoSource(str(path), cachemode=0)
    if clip.format.color_family == vs.YUV:
        assert clip.get_frame(0).props["_Matrix"] != vs.MATRIX_UNSPECIFIED
    frame = clip.resize.Bicubic(format=vs.RGB24).get_frame(1)
    return np.stack([middles(frame, p) for p in range(3)], axis=1)
