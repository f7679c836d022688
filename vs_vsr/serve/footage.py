"""What the page offers: kinds of footage, the networks for each, the encoders."""

import re
import shutil
from collections.abc import Mapping
from typing import Any

from vs_vsr.job.encoders import NAMES, containers
from vs_vsr.serve.answers import Refusal
from vs_vsr.serve.jobs import Job
from vs_vsr.serve.names import shown_name
from vs_vsr.weights import store
from vs_vsr.weights.footage import CARDS, FOOTAGE
from vs_vsr.weights.registry import lookup, rows_of

__all__ = ["PICTURES", "change", "needs_of", "offered", "ready"]

_CONTAINERS = ("mkv", "mp4")
_SIZE = re.compile(r"|\d{1,2}(\.\d{1,3})?x|\d{2,5}p|\d{2,5}x\d{2,5}")
_CHOICES = frozenset(row.full_name for card in CARDS for row in rows_of(card.filter))
_NEEDS = {choice: row.needs for row in FOOTAGE for choice in row.choices if row.needs}
_SETTINGS = ("choice", "footage", "sigma", "size", "encoder", "container", "pictures")

PICTURES = {
    "auto": "found out by itself",
    "bwdif": "deinterlace (bwdif)",
    "ivtc": "undo 3:2 pulldown (ivtc)",
    "progressive": "whole pictures",
}
"""What can be done about a source's pictures, and how the page calls it."""


def offered(device: str) -> dict[str, Any]:
    """What a user can choose from; slow the first time, as weights that are here are checked.

    Args:
        device: What the server was told to compute on.
    """
    return {
        "footage": [
            {
                "name": row.name,
                "what": row.what,
                "why": row.why,
                "choices": [_choice(choice) for choice in row.choices],
                "needs": list(row.needs),
            }
            for row in FOOTAGE
        ],
        "encoders": [
            {"name": name, "containers": _containers(name)} for name in NAMES if _is_usable(name)
        ],
        "pictures": [{"name": name, "what": what} for name, what in PICTURES.items()],
        "device": device,
    }


def _choice(choice: str) -> dict[str, Any]:
    row = lookup(choice)
    return {
        "choice": choice,
        "non_commercial": row.non_commercial,
        "here": store.local_file(row) is not None,
    }


def _containers(encoder: str) -> list[str]:
    return [name for name in _CONTAINERS if f".{name}" in containers(encoder)]


def _is_usable(encoder: str) -> bool:
    return not encoder.endswith("_nvenc") or shutil.which("nvidia-smi") is not None


def needs_of(choice: str) -> tuple[str, ...]:
    """Settings without which weights are of no use."""
    return _NEEDS.get(choice, ())


def _known(choice: object) -> str:
    if not isinstance(choice, str) or choice not in _CHOICES:
        raise Refusal(
            400,
            f"choice must be FILTER/NAME of published weights, got {str(choice)[:80]!r}. Choose "
            "one that the page offers.",
        )
    return choice


def change(job: Job, given: Mapping[str, Any]) -> None:
    """Change settings of a job: all that are given, or none.

    Raises:
        Refusal: One breaks its rule, or the job is past changes.
    """
    unknown = sorted(set(given) - {*_SETTINGS, "name"})
    if unknown:
        raise Refusal(
            400,
            f"Settings must be among name, {', '.join(_SETTINGS)}, got {unknown[0][:40]!r}. Leave "
            "it out.",
        )
    changes = {key: _CHECKS[key](value) for key, value in given.items()}
    settings = {k: v for k, v in changes.items() if k != "name" and v != getattr(job, k)}
    if settings:
        changeable = job.state in ("new", "failed", "cancelled", "paused")
        if not changeable or (job.state in ("failed", "paused") and job.has_parts):
            raise Refusal(
                409,
                f"{job.name} must not have been begun to be changed, got one that is {job.state}. "
                "Cancel it or start it over first.",
            )
        encoder = str(settings.get("encoder", job.encoder))
        container = str(settings.get("container", job.container))
        if container not in _containers(encoder):
            raise Refusal(
                400,
                f"container must be {' or '.join(_containers(encoder))} for {encoder}, got "
                f"{container}. Choose another container or encoder.",
            )
        if settings.keys() - {"footage"}:
            job.forecast = None
    for key, value in changes.items():
        setattr(job, key, value)


def ready(job: Job, choice: object) -> str:
    """FILTER/NAME of a network that can run on a job, as all is chosen that it needs.

    Raises:
        Refusal: Something is not.
    """
    if choice is None:
        raise Refusal(400, f"{job.name} must have a network, got none. Say what your footage is.")
    known = _known(choice)
    for name in needs_of(known):
        if getattr(job, name) is None:
            raise Refusal(400, f"{name} must be a number for {known}, got none. Fill it in.")
    return known


def _footage(value: object) -> str | None:
    return None if value is None else _one_of("footage", tuple(row.name for row in FOOTAGE), value)


def _sigma(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 255:
        raise Refusal(
            400, f"sigma must be a number from 0 to 255, got {str(value)[:40]!r}. Give a number."
        )
    return float(value)


def _size(value: object) -> str:
    if not isinstance(value, str) or not _SIZE.fullmatch(value):
        raise Refusal(
            400,
            f'size must be "", a factor ("2x"), a height ("1080p") or "WIDTHxHEIGHT", got '
            f"{str(value)[:40]!r}. Leave it out for what the network makes.",
        )
    return value


def _one_of(what: str, values: tuple[str, ...], value: object) -> str:
    if value not in values:
        raise Refusal(
            400,
            f"{what} must be one of {', '.join(values)}, got {str(value)[:40]!r}. Choose one of "
            "these.",
        )
    return str(value)


_CHECKS = {
    "name": shown_name,
    "choice": lambda value: None if value is None else _known(value),
    "footage": _footage,
    "sigma": _sigma,
    "size": _size,
    "encoder": lambda value: _one_of("encoder", NAMES, value),
    "container": lambda value: _one_of("container", _CONTAINERS, value),
    "pictures": lambda value: _one_of("pictures", tuple(PICTURES), value),
}
