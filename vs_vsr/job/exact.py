"""`--exact`: all parts of a job by machines of one kind and versions, as only then bits repeat.

PyTorch promises the same results on the same platform and release only (its notes on
reproducibility). Elsewhere a part is the same picture, but not to the bit.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from vs_vsr.errors import JobError, StorageError
from vs_vsr.job.folder import is_done, own_name, record_of
from vs_vsr.job.plan import JobPlan, Versions

__all__ = ["Kind", "check_parts", "kind_here", "settle"]

_FILE = "kind.json"


@dataclass(frozen=True)
class Kind:
    """What the bits of a part depend on, beside the plan."""

    device: str
    """The name of the GPU or of the processor."""
    versions: Versions


def kind_here(device: str) -> Kind:
    """The kind of this machine; `device` as the filters' argument."""
    # They bring torch.
    from vs_vsr.devices import find_devices, kind

    names = ("vs-vsr", "torch", "vapoursynth", "vapoursynth-bestsource", "av")
    return Kind(kind(find_devices("job", device)[0]), {name: version(name) for name in names})


def check_parts(plan: JobPlan, folder: Path) -> None:
    """Refuse parts of several kinds, before more are made or they are joined.

    Raises:
        JobError: Two parts are of different kinds, or one is of other versions than the plan.
    """
    _check(plan, _done(plan, folder))


def settle(plan: JobPlan, folder: Path, here: Kind) -> None:
    """Settle a job on the kind of this machine; the first one to ask decides.

    Raises:
        JobError: The job is settled on another kind.
        StorageError: That cannot be written down.
    """
    temporary = own_name(folder / _FILE)
    try:
        temporary.write_text(json.dumps(asdict(here), indent=1))
        try:
            # Unlike a rename, a link fails if the name is taken: machines that ask at the same
            # time, before there is any part, get one answer.
            os.link(temporary, folder / _FILE)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        settled = Kind(**json.loads((folder / _FILE).read_text()))
    except OSError as e:
        raise StorageError(
            f"{folder / _FILE} cannot be written ({e.strerror}). Leave --exact out, or use a job "
            "folder on storage that has links."
        ) from None

    def kinds() -> Iterator[tuple[str, Kind]]:
        yield "the first machine of the job", settled
        yield from _done(plan, folder)
        yield "this machine", here

    _check(plan, kinds())


def _done(plan: JobPlan, folder: Path) -> Iterator[tuple[str, Kind]]:
    for k in range(len(plan.parts)):
        if is_done(plan, folder, k):
            record = record_of(plan, folder, k)
            yield f"part {k}", Kind(record["device"], record["versions"])


def _check(plan: JobPlan, kinds: Iterator[tuple[str, Kind]]) -> None:
    first: tuple[str, Kind] | None = None
    for name, kind in kinds:
        for package, wanted in plan.versions.items():
            found = kind.versions.get(package, "none")
            if found != wanted:
                raise JobError(
                    f"{package} must be {wanted} as in the plan, got {found} for {name}. Install "
                    f"{package}=={wanted} there, or leave --exact out."
                )
        first = first or (name, kind)
        if kind.device != first[1].device:
            raise JobError(
                f"all parts must be made on one kind of device, got {first[1].device} for "
                f"{first[0]} and {kind.device} for {name}. Use machines of one kind, or leave "
                "--exact out."
            )
