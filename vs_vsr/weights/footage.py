"""Which network for which footage, and what is known of each network.

`FOOTAGE` is what README.md's table says, and what presets are made of; `CARDS` has the networks.
"""

from dataclasses import dataclass
from difflib import get_close_matches

from vs_vsr.errors import WeightsError
from vs_vsr.weights.registry import lookup, named_filter

__all__ = ["CARDS", "FOOTAGE", "MACHINE", "Card", "Footage", "card", "footage"]


@dataclass(frozen=True, kw_only=True)
class Footage:
    """A kind of footage, and what to use for it."""

    name: str
    """What a user types for it."""
    also: tuple[str, ...] = ()
    """Other names for it."""
    what: str
    """As README.md's table has it."""
    filter: str
    weights: str
    """A name of the registry, of `filter`."""
    others: tuple[str, ...] = ()
    """Other choices, as FILTER/NAME."""
    needs: tuple[str, ...] = ()
    """Arguments of the filter that only the user can know."""
    why: str

    @property
    def choices(self) -> tuple[str, ...]:
        """All choices as FILTER/NAME, the best first."""
        return (f"{self.filter}/{self.weights}", *self.others)

    @property
    def non_commercial(self) -> bool:
        """Whether the licence of the weights forbids commercial use."""
        return lookup(self.choices[0]).non_commercial


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is known of a network. The weights and their figures are in rows.py."""

    filter: str
    paper: str
    """The network's name there, and its number at arXiv."""
    does: str
    speed: str
    """As docs/measurements.md has it, on `MACHINE`."""
    memory: str
    """The same."""


FOOTAGE = (
    Footage(
        name="film",
        also=("clean",),
        what="clean footage, x4",
        filter="BasicVSR",
        weights="reds4",
        others=("IconVSR/reds4",),
        why="trained to restore, so it makes nothing up; IconVSR is sharper and slower",
    ),
    Footage(
        name="reduced",
        what="reduced by bicubic, or by a blur and every fourth pixel, x4",
        filter="BasicVSR",
        weights="vimeo90k-bi",
        others=("BasicVSR/vimeo90k-bd", "IconVSR/vimeo90k-bi", "IconVSR/vimeo90k-bd"),
        why="trained on just this: -bi on bicubic, -bd on a Gaussian blur and every fourth pixel",
    ),
    Footage(
        name="real",
        also=("web", "dvd"),
        what="real, degraded footage, x4",
        filter="RealBasicVSR",
        weights="reds",
        why="trained on blur, noise and compression at random, and cleans each frame first; it "
        "makes fine detail up, so look at a few frames before a whole film",
    ),
    Footage(
        name="anime",
        also=("animation",),
        what="animation, x4; to watch, where the GPU keeps up",
        filter="AnimeSR",
        weights="v2",
        others=("AnimeSR/v1",),
        why="trained on degraded animation, and the lightest of all; v1 is the paper's",
    ),
    Footage(
        name="blur-x4",
        what="motion blur, x4",
        filter="EDVR",
        weights="srblur",
        why="trained on blurred and reduced footage",
    ),
    Footage(
        name="blur",
        what="motion blur, same size",
        filter="EDVR",
        weights="deblur",
        others=("BasicVSRPP/deblur-gopro",),
        why="trained on the motion blur of REDS; the other on that of GoPro",
    ),
    Footage(
        name="blur-compressed",
        what="motion blur and compression, same size",
        filter="EDVR",
        weights="deblurcomp",
        why="trained on both together",
    ),
    Footage(
        name="compressed",
        what="compressed video, same size",
        filter="BasicVSRPP",
        weights="ntire-decompress-track1",
        others=("BasicVSRPP/ntire-decompress-track2", "BasicVSRPP/ntire-decompress-track3"),
        # The tracks: arXiv:2104.10781.
        why="for the tracks of NTIRE 2021: 1 is for a constant quantiser, 2 the same but to please "
        "the eye, 3 for a constant bit rate",
    ),
    Footage(
        name="noise",
        what="noise, same size",
        filter="BasicVSRPP",
        weights="denoise",
        why="needs no strength of the noise",
    ),
    Footage(
        name="noise-known",
        what="noise of a known strength, same size; not for commercial use",
        filter="VRT",
        weights="denoise",
        needs=("sigma",),
        why="is told the strength, from 0 to 50 on a scale of 255",
    ),
    Footage(
        name="double-rate",
        what="twice the frame rate; not for commercial use",
        filter="VRT",
        weights="interpolation",
        why="keeps each frame of the source bit for bit, and puts a new one after it",
    ),
)

MACHINE = "2 cores of an AMD EPYC (Zen 5, AVX512-BF16), torch 2.15.0; docs/measurements.md"

_NOT_MEASURED = "not measured"

CARDS = (
    Card(
        filter="BasicVSR",
        paper="BasicVSR, arXiv:2012.02181",
        does="upscales by 4",
        speed="1.0 frames a second from 320x180, in bf16",
        memory="four kept states take 560 bytes for each pixel of the input in bf16 (1.2 GB at "
        "1920x1080)",
    ),
    Card(
        filter="IconVSR",
        paper="IconVSR, arXiv:2012.02181",
        does="upscales by 4, sharper and slower than BasicVSR",
        speed="1.4 to 1.6 times the seconds of BasicVSR, in bf16",
        memory=_NOT_MEASURED,
    ),
    Card(
        filter="EDVR",
        paper="EDVR, arXiv:1905.02716",
        does="upscales by 4, or deblurs",
        speed="2.1 to 3.0 (M) and 5.8 to 7.6 (L) times the seconds of BasicVSR, in bf16",
        memory=_NOT_MEASURED,
    ),
    Card(
        filter="RealBasicVSR",
        paper="RealBasicVSR, arXiv:2111.12704",
        does="upscales real, degraded footage by 4",
        speed="0.9 to 1.1 times the seconds of BasicVSR, in bf16",
        memory=_NOT_MEASURED,
    ),
    Card(
        filter="VRT",
        paper="VRT, arXiv:2201.12288",
        does="upscales by 4, deblurs, denoises, or doubles the frame rate",
        speed="a window of 12 frames of 128x128 takes 45 s in bf16, 110 s in fp32: for a GPU",
        memory="1,595 MiB in bf16 and 2,108 MiB in fp32 for one window of 12 frames of 128x128, "
        "all included",
    ),
    Card(
        filter="BasicVSRPP",
        paper="BasicVSR++, arXiv:2104.13371",
        does="upscales by 4, deblurs, denoises, or cleans compressed video",
        speed="2.2 to 2.9 times the seconds of BasicVSR, in bf16, in chunks of 20",
        memory=_NOT_MEASURED,
    ),
    Card(
        filter="AnimeSR",
        paper="AnimeSR, arXiv:2206.07038",
        does="upscales animation by 4; the lightest",
        speed="4.2 to 5.0 frames a second from 320x180, 0.9 to 1.1 from 640x360, in bf16",
        memory="four kept states take 944 bytes for each pixel of the input in bf16 (2.0 GB at "
        "1920x1080)",
    ),
)


def footage(name: str) -> Footage:
    """The footage of this name, or of one of its other names.

    Raises:
        WeightsError: There is none.
    """
    by_name = {known: row for row in FOOTAGE for known in (row.name, *row.also)}
    if name in by_name:
        return by_name[name]
    close = get_close_matches(name, by_name, n=1)
    hint = f'Did you mean "{close[0]}"?' if close else "Run vs-vsr models to see what they mean."
    raise WeightsError(f'footage must be one of {", ".join(by_name)}, got "{name}". {hint}')


def card(network: str) -> Card:
    """The card of a network.

    Args:
        network: Its filter, in any case, or as in its paper ("BasicVSR++").

    Raises:
        WeightsError: There is no such network.
    """
    wanted = None if "/" in network else named_filter(network)
    found = next((known for known in CARDS if known.filter == wanted), None)
    if found is None:
        names = [known.filter for known in CARDS]
        close = get_close_matches(network, names, n=1)
        hint = f"Did you mean {close[0]}?" if close else "Choose one of these."
        raise WeightsError(f'network must be one of {", ".join(names)}, got "{network}". {hint}')
    return found
