"""A process that ends with the one that started it, however that ends."""

import os
import threading

__all__ = ["end_with_input"]

# As shells have it for one that was interrupted.
_INTERRUPTED = 130


def end_with_input() -> None:
    """End this process, in the midst of its work, when its standard input ends.

    A parent holds the other end and never writes to it: systems close it when the parent is gone.
    """
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    # Not sys.stdin, whose lock Python wants as it exits.
    while os.read(0, 1):
        pass
    os._exit(_INTERRUPTED)
