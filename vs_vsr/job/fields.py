"""Whether a source is interlaced or telecined, and what is done about it.

Each picture of such a source holds two moments: its even lines one (the top field), its odd lines
the other (the bottom field). A network would enlarge the comb that this makes at moving edges.

Flags alone do not tell: whole pictures are often flagged as fields, and fields as whole pictures.
So the pictures decide, by the idea of FFmpeg's filter idet: lines of two fields fit each other best
if the fields are of one moment. Fields t, b of picture n fit beside their predecessors like this,
where 0 is one moment, 1 the distance of neighbouring fields, and 2 that of neighbouring pictures:

    weave of              whole   top first   bottom first   3:2 pulldown, five pictures
    t[n], b[n]     same     0         1            1           0  0  1  1  0
    t[n], b[n-1]   past     2         1            3           2  2  0  0  0
    t[n-1], b[n]   next     2         3            1           2  2  2  3  2

The misfit of a weave is how far its lines stick out of *both* neighbouring lines. So horizontal
edges and slopes, which every picture has, do not count. On the progressive clips it separates
better than idet's second difference: misfit of `same` by that of the better other weave, median of
60 pictures, 0.24 for 0.54, 0.05 for 0.39, 0.02 for 0.30 and 0.61 for 0.82.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from vapoursynth import FLOAT, RGB, core

from vs_vsr.errors import JobError
from vs_vsr.job.request import DEINTERLACERS

__all__ = ["Fields", "available", "check", "deinterlaced", "look", "times_after"]

_RUNS = 8
# Pictures of a run: three cycles of the pulldown, and one before.
_RUN = 16
# Columns that are looked at, so that a large picture takes no longer.
_COLUMNS = 240
# Steps of 1/255 that a line must stick out by: less is noise and coding.
_NOISE = 4
# A run in which the misfits differ by less than this part has no motion to tell anything by.
_STILL = 0.02
# Past a cut no weave with the picture before fits, whatever the source. Times the median.
_CUT = 4
# How much less `same` is than the better other weave, as a part of the greatest misfit. In all runs
# of 16 pictures of four progressive clips, begun at every fourth picture, at least 0.96; with their
# fields woven to two moments at most 0.16, to 3:2 pulldown at most 0.45 (132, 118 and 338 runs).
_WHOLE = 0.7
# Of the pulldown's pattern, where 0.8 is a perfect one and 0 none. In the same runs at least
# 0.51 with pulldown, and at most 0.27 with two moments.
_PULLDOWN = 0.38
# Share of the pictures of a run that are combed in themselves. On the progressive clips it was 0 in
# every run; woven, in the run with the most motion, 0.25 to 1.
_COMBED_PICTURES = 0.1
# This part of the runs with motion must be combed before the clip is called so.
_COMBED_RUNS = 0.25

_TOP_FIRST = {"top": True, "bottom": False}

type _Luma = NDArray[np.int16]
type _Run = Literal["progressive", "interlaced", "telecined", "still"]


@dataclass(frozen=True)
class Fields:
    """How a source's pictures hold its moments."""

    kind: Literal["progressive", "interlaced", "telecined"]
    top_first: bool
    """Whether the top field is the earlier one; of no use for progressive pictures."""
    note: str
    """A sentence where flags and pictures say different things; "" where they agree."""


def available() -> list[str]:
    """Ways of deinterlacing whose plugin is installed here."""
    return [how for how, (namespace, _) in DEINTERLACERS.items() if hasattr(core, namespace)]


def look(clip: Any, field_order: str) -> Fields:
    """Decide from the flags and the pictures how a clip holds its moments.

    Args:
        clip: As the source filter gives it, with its flags `_FieldBased`.
        field_order: The stream's: "progressive", "top", "bottom" or "unknown".
    """
    flags, misfits, combs = [], [], []
    for first in _starts(len(clip)):
        flag, misfit, comb = _measured(clip, first)
        flags += flag
        misfits.append(misfit)
        combs.append(comb)
    fielded = [flag for flag in flags if flag]
    flagged = field_order in _TOP_FIRST or 2 * len(fielded) > len(flags)
    flagged_top = (
        2 * fielded.count(2) >= len(fielded) if fielded else _TOP_FIRST.get(field_order, True)
    )
    kinds = [_kind(misfit) for misfit in misfits]
    # Whole pictures that move up or down by about a line fit the fields of their neighbours too. So
    # what no flag says must be seen in a few pictures by themselves.
    if not flagged and max(combs, default=0) < _COMBED_PICTURES:
        return Fields("progressive", flagged_top, "")
    moving = [kind for kind in kinds if kind != "still"]
    if not moving:
        # Nothing moves, so only a comb within the pictures can speak for the flags.
        if flagged and max(combs, default=0) >= 0.5:
            return Fields("interlaced", flagged_top, "")
        return Fields("progressive", flagged_top, "")
    combed = [kind for kind in moving if kind != "progressive"]
    if len(combed) < _COMBED_RUNS * len(moving):
        note = (
            "The file says interlaced, but its pictures are whole: taken as progressive."
            if flagged
            else ""
        )
        return Fields("progressive", flagged_top, note)
    past, following = (
        sum(
            misfit[:, side].sum()
            for misfit, kind in zip(misfits, kinds, strict=True)
            if kind in ("interlaced", "telecined")
        )
        for side in (1, 2)
    )
    top_first = bool(past < following)
    note = ""
    if not flagged:
        note = "The file says progressive, but its pictures are combed: taken as interlaced."
    elif top_first != flagged_top:
        note = (
            f"The file says {_order(flagged_top)} field first, but its pictures are not: taken as "
            f"{_order(top_first)} field first."
        )
    telecined = 2 * combed.count("telecined") >= len(combed)
    return Fields("telecined" if telecined else "interlaced", top_first, note)


def check(fields: Fields, how: str) -> None:
    """Refuse what cannot come out right.

    Args:
        fields: What `look` found.
        how: "" for nothing, "bwdif" or "ivtc".

    Raises:
        JobError: The pictures are combed and `how` is "", or its plugin is missing.
    """
    if how:
        if how not in available():
            raise JobError(
                f"deinterlace must be a plugin that is installed, got {how}. "
                f"Install it: pip install {DEINTERLACERS[how][1]}."
            )
        return
    if fields.kind == "progressive":
        return
    fitting = "bwdif" if fields.kind == "interlaced" else "ivtc"
    install = "" if fitting in available() else f", after pip install {DEINTERLACERS[fitting][1]}"
    pictures = f"{fields.kind} ones ({_order(fields.top_first)} field first)"
    raise JobError(
        f"source must have progressive pictures, got {pictures}. "
        f"Add --deinterlace {fitting}{install}; or --progressive if they are whole after all."
    )


def deinterlaced(clip: Any, how: str, *, top_first: bool) -> Any:
    """The clip in whole pictures.

    Args:
        clip: As the source filter gives it.
        how: "" takes its pictures as whole ones, whatever its flags say; "bwdif" makes a whole
            picture of the earlier field of each, "ivtc" undoes 3:2 pulldown, four pictures for
            five. Only its times change: see `times_after`.
        top_first: Whether the top field is the earlier one, as `look` found.
    """
    if not how:
        # Or a resizer would take the lines apart.
        return clip.std.SetFieldBased(0)
    # Both plugins take the flags of the pictures before their own argument.
    clip = clip.std.SetFieldBased(2 if top_first else 1)
    top = int(top_first)
    if how == "bwdif":
        return clip.bwdif.Bwdif(field=top)
    return clip.vivtc.VFM(order=top).vivtc.VDecimate().std.SetFieldBased(0)


def times_after(how: str, times: Sequence[int], last_duration: int) -> tuple[list[int], int]:
    """When the pictures of `deinterlaced` are shown.

    "ivtc" drops one picture of each whole cycle of five, and which one depends on the pictures.
    The four that stay were shot at even distances, so they share the cycle's time evenly.

    Args:
        how: As `deinterlaced` takes it.
        times: Of the source's pictures, ascending.
        last_duration: How long the last of them is shown, in the same unit.

    Returns:
        Their times, and how long the last is shown, in the same unit.

    Raises:
        JobError: "ivtc" of a source whose pictures are not evenly spaced.
    """
    if how != "ivtc" or not times:
        return list(times), last_duration
    step = Fraction(times[-1] - times[0] + last_duration, len(times))
    late = max(abs(time - times[0] - n * step) for n, time in enumerate(times))
    if 10 * late > step:
        raise JobError(
            "source must have evenly spaced pictures for ivtc, got one that is "
            f"{float(late / step):.1f} pictures off. Use --deinterlace bwdif."
        )
    cycles, tail = divmod(len(times), 5)
    places = [5 * cycle + Fraction(5 * k, 4) for cycle in range(cycles) for k in range(4)]
    places += [Fraction(5 * cycles + k) for k in range(tail)]
    shown = [times[0] + round(place * step) for place in places]
    return shown, times[-1] + last_duration - shown[-1]


def _order(top_first: bool) -> str:
    return "top" if top_first else "bottom"


def _starts(count: int) -> list[int]:
    """First pictures of the runs that are looked at, spread over `count` pictures."""
    if count <= _RUNS * _RUN:
        # A run of one picture has none before it to compare with.
        return [first for first in range(0, count, _RUN) if first == 0 or count - first > 1]
    return [(2 * k + 1) * (count - _RUN) // (2 * _RUNS) for k in range(_RUNS)]


def _measured(clip: Any, first: int) -> tuple[list[int], NDArray[np.float64], float]:
    """A run's flags, its misfits, and how many of its pictures are combed in themselves.

    Returns:
        Flags of its pictures; (pictures - 1, 3), the misfit of `same`, `past` and `next` of each
        picture but the first; the share of pictures whose lines fit those of their own field
        better.
    """
    flags: list[int] = []
    misfits: list[tuple[float, float, float]] = []
    combed: list[bool] = []
    past: tuple[_Luma, _Luma] | None = None
    for n in range(first, min(first + _RUN, len(clip))):
        with clip.get_frame(n) as frame:
            flags.append(int(frame.props.get("_FieldBased", 0)))
            luma = _luma(frame)
        height = len(luma) // 2
        top, bottom = luma[0::2][:height], luma[1::2][:height]
        woven = _misfit(top, bottom)
        within = _misfit(top[0::2], top[1::2]) + _misfit(bottom[0::2], bottom[1::2])
        combed.append(2 * woven > within)
        if past is not None:
            misfits.append((woven, _misfit(top, past[1]), _misfit(past[0], bottom)))
        past = top, bottom
    return flags, np.array(misfits).reshape(-1, 3), sum(combed) / len(combed)


def _luma(frame: Any) -> _Luma:
    """Brightness of a frame in steps of 1/255, (height, at most twice `_COLUMNS`)."""
    # Green stands for brightness.
    plane = np.asarray(frame[1 if frame.format.color_family == RGB else 0])
    plane = plane[:, :: max(1, plane.shape[1] // _COLUMNS)]
    if frame.format.sample_type == FLOAT:
        plane = plane.clip(0, 1) * 255
    else:
        plane = plane >> (frame.format.bits_per_sample - 8)
    return plane.astype(np.int16, copy=False)


def _misfit(top: _Luma, bottom: _Luma) -> float:
    """How far lines stick out of both neighbours where two fields are woven, on the mean."""
    height = min(len(top), len(bottom))
    lines = np.empty((2 * height, top.shape[1]), np.int16)
    lines[0::2], lines[1::2] = top[:height], bottom[:height]
    steps = np.diff(lines, axis=0)
    before, after = steps[:-1], -steps[1:]
    out = np.minimum(np.abs(before), np.abs(after)) - _NOISE
    # Of one sign: above both neighbours or below both.
    return float(out[(out > 0) & ((before ^ after) >= 0)].sum()) / lines.size


def _kind(misfits: NDArray[np.float64]) -> _Run:
    """What a run's misfits say, (pictures, 3)."""
    if not len(misfits):
        return "still"
    # Cuts are set to nothing, not left out: the pulldown's pattern needs each picture's place.
    worst = misfits[:, 1:].max(axis=1)
    misfits = np.where((worst <= _CUT * np.median(worst))[:, None], misfits, 0.0)
    same, past, following = misfits.sum(axis=0)
    least, most = min(same, past, following), max(same, past, following)
    if most - least <= _STILL * most:
        return "still"
    if min(past, following) - same > _WHOLE * (most - same):
        return "progressive"
    telecined = _pulldown(misfits if past < following else misfits[:, [0, 2, 1]]) > _PULLDOWN
    return "telecined" if telecined else "interlaced"


def _pulldown(misfits: NDArray[np.float64]) -> float:
    """How far misfits follow the pattern of 3:2 pulldown, at its best of five phases."""
    same, past, following = misfits.T
    gain = past - same
    motion = following - np.minimum(past, same)
    scores = []
    for phase in range(5):
        place = (np.arange(len(gain)) + phase) % 5
        whole, apart = place < 2, (place == 2) | (place == 3)
        most = motion[whole | apart].sum()
        scores.append((gain[whole].sum() - gain[apart].sum()) / most if most > 0 else 0.0)
    return float(max(scores))
