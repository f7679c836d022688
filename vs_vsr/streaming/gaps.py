"""Which frames the source could not give, and what was made without them: integers only."""

from collections.abc import Callable

from vs_vsr.streaming.plan import Plan, Step

__all__ = ["Gaps"]


class Gaps:
    """What is missing from a clip while its steps are done along a plan.

    A chunk whose own frames are missing ends the state: the next chunk in the segment starts cold.
    If only the preroll of a segment is missing, its first chunk starts cold itself. Once the frames
    come, what was made without them is stale.
    """

    def __init__(self, plan: Plan) -> None:
        """Begin with nothing missing."""
        self._plan = plan
        # Chunks that the source could not give, and whether that is sure: the step may also have
        # looked at frames of the chunk before.
        self._missing: dict[int, bool] = {}
        # First chunks of segments whose preroll is missing. The value is the chunks before it whose
        # part of the preroll has not come yet.
        self._without_preroll: dict[int, set[int]] = {}
        # The frames of the last step that was done.
        self._available = range(0)
        self._listeners: list[Callable[[range], object]] = []

    def on_stale(self, forget: Callable[[range], object]) -> None:
        """Call `forget` with chunks before which the state is stale, whenever `done` finds some."""
        self._listeners.append(forget)

    @property
    def any(self) -> bool:
        """Whether something is missing. Otherwise no step makes anything stale."""
        return bool(self._missing or self._without_preroll)

    def start(self, chunk: int) -> int:
        """The chunk at which the state that leads to `chunk` begins."""
        first = self._plan.segment_start(chunk)
        # A copy, as other threads may ask while a step ends.
        candidates = [k for k in tuple(self._missing) if first <= k < chunk]
        return max([first, *(k + 1 for k in candidates if self._is_missing(k))])

    def is_cold(self, chunk: int) -> bool:
        """Whether `chunk` must do without the frames before it."""
        if chunk == self._plan.segment_start(chunk):
            return chunk in self._without_preroll
        return self._is_missing(chunk - 1)

    def _is_missing(self, chunk: int) -> bool:
        """Whether it is known that the source cannot give the frames of `chunk` itself.

        Requests side by side are planned before any of them fails. If the chunk before has failed
        too, its frames may be all that this one's step did not get.
        """
        is_sure = self._missing.get(chunk)
        return is_sure is not None and (is_sure or chunk - 1 not in self._missing)

    def failed(self, step: Step) -> None:
        """Note that the source could not give the frames of `step`."""
        chunk = step.chunk
        first_output = self._plan.output(chunk).start
        # The frames before a segment are its preroll, which is kept account of below.
        is_sure = step.first == first_output or chunk == self._plan.segment_start(chunk)
        self._missing[chunk] = is_sure or self._missing.get(chunk, False)
        preroll = self._plan.render(chunk).first
        if step.first == first_output or self._came(preroll, first_output):
            # The frames before the chunk were not needed, or are not the missing ones.
            self._without_preroll.pop(chunk, None)
        else:
            self._without_preroll[chunk] = set(range(preroll // self._plan.chunk, chunk))

    def done(self, step: Step) -> list[range]:
        """Note that `step` was done with all its frames.

        Returns:
            Ranges of chunks before which the state is stale, as it was made without frames that
            came with this step; empty if there are none.
        """
        self._available = range(step.first, step.last)
        stale = []
        length = self._plan.chunk
        for chunk, missing in tuple(self._without_preroll.items()):
            first = self._plan.render(chunk).first
            missing -= {k for k in missing if self._came(max(first, k * length), (k + 1) * length)}
            if not missing:
                del self._without_preroll[chunk]
                stale.append(self._after(chunk, chunk + 1))
        if step.chunk in self._missing:
            del self._missing[step.chunk]
            # The state right after the chunk was made by this very step.
            stale.append(self._after(step.chunk, step.chunk + 2))
        for chunks in stale:
            for forget in self._listeners:
                forget(chunks)
        return stale

    def _came(self, first: int, last: int) -> bool:
        """Whether the last step had the frames first to last (half open)."""
        return self._available.start <= first and last <= self._available.stop

    def _after(self, chunk: int, first: int) -> range:
        """Chunks from `first` on before which the state depends on `chunk`."""
        return range(first, self._plan.dependents(chunk).stop + 1)
