"""What a user asks of a job, before anything is settled."""

from dataclasses import dataclass, field

__all__ = ["Request"]


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
    size: str = ""
    """ "2x", "1080p" or "1920x800"."""
    square_pixels: bool = False
    bits: int | None = None
    start: float | None = None
    """Seconds from the first picture, as `end`."""
    end: float | None = None
    encoder: str = "x265"
    crf: float | None = None
    encoder_preset: str = ""
    encoder_options: dict[str, str] = field(default_factory=dict)
    threads: int | None = None
    """Of the encoder."""
    deinterlace: str = ""
    """ "bwdif" or "ivtc"."""
