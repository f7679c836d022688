"""A still of all sources: a row for each moment, a column for each source, named."""

from collections.abc import Iterable, Sequence

import numpy as np
import vapoursynth as vs
from vapoursynth import core

from vs_vsr.compare.colours import Array, enlarged
from vs_vsr.compare.moments import Moment, clock
from vs_vsr.compare.sources import Source, shown_size
from vs_vsr.errors import ArgumentError

__all__ = ["still"]

# Of 3 bytes each; more than this takes too much memory here, and where it is looked at.
_MOST_PIXELS = 150_000_000
# Of the core's font, with what its text keeps free around it; and of a name, at least, in letters.
_LETTER_WIDTH, _LETTER_HEIGHT, _MARGIN = 8, 16, 16
_LEAST_LETTERS = 24


def still(
    sources: Sequence[Source], shown: Iterable[Moment], count: int, scaler: str
) -> tuple[Array, int]:
    """Draw it.

    Args:
        sources: What is compared.
        shown: The moments.
        count: How many these are at most.
        scaler: How smaller pictures are enlarged: "nearest" or "bicubic".

    Returns:
        (H, W, 3), uint8, and the number of moments.

    Raises:
        ArgumentError: It would be too large.
        VsrError: A source cannot be read.
    """
    width, height = shown_size(sources)
    if width * height * len(sources) * count > _MOST_PIXELS:
        raise ArgumentError(
            f"a PNG must have at most {_MOST_PIXELS:,} pixels, got {count} times {len(sources)} of "
            f"{width}x{height}. Choose fewer moments, or write a page: --out compare.html."
        )
    rows = []
    for moment in shown:
        cells = []
        for number, (source, picture) in enumerate(
            zip(sources, moment.pictures, strict=True), start=1
        ):
            text = f"{number}  {source.name}  {source.width}x{source.height}"
            if not source.is_still:
                text += f"  {clock(picture.time)}"
            cells.append(_named(enlarged(picture.rgb, width, height, scaler), text))
        rows.append(np.concatenate(cells, axis=1))
    return np.concatenate(rows), len(rows)


def _named(picture: Array, text: str) -> Array:
    """A picture below a strip with a text, of which the middle is left out if it is too long."""
    scale = max(1, picture.shape[1] // 640)
    margin = 2 * _MARGIN
    width = max(picture.shape[1], margin + _LEAST_LETTERS * _LETTER_WIDTH * scale)
    strip = core.std.BlankClip(
        format=vs.RGB24, width=width, height=margin + _LETTER_HEIGHT * scale, length=1
    )
    letters = (width - margin) // (_LETTER_WIDTH * scale)
    with strip.text.Text(_short(text, letters), alignment=4, scale=scale).get_frame(0) as frame:
        drawn = np.dstack([np.asarray(plane) for plane in frame])[_MARGIN // 2 : -_MARGIN // 2]
    left = (width - picture.shape[1]) // 2
    sides = (left, width - picture.shape[1] - left)
    return np.concatenate([drawn, np.pad(picture, ((0, 0), sides, (0, 0)))])


def _short(text: str, letters: int) -> str:
    # The font has ASCII only, and a line break would begin a second line.
    plain = "".join(c if " " <= c <= "~" else "?" for c in text)
    if len(plain) <= letters:
        return plain
    half = (letters - 2) // 2
    return f"{plain[: letters - 2 - half]}..{plain[-half:]}"
