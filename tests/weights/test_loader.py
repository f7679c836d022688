import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import small_network
from torch import Tensor

from vs_vsr.errors import WeightsError
from vs_vsr.weights import rows
from vs_vsr.weights.loader import build, load_model, read

State = dict[str, Tensor]


def basicsr() -> State:
    state = small_network().state_dict()
    return {k.removeprefix("upsampler."): v.contiguous() for k, v in state.items()}


def mmagic() -> State:
    def name(key: str) -> str:
        key = re.sub(r"^(backward|forward)_trunk", r"\1_resblocks", key)
        key = re.sub(r"^upconv(\d)", r"upsample\1.upsample_conv", key)
        inside = r"(spynet\.basic_module\.\d\.basic_module)\.(\d)"
        return re.sub(inside, lambda m: f"{m[1]}.{int(m[2]) // 2}.conv", key)

    return {name(k): v for k, v in basicsr().items()}


def prefixed(prefix: str, state: State) -> State:
    return {prefix + k: v for k, v in state.items()}


OTHER = torch.ones(3)
LAYOUTS: dict[str, Callable[[], dict[str, Any]]] = {
    "own": lambda: small_network().state_dict(),
    "bare": basicsr,
    "params": lambda: {"params": basicsr()},
    "params_ema goes first": lambda: {"params": {"x": OTHER}, "params_ema": basicsr()},
    "module": lambda: {"params": prefixed("module.", basicsr())},
    "mmagic": lambda: {
        "meta": {"epoch": 1},
        "state_dict": {"step_counter": torch.zeros(1), **prefixed("generator.", mmagic())},
    },
    "mmagic module": lambda: {"state_dict": prefixed("module.generator.", mmagic())},
    "generator_ema goes first": lambda: {
        "state_dict": {
            "generator.x": OTHER,
            "discriminator.x": OTHER,
            **prefixed("generator_ema.", mmagic()),
        }
    },
    "half": lambda: {"params": {k: v.half() for k, v in basicsr().items()}},
}


def assert_small_network(model: torch.nn.Module, atol: float = 0.0) -> None:
    state, want = model.state_dict(), small_network().state_dict()
    assert state.keys() == want.keys()
    for key, value in state.items():
        torch.testing.assert_close(value, want[key], rtol=0, atol=atol, msg=key)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_network(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "small.pth"
    torch.save(LAYOUTS[layout](), path)
    model = load_model(path)
    assert_small_network(model, atol=1e-2 if layout == "half" else 0)
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("zipped", [True, False])
def test_both_formats_of_torch_are_read(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "small.ckpt"
    torch.save({"params": basicsr()}, path, _use_new_zipfile_serialization=zipped)
    assert_small_network(load_model(str(path), model="BasicVSR"))


def test_safetensors_are_known_by_their_content(tmp_path: Path) -> None:
    for name in ("small.safetensors", "small"):
        safetensors.torch.save_file(prefixed("generator.", mmagic()), tmp_path / name)
        assert_small_network(load_model(tmp_path / name))


def test_what_was_loaded_is_saved_as_the_docstring_says(tmp_path: Path) -> None:
    torch.save(basicsr(), tmp_path / "small.pth")
    network = load_model(tmp_path / "small.pth")
    contiguous = {key: value.contiguous() for key, value in network.state_dict().items()}
    safetensors.torch.save_file(contiguous, tmp_path / "small.safetensors")
    assert_small_network(load_model(tmp_path / "small.safetensors"))


def test_an_option_that_no_network_has_is_refused_at_once() -> None:
    options: Any = {"paddding": "replicate"}
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'paddding'$"):
        load_model("no/such.pth", **options)


@pytest.mark.parametrize(("channels", "blocks"), [(8, 1), (16, 0), (24, 3)])
def test_sizes_are_read_from_shapes(channels: int, blocks: int, tmp_path: Path) -> None:
    model: Any = build(small_network(channels, blocks).state_dict(), tmp_path)
    assert model.fusion.weight.shape == (channels, 2 * channels, 1, 1)
    assert len(model.backward_trunk.main[2]) == len(model.forward_trunk.main[2]) == blocks


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "an empty file"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"<HTML>", "a web page"),
        (b"hello, world", "a file that begins with b'hello, w'"),
        (b"PK\x03\x04", "the beginning of a checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_refused(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    path.write_bytes(content)
    size = len(content)
    message = rf"must be a whole checkpoint .*, got \S+bad\.pth \({size} bytes\), {what}\. Fetch"
    with pytest.raises(WeightsError, match=message):
        load_model(path)


def test_a_tensor_with_and_without_its_wrapper_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "both.pth"
    state = basicsr()
    key = next(iter(state))
    torch.save({**state, f"module.{key}": state[key] + 1}, path)
    with pytest.raises(
        WeightsError, match=rf"a file with {key} twice, with and without \"module\.\""
    ):
        load_model(path)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_refused(kind: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    if kind == "safetensors":
        safetensors.torch.save_file(basicsr(), path)
    else:
        torch.save(basicsr(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(
        WeightsError, match=r"must be a whole checkpoint .* bytes\), .*\. Fetch it again"
    ):
        load_model(path)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_never_run(how: str, tmp_path: Path) -> None:
    path, trace = tmp_path / "bomb.pth", tmp_path / "ran"
    content = {"params": basicsr(), "x": Bomb(trace)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(Bomb(trace), protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(
        WeightsError, match=r"bomb\.pth \(\d+ bytes\), a pickle of more than tensors"
    ):
        load_model(path)
    assert not trace.exists()


def test_other_things_that_torch_saves_are_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"list\.pth \(\d+ bytes\), a file that holds a list\."):
        load_model(tmp_path / "list.pth")
    torch.save({"a.weight": OTHER}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"known network, got .* with 1 tensors \(a\.weight, …"):
        load_model(tmp_path / "odd.pth")


def test_another_network_is_named(tmp_path: Path) -> None:
    state = {"reconstruction.x": OTHER}
    with pytest.raises(
        WeightsError, match=r"^BasicVSR: .* a checkpoint of BasicVSR, got one of EDVR"
    ):
        build(state, tmp_path, "BasicVSR")


def broken(state: State, how: str) -> State:
    if how == "missing":
        del state["forward_trunk.main.2.1.conv2.bias"]
    elif how == "left over":
        state["backward_trunk.main.2.99999999.conv3.weight"] = OTHER
    elif how == "left over alone":
        state["fusion.gain"] = OTHER
    elif how == "shape":
        state["fusion.bias"] = torch.ones(17)
    elif how == "no trunk":
        del state["backward_trunk.main.0.weight"]
    else:
        state["upsample1.upsample_conv.weight"] = state["upconv1.weight"] + 1
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"\(missing: forward_trunk\.main\.2\.1\.conv2\.bias\)"),
        ("left over", r"left over: backward_trunk\.main\.2\.99999999\.conv3\.weight\)"),
        ("left over alone", r"\(left over: fusion\.gain\)\. Choose"),
        ("shape", r"\(wrong: fusion\.bias \(17,\) instead of \(16,\)\)"),
        ("no trunk", r"\(missing: backward_trunk\.main\.0\.weight\)"),
        ("twice", r"\(given twice: upsampler\.upconv1\.weight\)"),
    ],
)
def test_every_tensor_must_fit(how: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"exactly the tensors of BasicVSR.*{message}"):
        build(broken(basicsr(), how), tmp_path)


def test_long_lists_are_cut(tmp_path: Path) -> None:
    state = {k: v for k, v in basicsr().items() if not k.startswith("forward")}
    with pytest.raises(WeightsError, match=r"\(missing: forward_trunk\S+, \S+, \S+ and 7 more\)\."):
        build(state, tmp_path)


@pytest.mark.parametrize("name", [row.name for row in rows.ROWS[:3]])
def test_the_released_files_load_by_name(name: str, real_weights: None) -> None:
    model = load_model(name)
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == 6_291_311


def test_reading_leaves_names_alone(tmp_path: Path) -> None:
    torch.save({"params": {"a": OTHER, "b": 1}}, tmp_path / "a.pth")
    assert list(read(tmp_path / "a.pth")) == ["a"]
