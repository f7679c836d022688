"""The names of tensors in published files, and what the modules here call them.

The lineages compute the same and differ only in names. The names here are BasicSR's, with the last
four convolutions under `upsampler.`.
"""

import re

__all__ = ["canonical"]

# The networks whose files come in several lineages. VRT's files have only one.
_IN_LINEAGES = (
    "BasicVSR",
    "IconVSR",
    "RealBasicVSR",
    "BasicVSRPP",
    "EDVR",
    "EDVRFeatures",
    "SPyNet",
)

_MMAGIC = (
    (r"\b(backward|forward)_resblocks\.", r"\1_trunk."),
    (r"\bupsample(\d)\.upsample_conv\.", r"upconv\1."),
    (r"\bfeat_l(\d)_conv(\d)\.conv\.", r"conv_l\1_\2."),
    (r"\bpcd_alignment\.", "pcd_align."),
    (r"\b((?:offset_conv\d|feat_conv)\.l\d|cas_offset_conv\d)\.conv\.", r"\1."),
    (r"\bfusion\.(feat_fusion|spatial_attn\d|spatial_attn_l\d|spatial_attn_add1)\.conv\.",
     r"fusion.\1."),
)  # fmt: skip

# EDVR as it was released in 2019. Its two temporal attentions have each other's names.
_OLD_EDVR = (
    (r"^pre_deblur\.conv_first(_1)?\.", "predeblur.conv_first."),
    (r"^pre_deblur\.conv_first_2\.", "predeblur.stride_conv_hr1."),
    (r"^pre_deblur\.conv_first_3\.", "predeblur.stride_conv_hr2."),
    (r"^pre_deblur\.deblur_L(\d)_conv\.", r"predeblur.stride_conv_l\1."),
    (r"^pre_deblur\.RB_L3_1\.", "predeblur.resblock_l3."),
    (r"^pre_deblur\.RB_L2_(\d)\.", r"predeblur.resblock_l2_\1."),
    (r"^fea_L(\d)_conv(\d)\.", r"conv_l\1_\2."),
    (r"^pcd_align\.L(\d)_dcnpack\.", r"pcd_align.dcn_pack.l\1."),
    (r"^pcd_align\.L(\d)_offset_conv(\d)\.", r"pcd_align.offset_conv\2.l\1."),
    (r"^pcd_align\.L(\d)_fea_conv\.", r"pcd_align.feat_conv.l\1."),
    (r"\bconv_offset_mask\.", "conv_offset."),
    (r"^tsa_fusion\.tAtt_1\.", "fusion.temporal_attn2."),
    (r"^tsa_fusion\.tAtt_2\.", "fusion.temporal_attn1."),
    (r"^tsa_fusion\.fea_fusion\.", "fusion.feat_fusion."),
    (r"^tsa_fusion\.sAtt_L(\d)\.", r"fusion.spatial_attn_l\1."),
    (r"^tsa_fusion\.sAtt_add_(\d)\.", r"fusion.spatial_attn_add\1."),
    (r"^tsa_fusion\.sAtt_(\d)\.", r"fusion.spatial_attn\1."),
    (r"^tsa_fusion\.", "fusion."),
    (r"^recon_trunk\.", "reconstruction."),
    (r"^HRconv\.", "conv_hr."),
)

_OWN = ((r"^(basicvsr\.)?(upconv1|upconv2|conv_hr|conv_last)\.", r"\1upsampler.\2."),)

_RENAMES = [(re.compile(pattern), name) for pattern, name in (*_MMAGIC, *_OLD_EDVR, *_OWN)]
_MMAGIC_SPYNET = re.compile(r"(\bbasic_module\.\d\.basic_module\.)(\d)\.conv\.")
_OLD_BLOCK = re.compile(r"^pre_deblur\.RB_L1_(\d)\.")


def canonical(key: str, network: str) -> str:
    """What the modules here call the tensor `key` of a file of `network`."""
    if network not in _IN_LINEAGES:
        return key
    # mmagic counts only the convolutions, BasicSR counts the ReLUs between them too. EDVR's blocks
    # of 2019 are counted from one.
    key = _MMAGIC_SPYNET.sub(lambda m: f"{m[1]}{2 * int(m[2])}.", key)
    key = _OLD_BLOCK.sub(lambda m: f"predeblur.resblock_l1.{int(m[1]) - 1}.", key)
    for pattern, name in _RENAMES:
        key = pattern.sub(name, key)
    return key
