"""Which frames each chunk reads and writes, as integer arithmetic on frame numbers.

    frames      0 ........ 29 | 30 ....... 59 | 60 ....... 89 | 90 ...    chunk 30, segment 60
    render(1)                 [===============+++]                            + lookahead
    render(2)             segment starts here [===============+++]
                                          ppp                                 p preroll
    advance(1)                [===============]                               forward state only

Borders follow from the frame number alone, never from which frame was asked for first.
"""

from dataclasses import dataclass

__all__ = ["Plan", "Step"]


@dataclass(frozen=True)
class Step:
    """One piece of work on the frames first..last (half open) of the input."""

    chunk: int
    """The chunk whose frames are worked on."""
    render: bool
    """Whether its pictures are made; otherwise only the forward state is carried over it."""
    first: int
    last: int


@dataclass(frozen=True)
class Plan:
    """Chunks of a clip, and segments over which the forward state is carried.

    All in frames; `segment` is a multiple of `chunk`.
    """

    frames: int
    chunk: int
    lookahead: int
    segment: int
    preroll: int

    @property
    def chunks(self) -> int:
        """Number of chunks; the last one may be short."""
        return -(-self.frames // self.chunk)

    def output(self, chunk: int) -> range:
        """Frames that `chunk` puts out."""
        return range(chunk * self.chunk, min((chunk + 1) * self.chunk, self.frames))

    def segment_start(self, chunk: int) -> int:
        """First chunk of the segment that `chunk` lies in."""
        return chunk - chunk % (self.segment // self.chunk)

    def warm_up(self, chunk: int) -> int:
        """How many frames before `chunk` warm its forward state up: some at a segment's start."""
        start = chunk * self.chunk
        return min(self.preroll, start) if self.segment_start(chunk) == chunk else 0

    def render(self, chunk: int, *, cold: bool = False) -> Step:
        """The step that makes the pictures of `chunk`; a cold one reads no preroll."""
        out = self.output(chunk)
        first = out.start if cold else out.start - self.warm_up(chunk)
        return Step(chunk, True, first, min(out.stop + self.lookahead, self.frames))

    def advance(self, chunk: int, *, cold: bool = False) -> Step:
        """The step that carries the forward state over `chunk`, without pictures."""
        out = self.output(chunk)
        return Step(chunk, False, out.start if cold else out.start - self.warm_up(chunk), out.stop)
