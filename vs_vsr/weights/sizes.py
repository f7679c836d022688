"""Which network a checkpoint's tensors belong to, and that network built to their sizes."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from torch import Tensor, nn

from vs_vsr.models.animesr import AnimeSR
from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.models.basicvsrpp import BasicVSRPP
from vs_vsr.models.edvr import EDVR, Padding
from vs_vsr.models.edvr_features import EDVRFeatures
from vs_vsr.models.iconvsr import IconVSR
from vs_vsr.models.realbasicvsr import RealBasicVSR
from vs_vsr.models.spynet import SPyNet
from vs_vsr.models.vrt import VRT

__all__ = ["NetworkOptions", "SizeError", "architecture", "option_of", "sized"]


class NetworkOptions(TypedDict, total=False):
    """What no file holds: each is an argument of one network, by default as it was published.

    keyframe_stride: IconVSR: frames from one keyframe to the next, default 5.
    refine_threshold: RealBasicVSR: change below which cleaning stops, in 1/255, default 255.
    max_residue_magnitude: BasicVSR++: pixels by which the alignment may differ from the flow,
        default 10.
    padding: EDVR: what windows see beyond the ends of a clip, "reflection_circle" (default for
        super-resolution of sharp input) or "replicate" (for all else), as the official tests do.
    """

    keyframe_stride: int | None
    refine_threshold: float | None
    max_residue_magnitude: float | None
    padding: Padding | None


class SizeError(Exception):
    """A tensor that gives a size is missing or of the wrong kind; the text is its key."""


class _Shapes:
    """Shapes of a file's tensors, under the names of the modules here."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = state

    def has(self, key: str) -> bool:
        return key in self._state

    def of(self, key: str, dimensions: int = 4) -> tuple[int, ...]:
        tensor = self._state.get(key)
        if tensor is None or tensor.ndim != dimensions or not tensor.numel():
            raise SizeError(key)
        return tuple(tensor.shape)

    def count(self, pattern: str) -> int:
        """How many different numbers stand in the place of the group of `pattern`.

        They are counted. The highest number would let a file choose how much memory is taken.
        """
        matches = (re.match(pattern, key) for key in self._state)
        return len({match[1] for match in matches if match})

    def blocks(self, trunk: str) -> int:
        """Number of residual blocks of an `InputConvBlocks`."""
        return self.count(rf"{re.escape(trunk)}\.main\.2\.(\d+)\.")


def _basicvsr(shapes: _Shapes) -> nn.Module:
    channels = shapes.of("backward_trunk.main.0.weight")[0]
    return BasicVSR(channels, shapes.blocks("backward_trunk"))


def _iconvsr(shapes: _Shapes, **options: Any) -> nn.Module:
    channels = shapes.of("backward_trunk.main.0.weight")[0]
    front = _front(shapes, "edvr.")
    return IconVSR(
        channels,
        shapes.blocks("backward_trunk"),
        front["frames"] // 2,
        extraction_blocks=front["blocks"],
        groups=front["groups"],
        **options,
    )


def _front(shapes: _Shapes, prefix: str = "") -> dict[str, Any]:
    """Arguments of `EDVRFeatures`."""
    channels = shapes.of(f"{prefix}conv_l2_1.weight")[0]
    tsa = shapes.has(f"{prefix}fusion.feat_fusion.weight")
    fusion = shapes.of(f"{prefix}fusion.feat_fusion.weight" if tsa else f"{prefix}fusion.weight")
    # Each deformable group has two offsets and a mask for each of 9 taps: 27.
    offsets = shapes.of(f"{prefix}pcd_align.cas_dcnpack.conv_offset.weight")
    return {
        "channels": channels,
        "frames": fusion[1] // channels,
        "blocks": shapes.count(rf"{re.escape(prefix)}feature_extraction\.(\d+)\."),
        "groups": offsets[0] // 27,
        "tsa": tsa,
        "predeblur": shapes.has(f"{prefix}predeblur.conv_first.weight"),
        "hr_in": shapes.has(f"{prefix}predeblur.stride_conv_hr1.weight")
        or shapes.has(f"{prefix}conv_first_2.weight"),
    }


def _edvr_features(shapes: _Shapes) -> nn.Module:
    return EDVRFeatures(**_front(shapes))


def _edvr(shapes: _Shapes, **options: Any) -> nn.Module:
    front = _front(shapes)
    return EDVR(
        extraction_blocks=front.pop("blocks"),
        reconstruction_blocks=shapes.count(r"reconstruction\.(\d+)\."),
        **front,
        **options,
    )


def _realbasicvsr(shapes: _Shapes, **options: Any) -> nn.Module:
    return RealBasicVSR(
        shapes.of("basicvsr.backward_trunk.main.0.weight")[0],
        shapes.blocks("basicvsr.backward_trunk"),
        shapes.blocks("image_cleaning.0"),
        **options,
    )


def _basicvsrpp(shapes: _Shapes, **options: Any) -> nn.Module:
    offsets = shapes.of("deform_align.backward_1.conv_offset.6.weight")
    return BasicVSRPP(
        shapes.of("reconstruction.main.0.weight")[0],
        shapes.blocks("backbone.backward_1"),
        low_res=shapes.has("feat_extract.main.0.weight"),
        end_blocks=shapes.blocks("reconstruction"),
        groups=offsets[0] // 27,
        **options,
    )


def _spynet(shapes: _Shapes) -> nn.Module:
    del shapes  # all files have the same size
    return SPyNet()


def _animesr(shapes: _Shapes) -> nn.Module:
    channels = shapes.of("recurrent_cell.conv_s1_first.0.weight")[0]
    bodies = [f"recurrent_cell.body_s{scale}_first" for scale in (1, 2, 4)]
    blocks = [shapes.count(rf"{re.escape(body)}\.(\d+)\.") for body in bodies]
    for i in (1, 2):
        # The scales end together, so a coarser one has no more blocks.
        if blocks[i] > blocks[i - 1]:
            raise SizeError(f"{bodies[i - 1]}.{blocks[i - 1]}.conv1.weight")
    return AnimeSR(channels, blocks)


def _vrt(shapes: _Shapes) -> nn.Module:
    stages = [f"stage{i}" for i in range(1, 8)]
    last = [f"stage8.{k}" for k in range(1, shapes.count(r"stage8\.(\d+)\.linear\.") + 1)]
    depths = [shapes.count(rf"{stage}\.(residual_group\d\.blocks\.\d+)\.") for stage in stages]
    depths += [shapes.count(rf"{re.escape(k)}\.residual_group\.blocks\.(\d+)\.") for k in last]
    widths = [shapes.of(f"{stage}.linear1.weight", 2)[0] for stage in stages]
    widths += [shapes.of(f"{group}.linear.weight", 2)[0] for group in last]
    first = [f"{stage}.residual_group1.blocks.0.attn" for stage in stages]
    first += [f"{group}.residual_group.blocks.0.attn" for group in last]
    heads = [shapes.of(f"{attn}.relative_position_bias_table", 2)[1] for attn in first]
    # Self-attention has a row of places for each token of a window, mutual attention a position for
    # each token of one frame of the window.
    full = "stage1.residual_group2.blocks.0.attn.relative_position_index"
    tokens = shapes.of(full, 2)[0]
    area = shapes.of(f"{first[0]}.position_bias", 3)[1]
    if tokens < area:
        raise SizeError(full)
    for attn, width, count in zip(first, widths, heads, strict=True):
        if width % count:
            raise SizeError(f"{attn}.relative_position_bias_table")
    side = round(area**0.5)
    inputs = shapes.of("conv_first.weight", 5)[1]
    flat = [shapes.of(f"{attn}.relative_position_index", 2)[0] == area for attn in first[7:]]
    alignment = _vrt_alignment(shapes, widths[0])
    fused = "linear_fuse.weight"
    if not alignment["pa_frames"]:
        alignment["frames"] = shapes.of(fused)[1] // widths[0]
    return VRT(
        upscale=4 if shapes.has("conv_before_upsample.0.weight") else 1,
        window=(tokens // area, side, side),
        depths=depths,
        widths=widths,
        heads=heads,
        independent=[7 + i for i, is_flat in enumerate(flat) if is_flat],
        # One input more than other networks have (27, or 3): the map of the noise.
        denoising=inputs in (4, 28),
        **alignment,
    )


def _vrt_alignment(shapes: _Shapes, width: int) -> dict[str, int]:
    """What the offset heads of the parallel warping say; interpolation has no such heads."""
    if not shapes.has("stage1.pa_deform.conv_offset.0.weight"):
        return {"pa_frames": 0}
    # A head sees the frame, and the warped features and the flows of its neighbours on one side.
    head = "stage1.pa_deform.conv_offset.0.weight"
    neighbours, odd = divmod(shapes.of(head)[1] - width, width + 2)
    if neighbours < 1 or odd:
        raise SizeError(head)
    groups = shapes.of("stage1.pa_deform.conv_offset.6.weight")[0] // 27
    return {"pa_frames": 2 * neighbours, "groups": groups}


@dataclass(frozen=True)
class _Architecture:
    """A network that has files, for itself or as a part of another network."""

    name: str
    """As its filter or class is called."""
    mark: str
    """Pattern that a key of it begins with, and no key of the networks further down."""
    build: Callable[..., nn.Module]
    options: tuple[str, ...] = ()
    """Which of `NetworkOptions` it takes."""


# The most specific first.
_ARCHITECTURES = (
    _Architecture("AnimeSR", r"recurrent_cell\.", _animesr),
    _Architecture("VRT", r"stage1\.", _vrt),
    _Architecture("RealBasicVSR", r"image_cleaning\.", _realbasicvsr, ("refine_threshold",)),
    _Architecture(
        "BasicVSRPP", r"(deform_align|backbone)\.", _basicvsrpp, ("max_residue_magnitude",)
    ),
    _Architecture("IconVSR", r"edvr\.", _iconvsr, ("keyframe_stride",)),
    _Architecture("EDVR", r"(reconstruction|recon_trunk)\.", _edvr, ("padding",)),
    _Architecture("EDVRFeatures", r"(pcd_align|pcd_alignment)\.", _edvr_features),
    _Architecture("BasicVSR", r"spynet\.", _basicvsr),
    _Architecture("SPyNet", r"basic_module\.\d\.basic_module\.", _spynet),
)


def architecture(keys: Iterable[str]) -> str | None:
    """The network that has such keys, named as its filter or class; None if it is unknown."""
    names = list(keys)
    for row in _ARCHITECTURES:
        if any(re.match(row.mark, name) for name in names):
            return row.name
    return None


def option_of(option: str) -> str:
    """The network that takes `option`, one of `NetworkOptions`."""
    return next(row.name for row in _ARCHITECTURES if option in row.options)


def sized(network: str, state: Mapping[str, Tensor], **options: Any) -> nn.Module:
    """The network of this name, before its weights are loaded.

    Args:
        network: As `architecture` gives it.
        state: Tensors under canonical names.
        options: As in `NetworkOptions`.

    Raises:
        SizeError: A tensor that gives a size is missing or of the wrong kind.
    """
    build = next(row.build for row in _ARCHITECTURES if row.name == network)
    return build(_Shapes(state), **options)
