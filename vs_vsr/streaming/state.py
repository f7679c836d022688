"""The states kept between requests."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vs_vsr.streaming.scenes import Marks

__all__ = ["Carried", "StateCache"]

# As many as a segment has chunks by default, so that going backwards through one makes its states
# once; and enough for a few seeks side by side, which would throw out each other's newest.
_KEPT = 4


@dataclass(frozen=True)
class Carried:
    """What crosses the border before a chunk."""

    frame: Tensor
    """The last frame before it, whole, (1, 3, H, W)."""
    marks: Marks
    """That frame's scene cut marks."""
    states: tuple[Any, ...]
    """What the network carries, of each tile."""


class StateCache:
    """State at the start of a chunk, by chunk number; the least recently used goes first."""

    def __init__(self, kept: int | None = None) -> None:
        """Start empty; `kept` entries stay, by default four."""
        self._kept = _KEPT if kept is None else kept
        self._entries: OrderedDict[int, Carried] = OrderedDict()

    def __contains__(self, chunk: int) -> bool:
        """Whether the state at the start of `chunk` is here."""
        return chunk in self._entries

    def get(self, chunk: int) -> Carried | None:
        """The state at the start of `chunk`, if it is here."""
        entry = self._entries.get(chunk)
        if entry is not None:
            self._entries.move_to_end(chunk)
        return entry

    def put(self, chunk: int, entry: Carried) -> None:
        """Keep the state at the start of `chunk`."""
        self._entries[chunk] = entry
        self._entries.move_to_end(chunk)
        if len(self._entries) > self._kept:
            self._entries.popitem(last=False)

    def drop(self, chunks: range) -> None:
        """Forget the states at the start of these chunks."""
        for chunk in chunks:
            self._entries.pop(chunk, None)
