"""Who hears of changes: every tab, each as fast as it reads."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

from vs_vsr.serve.answers import as_json

__all__ = ["Events"]

# A line this often, so that a tab that is gone is noticed.
_STILL_HERE_S = 15.0


class Events:
    """Server-sent events of jobs. What a tab has not read is merged: none can fill memory."""

    def __init__(self, ids: Callable[[], Iterable[str]], public: Callable[[str], object]) -> None:
        """Nobody hears yet.

        Args:
            ids: Tells which jobs there are.
            public: Tells what a tab may know of a job; None for one that is gone.
        """
        self._ids, self._public = ids, public
        self._tabs: set[_Tab] = set()
        self._closed = False

    def changed(self, id: str) -> None:
        """A job is new, other or gone."""
        for tab in self._tabs:
            tab.changed[id] = None
            tab.wake.set()

    def close(self) -> None:
        """End all streams, as the server ends."""
        self._closed = True
        for tab in self._tabs:
            tab.wake.set()

    async def stream(self) -> AsyncIterator[str]:
        """All jobs, then each that changes, as text of server-sent events."""
        tab = _Tab()
        self._tabs.add(tab)
        try:
            ids = list(self._ids())
            # A tab that comes back forgets the jobs that went meanwhile.
            yield _event("begin", {"ids": ids})
            for id in ids:
                tab.changed[id] = None
            while not self._closed:
                for id in list(tab.changed):
                    del tab.changed[id]
                    job = self._public(id)
                    yield _event("gone", {"id": id}) if job is None else _event("job", job)
                if tab.changed:
                    continue
                tab.wake.clear()
                try:
                    await asyncio.wait_for(tab.wake.wait(), _STILL_HERE_S)
                except TimeoutError:
                    yield ": still here\n\n"
        finally:
            self._tabs.discard(tab)


class _Tab:
    def __init__(self) -> None:
        self.changed: dict[str, None] = {}
        """Jobs of which it has not heard, in the order of their changes."""
        self.wake = asyncio.Event()


def _event(kind: str, data: object) -> str:
    return f"event: {kind}\ndata: {as_json(data)}\n\n"
