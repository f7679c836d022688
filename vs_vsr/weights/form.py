"""The form of a checkpoint file, checked before anything reads its tensors.

torch's reader of untrusted files (`weights_only`) runs no code, but a file can still make it take
any amount of memory: with compressed members, and with what it may call beside the tensors
(`bytearray` of a number, codecs that double a text). No published file does any of that, so a file
that names such things is refused. Nothing here needs torch.
"""

import pickletools
import re
import zipfile
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

__all__ = ["FormError", "Kind", "kind_of"]

Kind = Literal["zip", "pickle", "safetensors"]

# The most bytes that a file's list of tensors may have. It takes up to seventy times its size in
# memory (measured on empty lists). The longest published one, VRT's, has 0.3 MB.
_INDEX_BYTES = 2 << 20

# Before it wrote zips, torch wrote its magic number, the protocol, the sizes of C's types, the
# object and the keys of its storages, each as a pickle, and then the storages.
_OLD_PICKLES = 5
_OLD_START = re.compile(rb"\x80.\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\.", re.DOTALL)

# What tensors are made of, and what trainers store beside them.
_NAMES = re.compile(
    r"torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
    r"|torch(\.cuda)? (Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage"
    r"|torch (Size|device|float16|float32|float64|bfloat16)"
    r"|collections (OrderedDict|Counter)"
    r"|(builtins|__builtin__) set"
)
_ODD_TENSORS = {
    "torch._utils _rebuild_sparse_tensor": "sparse",
    "torch._utils _rebuild_qtensor": "quantised",
    "torch._utils _rebuild_meta_tensor_no_storage": "meta",
    "torch ComplexFloatStorage": "complex",
    "torch ComplexDoubleStorage": "complex",
}


class FormError(Exception):
    """The file is not a checkpoint; the text says what it is, as "a web page"."""


def kind_of(path: Path) -> Kind:
    """The format that a checkpoint file is written in.

    Raises:
        FormError: It is not a checkpoint, or asks for more than the tensors stored in it.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(512)
        if head[8:9] == b"{":  # the length of a JSON header, then the header
            _check_size(int.from_bytes(head[:8], "little"))
            return "safetensors"
        try:
            if head.startswith(b"PK\x03\x04") and zipfile.is_zipfile(file):
                _check_zip(file)
                return "zip"
            if head[:1] == b"\x80":
                _check_old(file, head)
                return "pickle"
        except FormError:
            raise
        # Each kind of damage has its own exception.
        except Exception as e:
            raise FormError("a damaged checkpoint") from e
    raise FormError(_look(head))


def _check_zip(file: BinaryIO) -> None:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for member in members:
            if (
                member.compress_type != zipfile.ZIP_STORED
                or member.file_size > member.compress_size
            ):
                raise FormError("a compressed zip, which torch does not write")
        # torch finds its index whether the name is in upper or lower case.
        indices = [member for member in members if member.filename.lower().endswith("data.pkl")]
        if not indices:
            raise FormError("a zip that is not a checkpoint")
        for member in indices:
            _check_size(member.file_size)
            _check_pickle(BytesIO(archive.read(member)))


def _check_old(file: BinaryIO, head: bytes) -> None:
    file.seek(0)
    _check_pickle(file)
    if not _OLD_START.match(head):
        raise FormError("a pickle that torch did not write")
    for _ in range(_OLD_PICKLES - 1):
        _check_pickle(file)


def _check_pickle(file: BinaryIO) -> None:
    """Read one pickle to its end without doing what it says."""
    start = file.tell()
    for code, value, position in pickletools.genops(file):
        _check_size((position or 0) - start)
        # Of the codes that name something, torch reads only this one.
        if code.name == "GLOBAL" and not _NAMES.fullmatch(str(value)):
            if value in _ODD_TENSORS:
                raise FormError(f"a checkpoint with {_ODD_TENSORS[value]} tensors")
            raise FormError("a pickle of more than tensors, or a damaged one")


def _check_size(index_bytes: int) -> None:
    if index_bytes > _INDEX_BYTES:
        raise FormError(f"a file whose list of tensors is over {_INDEX_BYTES >> 20} MiB")


def _look(head: bytes) -> str:
    if not head:
        return "an empty file"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html")):
        return "a web page"
    if head.startswith(b"PK"):
        return "the beginning of a checkpoint"
    return f"a file that begins with {head[:8]!r}"
