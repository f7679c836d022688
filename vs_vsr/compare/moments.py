"""Which moments are compared, and what all sources show then."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from vs_vsr.compare.colours import Array
from vs_vsr.compare.sources import Picture, Source
from vs_vsr.errors import ArgumentError
from vs_vsr.evaluation.scores import LEAST_SIDE, measured, psnr, ssim

__all__ = [
    "Moment",
    "clip_times",
    "clock",
    "first_moving",
    "given_times",
    "moments",
    "spread_times",
]


@dataclass(frozen=True)
class Moment:
    """What all sources show at a time."""

    time: Fraction
    """In seconds after the first picture of each source."""
    pictures: tuple[Picture, ...]
    """One for each source; the same object as before where the picture is the same."""
    scores: tuple[tuple[float, float] | None, ...]
    """PSNR in dB and SSIM of Y beside the first source, where sizes are equal and it was asked."""


def clock(time: Fraction) -> str:
    """A time as players show it, "1:02:03.456"."""
    whole = round(time * 1000)
    minutes, thousandths = divmod(whole, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes:02}" if hours else f"{minutes}"
    return f"{hours}:" * bool(hours) + f"{text}:{thousandths // 1000:02}.{thousandths % 1000:03}"


def spread_times(sources: Sequence[Source], count: int) -> list[Fraction]:
    """Times that are evenly spread over what all sources have.

    Raises:
        ArgumentError: None of them says how long it is.
    """
    if count < 1:
        raise ArgumentError(f"frames must be at least 1, got {count}. Write --frames 5.")
    moving = _moving(sources)
    if not moving:
        return [Fraction(0)]
    lengths = [source.duration for source in moving if source.duration]
    if not lengths:
        raise ArgumentError(
            f"sources must say how long they are, got {moving[0].name}, which does not. Name the "
            "moments: --at 0 10 1:30."
        )
    return [min(lengths) * (n + 1) / (count + 1) for n in range(count)]


def given_times(sources: Sequence[Source], times: Sequence[Fraction]) -> list[Fraction]:
    """The times that the user gives, ascending.

    Raises:
        ArgumentError: One is beyond the end of a source, or all sources are still pictures.
    """
    for source in _need_moving(sources, "at"):
        for time in times:
            _check_end(source, "at", time)
    return sorted(times)


def clip_times(
    sources: Sequence[Source], start: Fraction, end: Fraction
) -> tuple[Source, list[Fraction]]:
    """When anything changes from `start` to before `end`.

    Returns:
        The source with the most pictures there, of several the first; and `start`, and the times
        of its pictures.

    Raises:
        ArgumentError: The range is empty or begins after the end of a source, or all sources are
            still pictures.
        VsrError: A source cannot be read.
    """
    moving = _need_moving(sources, "clip")
    if end <= start:
        raise ArgumentError(
            f"clip must be a start and a later end, got {clock(start)} and {clock(end)}. Write "
            "--clip 0:10 0:12."
        )
    for source in moving:
        _check_end(source, "clip", start)
    found = [source.times(start, end) for source in moving]
    most = max(range(len(moving)), key=lambda k: len(found[k]))
    return moving[most], [start, *found[most]]


def first_moving(sources: Sequence[Source]) -> Source:
    """The first source that is no still picture; the first one if all are."""
    return next(iter(_moving(sources)), sources[0])


def moments(
    sources: Sequence[Source],
    leading: Source,
    times: Sequence[Fraction],
    *,
    scores: bool,
    tell: Callable[[str, float], None],
) -> Iterator[Moment]:
    """Read the sources.

    Args:
        sources: What is compared.
        leading: One of them. A moment is when the picture begins that it shows at a time; so times
            between two of its pictures are one moment, and all sources show what they show then.
        times: Ascending.
        scores: Whether to measure.
        tell: Told how far this is.

    Yields:
        Each moment once.

    Raises:
        VsrError: A source cannot be read.
    """
    last = None
    for done, wanted in enumerate(times):
        tell("reading pictures", done / len(times))
        time = leading.at(wanted).time
        if time != last:
            pictures = tuple(source.at(time) for source in sources)
            yield Moment(time, pictures, _scores(pictures) if scores else (None,) * len(pictures))
        last = time


def _scores(pictures: Sequence[Picture]) -> tuple[tuple[float, float] | None, ...]:
    first = pictures[0].rgb
    return (None, *(_score(first, other.rgb) for other in pictures[1:]))


def _score(first: Array, other: Array) -> tuple[float, float] | None:
    if first.shape != other.shape or min(first.shape[:2]) < LEAST_SIDE:
        return None
    a, b = (measured(picture.transpose(2, 0, 1), "y") for picture in (first, other))
    return psnr(a, b), ssim(a, b)


def _moving(sources: Sequence[Source]) -> list[Source]:
    return [source for source in sources if not source.is_still]


def _need_moving(sources: Sequence[Source], option: str) -> list[Source]:
    moving = _moving(sources)
    if not moving:
        raise ArgumentError(
            f"{option} must be left out for still pictures, got it for {len(sources)} of them. "
            "Leave it out."
        )
    return moving


def _check_end(source: Source, option: str, time: Fraction) -> None:
    if source.duration and time >= source.duration:
        raise ArgumentError(
            f"{option} must be before the end of {source.name} ({clock(source.duration)}), got "
            f"{clock(time)}. Choose an earlier time."
        )
