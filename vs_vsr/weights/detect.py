"""What network a checkpoint holds, read from its keys and shapes, and that network built."""

import os
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from vs_vsr.errors import ArgumentError, WeightsError
from vs_vsr.models.edvr import Padding
from vs_vsr.weights import store
from vs_vsr.weights.names import architecture, canonical
from vs_vsr.weights.sizes import OPTIONS, SizeError, sized

__all__ = ["build", "load_model", "read"]

State = Mapping[str, Tensor]

# What a trainer stores beside the weights.
_NOT_WEIGHTS = ("step_counter",)

_WRAPPERS = ("params_ema", "params", "state_dict")
_GENERATORS = ("generator_ema.", "generator.")


def load_model(
    weights: str | os.PathLike[str],
    *,
    model: str | None = None,
    keyframe_stride: int | None = None,
    refine_threshold: float | None = None,
    max_residue_magnitude: float | None = None,
    padding: Padding | None = None,
) -> nn.Module:
    """Build the network that a checkpoint holds.

    The network, its lineage and its sizes are read from the file; what no file holds are the
    arguments, each with the default of the published networks.

    Args:
        weights: A file, or a name of the registry ("BasicVSR/reds4", …). Of a file with both the
            averaged weights (`params_ema`) and the others (`params`) the averaged ones are taken.
        model: The network it must be, as its filter is called; None takes any.
        keyframe_stride: IconVSR: every how many frames there is a keyframe, default 5.
        refine_threshold: RealBasicVSR: change below which cleaning stops, in 1/255, default 255.
        max_residue_magnitude: BasicVSR++: pixels the alignment may move beside the flow, default
            10.
        padding: EDVR: what windows see beyond the ends of a clip, "reflection_circle" (default for
            super-resolution of sharp input) or "replicate" (for all else), as the official tests
            do.

    Returns:
        The network in eval mode on the CPU, float32, channels_last, without gradients.

    Raises:
        WeightsError: There is no such file, or it is damaged or holds something else.
        ArgumentError: The network has no such argument, or the argument breaks its rule.
    """
    path = store.find(weights, model)
    options = {
        "keyframe_stride": keyframe_stride,
        "refine_threshold": refine_threshold,
        "max_residue_magnitude": max_residue_magnitude,
        "padding": padding,
    }
    given = {name: value for name, value in options.items() if value is not None}
    network = build(read(path), path, model, **given)
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
    state: dict[str, Tensor] = {}
    for key, value in found.items():
        if isinstance(value, Tensor):
            name = str(key).removeprefix("module.")
            if name in state:
                raise _not_a_checkpoint(path, f"{name} with and without module. before it,")
            state[name] = value
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


def build(state: State, path: Path, model: str | None = None, **options: object) -> nn.Module:
    """The network with the weights of `state`, whose sizes are read from the shapes.

    Args:
        state: As `read` gives it.
        path: Where it came from, for the messages.
        model: The network it must be; None takes any.
        options: What no file holds, as `load_model` takes it.

    Raises:
        WeightsError: It is another network, or a key is missing, left over or of another shape.
        ArgumentError: The network has no such option.
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
    for name in options:
        if OPTIONS[name] != found:
            raise ArgumentError(
                f"{asked}: {name} must be left out but for {OPTIONS[name]}, got it for {found} "
                f"({path}). Leave it out."
            )
    if found == "BasicVSRPP" and any(key.startswith("feat_extract.2.main.") for key in state):
        raise WeightsError(
            f"{asked}: weights must be of a published network, got {path}, a BasicVSR++ with one "
            "strided convolution (the author's 2x files), whose code was never published. Choose "
            "another file."
        )
    return _fitted(found, state, path, asked, options)


def _fitted(
    network: str, state: State, path: Path, asked: str, options: Mapping[str, object]
) -> nn.Module:
    """Build `network` and load `state`, each tensor into its place and none left over."""
    named: dict[str, Tensor] = {}
    twice = []
    for key, value in state.items():
        name = canonical(key, network)
        if name in named:
            twice.append(name)
        named[name] = value
    try:
        built = sized(network, named, **options)
    except SizeError as e:
        keys = [str(e)]
        there = keys[0] in named
        raise _other_keys(
            asked, network, path, missing=() if there else keys, wrong=keys if there else ()
        ) from e
    own = built.state_dict()
    if network == "SPyNet":
        # Its files were published before these buffers were; the values are ImageNet's.
        named = {**{key: own[key] for key in ("mean", "std")}, **named}
    wrong = [
        f"{key} {tuple(named[key].shape)} for {tuple(own[key].shape)}"
        for key in own.keys() & named.keys()
        if own[key].shape != named[key].shape
    ]
    missing, extra = own.keys() - named.keys(), named.keys() - own.keys()
    if wrong or missing or extra or twice:
        raise _other_keys(asked, network, path, missing, extra, wrong, twice)
    built.load_state_dict(named)
    return built


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
    network: str,
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
        f"{asked}: weights must hold exactly the tensors of {network}, got {path} with "
        f"{'; '.join(parts)}. Choose a file that was released whole."
    )
