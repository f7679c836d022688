"""Downloads a published file: one GET with a Range, continued if the connection breaks.

urllib is enough: the check of the whole file finds what If-Range would prevent.
"""

import http.client
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vs_vsr.weights.rows import Row

__all__ = ["FetchError", "download", "say", "size_of"]

_BLOCK_BYTES = 256 << 10
_TIMEOUT_S = 30.0
# Six times the largest published network, which has 44 million parameters in float32.
_MOST_BYTES = 1 << 30
# Waits before the first try, and before each try to continue.
_WAITS_S = (0.0, 1.0, 2.0, 4.0)


class FetchError(Exception):
    """One address did not give the file."""


class _BrokenError(FetchError):
    """The connection failed; the download may be continued."""


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https, and from https only to https."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The next request; urllib itself has refused all but http, https and ftp."""
        schemes = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in schemes:
            fp.close()
            raise FetchError(f"it redirects to {newurl}, which is not {' or '.join(schemes)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(row: Row, url: str, part: Path) -> None:
    """Download the rest of `part`; try again after a break, unless the first try brings nothing."""
    for wait_s in _WAITS_S:
        time.sleep(wait_s)
        before = size_of(part)
        try:
            return _continue(row, url, part, before)
        except _BrokenError as e:
            broken = e
            if size_of(part) <= before and not wait_s:
                break
    raise broken


def _continue(row: Row, url: str, part: Path, have: int) -> None:
    """Append the rest of the file at `url` to `part`, which has `have` bytes of it."""
    request = urllib.request.Request(url, headers={"User-Agent": "vs_vsr"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        opener = urllib.request.build_opener(_SafeRedirects)
        response = opener.open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as e:
        e.close()
        if e.code == 416 and have:
            return  # no bytes are left: `part` is complete, or its hash will show that it is not
        raise FetchError(f"the server answered {e.code} {e.reason}") from e
    except (OSError, http.client.HTTPException) as e:
        raise _BrokenError(_reason(e)) from e
    with response:
        start = have if response.status == 206 else 0
        total = _total(row, response, start)
        with part.open("ab" if start else "wb") as file:
            done = start
            for block in _progress(_blocks(response), row.full_name, start, total):
                file.write(block)
                done += len(block)
                if done > (total or _MOST_BYTES):
                    break
    if total is None and done > _MOST_BYTES:
        part.unlink()
        raise FetchError(f"the file does not end after {_MOST_BYTES} bytes")
    if total is not None and done < total:
        raise _BrokenError(f"the connection ended after {done} of {total} bytes")


def _total(row: Row, response: Any, start: int) -> int | None:
    """Size of the whole file, None if unknown; raises before a wrong answer overwrites anything."""
    if response.headers.get_content_type() == "text/html":
        raise FetchError("a web page came instead of the file")
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal():
        return row.size_bytes
    total = start + int(length)
    if row.size_bytes not in (None, total):
        raise FetchError(f"the file has {total} bytes instead of {row.size_bytes}")
    if total > _MOST_BYTES:
        raise FetchError(f"the file has {total} bytes, more than the {_MOST_BYTES} allowed")
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
    """Pass blocks on and show progress: in place on a terminal, else a line every 10 %."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    last_tenth = -1
    try:
        for block in blocks:
            yield block
            done += len(block)
            share = done * 100 // total if total else 0
            if terminal or share // 10 > last_tenth:
                last_tenth = share // 10
                of = f" of {total / 1e6:.1f} MB ({share} %)" if total else ""
                say(f"fetching {name}: {done / 1e6:.1f} MB{of}", end="\r" if terminal else "\n")
    finally:
        if terminal:
            say("", end="\n")


def say(text: str, end: str = "\n") -> None:
    """Write a line to standard error."""
    # A host without a console has no standard error.
    if sys.stderr is not None:
        line = f"vs_vsr: {text}{end}" if text else end
        # A file name may not be text, and a host's standard error may take only ASCII.
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        sys.stderr.write(line.encode(encoding, "backslashreplace").decode(encoding))
        sys.stderr.flush()


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "") or error) or type(error).__name__


def size_of(path: Path) -> int:
    """Size of a file in bytes; 0 if it does not exist."""
    return path.stat().st_size if path.is_file() else 0
