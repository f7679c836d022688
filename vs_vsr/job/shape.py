"""The pictures of a job before it is made: their format, size and colours, and their times."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import vapoursynth as vs

from vs_vsr.errors import JobError
from vs_vsr.job.plan import Colour
from vs_vsr.job.request import Request
from vs_vsr.job.source import SourceInfo
from vs_vsr.plugin.arguments import MATRICES
from vs_vsr.plugin.worker import Resolved

__all__ = ["HLG", "PQ", "colour_of", "doubled", "last_duration", "picture_format", "size_of"]

PQ, HLG, _UNKNOWN = 16, 18, 2
"""Codes of transfer functions, of ITU-T H.273."""
_RGB = 0  # the matrix of pictures that are no YUV


def picture_format(source: vs.VideoFormat, request: Request, transfer: int) -> str:
    """VapourSynth's name of the format of the pictures."""
    name, family, bits = request.encoder, source.color_family, source.bits_per_sample
    lossless = name == "ffv1"
    if source.sample_type == vs.FLOAT:
        bits = 16
    most = 16 if lossless else 10
    wanted = request.bits or (10 if transfer in (PQ, HLG) else 8 if bits <= 8 else min(bits, most))
    if wanted not in (8, 10, 12, 16) or wanted > (16 if lossless else 12):
        raise JobError(f"bits must be 8, 10 or 12, or 16 for ffv1, got {wanted}. Use 10.")
    if family == vs.GRAY:
        return f"GRAY{wanted}" if name != "av1" else f"YUV420P{wanted}"
    if family == vs.RGB:
        if lossless:
            return f"RGB{3 * wanted}"
        return f"YUV4{20 if name == 'av1' else 44}P{wanted}"
    across, down = source.subsampling_w, source.subsampling_h
    kept = {(0, 0): "444", (1, 0): "422", (1, 1): "420"}.get((across, down), "444")
    return f"YUV{'420' if name == 'av1' else kept}P{wanted}"


def size_of(
    request: Request, info: SourceInfo, clip: vs.VideoNode, resolved: Resolved
) -> tuple[int, int, tuple[int, int]]:
    """Width and height of the pictures, and the aspect of their pixels."""
    aspect = Fraction(*info.sample_aspect)
    width, height = Fraction(resolved.scale * clip.width), Fraction(resolved.scale * clip.height)
    size = request.size.lower()
    if size:
        numbers = size.removesuffix("x" if size.count("x") == 1 else "").removesuffix("p")
        both = size.split("x")
        try:
            if size.endswith("x"):
                scale = Fraction(numbers)
                width, height = scale * clip.width, scale * clip.height
            elif size.endswith("p"):
                scale = Fraction(int(numbers), clip.height)
                width, height = scale * clip.width, scale * clip.height
            else:
                width, height = (Fraction(int(side)) for side in both)
                # The picture keeps its shape on the screen.
                aspect *= (clip.width * height) / (clip.height * width)
        except (ValueError, ZeroDivisionError):
            raise _bad_size(request.size) from None
    if request.square_pixels:
        width, aspect = width * aspect, Fraction(1)
    # Chroma of half the size needs even sides.
    sides = [2 * round(side / 2) for side in (width, height)]
    if not all(16 <= side <= 16384 for side in sides):
        raise _bad_size(request.size or f"{sides[0]}x{sides[1]}")
    return sides[0], sides[1], (aspect.numerator, aspect.denominator)


def _bad_size(size: str) -> JobError:
    return JobError(
        f'size must be a factor ("2x"), a height ("1080p") or "WIDTHxHEIGHT", with sides from 16 '
        f'to 16384, got "{size}". Leave it out for what the network makes.'
    )


def colour_of(
    source: Colour,
    clip: vs.VideoNode,
    format_name: str,
    resolved: Resolved,
    arguments: Mapping[str, object],
) -> Colour:
    """The source's, with the matrix that is used where it names none."""
    if format_name.startswith("RGB"):
        return replace(source, matrix=_RGB, full_range=True)
    if clip.format.color_family == vs.RGB:
        # Where the pictures are YUV, players take BT.709 for this size.
        return replace(source, matrix=MATRICES["709"], full_range=False)
    if source.matrix not in (_RGB, _UNKNOWN, 3):
        return source
    matrix = int(resolved.arguments["matrix"])
    if "matrix" not in arguments and source.transfer in (PQ, HLG):
        matrix = MATRICES["2020ncl"]
    return replace(source, matrix=matrix)


def last_duration(times: Sequence[int], time_base: Fraction, rate: Fraction) -> int:
    """How long the last picture is shown, which files often do not say: as the one before."""
    if len(times) > 1:
        return max(times[-1] - times[-2], 1)
    return max(round(1 / rate / time_base), 1) if rate else 1


def doubled(
    times: Sequence[int], last_duration: int, base: Fraction
) -> tuple[list[int], int, Fraction]:
    """Times with another picture half-way to the next, in half the unit."""
    following = [*times[1:], times[-1] + last_duration]
    both = [t for now, then in zip(times, following, strict=True) for t in (2 * now, now + then)]
    return both, last_duration, base / 2
