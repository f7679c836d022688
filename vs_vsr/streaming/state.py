"""The states kept between requests."""

from collections import OrderedDict
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vs_vsr.streaming.scenes import Marks

__all__ = ["Carried", "StateCache"]

# A segment of BasicVSR has this many chunks of 30, so going backwards through one makes its
# states only once. It is also enough for a few seeks one after another.
_KEPT = 4


@dataclass(frozen=True)
class Carried:
    """What crosses the border before a chunk."""

    frame: Tensor
    """The last frame before it, whole, (1, 3, H, W)."""
    marks: Marks
    """That frame's scene cut marks."""
    states: tuple[Any, ...]
    """The state of the network, for each tile."""


class StateCache:
    """State at the start of a chunk, by chunk number; the least recently used goes first.

    Requests begin and end on several threads, so each method looks at a copy of the keys.
    """

    def __init__(self, kept: int | None = None) -> None:
        """Start empty; `kept` entries stay, four by default."""
        self._kept = _KEPT if kept is None else kept
        self._entries: OrderedDict[int, Carried] = OrderedDict()

    def newest(self, start: int, chunk: int) -> int:
        """The last chunk after `start` and up to `chunk` whose state is kept; otherwise `start`."""
        return max((k for k in tuple(self._entries) if start < k <= chunk), default=start)

    def get(self, chunk: int) -> Carried | None:
        """The state at the start of `chunk`, if it is kept."""
        entry = self._entries.get(chunk)
        if entry is not None:
            self._entries.move_to_end(chunk)
        return entry

    def put(self, chunk: int, entry: Carried) -> None:
        """Keep the state at the start of `chunk`, beside all others until the next `trim`."""
        self._entries[chunk] = entry
        self._entries.move_to_end(chunk)

    def trim(self, needed: Container[int]) -> None:
        """Keep the entries that are `needed`, and of the others as many as may stay."""
        spare = [chunk for chunk in tuple(self._entries) if chunk not in needed]
        for chunk in spare[: max(len(spare) - self._kept, 0)]:
            self._entries.pop(chunk, None)

    def drop(self, chunks: range) -> None:
        """Forget the states at the start of these chunks."""
        for chunk in tuple(self._entries):
            if chunk in chunks:
                self._entries.pop(chunk, None)
