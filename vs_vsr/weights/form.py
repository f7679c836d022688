"""The form of a checkpoint file, looked at before anything reads its tensors.

torch's reader of untrusted files (`weights_only`) runs no code, but a file can still make it take
any amount of memory: by members that are compressed, and by what it may call beside the tensors
(`bytearray` of a number, codecs that double a text). No published file has any of that, so it is
refused by what the file names. Nothing here needs torch.
"""

import pickletools
import re
import zipfile
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

__all__ = ["FormError", "Kind", "kind_of"]

Kind = Literal["zip", "pickle", "safetensors"]

# A list of tensors takes up to seventy times its size in memory (measured, of empty lists). The
# longest published one, VRT's, has 0.3 MB.
_INDEX_BYTES = 2 << 20

# Before zips torch wrote its magic number, the protocol, the sizes of C's types, the object and the
# keys of its storages, each as a pickle; then the storages.
_OLD_PICKLES = 5
_OLD_START = re.compile(rb"\x80.\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\.", re.DOTALL)

# What tensors are made of, and what trainers note beside them.
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
    """What a file is, where it is no checkpoint: "a web page"."""


def kind_of(path: Path) -> Kind:
    """How a checkpoint file is written.

    Raises:
        FormError: It is not a checkpoint, or asks for more than tensors that are stored in it.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(512)
        if head[8:9] == b"{":  # the length of a JSON header, then that
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
                raise FormError("a compressed zip, which torch does not write,")
        # torch finds its index in any case.
        indices = [member for member in members if member.filename.lower().endswith("data.pkl")]
        if not indices:
            raise FormError("a zip that is no checkpoint")
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
        # Of the codes that name something, the one that torch reads.
        if code.name == "GLOBAL" and not _NAMES.fullmatch(str(value)):
            if value in _ODD_TENSORS:
                raise FormError(f"a checkpoint with {_ODD_TENSORS[value]} tensors,")
            raise FormError("a pickle of more than tensors, or a damaged one,")


def _check_size(index_bytes: int) -> None:
    if index_bytes > _INDEX_BYTES:
        raise FormError(f"a list of tensors of over {_INDEX_BYTES >> 20} MiB in a file")


def _look(head: bytes) -> str:
    if not head:
        return "an empty file"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html")):
        return "a web page"
    if head.startswith(b"PK"):
        return "the beginning of a checkpoint"
    return f"a file that begins with {head[:8]!r}"
