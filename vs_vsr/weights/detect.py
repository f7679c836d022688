"""What network a checkpoint holds, read from its keys and shapes, and that network built."""

import os
import re
import zipfile
from collections.abc import Iterable, Mapping
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
    ("BasicVSR", r"spynet\..*"),
)

# What a trainer stores beside the weights.
_NOT_WEIGHTS = ("step_counter",)

_WRAPPERS = ("params_ema", "params", "state_dict")
_PREFIXES = ("module.", "generator_ema.", "generator.")

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
    with path.open("rb") as file:
        head = file.read(512)
    try:
        if path.suffix == ".safetensors":
            found: Any = safetensors.torch.load_file(path)
        elif zipfile.is_zipfile(path) or head[:1] == b"\x80":
            found = torch.load(path, map_location="cpu", weights_only=True)
        else:
            raise _not_a_checkpoint(path, _look(head))
    except WeightsError:
        raise
    # Each reader has its own exceptions for each kind of damage.
    except Exception as e:
        reason = str(e).split("\n", 1)[0].split(". ", 1)[0]
        raise _not_a_checkpoint(path, f"{type(e).__name__}: {reason[:120]}") from e
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping):
        raise _not_a_checkpoint(path, type(found).__name__)
    state = {str(k): v for k, v in found.items() if isinstance(v, Tensor)}
    for prefix in _PREFIXES:
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        state = own or state
    return {k: v for k, v in state.items() if k not in _NOT_WEIGHTS}


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
    if found != (model or "BasicVSR"):
        raise WeightsError(
            f"{asked}: weights must be a BasicVSR checkpoint, got {path}, which is of {found}. "
            "Choose another file."
        )
    state = {_canonical(key): value for key, value in state.items()}
    first = state.get("backward_trunk.main.0.weight")
    if first is None or first.ndim != 4:
        raise _other_keys(asked, path, missing=["backward_trunk.main.0.weight"])
    blocks = _count(state, r"backward_trunk\.main\.2\.(\d+)\.")
    network = BasicVSR(channels=first.shape[0], blocks=blocks)
    own = network.state_dict()
    wrong = [k for k in own if k in state and own[k].shape != state[k].shape]
    missing, extra = own.keys() - state.keys(), state.keys() - own.keys()
    if wrong or missing or extra:
        raise _other_keys(asked, path, missing, extra, wrong)
    network.load_state_dict(state)
    return network.float()


def _canonical(key: str) -> str:
    # mmagic counts the convolutions, BasicSR the layers with the ReLUs between.
    key = _MMAGIC_SPYNET.sub(lambda m: f"{m[1]}{2 * int(m[2])}.", key)
    for pattern, name in _RENAMES:
        key = re.sub(pattern, name, key)
    return key


def _count(state: State, pattern: str) -> int:
    """How many blocks have keys that match."""
    return 1 + max((int(m[1]) for k in state if (m := re.match(pattern, k))), default=-1)


def _look(head: bytes) -> str:
    if not head:
        return "an empty file"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html")):
        return "a web page"
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
) -> WeightsError:
    kinds = (("missing", missing), ("left over", extra), ("of another shape", wrong))
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
