"""What a job is: all that its parts and the joined file depend on, in one JSON file.

The job's name is a hash of that text. So another option, another source or another version is
another job, and parts of one are never taken for those of another.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from vs_vsr.errors import JobError

__all__ = ["Colour", "Encoder", "JobPlan", "Recipe", "Source", "Versions"]

_FILE = "plan.json"
# What says where things are, or when, and not what comes out.
_NOT_IN_THE_NAME = ("path", "modified_ns", "out")

# Of each distribution that pictures or packets depend on.
Versions = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Source:
    """The file that is upscaled."""

    path: str
    """Absolute."""
    size: int
    """In bytes."""
    modified_ns: int
    """Modification time, in nanoseconds since 1970."""
    packets: str
    """SHA-256 over the video stream's packets: sizes, times and bytes."""
    track: int
    """Index of the video stream in the file."""
    width: int
    height: int
    frames: int
    """Frames of the whole stream, as BestSource counts them."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What pictures depend on, beside the source."""

    filter: str
    """As in `core.vsr`."""
    weights: str
    """A published name or an absolute file."""
    weights_sha256: str
    arguments: dict[str, int | float | str]
    """All others of the filter that pictures depend on, none left to a default: `precision`,
    `chunk`, `segment`, `tile`, …. Cuts are in the plan, so `scenes` is "props" or "off"."""
    deinterlace: str
    """ "" or "bwdif" or "ivtc": what is done to the source first."""
    top_field_first: bool
    """Whether the top field of the source is the earlier one; for `deinterlace`."""
    frames_per_input: int
    """Pictures for each frame of the deinterlaced source."""
    width: int
    """Of the pictures, as `height`."""
    height: int
    format: str
    """VapourSynth's name of their format, such as "YUV420P10"."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """How pictures are encoded."""

    name: str
    """FFmpeg's, such as "libx265"."""
    options: dict[str, str]
    """As FFmpeg's encoder takes them."""
    threads: int
    """Part of the plan, because the pictures of x264 and x265 depend on it."""

    @property
    def suffix(self) -> str:
        """Of a part's file: MP4, because the decoding times of B-frames are lost in Matroska."""
        return ".mkv" if self.name == "ffv1" else ".mp4"


@dataclass(frozen=True, kw_only=True)
class Colour:
    """What the numbers of the pictures mean; codes are those of ITU-T H.273, 2 is unknown."""

    matrix: int
    primaries: int
    transfer: int
    full_range: bool
    chroma_location: int
    """VapourSynth's: 0 left, 1 centre, 2 top left, …; -1 where the source does not say."""
    mastering_display: str = ""
    """As x265 takes it: "G(x,y)B(x,y)R(x,y)WP(x,y)L(max,min)"; "" for none."""
    content_light: str = ""
    """Largest and average light level in cd/m2, "1000,400"; "" for none."""


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """A job."""

    source: Source
    recipe: Recipe
    encoder: Encoder
    colour: Colour
    sample_aspect: tuple[int, int]
    """Width and height of a pixel of the pictures; (1, 1) for square ones."""
    rotation: int
    """Degrees clockwise by which a player turns the pictures: 0, 90, 180 or 270."""
    time_base: tuple[int, int]
    """Seconds of one unit of `times`."""
    times: tuple[int, ...]
    """When each picture of the whole clip is shown, ascending; one for each output frame of the
    filter, so twice as many as the source's frames for one that doubles the rate."""
    last_duration: int
    """How long the last picture of the whole clip is shown, in the same unit."""
    cuts: tuple[int, ...]
    """Source frames, once deinterlaced, with which a scene begins; ascending, without frame 0."""
    parts: tuple[tuple[int, int], ...]
    """First picture and the one after the last, of each part, ascending and without gaps."""
    versions: Versions
    out: str
    """The file to write, absolute."""

    @property
    def first(self) -> int:
        """The first picture of the joined file."""
        return self.parts[0][0]

    @property
    def last(self) -> int:
        """The picture after the last one of the joined file."""
        return self.parts[-1][1]

    @property
    def unit(self) -> Fraction:
        """Seconds of one unit of `times`."""
        return Fraction(*self.time_base)

    def duration(self, picture: int) -> int:
        """How long a picture is shown, in units of `times`."""
        if picture + 1 < len(self.times):
            return self.times[picture + 1] - self.times[picture]
        return self.last_duration

    @property
    def name(self) -> str:
        """The job's name: a hash of all that its files depend on."""
        data = asdict(self)
        for key in _NOT_IN_THE_NAME:
            data.pop(key, None)
            data["source"].pop(key, None)
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def part_file(self, folder: Path, part: int) -> Path:
        """The encoded pictures of a part, under this name once they are whole."""
        return folder / "parts" / f"{part:05}{self.encoder.suffix}"

    def part_record(self, folder: Path, part: int) -> Path:
        """What is known of a part, beside its file."""
        return folder / "parts" / f"{part:05}.json"

    def save(self, folder: Path) -> None:
        """Write the plan into the job's folder, whole or not at all."""
        temporary = folder / f"{_FILE}.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(asdict(self), indent=1))
        os.replace(temporary, folder / _FILE)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The plan in a job's folder.

        Raises:
            JobError: There is none, or it cannot be read.
        """
        try:
            data = json.loads((folder / _FILE).read_text())
            return cls(**{field.name: _read(field.name, data[field.name]) for field in fields(cls)})
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise JobError(
                f"job must be a folder with a {_FILE} of this version, got {folder} "
                f"({type(e).__name__}: {e}). Make it with vs-vsr plan."
            ) from None


_NESTED: dict[str, Any] = {"source": Source, "recipe": Recipe, "encoder": Encoder, "colour": Colour}


def _read(name: str, value: Any) -> Any:
    if name in _NESTED:
        return _NESTED[name](**value)
    if name == "parts":
        return tuple((first, last) for first, last in value)
    return tuple(value) if isinstance(value, list) else value
