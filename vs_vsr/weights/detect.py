"""What network a checkpoint holds, read from its keys and shapes, and that network built."""

import os
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, overload

import safetensors.torch
import torch
from torch import Tensor, nn

from vs_vsr.errors import ArgumentError, WeightsError
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.basicvsrpp import BasicVSRPP
from vs_vsr.models.edvr import EDVR, Padding
from vs_vsr.models.iconvsr import IconVSR
from vs_vsr.models.realbasicvsr import RealBasicVSR
from vs_vsr.models.vrt import VRT
from vs_vsr.models.whole import Network
from vs_vsr.weights import store
from vs_vsr.weights.form import FormError, kind_of
from vs_vsr.weights.names import architecture, canonical
from vs_vsr.weights.registry import subject
from vs_vsr.weights.sizes import OPTIONS, SizeError, sized

__all__ = ["build", "load_model", "read"]

State = Mapping[str, Tensor]
_File = str | os.PathLike[str]

# What a trainer stores beside the weights.
_NOT_WEIGHTS = ("step_counter",)

# What published weights are of; whole numbers are VRT's rows of tables.
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64)

_WRAPPERS = ("params_ema", "params", "state_dict")
_GENERATORS = ("generator_ema.", "generator.")


@overload
def load_model(weights: _File, *, model: Literal["BasicVSR"]) -> BasicVSR: ...
@overload
def load_model(
    weights: _File, *, model: Literal["BasicVSRPP"], max_residue_magnitude: float | None = None
) -> BasicVSRPP: ...
@overload
def load_model(
    weights: _File, *, model: Literal["EDVR"], padding: Padding | None = None
) -> EDVR: ...
@overload
def load_model(
    weights: _File, *, model: Literal["IconVSR"], keyframe_stride: int | None = None
) -> IconVSR: ...
@overload
def load_model(
    weights: _File, *, model: Literal["RealBasicVSR"], refine_threshold: float | None = None
) -> RealBasicVSR: ...
@overload
def load_model(weights: _File, *, model: Literal["VRT"]) -> VRT: ...
@overload
def load_model(
    weights: _File,
    *,
    model: None = None,
    keyframe_stride: int | None = None,
    refine_threshold: float | None = None,
    max_residue_magnitude: float | None = None,
    padding: Padding | None = None,
) -> Network: ...
@overload
def load_model(  # a name that is known only when it runs, or of a part: SPyNet, EDVRFeatures
    weights: _File,
    *,
    model: str,
    keyframe_stride: int | None = None,
    refine_threshold: float | None = None,
    max_residue_magnitude: float | None = None,
    padding: Padding | None = None,
) -> nn.Module: ...
def load_model(
    weights: _File,
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

    It is for inference: it has no gradients and is not made for torch.export or ONNX, and its
    pictures come out unclamped. To save it with safetensors, which wants contiguous tensors:
    `{key: value.contiguous() for key, value in network.state_dict().items()}`.

    Args:
        weights: A file, or a name of the registry ("BasicVSR/reds4", …). Of a file with both the
            averaged weights (`params_ema`) and the others (`params`) the averaged ones are taken.
        model: The network it must be, as its filter is called; None takes any. A type checker
            knows a network's own methods where it is named here.
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
    network = build(read(path, model), path, model, **given)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def read(path: Path, model: str | None = None) -> dict[str, Tensor]:
    """The tensors of a checkpoint file under their own names, without a trainer's wrapping.

    Nothing in the file is run: it is read as tensors or refused. What it takes of the memory is
    bounded by its own size: tensors of more numbers than it stores are refused before they are
    looked at.

    Args:
        path: The file.
        model: The network it is for, for the messages.

    Raises:
        WeightsError: It is not a checkpoint, or not all of one, or holds what no network is made
            of.
    """
    try:
        found = _read_file(path)
    except FormError as e:
        raise _not_a_checkpoint(path, str(e), model) from e
    except pickle.UnpicklingError as e:
        # It names something that is no tensor, which is never run, or it is damaged.
        what = "a pickle of more than tensors, or a damaged one,"
        raise _not_a_checkpoint(path, what, model) from e
    # Each reader has its own exceptions for each kind of damage.
    except Exception as e:
        reason = str(e).split("\n", 1)[0].split(". ", 1)[0]
        raise _not_a_checkpoint(path, f"{type(e).__name__} ({reason[:120]})", model) from e
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping):
        raise _not_a_checkpoint(path, f"a {type(found).__name__}", model)
    state: dict[str, Tensor] = {}
    for key, value in found.items():
        if isinstance(value, Tensor) and isinstance(key, str):
            name = key.removeprefix("module.")
            if name in state:
                what = f"{name} with and without module. before it,"
                raise _not_a_checkpoint(path, what, model)
            state[name] = value
    for prefix in _GENERATORS:
        # Beside a generator lie networks that only training needs.
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        state = own or state
    state = {k: v for k, v in state.items() if k not in _NOT_WEIGHTS}
    _check_numbers(state, path, model)
    return state


def _read_file(path: Path) -> Any:
    kind = kind_of(path)
    if kind == "safetensors":
        return safetensors.torch.load_file(path)
    # Published files are of both of torch's formats; only the one that is a zip can be mapped.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "zip")


def _check_numbers(state: State, path: Path, model: str | None) -> None:
    """Refuse tensors that no network is made of, and more numbers than the file has."""

    def odd(key: str, what: str) -> WeightsError:
        return WeightsError(
            f"{subject(model)} must be tensors of stored, finite numbers, got {path}, where {key} "
            f"is {what}. Choose another file."
        )

    # Values are looked at last: until then a tensor of any shape takes no memory.
    for key, value in state.items():
        if value.dtype not in _DTYPES:
            raise odd(key, f"of {value.dtype}")
        if _bytes(value) > value.untyped_storage().nbytes():
            raise odd(key, "of more numbers than it stores")
    # Many tensors may be the same place of the file.
    total_bytes, file_bytes = sum(map(_bytes, state.values())), path.stat().st_size
    if total_bytes > file_bytes:
        raise _not_a_checkpoint(path, f"tensors of {total_bytes} bytes in a file", model)
    for key, value in state.items():
        # Least and greatest are NaN where any number is: one pass, and no copy.
        if value.numel() and not torch.stack(value.aminmax()).isfinite().all():
            raise odd(key, "not finite")


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


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
    if found is None:
        keys = ", ".join(list(state)[:3]) or "none"
        raise WeightsError(
            f"{subject(model)} must be a checkpoint of a known network, got {path} with "
            f"{len(state)} tensors ({keys}, …). Choose a file of {model or 'BasicVSR'}."
        )
    if model not in (None, found):
        raise WeightsError(
            f"{subject(model)} must be a checkpoint of {model}, got one of {found} ({path}). "
            "Choose another file."
        )
    for name in options:
        if OPTIONS[name] != found:
            raise ArgumentError(
                f"{model or 'load_model'}: {name} is an option of {OPTIONS[name]} only, got it for "
                f"{found} ({path}). Leave it out."
            )
    if found == "BasicVSRPP" and any(key.startswith("feat_extract.2.main.") for key in state):
        raise WeightsError(
            f"{subject(model)} must be of a published network, got {path}, a BasicVSR++ with one "
            "strided convolution (the author's 2x files), whose code was never published. Choose "
            "another file."
        )
    return _fitted(found, state, path, model, options)


def _fitted(
    network: str, state: State, path: Path, model: str | None, options: Mapping[str, object]
) -> nn.Module:
    """Build `network` and load `state`, each tensor into its place and none left over."""
    named: dict[str, Tensor] = {}
    twice = []
    for key, value in state.items():
        name = canonical(key, network)
        if name in named:
            twice.append(name)
        named[name] = value
    # First without memory: a few shapes tell the sizes, and all others must agree with them.
    with torch.device("meta"):
        own = _sized(network, named, path, model, options).state_dict()
    wrong = [
        f"{key} {_kind(named[key])} for {_kind(own[key])}"
        for key in own.keys() & named.keys()
        if _kind(own[key]) != _kind(named[key])
    ]
    missing, extra = own.keys() - named.keys(), named.keys() - own.keys()
    if network == "SPyNet":
        # Its files were published before these buffers were; the values are ImageNet's.
        missing -= {"mean", "std"}
    if wrong or missing or extra or twice:
        raise _other_keys(model, network, path, missing, extra, wrong, twice)
    built = sized(network, named, **options)
    own = built.state_dict()
    # Rows of a table, which the sizes tell: others would be read from anywhere.
    places = (key for key, value in own.items() if not (value.is_floating_point() or value.is_meta))
    wrong = [f"{key} with other numbers" for key in places if not torch.equal(own[key], named[key])]
    if wrong:
        raise _other_keys(model, network, path, wrong=wrong)
    built.load_state_dict({**own, **named})
    return built


def _sized(
    network: str,
    named: State,
    path: Path,
    model: str | None,
    options: Mapping[str, object],
) -> nn.Module:
    """The network of the sizes that the shapes tell, or what is wrong with them in a sentence."""
    try:
        return sized(network, named, **options)
    except SizeError as e:
        key = str(e)
        if key in named:
            raise _other_keys(model, network, path, wrong=[key]) from e
        raise _other_keys(model, network, path, missing=[key]) from e
    except ArgumentError:
        raise
    # Sizes that do not go together: heads that do not divide the features, more than can be.
    except (ArithmeticError, RuntimeError, ValueError) as e:
        raise _other_keys(model, network, path, wrong=["those that tell its size"]) from e


def _kind(tensor: Tensor) -> str:
    numbers = "" if tensor.is_floating_point() else " of whole numbers"
    return f"{tuple(tensor.shape)}{numbers}"


def _not_a_checkpoint(path: Path, what: str, model: str | None) -> WeightsError:
    size = path.stat().st_size
    return WeightsError(
        f"{subject(model)} must be a whole checkpoint (.pth or .safetensors), got {path}, {what} "
        f"of {size} bytes. Fetch it again, or choose another file."
    )


def _other_keys(
    model: str | None,
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
        ("of another kind", wrong),
        ("given twice", twice),
    )
    parts = []
    for kind, keys in kinds:
        names = sorted(keys)
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"{', '.join(names[:3])}{more} {kind}")
    return WeightsError(
        f"{subject(model)} must hold exactly the tensors of {network}, got {path} with "
        f"{'; '.join(parts)}. Choose a file that was released whole."
    )
