"""Reads a checkpoint file, checks it, and builds the network that it holds."""

import os
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import safetensors.torch
import torch
from torch import Tensor, nn

from vs_vsr.errors import ArgumentError, WeightsError
from vs_vsr.models.stream import Network
from vs_vsr.weights import store
from vs_vsr.weights.form import FormError, kind_of
from vs_vsr.weights.keys import canonical
from vs_vsr.weights.registry import subject
from vs_vsr.weights.sizes import NetworkOptions, SizeError, architecture, option_of, sized

__all__ = ["build", "load_model", "read"]

_State = Mapping[str, Tensor]
_File = str | os.PathLike[str]

# What a trainer stores beside the weights.
_NOT_WEIGHTS = ("step_counter",)

# The types of published weights; the whole numbers are row numbers in VRT's tables.
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64)

# Averaged weights go before the others.
_WRAPPERS = ("params_ema", "params", "state_dict")
_GENERATORS = ("generator_ema.", "generator.")


@overload
def load_model[N: nn.Module](
    weights: _File, *, model: type[N], **options: Unpack[NetworkOptions]
) -> N: ...
@overload
def load_model(  # type: ignore[overload-overlap]  # parts are no networks
    weights: _File, *, model: Literal["EDVRFeatures", "SPyNet"], **options: Unpack[NetworkOptions]
) -> nn.Module: ...
@overload
def load_model(
    weights: _File, *, model: str | None = None, **options: Unpack[NetworkOptions]
) -> Network: ...
def load_model(
    weights: _File,
    *,
    model: type[nn.Module] | str | None = None,
    **options: Unpack[NetworkOptions],
) -> nn.Module:
    """Build the network that a checkpoint holds.

    The network, its lineage and its sizes are read from the file.

    It is for inference: it has no gradients, is not made for torch.export or ONNX, and its pictures
    are not clamped. To save it with safetensors, which needs contiguous tensors:
    `{key: value.contiguous() for key, value in network.state_dict().items()}`.

    Args:
        weights: A file, or a published name ("BasicVSR/reds4", …). If a file has both averaged
            weights (`params_ema`) and others (`params`), the averaged ones are taken.
        model: The network it must be: its class, which tells a type checker what is returned, or
            its name, which is that of its filter; None takes any. SPyNet and EDVRFeatures, which
            are parts of networks, have files too.
        options: As in `NetworkOptions`.

    Returns:
        The network in eval mode on the CPU, float32, channels_last, without gradients.

    Raises:
        WeightsError: There is no such file, or it is damaged or holds something else.
        ArgumentError: The network has no such option, or the option breaks its rule.
    """
    for name in options:
        if name not in NetworkOptions.__annotations__:
            raise TypeError(f"load_model() got an unexpected keyword argument {name!r}")
    # By its name, because a reload makes another class.
    expected = model.__name__ if isinstance(model, type) else model
    path = store.obtain(weights, expected)
    chosen = {name: value for name, value in options.items() if value is not None}
    network = build(read(path, expected), path, expected, **chosen)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def read(path: Path, expected: str | None = None) -> dict[str, Tensor]:
    """The tensors of a checkpoint file under their own names, without a trainer's wrapping.

    Nothing in the file is run: it is read as tensors or refused. The memory that it takes is
    bounded by its size: tensors with more numbers than it stores are refused before their values
    are read.

    Args:
        path: The file.
        expected: The network it is for, for the messages.

    Raises:
        WeightsError: It is not a whole checkpoint, or holds something that no network is made of.
    """
    try:
        found = _read_file(path)
    except FormError as e:
        raise _not_a_checkpoint(path, str(e), expected) from e
    except pickle.UnpicklingError as e:
        # It names something that is not a tensor, which is never run, or it is damaged.
        what = "a pickle of more than tensors, or a damaged one"
        raise _not_a_checkpoint(path, what, expected) from e
    # Each reader has its own exceptions for each kind of damage.
    except Exception as e:
        reason = str(e).split("\n", 1)[0].split(". ", 1)[0]
        raise _not_a_checkpoint(
            path, f"a file that cannot be read ({type(e).__name__}: {reason[:120]})", expected
        ) from e
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping):
        raise _not_a_checkpoint(path, f"a file that holds a {type(found).__name__}", expected)
    state: dict[str, Tensor] = {}
    for key, value in found.items():
        if isinstance(value, Tensor) and isinstance(key, str):
            name = key.removeprefix("module.")
            if name in state:
                what = f'a file with {name} twice, with and without "module." before it'
                raise _not_a_checkpoint(path, what, expected)
            state[name] = value
    for prefix in _GENERATORS:
        # A file with a generator has other networks too, which only training needs.
        generator = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        state = generator or state
    state = {k: v for k, v in state.items() if k not in _NOT_WEIGHTS}
    _check_numbers(state, path, expected)
    return state


def _read_file(path: Path) -> Any:
    kind = kind_of(path)
    if kind == "safetensors":
        return safetensors.torch.load_file(path)
    # Published files come in both of torch's formats; only the zip can be mapped into memory.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "zip")


def _check_numbers(state: _State, path: Path, expected: str | None) -> None:
    """Refuse tensors that no network is made of, and more numbers than the file has."""

    def odd(key: str, what: str) -> WeightsError:
        return WeightsError(
            f"{subject(expected)} must be a file of stored, finite numbers, got {path}, where "
            f"{key} {what}. Choose another file."
        )

    # Values are read last: until then a tensor of any shape takes no memory.
    for key, value in state.items():
        if value.dtype not in _DTYPES:
            raise odd(key, f"is of type {value.dtype}")
        if _bytes(value) > value.untyped_storage().nbytes():
            raise odd(key, "has more numbers than it stores")
    # Many tensors may share one place in the file.
    total_bytes, file_bytes = sum(map(_bytes, state.values())), path.stat().st_size
    if total_bytes > file_bytes:
        raise _not_a_checkpoint(path, f"a file with {total_bytes} bytes of tensors", expected)
    for key, value in state.items():
        # If any number is NaN, the least and the greatest are NaN: one pass, and no copy.
        if value.numel() and not torch.stack(value.aminmax()).isfinite().all():
            raise odd(key, "is not finite")


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def build(state: _State, path: Path, expected: str | None = None, **options: object) -> nn.Module:
    """The network with the weights of `state`, whose sizes are read from the shapes.

    Args:
        state: As `read` gives it.
        path: Where it came from, for the messages.
        expected: The network it must be; None takes any.
        options: What no file holds, as `load_model` takes it.

    Raises:
        WeightsError: It is another network, or a key is missing, left over or of another shape.
        ArgumentError: The network has no such option.
    """
    found = architecture(state)
    if found is None:
        keys = ", ".join(list(state)[:3]) or "none"
        raise WeightsError(
            f"{subject(expected)} must be a checkpoint of a known network, got {path} with "
            f"{len(state)} tensors ({keys}, …). Choose a file of {expected or 'BasicVSR'}."
        )
    if expected not in (None, found):
        raise WeightsError(
            f"{subject(expected)} must be a checkpoint of {expected}, got one of {found} ({path}). "
            "Choose another file."
        )
    for name in options:
        if option_of(name) != found:
            raise ArgumentError(
                f"{expected or 'load_model'}: {name} is an option of {option_of(name)} only, got "
                f"it for {found} ({path}). Leave it out."
            )
    if found == "BasicVSRPP" and any(key.startswith("feat_extract.2.main.") for key in state):
        raise WeightsError(
            f"{subject(expected)} must be a checkpoint of a published network, got {path}, a "
            "BasicVSR++ with one strided convolution (the author's 2x files), whose code was never "
            "published. Choose another file."
        )
    return _fitted(found, state, path, expected, options)


def _fitted(
    network: str, state: _State, path: Path, expected: str | None, options: Mapping[str, object]
) -> nn.Module:
    """Build `network` and load `state`: every tensor has its place, and none is left over."""
    named: dict[str, Tensor] = {}
    twice = []
    for key, value in state.items():
        name = canonical(key, network)
        if name in named:
            twice.append(name)
        named[name] = value
    # First without memory: a few shapes give the sizes, and all others must agree with them.
    with torch.device("meta"):
        wanted = _sized(network, named, path, expected, options).state_dict()
    wrong = [
        f"{key} {_kind(named[key])} instead of {_kind(wanted[key])}"
        for key in wanted.keys() & named.keys()
        if _kind(wanted[key]) != _kind(named[key])
    ]
    missing, extra = wanted.keys() - named.keys(), named.keys() - wanted.keys()
    if network == "SPyNet":
        # Its files are older than these buffers, whose values are ImageNet's.
        missing -= {"mean", "std"}
    if wrong or missing or extra or twice:
        raise _other_keys(expected, network, path, missing, extra, wrong, twice)
    built = sized(network, named, **options)
    fresh = built.state_dict()
    # Row numbers of a table, which follow from the sizes: others would read from anywhere.
    places = (k for k, value in fresh.items() if not (value.is_floating_point() or value.is_meta))
    wrong = [
        f"{key} with other numbers" for key in places if not torch.equal(fresh[key], named[key])
    ]
    if wrong:
        raise _other_keys(expected, network, path, wrong=wrong)
    built.load_state_dict({**fresh, **named})
    return built


def _sized(
    network: str,
    named: _State,
    path: Path,
    expected: str | None,
    options: Mapping[str, object],
) -> nn.Module:
    """The network of the sizes that the shapes give; a WeightsError if they give none."""
    try:
        return sized(network, named, **options)
    except SizeError as e:
        key = str(e)
        if key in named:
            raise _other_keys(expected, network, path, wrong=[key]) from e
        raise _other_keys(expected, network, path, missing=[key]) from e
    except ArgumentError:
        raise
    # Sizes that do not fit together (heads that do not divide the features), or are too large.
    except (ArithmeticError, RuntimeError, ValueError) as e:
        raise _other_keys(expected, network, path, wrong=["the tensors that give its size"]) from e


def _kind(tensor: Tensor) -> str:
    numbers = "" if tensor.is_floating_point() else " of whole numbers"
    return f"{tuple(tensor.shape)}{numbers}"


def _not_a_checkpoint(path: Path, what: str, expected: str | None) -> WeightsError:
    size = path.stat().st_size
    return WeightsError(
        f"{subject(expected)} must be a whole checkpoint (.pth or .safetensors), got {path} "
        f"({size} bytes), {what}. Fetch it again, or choose another file."
    )


def _other_keys(
    expected: str | None,
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
        ("wrong", wrong),
        ("given twice", twice),
    )
    parts = []
    for kind, keys in kinds:
        names = sorted(keys)
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"{kind}: {', '.join(names[:3])}{more}")
    return WeightsError(
        f"{subject(expected)} must hold exactly the tensors of {network}, got {path} "
        f"({'; '.join(parts)}). Choose a complete file."
    )
