"""What network a checkpoint holds, read from its keys and shapes, and that network built."""

import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from vs_vsr.errors import WeightsError
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.weights import store

__all__ = ["architecture", "build", "load_model", "read"]

State = Mapping[str, Tensor]

# Keys that only one kind of network has, the most particular first.
_MARKS = (
    ("VRT", r"stage1\."),
    ("RealBasicVSR", r"image_cleaning\."),
    ("BasicVSR++", r"deform_align\."),
    ("IconVSR", r"edvr\."),
    ("EDVR", r"(pcd_align|pcd_alignment)\."),
    ("BasicVSR", r"spynet\."),
)

# What a trainer stores beside the weights.
_NOT_WEIGHTS = ("step_counter",)

_WRAPPERS = ("params_ema", "params", "state_dict")
_GENERATORS = ("generator_ema.", "generator.")

# mmagic's names, then BasicSR's, to those of the modules here.
_RENAMES = (
    (r"^(backward|forward)_resblocks\.", r"\1_trunk."),
    (r"^upsample(\d)\.upsample_conv\.", r"upconv\1."),
    (r"^(upconv1|upconv2|conv_hr|conv_last)\.", r"upsampler.\1."),
)
_MMAGIC_SPYNET = re.compile(r"^(spynet\.basic_module\.\d\.basic_module\.)(\d)\.conv\.")


def load_model(weights: str | os.PathLike[str], *, model: str | None = None) -> nn.Module:
    """Build the network that a checkpoint holds.

    Args:
        weights: A file, or a name of the registry ("reds4", …).
        model: The network it must be, as its filter is called; None takes any.

    Returns:
        The network in eval mode on the CPU, float32, channels_last, without gradients.

    Raises:
        WeightsError: There is no such file, or it is damaged or holds something else.
    """
    path = store.find(weights, model)
    network = build(read(path), path, model)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file under their own names, without a trainer's wrapping.

    Nothing in the file is run: it is read as tensors or refused.

    Raises:
        WeightsError: It is not a checkpoint, or not all of one.
    """
    try:
        found = _read_file(path)
    except WeightsError:
        raise
    except pickle.UnpicklingError as e:
        # Either it names something that is no tensor, which is never run, or it is damaged.
        raise _not_a_checkpoint(path, "a pickle of more than tensors, or a damaged one,") from e
    # Each reader has its own exceptions for each kind of damage.
    except Exception as e:
        reason = str(e).split("\n", 1)[0].split(". ", 1)[0]
        raise _not_a_checkpoint(path, f"{type(e).__name__} ({reason[:120]})") from e
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping):
        raise _not_a_checkpoint(path, f"a {type(found).__name__}")
    state = {str(k).removeprefix("module."): v for k, v in found.items() if isinstance(v, Tensor)}
    for prefix in _GENERATORS:
        # Beside a generator lie networks that only training needs.
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        state = own or state
    return {k: v for k, v in state.items() if k not in _NOT_WEIGHTS}


def _read_file(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(512)
    if head[8:9] == b"{":  # safetensors: the length of a JSON header, then that
        return safetensors.torch.load_file(path)
    # Published files are of both of torch's formats; only the one that is a zip can be mapped.
    mappable = zipfile.is_zipfile(path)
    if mappable or head[:1] == b"\x80":
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mappable)
    raise _not_a_checkpoint(path, _look(head))


def architecture(state: State) -> str | None:
    """Which network has such keys; None if none that is known."""
    for name, mark in _MARKS:
        if any(re.match(mark, key) for key in state):
            return name
    return None


def build(state: State, path: Path, model: str | None = None) -> nn.Module:
    """The network with the weights of `state`, whose sizes are read from the shapes.

    Args:
        state: As `read` gives it.
        path: Where it came from, for the messages.
        model: The network it must be; None takes any.

    Raises:
        WeightsError: It is another network, or a key is missing, left over or of another shape.
    """
    found = architecture(state)
    asked = model or "weights"
    if found is None:
        keys = ", ".join(list(state)[:3]) or "none"
        raise WeightsError(
            f"{asked}: weights must be a checkpoint of a known network, got {path} with "
            f"{len(state)} tensors ({keys}, …). Choose a file of {model or 'BasicVSR'}."
        )
    if model not in (None, found):
        raise WeightsError(
            f"{asked}: weights must be a {model} checkpoint, got one of {found} ({path}). "
            "Choose another file."
        )
    if found != "BasicVSR":
        raise WeightsError(
            f"{asked}: weights must be a checkpoint of a network that vs_vsr {version('vs-vsr')} "
            f"runs (BasicVSR), got one of {found} ({path}). Choose another file."
        )
    return _basicvsr(state, path, asked)


def _basicvsr(state: State, path: Path, asked: str) -> nn.Module:
    named: dict[str, Tensor] = {}
    twice = []
    for key, value in state.items():
        name = _canonical(key)
        if name in named:
            twice.append(name)
        named[name] = value
    first = named.get("backward_trunk.main.0.weight")
    if first is None or first.ndim != 4:
        raise _other_keys(asked, path, missing=["backward_trunk.main.0.weight"])
    # Numbers that are there, not the highest: a file must not choose how much memory is taken.
    pattern = re.compile(r"backward_trunk\.main\.2\.(\d+)\.")
    blocks = len({m[1] for key in named if (m := pattern.match(key))})
    network = BasicVSR(channels=first.shape[0], blocks=blocks)
    own = network.state_dict()
    wrong = [
        f"{key} {tuple(named[key].shape)} for {tuple(own[key].shape)}"
        for key in own.keys() & named.keys()
        if own[key].shape != named[key].shape
    ]
    missing, extra = own.keys() - named.keys(), named.keys() - own.keys()
    if wrong or missing or extra or twice:
        raise _other_keys(asked, path, missing, extra, wrong, twice)
    network.load_state_dict(named)
    return network


def _canonical(key: str) -> str:
    # mmagic counts the convolutions, BasicSR the layers with the ReLUs between.
    key = _MMAGIC_SPYNET.sub(lambda m: f"{m[1]}{2 * int(m[2])}.", key)
    for pattern, name in _RENAMES:
        key = re.sub(pattern, name, key)
    return key


def _look(head: bytes) -> str:
    if not head:
        return "an empty file"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html")):
        return "a web page"
    if head.startswith(b"PK"):
        return "the beginning of a checkpoint"
    return f"a file that begins with {head[:8]!r}"


def _not_a_checkpoint(path: Path, what: str) -> WeightsError:
    size = path.stat().st_size
    return WeightsError(
        f"weights: {path} must be a whole checkpoint (.pth or .safetensors), got {what} of {size} "
        "bytes. Fetch it again."
    )


def _other_keys(
    asked: str,
    path: Path,
    missing: Iterable[str] = (),
    extra: Iterable[str] = (),
    wrong: Iterable[str] = (),
    twice: Iterable[str] = (),
) -> WeightsError:
    kinds = (
        ("missing", missing),
        ("left over", extra),
        ("of another shape", wrong),
        ("given twice", twice),
    )
    parts = []
    for kind, keys in kinds:
        names = sorted(keys)
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"{', '.join(names[:3])}{more} {kind}")
    return WeightsError(
        f"{asked}: weights must hold exactly the tensors of BasicVSR, got {path} with "
        f"{'; '.join(parts)}. Choose a file that was released whole."
    )
