"""What a user asks of a job, before anything is settled."""

from dataclasses import dataclass, field
from fractions import Fraction

__all__ = ["DEINTERLACERS", "Request"]

DEINTERLACERS = {"bwdif": ("bwdif", "vapoursynth-bwdif"), "ivtc": ("vivtc", "vapoursynth-vivtc")}
"""What a source can be deinterlaced by: the plugin's namespace, and the package that brings it."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for. What is "" or None is left to the plan."""

    source: str
    out: str
    folder: str
    """In which the job's folder is made."""
    filter: str
    arguments: dict[str, int | float | str] = field(default_factory=dict)
    """Of the filter."""
    why: str = ""
    """Why this filter and these weights, for the user."""
    size: str = ""
    """ "2x", "1080p" or "1920x800"."""
    square_pixels: bool = False
    bits: int | None = None
    start: Fraction | None = None
    """Seconds from the first picture, as `end`."""
    end: Fraction | None = None
    encoder: str = "x265"
    crf: float | None = None
    encoder_preset: str = ""
    encoder_options: dict[str, str] = field(default_factory=dict)
    threads: int | None = None
    """Of the encoder."""
    deinterlace: str = ""
    """One of `DEINTERLACERS`."""
    progressive: bool = False
    """Whether the pictures are whole, whatever they look like."""
