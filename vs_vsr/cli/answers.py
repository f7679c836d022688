"""What the commands share: how they are declared, and how they answer."""

import argparse
import errno
import os
import sys
from collections.abc import Callable

__all__ = ["Commands", "add_command", "sentence_of", "tell"]

# What a shell tells of a program that SIGPIPE ended.
_READER_GONE = 128 + 13

# What `ArgumentParser.add_subparsers` gives; its class has no public name.
type Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    """Add a command that `run` serves, and that its help describes as `text`."""
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def tell(*lines: str) -> None:
    """Write lines to standard output, as the answer of a command."""
    text = "".join(f"{line}\n" for line in lines)
    # Standard output only here: the plugin, which shares it with vspipe, never imports this module.
    try:
        try:
            sys.stdout.write(text)
        except UnicodeEncodeError:
            # A path that is not text, or not in this encoding: as the system has it, for scripts.
            sys.stdout.flush()
            sys.stdout.buffer.write(os.fsencode(text))
        # A reader that waits, as for progress, sees each line at once.
        sys.stdout.flush()
    except OSError as e:
        if not isinstance(e, BrokenPipeError) and (os.name != "nt" or e.errno != errno.EINVAL):
            raise
        # The reader, as `head`, has seen enough. What is left is thrown away, or Python would
        # complain of it at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(_READER_GONE) from None


def sentence_of(error: Exception) -> str:
    """What to say of an error that is the user's to mend."""
    if not isinstance(error, OSError):
        return str(error)
    what = error.filename or "A file"
    return (
        f"{what} cannot be read or written ({error.strerror}). Make room there or mend it, and run "
        "the same command again."
    )
