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
    # On another descriptor: on Windows each process that this one starts looks at its standard
    # input, and would wait there while a thread reads from it.
    own, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_watch, args=(own,), daemon=True).start()


def _watch(descriptor: int) -> None:
    # Not sys.stdin, whose lock Python wants as it exits.
    while os.read(descriptor, 1):
        pass
    os._exit(_INTERRUPTED)
