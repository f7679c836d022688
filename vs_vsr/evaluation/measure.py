"""Runs a filter as a script would, and compares its pictures with the true ones.

The pictures go through VapourSynth, so the figures are those of what a user gets. One frame of each
is held at a time, beside what VapourSynth and the filter hold.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import vapoursynth as vs
from vapoursynth import core

from vs_vsr import filters
from vs_vsr.errors import ArgumentError, VsrError
from vs_vsr.evaluation.degrade import SCALE, Degradation, degraded
from vs_vsr.evaluation.scores import LEAST_SIDE, Space, measured, psnr, ssim
from vs_vsr.evaluation.separable import Array

__all__ = ["Pair", "Scores", "low_resolution", "pair", "scores"]


@dataclass(frozen=True)
class Pair:
    """What is compared: two clips of the same size and length, RGB24."""

    truth: vs.VideoNode
    output: vs.VideoNode


@dataclass(frozen=True)
class Scores:
    """Of a clip, frame by frame."""

    frames: list[tuple[float, float]]
    """PSNR in dB, infinite where the pictures are equal, and SSIM."""

    @property
    def means(self) -> tuple[float, float]:
        """PSNR and SSIM, each the mean over the frames."""
        psnr, ssim = (sum(values) / len(values) for values in zip(*self.frames, strict=True))
        return psnr, ssim


def low_resolution(truth: vs.VideoNode, degradation: Degradation) -> vs.VideoNode:
    """A clip at a quarter of its width and height, RGB24.

    What is beyond a multiple of 4, at the right and at the bottom, is left out first.

    Raises:
        ArgumentError: The frames are smaller than 4x4 pixels.
    """
    if truth.width < SCALE or truth.height < SCALE:
        raise _too_small(SCALE, "one block is", truth)
    truth = truth.std.Crop(right=truth.width % SCALE, bottom=truth.height % SCALE)
    width, height = truth.width // SCALE, truth.height // SCALE
    blank = core.std.BlankClip(truth, width=width, height=height, keep=True)

    def draw(n: int, f: list[vs.VideoFrame]) -> vs.VideoFrame:
        frame = f[0].copy()
        for plane, values in enumerate(degraded(_picture(f[1]), degradation)):
            np.asarray(frame[plane])[:] = values
        return frame

    return blank.std.ModifyFrame([blank, truth], draw)


def pair(
    truth: vs.VideoNode, low: vs.VideoNode, filter_name: str, arguments: Mapping[str, Any]
) -> Pair:
    """The true pictures, and those that a filter makes.

    Args:
        truth: RGB24. Up to 3 columns and rows more than the filter makes are left out, at the right
            and at the bottom.
        low: What the filter gets, RGB24.
        filter_name: As in `core.vsr`.
        arguments: Of the filter, by name.

    Raises:
        VsrError: The filter refuses the arguments, its pictures are not as many or as large as the
            true ones, or they are too small to be measured.
    """
    try:
        output = getattr(filters, filter_name.lower())(low, **arguments)
    except vs.Error as e:
        raise VsrError(_sentence(e)) from None
    more = truth.width - output.width, truth.height - output.height
    if not all(0 <= n < SCALE for n in more) or len(output) != len(truth):
        raise ArgumentError(
            f"{filter_name}: pictures must match those of GT, {_text(truth)}, got {_text(output)}. "
            "Choose the input that belongs to GT, and weights for it."
        )
    if min(output.width, output.height) < LEAST_SIDE:
        raise _too_small(LEAST_SIDE, "the window of SSIM is", output)
    return Pair(truth.std.Crop(right=more[0], bottom=more[1]), output)


def scores(clips: Pair, space: Space, report: Callable[[], None]) -> Scores:
    """Compute the pictures and compare them.

    Args:
        clips: What is compared.
        space: What of a picture is compared.
        report: Called after each frame.

    Raises:
        VsrError: A frame cannot be read or computed.
    """
    found = []
    try:
        pairs = zip(clips.truth.frames(close=True), clips.output.frames(close=True), strict=True)
        for frames in pairs:
            a, b = (measured(_picture(frame), space) for frame in frames)
            found.append((psnr(a, b), ssim(a, b)))
            report()
    except vs.Error as e:
        raise VsrError(_sentence(e)) from None
    return Scores(found)


def _picture(frame: vs.VideoFrame) -> Array:
    """(3, H, W), uint8."""
    return np.stack([np.asarray(frame[plane]) for plane in range(3)])


def _too_small(least: int, why: str, node: vs.VideoNode) -> ArgumentError:
    return ArgumentError(
        f"GT must be at least {least}x{least} pixels, as {why}, got {node.width}x{node.height}. "
        "Choose larger frames."
    )


def _sentence(error: vs.Error) -> str:
    """What failed, without the traceback that VapourSynth adds to what Python code raised."""
    text = str(error).strip()
    if "Traceback" not in text:
        return text
    return text.splitlines()[-1].removeprefix(f"{ArgumentError.__module__}.ArgumentError: ")


def _text(node: vs.VideoNode) -> str:
    return f"{node.width}x{node.height} and {len(node)} frames"
