"""Files of this machine: written whole or not at all, and listed for the user to pick one."""

import contextlib
import json
import os
import re
import shutil
import stat
from pathlib import Path
from typing import Any

from vs_vsr.serve.answers import Refusal

__all__ = ["listing", "picked", "remove", "sweep", "write_json", "write_own"]

_ENDINGS = (
    *(".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc", ".ivf"),
    *(".m2t", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf"),
    *(".nut", ".obu", ".ogm", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)
_MOST_ENTRIES = 2000
_GONE = re.compile(r"\.gone-[0-9a-f]{16}")
# In a folder of which a part is left.
_MARK = ".gone"


def write_json(path: Path, data: object) -> None:
    """Write data beside and rename it, so that a power cut leaves the old or the new."""
    beside = path.with_name(f".{path.name}")
    with open(beside, "w", encoding="ascii", opener=_for_user) as file:
        json.dump(data, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _for_user(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def write_own(path: Path, text: str) -> None:
    """Write a file that its owner alone can read, and never into one that another has put there."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def remove(folder: Path) -> None:
    """Remove a folder that this server has made; after a kill `sweep` finishes it."""
    with contextlib.suppress(OSError):  # held by a program (Windows), or not there any more
        folder = folder.rename(folder.with_name(f".gone-{folder.name}"))
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # there is nothing left
        (folder / _MARK).touch()


def sweep(folder: Path) -> None:
    """Remove what could not be removed, or not before the server was killed, and nothing else."""
    for path in folder.iterdir():
        if _GONE.fullmatch(path.name) or (path / _MARK).is_file():
            shutil.rmtree(path, ignore_errors=True)


def listing(folder: str | None) -> dict[str, Any]:
    """The folders and videos in a folder of this machine.

    Args:
        folder: An absolute path, or one that begins with ~; None for the user's own.

    Returns:
        The folder, its parent, its folders and videos; `more` says that the list is cut.

    Raises:
        Refusal: It cannot be read.
    """
    folders: list[dict[str, Any]] = []
    files: list[dict[str, Any]] = []
    more = False
    try:
        path = Path(os.path.expanduser(folder or "~"))
        if not path.is_absolute():
            raise Refusal(
                400,
                f"folder must be a whole path, got {folder}. Begin it with {Path.home().anchor}.",
            )
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not _is_text(entry.name):
                    continue
                if len(folders) + len(files) >= _MOST_ENTRIES:
                    more = True
                    break
                about = {"name": entry.name, "path": entry.path}
                try:
                    if entry.is_dir():
                        folders.append(about)
                    elif Path(entry.name).suffix.lower() in _ENDINGS and entry.is_file():
                        files.append({**about, "bytes": entry.stat().st_size})
                except OSError:
                    continue  # a link to nothing, or one that may not be looked at
    except (OSError, ValueError) as e:
        why = getattr(e, "strerror", None) or "no path"
        raise Refusal(400, f"{folder or '~'} cannot be read ({why}). Choose another folder.") from e
    for entries_found in (folders, files):
        entries_found.sort(key=lambda about: str(about["name"]).casefold())
    parent = str(path.parent) if path.parent != path else None
    return {
        "folder": str(path),
        "parent": parent,
        "folders": folders,
        "files": files,
        "more": more,
    }


def _is_text(name: str) -> bool:
    """Whether a page can give the name back: some names on disk are no text."""
    return not any("\ud800" <= c <= "\udfff" for c in name)


def picked(given: object) -> Path:
    """A file of this machine that the user has picked.

    Raises:
        Refusal: It is none.
    """
    try:
        path = Path(os.path.expanduser(str(given)))
        is_file = path.is_absolute() and stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        is_file = False
    if not isinstance(given, str) or not is_file:
        raise Refusal(
            400,
            f"path must be a file on this machine, got {str(given)[:200]!r}. Choose another file.",
        )
    return path
