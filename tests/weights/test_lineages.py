"""Every network, at any size, in every layout it is published in, loads as what it was."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lineages import State, basicsr, mmagic, old_edvr
from networks import network
from torch import nn

from vs_vsr.errors import ArgumentError, WeightsError
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.basicvsrpp import BasicVSRPP
from vs_vsr.models.edvr import EDVR
from vs_vsr.models.edvr_features import EDVRFeatures
from vs_vsr.models.iconvsr import IconVSR
from vs_vsr.models.realbasicvsr import RealBasicVSR
from vs_vsr.models.spynet import SPyNet
from vs_vsr.models.vrt import VRT
from vs_vsr.plugin.plans import FILTERS
from vs_vsr.weights.keys import canonical
from vs_vsr.weights.loader import build, load_model
from vs_vsr.weights.sizes import architecture

Layout = Callable[[State], dict[str, Any]]

BASICSR: dict[str, Layout] = {
    "params": lambda s: {"params": basicsr(s)},
    "params_ema": lambda s: {"params": {"x": torch.ones(1)}, "params_ema": basicsr(s)},
    "module": lambda s: {"params": {f"module.{k}": v for k, v in basicsr(s).items()}},
}
MMAGIC: dict[str, Layout] = {
    "generator": lambda s: {
        "meta": {"iter": 1},
        "state_dict": {
            "step_counter": torch.zeros(1),
            **{f"generator.{k}": v for k, v in mmagic(s).items()},
        },
    },
    "generator_ema": lambda s: {
        "state_dict": {
            **{f"generator.{k}": v + 1 for k, v in mmagic(s).items()},
            **{f"generator_ema.{k}": v for k, v in mmagic(s).items()},
            "discriminator.x": torch.ones(2),
            "perceptual_loss.x": torch.ones(2),
        }
    },
    "bare mmagic": lambda s: dict(mmagic(s)),
}
OLD: dict[str, Layout] = {"2019": lambda s: dict(old_edvr(s))}
VRTS: dict[str, Layout] = {
    "bare": lambda s: dict(s),
    "params": lambda s: {"params": s},
    "module": lambda s: {"params": {f"module.{k}": v for k, v in s.items()}},
}


def vrt(**options: Any) -> VRT:
    sizes: dict[str, Any] = {
        "upscale": 1,
        "depths": [4, *[2] * 6, 2, 2, 1],
        "widths": [12] * 7 + [18] * 3,
        "heads": [3] * 7 + [6] * 3,
        "independent": [8, 9],
        "groups": 4,
    }
    return VRT(**{**sizes, **options})


NETWORKS: dict[str, tuple[Callable[[], nn.Module], dict[str, Layout]]] = {
    "BasicVSR": (lambda: BasicVSR(8, 3), BASICSR | MMAGIC),
    "IconVSR REDS": (lambda: IconVSR(8, 2, 2, extraction_blocks=3), BASICSR | MMAGIC),
    "IconVSR Vimeo": (lambda: IconVSR(16, 1, 3, groups=4), BASICSR | MMAGIC),
    "EDVR 5": (lambda: EDVR(8, 5, 2, 3), BASICSR | MMAGIC | OLD),
    "EDVR 7": (lambda: EDVR(16, 7, 1, 4, groups=4), BASICSR | MMAGIC | OLD),
    "EDVR without TSA": (lambda: EDVR(8, 5, 1, 1, tsa=False), BASICSR | MMAGIC | OLD),
    "EDVR predeblur": (lambda: EDVR(8, 5, 1, 1, predeblur=True), BASICSR | OLD),
    "EDVR deblur": (lambda: EDVR(8, 5, 1, 2, predeblur=True, hr_in=True), BASICSR | OLD),
    "EDVR stage 2": (lambda: EDVR(8, 5, 1, 2, hr_in=True), OLD),
    "EDVR features": (lambda: EDVRFeatures(8, 7, 2), BASICSR | MMAGIC),
    "RealBasicVSR": (lambda: RealBasicVSR(8, 2, 3), MMAGIC),
    "BasicVSR++": (lambda: BasicVSRPP(16, 2, end_blocks=3), BASICSR | MMAGIC),
    "BasicVSR++ restore": (lambda: BasicVSRPP(16, 1, low_res=False), MMAGIC),
    "SPyNet": (SPyNet, {"params": BASICSR["params"], "bare": lambda s: dict(s)}),
    "VRT x4": (lambda: vrt(upscale=4), VRTS),
    "VRT pa 4": (lambda: vrt(window=(8, 8, 8), pa_frames=4, groups=6), VRTS),
    "VRT pa 6": (lambda: vrt(window=(8, 8, 8), pa_frames=6, groups=6), VRTS),
    "VRT denoise": (lambda: vrt(denoising=True), VRTS),
    "VRT interpolate": (lambda: vrt(window=(4, 8, 8), pa_frames=0, independent=()), VRTS),
}
CASES = [(name, layout) for name, (_, layouts) in NETWORKS.items() for layout in layouts]


def assert_same(got: nn.Module, want: nn.Module) -> None:
    assert type(got) is type(want)
    state = want.state_dict()
    loaded = got.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    # What the shapes say, and what no tensor says.
    assert {k: v for k, v in vars(got).items() if not k.startswith("_") and k != "training"} == {
        k: v for k, v in vars(want).items() if not k.startswith("_") and k != "training"
    }


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layout"), CASES)
def test_a_round_trip(name: str, layout: str, tmp_path: Path) -> None:
    make, layouts = NETWORKS[name]
    want = make()
    torch.save(layouts[layout](want.state_dict()), tmp_path / "net.pth")
    assert_same(load_model(tmp_path / "net.pth"), want)


FRAMES = {"EDVR 7": 7, "EDVR features": 7, "VRT interpolate": 4, "SPyNet": 2}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_what_was_saved_gives_the_same_pictures(name: str, tmp_path: Path) -> None:
    make, layouts = NETWORKS[name]
    want = make().eval()
    torch.save(next(iter(layouts.values()))(want.state_dict()), tmp_path / "net.pth")
    got: Any = load_model(tmp_path / "net.pth")
    frames = torch.rand(1, FRAMES.get(name, 5), 3, 64, 64)
    given = {"sigma": 20.0} if name == "VRT denoise" else {}
    inputs = frames.unbind(1) if name == "SPyNet" else (frames,)
    torch.testing.assert_close(got(*inputs, **given), want(*inputs, **given), atol=1e-4, rtol=1e-4)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    channels=st.sampled_from([8, 16, 24]), frames=st.sampled_from([3, 5, 7]),
    blocks=st.tuples(st.integers(0, 3), st.integers(0, 3)), groups=st.sampled_from([2, 4, 8]),
    tsa=st.booleans(), predeblur=st.booleans(), hr_in=st.booleans(),
    layout=st.sampled_from([basicsr, old_edvr]),
)  # fmt: skip
def test_every_edvr(
    tmp_path: Path, channels: int, frames: int, blocks: tuple[int, int], groups: int, tsa: bool,
    predeblur: bool, hr_in: bool, layout: Callable[[State], State],
) -> None:  # fmt: skip
    # Only blocks after the fusion distinguish EDVR from the front of IconVSR: at least one.
    want = EDVR(
        channels, frames, blocks[0], blocks[1] + 1, groups, tsa=tsa, predeblur=predeblur,
        hr_in=hr_in,
    )  # fmt: skip
    assert_same(build(layout(want.state_dict()), tmp_path), want)


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    channels=st.sampled_from([8, 16]), blocks=st.integers(0, 4), ends=st.integers(0, 3),
    padding=st.integers(1, 3), low_res=st.booleans(), layout=st.sampled_from([basicsr, mmagic]),
)  # fmt: skip
def test_every_recurrent_network(
    tmp_path: Path, channels: int, blocks: int, ends: int, padding: int, low_res: bool,
    layout: Callable[[State], State],
) -> None:  # fmt: skip
    for want in (
        BasicVSR(channels, blocks),
        IconVSR(channels, blocks, padding, extraction_blocks=ends),
        RealBasicVSR(channels, blocks, ends),
        BasicVSRPP(channels, blocks, low_res=low_res, end_blocks=ends),
    ):
        assert_same(build(layout(want.state_dict()), tmp_path), want)


PUBLISHED = {name.lower(): name for name in [*FILTERS, "SPyNet"]}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
def test_published_names_and_shapes_fit(shared: Path) -> None:
    listed = sorted((shared / "keys").glob("*.json"))
    for path in listed:
        keys = json.loads(path.read_text())["keys"]
        want = PUBLISHED[next(p for p in path.stem.split("_") if p in PUBLISHED)]
        if "feature_extractor" in path.stem:
            want = "EDVRFeatures"
        assert architecture(keys) == want, path.name
        # One number stands for each tensor; the shapes are what is checked.
        kinds = {key: torch.int64 if key.endswith("_index") else torch.float32 for key in keys}
        state = {k: torch.ones(1, dtype=kinds[k]).expand(shape) for k, shape in keys.items()}
        # Built without memory: loading is then no more than the check of names and shapes.
        with torch.device("meta"):
            network = build(state, path)
        assert type(network).__name__ == want, path.name
    assert listed


def test_the_two_temporal_attentions_of_2019_are_crossed() -> None:
    assert canonical("tsa_fusion.tAtt_1.weight", "EDVR") == "fusion.temporal_attn2.weight"
    assert canonical("tsa_fusion.tAtt_2.bias", "EDVR") == "fusion.temporal_attn1.bias"


def test_what_no_file_holds(tmp_path: Path) -> None:
    torch.save(dict(IconVSR(8, 1).state_dict()), tmp_path / "icon.pth")
    assert load_model(tmp_path / "icon.pth").keyframe_stride == 5
    assert load_model(tmp_path / "icon.pth", keyframe_stride=3).keyframe_stride == 3
    message = r"^IconVSR: keyframe_stride must be at least 1, got 0\. Use 5"
    with pytest.raises(ArgumentError, match=message):
        load_model(tmp_path / "icon.pth", keyframe_stride=0)
    message = r"^load_model: refine_threshold is an option of RealBasicVSR only, got it for IconVSR"
    with pytest.raises(ArgumentError, match=message):
        load_model(tmp_path / "icon.pth", refine_threshold=5)


def test_the_authors_unpublished_2x_network(tmp_path: Path) -> None:
    state = BasicVSRPP(8, 1, low_res=False).state_dict()
    odd = {re.sub(r"^feat_extract\.4\.main", "feat_extract.2.main", k): v for k, v in state.items()}
    with pytest.raises(
        WeightsError, match=r"must be a checkpoint of a published network, got .*2x files"
    ):
        build(odd, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EDVR 5", "IconVSR REDS", "BasicVSR++", "VRT x4", "RealBasicVSR"])
def test_one_tensor_missing_or_left_over_or_misshapen(name: str, tmp_path: Path) -> None:
    state = NETWORKS[name][0]().state_dict()
    keys = list(state)
    for key in keys[:: max(1, len(keys) // 40)]:
        # This tensor is the mark of TSA: without it the one convolution in place of TSA is missing.
        missing = "fusion.weight" if key == "fusion.feat_fusion.weight" else key
        with pytest.raises(WeightsError, match=rf"\(missing: {re.escape(missing)}\)\."):
            build({k: v for k, v in state.items() if k != key}, tmp_path)
        flat = torch.ones(3, 1, 1, 1, 1, 1)
        # A tensor that gives a size is named alone, any other one with both shapes.
        wrong = rf"\(wrong: {re.escape(key)}(\)\.| \(3, 1, 1, 1, 1, 1\) instead of \()"
        with pytest.raises(WeightsError, match=wrong):
            build({**state, key: flat}, tmp_path)
    with pytest.raises(WeightsError, match=r"\(left over: x\.y\)\."):
        build({**state, "x.y": torch.ones(1)}, tmp_path)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        # Inputs that no number of neighbours gives, windows without frames, heads that do not
        # divide 8 features.
        ("stage1.pa_deform.conv_offset.0.weight", (8, 17, 3, 3)),
        ("stage1.pa_deform.conv_offset.0.weight", (8, 1, 3, 3)),
        ("stage1.residual_group2.blocks.0.attn.relative_position_index", (1, 1)),
        ("stage2.residual_group1.blocks.0.attn.relative_position_bias_table", (675, 3)),
    ],
)
def test_sizes_that_no_vrt_has(key: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    state = network("VRT deblur").state_dict()
    assert key in state
    path = tmp_path / "odd.pth"
    torch.save({**state, key: torch.zeros(shape)}, path)
    with pytest.raises(WeightsError, match=rf"VRT, got \S+ \(.*wrong: {re.escape(key)}( |\))"):
        load_model(path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "EDVR",
            {"padding": "mirror"},
            "EDVR: padding must be one of reflection_circle, ",
        ),
        ("RealBasicVSR", {"refine_threshold": -1.0}, "RealBasicVSR: refine_threshold must be 0 or"),
        (
            "RealBasicVSR",
            {"refine_threshold": math.nan},
            "RealBasicVSR: refine_threshold must",
        ),
        (
            "BasicVSRPP",
            {"max_residue_magnitude": math.nan},
            "BasicVSRPP: max_residue_magnitude",
        ),
    ],
)
def test_options_that_break_their_rules(
    name: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "file.pth"
    torch.save(network(name).state_dict(), path)
    with pytest.raises(ArgumentError, match="^" + re.escape(message)):
        load_model(path, **options)
