"""Files that come from the browser: raw bytes to disk, and on from there after a break.

How much has come is the size of the file on disk, so nothing can be in disagreement with it.
"""

import asyncio
import contextlib
import json
import secrets
import shutil
from collections.abc import AsyncIterable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect

from vs_vsr.serve.answers import Refusal
from vs_vsr.serve.files import remove, write_json
from vs_vsr.serve.names import shown_name

__all__ = ["SOURCE", "Upload", "Uploads"]

SOURCE = "source"
"""What an uploaded file is called on disk, whatever it is called elsewhere."""
_ABOUT = "upload.json"
# Left free on the disk.
_SPARE_BYTES = 256 * 10**6
_MOST_BYTES = 1 << 44
_MOST_UPLOADS = 100
# Of the times that browsers know.
_MOST_MS = 8_640_000_000_000_000
_BLOCK_BYTES = 1 << 20


@dataclass
class Upload:
    """A file that is coming."""

    folder: Path
    name: str
    """As it is shown."""
    bytes: int
    """When it is whole."""
    modified: int | None
    """Milliseconds since 1970, as the browser tells it of its file; only to know the file by."""
    comes: bool = field(default=False, kw_only=True)
    """Whether some of it is being written now."""
    gone: bool = field(default=False, kw_only=True)

    @property
    def path(self) -> Path:
        """Where it is on disk."""
        return self.folder / SOURCE

    @property
    def offset(self) -> int:
        """How many bytes have come."""
        return self.path.stat().st_size

    def public(self) -> dict[str, Any]:
        """What a tab may know of it."""
        return {
            "id": self.folder.name,
            "name": self.name,
            "bytes": self.bytes,
            "modified": self.modified,
            "offset": self.offset,
        }


class Uploads:
    """Those that have not become jobs."""

    def __init__(self, folder: Path, jobs: Collection[str]) -> None:
        """Find those that an earlier server has left.

        Args:
            folder: Has a folder for each, named by its id.
            jobs: Ids of those that have become jobs.
        """
        self._folder = folder
        self._all: dict[str, Upload] = {}
        for about in sorted(folder.glob(f"*/{_ABOUT}")):
            if about.parent.name in jobs:
                continue
            with contextlib.suppress(OSError, ValueError, KeyError):
                data = json.loads(about.read_text())
                modified = data.get("modified")
                upload = Upload(about.parent, str(data["name"]), int(data["bytes"]), modified)
                upload.path.touch(0o600)
                self._all[about.parent.name] = upload

    def all(self) -> list[Upload]:
        """All of them, but for those whose folder the user has removed."""
        self._all = {id: upload for id, upload in self._all.items() if upload.path.is_file()}
        return list(self._all.values())

    def get(self, id: object) -> Upload:
        """One of them.

        Raises:
            Refusal: There is none of this id.
        """
        upload = self._all.get(id) if isinstance(id, str) else None
        if upload is None or not upload.path.is_file():
            raise Refusal(404, "This upload is not here any more. Choose the file again.")
        return upload

    def begin(self, name: object, size: object, modified: object = None) -> Upload:
        """Make room for a file.

        Args:
            name: As the user calls it.
            size: Its bytes.
            modified: When it was changed last, in milliseconds since 1970; None if not known.

        Raises:
            Refusal: The name, the size or the time is none, or the disk has no room for all that is
                to come.
        """
        shown = shown_name(name)
        if type(size) is not int or not 0 < size <= _MOST_BYTES:
            raise Refusal(
                400,
                f"bytes must be a whole number from 1 to {_MOST_BYTES}, got {str(size)[:40]}. "
                "Choose another file.",
            )
        if modified is not None and (type(modified) is not int or abs(modified) > _MOST_MS):
            raise Refusal(
                400,
                f"modified must be a whole number of milliseconds, got {str(modified)[:40]}. Leave "
                "it out.",
            )
        under_way = self.all()
        if len(under_way) >= _MOST_UPLOADS:
            raise Refusal(
                409,
                f"At most {_MOST_UPLOADS} files can be under way, got one more. Finish or delete "
                "one first.",
            )
        others = sum(upload.bytes - upload.offset for upload in under_way)
        free = shutil.disk_usage(self._folder).free
        if size + others + _SPARE_BYTES > free:
            raise Refusal(
                507,
                f"{self._folder} must have {(size + others + _SPARE_BYTES) / 1e9:.1f} GB free for "
                f"this file and those under way, got {free / 1e9:.1f} GB. Make room, or pick the "
                "file on this machine without copying it.",
            )
        upload = Upload(self._folder / secrets.token_hex(8), shown, size, modified)
        upload.folder.mkdir(mode=0o700)
        upload.path.touch(0o600)
        about = {"name": shown, "bytes": size, "modified": modified}
        write_json(upload.folder / _ABOUT, about)
        self._all[upload.folder.name] = upload
        return upload

    async def append(
        self, upload: Upload, offset: int, length: int | None, pieces: AsyncIterable[bytes]
    ) -> None:
        """Write bytes as they come; those that came before a break are kept.

        Args:
            upload: Which.
            offset: Where the sender believes that the next byte goes.
            length: Of what comes, if the sender has said it.
            pieces: The bytes.

        Raises:
            Refusal: The offset is another, someone else is sending, more comes than was said, or
                the disk is full.
        """
        if upload.comes:
            raise _conflict(upload, "This file is already being sent by another tab. Wait for it.")
        here = upload.offset
        if offset != here:
            raise _conflict(
                upload, f"Upload-Offset must be {here}, got {offset}. Go on from there."
            )
        if length is not None and here + length > upload.bytes:
            raise _too_long(upload)
        upload.comes = True
        try:
            with upload.path.open("ab", buffering=0) as file:
                block = bytearray()
                try:
                    async for piece in pieces:
                        if upload.gone:
                            raise Refusal(404, "This upload was deleted. Choose the file again.")
                        if here + len(piece) > upload.bytes:
                            raise _too_long(upload)
                        block += piece
                        here += len(piece)
                        if len(block) >= _BLOCK_BYTES:
                            full, block = block, bytearray()
                            await asyncio.to_thread(_write, file, full)
                except ClientDisconnect:
                    pass  # the sender comes back, and asks where to go on
                finally:
                    _write(file, block)
        except OSError as e:
            raise Refusal(
                507,
                f"{upload.name} could not be written to {self._folder} ({e.strerror}). Make room "
                "there, and go on.",
                offset=upload.offset,
            ) from None
        finally:
            upload.comes = False
            if upload.gone:
                # Windows removes no file that is open.
                await asyncio.to_thread(remove, upload.folder)

    async def delete(self, id: str) -> None:
        """Forget one, and what has come of it.

        Raises:
            Refusal: There is none of this id.
        """
        upload = self.get(id)
        upload.gone = True
        del self._all[id]
        await asyncio.to_thread(remove, upload.folder)

    def take(self, id: object) -> Upload:
        """Give a whole one away, to become a job in the same folder.

        Raises:
            Refusal: There is none of this id, or it is not whole.
        """
        upload = self.get(id)
        if upload.offset != upload.bytes:
            raise _conflict(upload, "The file must be whole, got a part of it. Go on sending it.")
        return self._all.pop(upload.folder.name)

    def give_back(self, upload: Upload) -> None:
        """It has become no job after all."""
        self._all[upload.folder.name] = upload

    @staticmethod
    def settled(upload: Upload) -> None:
        """It is a job now."""
        (upload.folder / _ABOUT).unlink(missing_ok=True)


def _write(file: Any, block: bytearray) -> None:
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]


def _conflict(upload: Upload, sentence: str) -> Refusal:
    return Refusal(409, sentence, offset=upload.offset)


def _too_long(upload: Upload) -> Refusal:
    return Refusal(
        413,
        f"The file must have {upload.bytes} bytes, as was said, got more. Choose it again.",
        offset=upload.offset,
    )
