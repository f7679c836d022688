"""Which part of a clip the frames are that a network is handed."""

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["Stretch", "folded", "shots"]


@dataclass(frozen=True)
class Stretch:
    """A run of frames of a clip. Positions count from its first frame, which is 0."""

    count: int
    """Number of frames."""
    own: range
    """Positions of the frames whose pictures are wanted."""
    active: range
    """Positions that recurrent branches run over; the others are only looked at."""
    first: int = 0
    """Number of the first frame in the clip."""
    cuts: Collection[int] = field(default_factory=frozenset)
    """Every t where a shot begins; `count` too where one ends after the last frame."""

    @classmethod
    def whole(cls, count: int) -> "Stretch":
        """A whole clip, which is one shot."""
        return cls(count, range(count), range(count), cuts=frozenset((0, count)))

    def shot(self, position: int) -> range:
        """The part of the shot around `position` that lies within the stretch."""
        return next(shot for shot in shots(range(self.count), self.cuts) if position in shot)


def shots(positions: range, cuts: Collection[int]) -> list[range]:
    """Split a run of positions at the cuts; none of the parts is empty."""
    first, last = positions.start, positions.stop
    borders = [first, *sorted(cut for cut in set(cuts) if first < cut < last), last]
    return [range(i, j) for i, j in pairwise(borders) if i < j]


def folded(position: int, shot: range, radius: int, centre: int | None = None) -> int:
    """Where a window that mirrors about itself finds a frame beyond the ends of the shot.

    The frame k before the first is the one k behind the window of radius `radius` around `centre`,
    and likewise at the end: of frames 0, 1, 2, ... the window of radius 2 around 1 is 4 0 1 2 3.

    Args:
        position: Any.
        shot: Where there are frames; in one too short for the rule its farthest frame is taken.
        radius: Of the window.
        centre: Of the window; by default the shot's first, or last, frame, whose window then gives
            all others what lies beyond (IconVSR's clip, padded once).
    """
    if position < shot.start:
        centre = shot.start if centre is None else centre
        return min(centre + radius + shot.start - position, shot.stop - 1)
    last = shot.stop - 1
    if position > last:
        centre = last if centre is None else centre
        return max(centre - radius - (position - last), shot.start)
    return position
