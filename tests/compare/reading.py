"""The page as a browser takes it apart, and pictures as BestSource and zimg read them."""

import base64
import io
import json
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import vapoursynth as vs
from PIL import Image
from vapoursynth import core

type Array = np.ndarray[Any, Any]


class Page(HTMLParser):
    """What is in a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.policy = self.title = ""
        self.addresses: list[str] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "title": [], "json": []}
        self._open = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.data = json.loads(self.texts["json"][0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "action", "srcset")]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""
        self._open = "json" if given.get("type") == "application/json" else tag
        if self._open in self.texts:
            self.texts[self._open].append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in self.texts:
            self.texts[self._open][-1] += data

    def picture(self, moment: int, source: int) -> Array:
        address = self.addresses[self.data["moments"][moment]["images"][source]]
        data = base64.b64decode(address.partition(",")[2])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def frames_of(path: Path, *, matrix: int | None = None, rotated: bool = False) -> list[Array]:
    """All frames of a file, each (H, W, 3), uint8; `matrix` where the file names none."""
    node = core.bs.VideoSource(os.fsencode(path), cachemode=0, apply_rotation=int(rotated))
    changes = {} if matrix is None else {"matrix_in": matrix}
    node = node.resize.Bicubic(format=vs.RGB24, **changes)
    return [np.dstack([np.asarray(plane) for plane in f]) for f in node.frames(close=True)]
