"""Bringing a published file over the network: one GET with a Range, continued where it breaks.

urllib serves: the check of the whole file tells what If-Range would.
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
# Six times the largest published network, of 44 million parameters in float32.
_MOST_BYTES = 1 << 30
# Waits before the first try and before each continuation of a broken connection.
_WAITS_S = (0.0, 1.0, 2.0, 4.0)


class FetchError(Exception):
    """One address did not give the file."""


class _BrokenError(FetchError):
    """The connection failed; what has come may be continued."""


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to http and https, and from https to https alone."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The request that follows; urllib has refused all but http, https and ftp."""
        schemes = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in schemes:
            fp.close()
            raise FetchError(f"a redirect must go to {' or '.join(schemes)}, got {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(row: Row, url: str, part: Path) -> None:
    """Bring `part` to its end over broken connections; a first one that brings nothing is final."""
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
    """Append to `part`, which has `have` bytes, what `url` has beyond them."""
    request = urllib.request.Request(url, headers={"User-Agent": "vs_vsr"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        opener = urllib.request.build_opener(_SafeRedirects)
        response = opener.open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as e:
        e.close()
        if e.code == 416 and have:
            return  # nothing is left to send: `part` is all of it, or the hash tells that it is not
        raise FetchError(f"the server answers {e.code} {e.reason}") from e
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
        raise FetchError(f"the file must have at most {_MOST_BYTES} bytes, got no end of it")
    if total is not None and done < total:
        raise _BrokenError(f"the connection ended after {done} of {total} bytes")


def _total(row: Row, response: Any, start: int) -> int | None:
    """Size of the whole file; raises before anything is overwritten by what is not the file."""
    if response.headers.get_content_type() == "text/html":
        raise FetchError("a web page came instead of the file")
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal():
        return row.size_bytes
    total = start + int(length)
    if row.size_bytes not in (None, total):
        raise FetchError(f"the file must have {row.size_bytes} bytes, got {total}")
    if total > _MOST_BYTES:
        raise FetchError(f"the file must have at most {_MOST_BYTES} bytes, got {total}")
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
                say(f"fetching {name}: {done / 1e6:.1f} MB{of}", end="\r" if terminal else "\n")
    finally:
        if terminal:
            say("", end="\n")


def say(text: str, end: str = "\n") -> None:
    """Tell standard error."""
    # A host without a console has no standard error.
    if sys.stderr is not None:
        line = f"vs_vsr: {text}{end}" if text else end
        # A name may hold what is no text, and a host's standard error may take ASCII alone.
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        sys.stderr.write(line.encode(encoding, "backslashreplace").decode(encoding))
        sys.stderr.flush()


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "") or error) or type(error).__name__


def size_of(path: Path) -> int:
    """Its bytes; 0 where there is no such file."""
    return path.stat().st_size if path.is_file() else 0
