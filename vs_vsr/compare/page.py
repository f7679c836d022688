"""A page that compares in a browser: one file, which needs neither a network nor another file."""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from typing import Any

from vs_vsr.compare.colours import enlarged
from vs_vsr.compare.encoded import jpeg, png
from vs_vsr.compare.moments import Moment, clock
from vs_vsr.compare.sources import Picture, Source, shown_size
from vs_vsr.errors import ArgumentError

__all__ = ["page"]

# Browsers open more, but slowly.
_MOST_BYTES = 200_000_000


def page(
    sources: Sequence[Source],
    shown: Iterable[Moment],
    *,
    scaler: str,
    quality: int | None,
    notes: Sequence[str],
    is_clip: bool,
) -> tuple[str, int]:
    """Write the page.

    Args:
        sources: What is compared.
        shown: The moments.
        scaler: How smaller pictures are enlarged: "nearest", which the browser does, or "bicubic",
            which is done here.
        quality: Of JPEG, as for `jpeg`; None for PNG.
        notes: What the user should know.
        is_clip: Whether the moments follow each other and can be played.

    Returns:
        Its HTML, and the number of moments.

    Raises:
        ArgumentError: It would be too large.
        VsrError: A source cannot be read.
    """
    box = shown_size(sources)

    def encoded(picture: Picture) -> str:
        rgb = enlarged(picture.rgb, *box, scaler) if scaler == "bicubic" else picture.rgb
        kind, data = ("png", png(rgb)) if quality is None else ("jpeg", jpeg(rgb, quality))
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

    rows, images = _moments(sources, shown, encoded)
    about = {
        "box": box,
        "isClip": is_clip,
        "sources": [
            {"name": _text(s.name), "about": f"{s.width}x{s.height}, {_text(s.about)}"}
            for s in sources
        ],
        "moments": rows,
        "notes": [_text(note) for note in notes],
    }
    title = " | ".join(_text(source.name) for source in sources)
    return _filled(title, images, about), len(rows)


def _moments(
    sources: Sequence[Source], shown: Iterable[Moment], encoded: Callable[[Picture], str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The moments as the page's script reads them, and the pictures that they name by number."""
    rows: list[dict[str, Any]] = []
    images: list[str] = []
    # Of each source the last picture and its number, as one may be shown for several moments.
    last: list[tuple[Picture | None, int]] = []
    size = 0
    for moment in shown:
        last = last or [(None, -1)] * len(moment.pictures)
        for k, picture in enumerate(moment.pictures):
            if picture is not last[k][0]:
                last[k] = picture, len(images)
                images.append(encoded(picture))
                size += len(images[-1])
        rows.append(
            {
                "time": float(moment.time),
                "at": clock(moment.time),
                "images": [number for _, number in last],
                "times": [
                    "still picture" if source.is_still else clock(picture.time)
                    for source, picture in zip(sources, moment.pictures, strict=True)
                ],
                "scores": [score and _score(*score) for score in moment.scores],
            }
        )
        if size > _MOST_BYTES:
            raise ArgumentError(
                f"a page must have at most {_MOST_BYTES // 10**6} MB of pictures, got more after "
                f"{len(rows)} moments. Choose fewer with --frames, --at or --clip, or add "
                "--quality 2 for JPEG."
            )
    return rows, images


def _score(psnr: float, ssim: float) -> tuple[str, str]:
    return f"{psnr:.2f} dB" if math.isfinite(psnr) else "equal", f"{ssim:.4f}"


def _text(text: str) -> str:
    """A name without bytes that are not text, which a page cannot have."""
    return text.encode("utf-8", "backslashreplace").decode()


def _filled(title: str, images: Sequence[str], about: dict[str, Any]) -> str:
    """The template with what differs. Names go in as text, so none is ever markup or a script."""
    template = files("vs_vsr.compare").joinpath("page.html").read_text(encoding="utf-8")
    # "<" could end the element that the data is in.
    data = json.dumps(about, ensure_ascii=False).replace("<", "\\u003c")
    marks = {
        "{{title}}": html.escape(title),
        "{{images}}": "\n".join(f'<img alt="" src="{image}">' for image in images),
        "{{data}}": data,
        # So that the browser runs this script, and nothing that a name might bring in.
        "{{style-hash}}": _hash(template, "style"),
        "{{script-hash}}": _hash(template, "script"),
    }
    # In one pass, as a name may look like a mark.
    return re.sub("|".join(map(re.escape, marks)), lambda mark: marks[mark[0]], template)


def _hash(template: str, element: str) -> str:
    """The hash of an element's text, as a Content-Security-Policy takes it."""
    text = template.split(f"<{element}>")[1].split(f"</{element}>")[0]
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
