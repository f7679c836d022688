"""Names that users give. They are shown, and never become paths."""

import re
import unicodedata

from vs_vsr.serve.answers import Refusal

__all__ = ["download_name", "shown_name"]

_MOST = 120  # characters
# What some system does not take in the name of a file.
_NO_NAME = re.compile(r'[/\\:*?"<>|]+')


def shown_name(given: object) -> str:
    """A name as it is shown: on one line, no longer than a line, with its ending.

    Raises:
        Refusal: It is no text, or nothing of it can be shown.
    """
    if not isinstance(given, str):
        raise Refusal(400, f"name must be text, got {type(given).__name__}. Send the file's name.")
    # "C" are characters that are not seen: control, direction, halves of pairs.
    seen = "".join(
        " " if c.isspace() else c for c in given if c.isspace() or unicodedata.category(c)[0] != "C"
    )
    name = " ".join(seen.split())
    if not name:
        raise Refusal(400, "name must have letters that can be shown, got none. Rename the file.")
    if len(name) > _MOST:
        name = f"{name[: _MOST - 9]}…{name[-8:]}"
    return name


def download_name(name: str, container: str) -> str:
    """What the upscaled file is called when it is saved."""
    stem = name.rpartition(".")[0] or name
    plain = _NO_NAME.sub("_", stem).strip(" .") or "video"
    return f"{plain} upscaled.{container}"
