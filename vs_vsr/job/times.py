"""When the frames of a source are shown, where its file says it badly or not at all."""

from bisect import bisect
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from vs_vsr.errors import JobError

__all__ = ["mended"]

# AV_NOPTS_VALUE: FFmpeg's word for no time.
_NO_TIME = -(2**63)
# What FFmpeg takes for raw streams that name no rate.
_USUAL_RATE = Fraction(25)


def mended(
    times: Sequence[int], time_base: Fraction, rate: Fraction
) -> tuple[tuple[int, ...], Fraction, str]:
    """Times that rise, one for each frame.

    Single ones that are missing, as at both ends of MPEG-4 in AVI with B-frames, go on as those
    beside them. If all are, as in raw streams, the frames follow each other at the rate.

    Args:
        times: Of the frames as they are shown, in units of `time_base`; -2**63 where there is none.
        time_base: Seconds.
        rate: Frames per second; 0 where it is unknown.

    Returns:
        The times; seconds of their unit; what the user should know, or "".

    Raises:
        JobError: They do not rise.
    """
    rate = rate or _USUAL_RATE
    known = [n for n, time in enumerate(times) if time != _NO_TIME]
    if not known:
        note = f"The file has no times: taken as {float(rate):.5g} pictures a second."
        return tuple(range(len(times))), 1 / rate, note
    whole = list(times)
    for n in (n for n, time in enumerate(times) if time == _NO_TIME):
        before, step = known[0], 1 / (rate * time_base)
        if len(known) > 1:
            # The two around it; at an end, the two that are nearest.
            place = min(max(bisect(known, n), 1), len(known) - 1)
            before, after = known[place - 1], known[place]
            step = Fraction(times[after] - times[before], after - before)
        whole[n] = times[before] + round((n - before) * step)
    for n, (time, following) in enumerate(pairwise(whole)):
        if following <= time:
            raise JobError(
                "input must have pictures whose times rise, got picture "
                f"{n + 1} at {float(following * time_base):.3f} s after one at "
                f"{float(time * time_base):.3f} s. Remux it first: "
                "ffmpeg -fflags +genpts -i IN -c copy OUT.mkv"
            )
    return tuple(whole), time_base, ""
