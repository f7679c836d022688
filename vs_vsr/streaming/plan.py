"""Which frames each chunk reads and writes: integer arithmetic on frame numbers.

    frames      0 ........ 29 | 30 ....... 59 | 60 ....... 89 | 90 ...    chunk 30, segment 60
    render(1)                 [===============+++]                            + lookahead
    render(2)             segment starts here [===============+++]
                                          ppp                                 p preroll
    advance(1)                [===============]                               forward state only

Borders follow from the frame number alone, never from which frame was asked for first.
"""

from dataclasses import dataclass

__all__ = ["Plan", "Step", "WindowPlan"]


@dataclass(frozen=True)
class Step:
    """One piece of work on the frames first to last (half open) of the input."""

    chunk: int
    """The chunk that the step works on."""
    render: bool
    """Whether its pictures are made. Otherwise the state is only carried over it."""
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Chunks of a clip, and segments over which the forward state is carried.

    All in frames; `segment` is a multiple of `chunk`.
    """

    frames: int
    """Length of the clip."""
    chunk: int
    """Frames computed together; chunk k begins at frame k * `chunk`."""
    lookahead: int = 0
    """Frames after a chunk that only its backward pass sees."""
    segment: int
    """Frames over which the forward state is carried."""
    preroll: int = 0
    """Frames before a segment that warm its forward state up."""
    context: int = 0
    """Extra frames read before and after, which only windows look at (EDVR, IconVSR, AnimeSR)."""
    coupled: bool = False
    """Whether the forward state depends on frames after it too (IconVSR, AnimeSR)."""
    state_is_cache: bool = False
    """Whether the state is only a cache: any chunk can start without it (EDVR)."""

    @classmethod
    def whole(cls, frames: int, *, context: int = 0, coupled: bool = False) -> "Plan":
        """The whole clip as one chunk."""
        return cls(frames=frames, chunk=frames, segment=frames, context=context, coupled=coupled)

    @property
    def chunks(self) -> int:
        """Number of chunks; the last one may be short."""
        return -(-self.frames // self.chunk)

    def output(self, chunk: int) -> range:
        """Frames whose pictures `chunk` makes."""
        return range(chunk * self.chunk, min((chunk + 1) * self.chunk, self.frames))

    def segment_start(self, chunk: int) -> int:
        """First chunk of the segment in which `chunk` lies."""
        return chunk - chunk % (self.segment // self.chunk)

    def dependents(self, chunk: int) -> range:
        """Chunks after `chunk` whose state depends on it."""
        return range(chunk + 1, self.segment_start(chunk) + self.segment // self.chunk)

    def warm_up(self, chunk: int) -> int:
        """Frames before `chunk` that warm its forward state up; 0 except at a segment's start."""
        start = chunk * self.chunk
        return min(self.preroll, start) if self.segment_start(chunk) == chunk else 0

    def active(self, step: Step) -> range:
        """Frames of a step that recurrent branches run over; around them lies the context."""
        out = self.output(step.chunk)
        # A cold step begins at its chunk, without the preroll.
        first = max(out.start - self.warm_up(step.chunk), step.first)
        return range(first, min(out.stop + self.lookahead, step.last))

    def render(self, chunk: int, *, cold: bool = False) -> Step:
        """The step that makes the pictures of `chunk`; a cold one reads no frame before it."""
        last = self.output(chunk).stop + self.lookahead + self.context
        return Step(chunk, True, self._first(chunk, cold), min(last, self.frames))

    def advance(self, chunk: int, *, cold: bool = False) -> Step:
        """The step that carries the forward state over `chunk`, without pictures."""
        # A coupled state needs all that pictures need: the lookahead of backward features, or the
        # context of windows.
        last = self.render(chunk).last if self.coupled else self.output(chunk).stop
        return Step(chunk, False, self._first(chunk, cold), last)

    def _first(self, chunk: int, cold: bool) -> int:
        start = chunk * self.chunk
        return start if cold else max(start - self.warm_up(chunk) - self.context, 0)


@dataclass(frozen=True, kw_only=True)
class WindowPlan(Plan):
    """Windows of `chunk + lookahead` frames, one from the start of each chunk (VRT).

    The last window ends with the clip, as in the authors' script, so its overlap may be longer.
    What a window makes of frames of later chunks is their state. `lookahead` is at most `chunk`.
    """

    @property
    def last_window(self) -> int:
        """Where the last window starts."""
        return max(0, self.frames - self.chunk - self.lookahead)

    def windows(self, chunk: int) -> list[range]:
        """The windows that start within `chunk`."""
        start = chunk * self.chunk
        # The last window takes the place of those that would start with it or after it.
        starts = [start] if start < self.last_window else []
        starts += [self.last_window] if self.last_window // self.chunk == chunk else []
        return [range(i, min(i + self.chunk + self.lookahead, self.frames)) for i in starts]

    def segment_start(self, chunk: int) -> int:
        """First chunk with a window that reaches into `chunk`."""
        start = chunk * self.chunk
        # The last window may start late in its chunk, and so reach two chunks on.
        before = range(max(0, chunk - 2), chunk)
        return next((k for k in before if any(w.stop > start for w in self.windows(k))), chunk)

    def dependents(self, chunk: int) -> range:
        """Chunks after `chunk` that its windows reach into."""
        return range(chunk + 1, chunk + 3)

    def render(self, chunk: int, *, cold: bool = False) -> Step:
        """The step that makes the pictures of `chunk`."""
        out = self.output(chunk)
        last = max([out.stop, *(window.stop for window in self.windows(chunk))])
        return Step(chunk, True, out.start, last)

    def advance(self, chunk: int, *, cold: bool = False) -> Step:
        """The step that makes the windows of `chunk` for the chunks after it."""
        step = self.render(chunk)
        return Step(chunk, False, step.first, step.last)
