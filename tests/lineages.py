"""The names in published files, made from those of the modules here: the way back."""

import re
from collections.abc import Callable, Mapping

from torch import Tensor

State = dict[str, Tensor]


def basicsr(state: Mapping[str, Tensor]) -> State:
    """The names of BasicSR."""
    return {re.sub(r"\bupsampler\.", "", key): value for key, value in state.items()}


def mmagic(state: Mapping[str, Tensor]) -> State:
    """The names of mmagic."""
    return {_mmagic(key): value for key, value in basicsr(state).items()}


def _mmagic(key: str) -> str:
    key = re.sub(r"\b(backward|forward)_trunk\.", r"\1_resblocks.", key)
    key = re.sub(r"\bupconv(\d)\.", r"upsample\1.upsample_conv.", key)
    key = re.sub(r"\bconv_l(\d)_(\d)\.", r"feat_l\1_conv\2.conv.", key)
    key = re.sub(r"\bpcd_align\.", "pcd_alignment.", key)
    key = re.sub(r"\b(offset_conv\d\.l\d|feat_conv\.l\d|cas_offset_conv\d)\.", r"\1.conv.", key)
    if "attn5" not in key and "add2" not in key:
        key = re.sub(r"\b(feat_fusion|spatial_attn\w+)\.", r"\1.conv.", key)
    return re.sub(
        r"(spynet\.basic_module\.\d\.basic_module)\.(\d)\.",
        lambda m: f"{m[1]}.{int(m[2]) // 2}.conv.",
        key,
    )


_OLD: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^predeblur\.stride_conv_hr1\.", "pre_deblur.conv_first_2."),
    (r"^predeblur\.stride_conv_hr2\.", "pre_deblur.conv_first_3."),
    (r"^predeblur\.stride_conv_l(\d)\.", r"pre_deblur.deblur_L\1_conv."),
    (r"^predeblur\.resblock_l3\.", "pre_deblur.RB_L3_1."),
    (r"^predeblur\.resblock_l2_(\d)\.", r"pre_deblur.RB_L2_\1."),
    (r"^predeblur\.resblock_l1\.(\d)\.", lambda m: f"pre_deblur.RB_L1_{int(m[1]) + 1}."),
    (r"^conv_l(\d)_(\d)\.", r"fea_L\1_conv\2."),
    (r"^pcd_align\.dcn_pack\.l(\d)\.", r"pcd_align.L\1_dcnpack."),
    (r"^pcd_align\.offset_conv(\d)\.l(\d)\.", r"pcd_align.L\2_offset_conv\1."),
    (r"^pcd_align\.feat_conv\.l(\d)\.", r"pcd_align.L\1_fea_conv."),
    (r"\bconv_offset\.", "conv_offset_mask."),
    (r"^fusion\.temporal_attn1\.", "tsa_fusion.tAtt_2."),
    (r"^fusion\.temporal_attn2\.", "tsa_fusion.tAtt_1."),
    (r"^fusion\.feat_fusion\.", "tsa_fusion.fea_fusion."),
    (r"^fusion\.spatial_attn_l(\d)\.", r"tsa_fusion.sAtt_L\1."),
    (r"^fusion\.spatial_attn_add(\d)\.", r"tsa_fusion.sAtt_add_\1."),
    (r"^fusion\.spatial_attn(\d)\.", r"tsa_fusion.sAtt_\1."),
    (r"^fusion\.", "tsa_fusion."),
    (r"^reconstruction\.", "recon_trunk."),
    (r"^conv_hr\.", "HRconv."),
)


def old_edvr(state: Mapping[str, Tensor]) -> State:
    """The names of EDVR in 2019."""
    hr_in = any("stride_conv_hr1" in key for key in state)
    first = "pre_deblur.conv_first_1." if hr_in else "pre_deblur.conv_first."
    renamed = {}
    for key, value in basicsr(state).items():
        name = re.sub(r"^predeblur\.conv_first\.", first, key)
        for pattern, new in _OLD:
            name = re.sub(pattern, new, name)
        renamed[name] = value
    return renamed
