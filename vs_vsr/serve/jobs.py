"""What is known of each job: a folder, with job.json in it, and all files that it makes.

ID/job.json      what is below, written beside and renamed
ID/source        the file, if it was uploaded
ID/work/         the job folder of vs-vsr upscale
ID/previews/     N.png
ID/result.mkv    the upscaled file (or .mp4)
"""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from vs_vsr.serve.answers import Refusal
from vs_vsr.serve.files import remove, write_json
from vs_vsr.serve.names import download_name
from vs_vsr.serve.uploads import SOURCE

__all__ = ["Job", "Jobs", "Preview", "State"]

State = Literal["new", "waiting", "running", "pausing", "paused", "done", "failed", "cancelled"]

_ABOUT = "job.json"


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A picture before and after, side by side."""

    number: int
    """Of its file."""
    choice: str
    time: float
    """Seconds."""
    width: int
    """Of the file: both halves."""
    height: int


@dataclass(kw_only=True)
class Job:
    """A file and what is to be made of it."""

    folder: Path
    name: str
    """Of the source, as it is shown."""
    bytes: int
    """Of the source."""
    source: str | None
    """Its path; None for an upload, which is in the folder, wherever that is moved."""
    seconds: float | None
    """Of the source, where it tells."""
    choice: str | None = None
    """FILTER/NAME of weights."""
    footage: str | None = None
    sigma: float | None = None
    size: str = ""
    encoder: str = "x265"
    container: str = "mkv"
    pictures: str = "auto"
    """What the pictures of the source are, and what is done about it; see `footage.PICTURES`."""
    state: State = "new"
    problem: str | None = None
    notes: list[str] = field(default_factory=list)
    forecast: dict[str, Any] | None = None
    previews: list[Preview] = field(default_factory=list)
    numbered: int = 0
    """Previews so far; no number comes twice, as browsers keep pictures."""
    created: float = field(default_factory=time.time)
    """Seconds since 1970."""
    queued: float = 0.0
    """When it was started last; the first runs first."""

    # Not kept, as they do not outlive a child.
    progress: dict[str, Any] | None = None
    forecasting: bool = False
    previewing: bool = False

    @property
    def id(self) -> str:
        """Its name in addresses."""
        return self.folder.name

    @property
    def is_upload(self) -> bool:
        """Whether the source is a copy in the folder."""
        return self.source is None

    @property
    def path(self) -> Path:
        """Of the source."""
        return self.folder / SOURCE if self.source is None else Path(self.source)

    @property
    def work(self) -> Path:
        """The job folder of the command."""
        return self.folder / "work"

    @property
    def result(self) -> Path:
        """The upscaled file, once it is there: the command renames it when it is whole."""
        return self.folder / f"result.{self.container}"

    @property
    def has_parts(self) -> bool:
        """Whether something was made that other settings would throw away."""
        return any(self.work.glob("*/parts/[0-9]*.json"))

    def preview_file(self, number: int) -> Path:
        """Where a preview is."""
        return self.folder / "previews" / f"{number}.png"

    def public(self) -> dict[str, Any]:
        """What a tab may know of it."""
        address = f"/api/jobs/{self.id}"
        data = {k: v for k, v in self._plain().items() if k not in ("source", "queued", "numbered")}
        result = None
        if self.state == "done" and self.result.is_file():
            result = {
                "name": download_name(self.name, self.container),
                "bytes": self.result.stat().st_size,
                "url": f"{address}/result",
            }
        previews = [
            {
                "choice": preview.choice,
                "time": preview.time,
                "url": f"{address}/previews/{preview.number}.png",
                "width": preview.width,
                "height": preview.height,
            }
            for preview in self.previews
        ]
        return {
            **data,
            "id": self.id,
            "source": "upload" if self.is_upload else "file",
            "previews": previews,
            "result": result,
            "progress": self.progress,
            "forecasting": self.forecasting,
            "previewing": self.previewing,
        }

    def save(self) -> None:
        """Keep it on disk."""
        write_json(self.folder / _ABOUT, self._plain())

    def _plain(self) -> dict[str, Any]:
        transient = ("folder", "progress", "forecasting", "previewing")
        return {k: v for k, v in asdict(self).items() if k not in transient}

    @classmethod
    def load(cls, folder: Path) -> "Job":
        """Read one.

        Raises:
            OSError: It cannot be read.
            ValueError: It is damaged; KeyError and TypeError the same.
        """
        data = json.loads((folder / _ABOUT).read_text())
        known = {f.name for f in fields(cls)}
        if isinstance(data.get("pictures"), int):  # as files were at first
            data["numbered"] = data.pop("pictures")
        if Path(data["source"] or "").parts[-2:] == (folder.name, SOURCE):
            data["source"] = None  # likewise
        data["previews"] = [Preview(**preview) for preview in data["previews"]]
        return cls(folder=folder, **{k: v for k, v in data.items() if k in known})


class Jobs:
    """All jobs of a folder."""

    def __init__(self, folder: Path) -> None:
        """Find those that an earlier server has left.

        Args:
            folder: Has a folder for each, named by its id.
        """
        self.folder = folder
        self.told: Callable[[str], None] = lambda id: None
        """Who hears that one is new, other or gone."""
        self._all: dict[str, Job] = {}
        found = []
        for about in folder.glob(f"*/{_ABOUT}"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found.append(Job.load(about.parent))
        for job in sorted(found, key=lambda job: job.created):
            # What was being made goes on; what was being stopped is.
            job.state = {"running": "waiting", "pausing": "paused"}.get(job.state, job.state)  # type: ignore[assignment]
            self._all[job.id] = job
            self.check(job)

    def all(self) -> list[Job]:
        """All of them, the oldest first."""
        return list(self._all.values())

    def ids(self) -> list[str]:
        """Their ids, in the same order."""
        return list(self._all)

    def get(self, id: object) -> Job:
        """One of them.

        Raises:
            Refusal: There is none of this id.
        """
        job = self._all.get(id) if isinstance(id, str) else None
        if job is None:
            raise Refusal(404, "This job is not here any more. Look at the list of jobs.")
        return job

    def public(self, id: str) -> dict[str, Any] | None:
        """What a tab may know of one; None if it is gone."""
        job = self._all.get(id)
        return None if job is None else job.public()

    def new_folder(self) -> Path:
        """A folder for a new job."""
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        return folder

    def add(self, job: Job) -> None:
        """Keep a new job."""
        job.save()
        self._all[job.id] = job
        self.told(job.id)

    def keep(self, job: Job) -> None:
        """Keep what has changed, and tell it; a job that was deleted meanwhile stays so."""
        if job.id in self._all:
            # On a full disk the page must see all the more what has become of it.
            with contextlib.suppress(OSError):
                job.save()
            self.told(job.id)

    def check(self, job: Job) -> None:
        """See whether the file of a job that is done is still there; else it can be made again."""
        if job.state == "done" and not job.result.is_file():
            job.state = "cancelled"
            job.problem = f"{job.name} must have its upscaled file, got none. Start it again."
            self.keep(job)

    def moved(self, job: Job) -> None:
        """Tell what is not kept: how far it is."""
        self.told(job.id)

    async def forget(self, job: Job) -> None:
        """Remove a job and its folder. A source or anything else outside it stays."""
        if self._all.pop(job.id, None) is not None:
            self.told(job.id)
            await asyncio.to_thread(remove, job.folder)
