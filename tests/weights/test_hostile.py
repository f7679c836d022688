"""Files that lie about their contents: each is refused with a message and takes little memory."""

import io
import json
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import small_network
from torch import Tensor

from vs_vsr.errors import WeightsError
from vs_vsr.models.vrt import VRT
from vs_vsr.weights.loader import load_model

KEY = "fusion.weight"


def state() -> dict[str, Tensor]:
    return {key: value.contiguous() for key, value in small_network(8, 1).state_dict().items()}


def with_odd(change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """A checkpoint of BasicVSR with one tensor changed."""
    plain = state()
    return {**plain, KEY: change(plain[KEY])}


def quantised(weight: Tensor) -> Tensor:
    return torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)


ODD: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "meta": (lambda w: w.to("meta"), "a checkpoint with meta tensors"),
    "sparse": (lambda w: w.to_sparse(), "a checkpoint with sparse tensors"),
    "quantised": (quantised, "a checkpoint with quantised tensors"),
    "complex": (lambda w: w.to(torch.complex64), "a checkpoint with complex tensors"),
    "whole numbers": (
        lambda w: w.to(torch.int64),
        r"\(wrong: fusion\.weight \(8, 16, 1, 1\) of whole numbers instead of \(8, 16, 1, 1\)\)",
    ),
    "bytes": (lambda w: w.to(torch.uint8), r"fusion\.weight is of type torch\.uint8"),
    "NaN": (lambda w: w * float("nan"), r"fusion\.weight is not finite"),
    "infinite": (lambda w: w.index_fill(0, torch.tensor([3]), torch.inf), "is not finite"),
    "expanded": (lambda w: w[:, :1].clone().expand(w.shape), "has more numbers than it stores"),
}


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", ODD)
def test_odd_tensors_are_refused_by_name(kind: str, zipped: bool, tmp_path: Path) -> None:
    change, message = ODD[kind]
    path = tmp_path / "odd.pth"
    torch.save(with_odd(change), path, _use_new_zipfile_serialization=zipped)
    begin = r"^BasicVSR: weights must .*, got \S+odd\.pth"
    with pytest.raises(WeightsError, match=f"{begin}.*{message}.*\\. (Choose|Fetch)"):
        load_model(path, model="BasicVSR")


@pytest.mark.parametrize("kind", ["complex", "bytes", "NaN", "whole numbers"])
def test_odd_tensors_of_safetensors(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    safetensors.torch.save_file(with_odd(ODD[kind][0]), path)
    with pytest.raises(WeightsError, match=r"fusion\.weight (is|\(8, 16, 1, 1\)) (of|not)"):
        load_model(path)


def test_a_table_that_is_read_elsewhere_is_refused(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"depths": [2] * 9, "widths": [6] * 9, "heads": [1] * 9}
    weights = VRT(upscale=1, independent=[8], groups=1, **sizes).state_dict()
    key = next(key for key in weights if key.endswith("relative_position_index"))
    torch.save({**weights, key: weights[key] + 2**40}, tmp_path / "far.pth")
    with pytest.raises(WeightsError, match=r"wrong: \S+relative_position_index with other numb"):
        load_model(tmp_path / "far.pth")


def test_a_key_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    keys: dict[Any, torch.Tensor] = {**state(), (1, 2): torch.ones(1)}
    torch.save(keys, tmp_path / "key.pth")
    load_model(tmp_path / "key.pth")


def pickled(*codes: bytes) -> bytes:
    return b"\x80\x02" + b"".join(codes) + b"."


def call(function: bytes, argument: bytes) -> bytes:
    """A call of a function with one argument, in the codes of a pickle."""
    return b"c" + function.replace(b" ", b"\n") + b"\n" + argument + b"\x85R"


def archive(index: bytes, times: int = 1, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of torch's form around an index, `times` times over."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=1) as file:
        with file.open("archive/data.pkl", "w") as member:
            for _ in range(times):
                member.write(index)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
    return buffer.getvalue()


def saved(content: object, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def doubled() -> bytes:
    """A text whose hexadecimal digits are written in hexadecimal digits, 23 times over."""

    def text(content: bytes) -> bytes:
        return b"X" + struct.pack("<I", len(content)) + content

    made = text(b"x" * 64)
    for codec in (b"latin1", *[b"hex_codec"] * 23):
        made = b"c_codecs\nencode\n" + made + text(codec) + b"\x86R"
    return pickled(made)


def wide(key: str, *shape: int) -> dict[str, Tensor]:
    """A small checkpoint with one thin tensor that claims a wide network."""
    return {**state(), key: torch.ones(shape)}


def repeated(zipped: bool) -> bytes:
    """Every number of a large network is one and the same."""
    channels = 1500
    sizes = {8: channels, 11: channels + 3, 32: 4 * channels}
    large: dict[str, Tensor] = {}
    for key, value in state().items():
        shape = [sizes.get(n, n) for n in value.shape]
        if key == KEY:
            shape[1] = 2 * channels
        large[key] = value if "spynet" in key else torch.zeros(1).expand(shape)
    return saved(large, zipped=zipped)


def shared() -> bytes:
    """Many tensors that share one place of the file."""
    one = torch.ones(1 << 20)
    return saved({**state(), **{f"backward_trunk.{i}": one for i in range(1000)}})


def long_ago(numbers: int) -> bytes:
    """Torch's old format, with an index that claims more numbers than follow."""
    whole = saved({"a": torch.ones(8)}, zipped=False)
    start = whole.index(b"K\x08N")  # the storage's count, and no view of it
    claim = b"\x8a\x05" + numbers.to_bytes(5, "little") + b"N"
    return whole[:start] + claim + whole[start + 3 :]


def header() -> bytes:
    """Safetensors whose header lists nothing at length."""
    text = json.dumps({"__metadata__": {str(i): "" for i in range(500_000)}}).encode()
    return struct.pack("<Q", len(text)) + text


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "repeated": (lambda: repeated(True), "has more numbers than it stores"),
    "repeated, old": (lambda: repeated(False), "has more numbers than it stores"),
    "shared": (shared, r"\(\d{8} bytes\), a file with \d{10} bytes of tensors\."),
    "deflated": (
        lambda: archive(b"N0" * (1 << 20), 200, zipfile.ZIP_DEFLATED),
        "a compressed zip",
    ),
    "called": (
        lambda: archive(pickled(call(b"__builtin__ bytearray", b"\x8a\x05" + bytes(4) + b"\x01"))),
        "a pickle of more than tensors",
    ),
    "doubled": (lambda: archive(doubled()), "a pickle of more than tensors"),
    "listed": (
        lambda: archive(pickled(b"]" * (12 << 20))),
        "a file whose list of tensors is over 2 MiB",
    ),
    "listed, old": (
        lambda: pickled(b"]" * (12 << 20)),
        "a file whose list of tensors is over 2 MiB",
    ),
    "claimed, old": (lambda: long_ago(1 << 30), "must be a whole checkpoint"),
    "header": (header, "a file whose list of tensors is over 2 MiB"),
    "wide": (
        lambda: saved(wide("backward_trunk.main.0.weight", 30_000, 1, 1, 1)),
        r"\(30000, 1, 1, 1\) instead of \(30000, 30003, 3, 3\)",
    ),
    "wider than can be": (
        lambda: saved(wide("backward_trunk.main.0.weight", 1 << 21, 1, 1, 1)),
        "must hold exactly",
    ),
}

MEASURE = """
import resource, sys
from vs_vsr.errors import WeightsError
from vs_vsr.weights.loader import load_model
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10  # from KiB, on Linux
plain, *hostile = sys.argv[1:]
load_model(plain)
for path in hostile:
    before = peak()
    try:
        load_model(path, model="BasicVSR")
        print(peak() - before, "loaded")
    except WeightsError as e:
        print(peak() - before, e)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted as Linux does")
def test_small_files_take_little_memory(tmp_path: Path) -> None:
    torch.save(OrderedDict(state()), tmp_path / "plain.pth")
    for name, (make, _) in HOSTILE.items():
        (tmp_path / f"{name}.pth").write_bytes(make())
    files = [str(tmp_path / f"{name}.pth") for name in ("plain", *HOSTILE)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *files], capture_output=True, text=True, check=True
    )
    for line, (_, message) in zip(done.stdout.splitlines(), HOSTILE.values(), strict=True):
        grown, _, sentence = line.partition(" ")
        assert sentence.startswith("BasicVSR: weights must "), line
        assert re.search(message, sentence), line
        # MiB; what they ask for starts at 400.
        assert int(grown) < 150, line


def test_plain_pickles_and_zips_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    for content, what in (
        (pickle.dumps({"a": 1}, protocol=2), "a pickle that torch did not write"),
        (archive(b"")[:-30], "the beginning of a checkpoint"),
        (archive(b""), "a damaged checkpoint"),
    ):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=rf"got {path} \(\d+ bytes\), {what}\. Fetch"):
            load_model(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("film.txt", "no checkpoint")
    with pytest.raises(WeightsError, match=r"\), a zip that is not a checkpoint\. Fetch"):
        load_model(path)
