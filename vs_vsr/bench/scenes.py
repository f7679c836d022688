"""How well scene cuts are found by comparing frames: missed cuts, false alarms, by kind of pair.

    python -m vs_vsr.bench.scenes VIDEO... --cut nasa.mp4:202 --json result.json

A VIDEO is a file, or a folder with the frames of one clip as images; --cut names the first frame
after each hard cut that a video already has. All frames are scaled to 320x180. Hard cuts are made
by splicing the videos and scikit-image's stills. Pairs without a cut are the videos' own, and hard
cases made from them. Every other video and still is held out: the threshold is chosen on the first
half alone, and the counts are given for both halves. A table goes to standard error, one JSON
object to --json.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vs_vsr.bench.machine import machine
from vs_vsr.evaluation.separable import Array
from vs_vsr.streaming.scenes import CUT_ABOVE, cuts, differences, thumbnails

__all__ = ["Pair", "Source", "main", "pairs", "sources"]

_SIZE = (180, 320)
# Images that come with scikit-image and show something; textures are left out.
_STILLS = (
    *("astronaut", "camera", "chelsea", "coffee", "coins", "color", "hubble_deep_field"),
    *("ihc", "logo", "moon", "motorcycle_left", "page", "retina", "rocket", "text", "clock_motion"),
)


@dataclass(frozen=True)
class Source:
    """One video, cut into its shots, or one still."""

    name: str
    shots: list[Tensor]
    """Each (T, 3, 180, 320), uint8."""
    large: Tensor
    """One frame in its own size, (1, 3, H, W), [0, 1]."""


@dataclass(frozen=True)
class Pair:
    """Two frames that follow each other, each (1, 3, 180, 320), [0, 1]."""

    kind: str
    is_cut: bool | None
    """None: whatever it is taken for, it counts neither as missed nor as a false alarm."""
    before: Tensor
    after: Tensor


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m vs_vsr.bench.scenes")
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO")
    parser.add_argument("--cut", action="append", default=[], metavar="NAME:FRAME")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    known: dict[str, list[int]] = {}
    for text in args.cut:
        name, _, frame = text.rpartition(":")
        known.setdefault(name, []).append(int(frame))
    found = sources(args.videos, known)
    results = {}
    measures = {"difference of luma": _difference_of_luma, "shifted correlation": _correlation}
    rows: dict[str, list[_Kind]] = {name: [] for name in measures}
    for half in (0, 1):
        kinds: dict[str, dict[tuple[str, bool | None], list[float]]] = {n: {} for n in measures}
        for pair in pairs(found[half::2], half):
            for name, measure in measures.items():
                value = float(measure(pair.before, pair.after))
                kinds[name].setdefault((pair.kind, pair.is_cut), []).append(value)
        for name in measures:
            rows[name] += [_Kind(half, *k, np.array(v)) for k, v in kinds[name].items()]
    for name in measures:
        chosen = min(np.arange(0.01, 1, 0.01), key=lambda t: sum(_rates(rows[name], 0, t)))
        results[name] = _report(name, rows[name], float(chosen))
    kept = _table(rows["shifted correlation"], CUT_ABOVE)
    costs = {f"{w}x{h}": _milliseconds(w, h) for w, h in ((320, 180), (1920, 1080))}
    _say("".join(f"{size}: {took:.2f} ms a frame\n" for size, took in costs.items()))
    if args.json:
        names = [source.name for source in found]
        result = {"machine": machine(), "sources": names, "threshold": CUT_ABOVE, "kinds": kept}
        args.json.write_text(json.dumps({**result, "measures": results, "ms": costs}, indent=1))


@dataclass(frozen=True)
class _Kind:
    """What a measure says of the pairs of one kind, of one half of the sources."""

    half: int
    kind: str
    is_cut: bool | None
    values: Array

    def wrong(self, threshold: float) -> int:
        """How many are missed or false; of pairs that are neither, how many are called cuts."""
        called_cuts = int((self.values > threshold).sum())
        return len(self.values) - called_cuts if self.is_cut else called_cuts


def _rates(rows: Sequence[_Kind], half: int, threshold: float) -> tuple[float, float]:
    """Shares of missed and false, each the mean over its kinds, so that all kinds count alike."""
    missed, false = (
        float(
            np.mean(
                [
                    row.wrong(threshold) / len(row.values)
                    for row in rows
                    if row.half == half and row.is_cut is is_cut
                ]
            )
        )
        for is_cut in (True, False)
    )
    return missed, false


def _report(name: str, rows: Sequence[_Kind], chosen: float) -> dict[str, Any]:
    _say(f"{name}: {chosen:.2f} is best on the first half")
    curve = []
    for threshold in sorted({chosen, *np.arange(0.05, 0.85, 0.05).round(2).tolist()}):
        rates = [*_rates(rows, 0, threshold), *_rates(rows, 1, threshold)]
        curve.append([threshold, *rates])
        first, held = (f"{100 * m:.1f} / {100 * f:.1f}" for m, f in (rates[:2], rates[2:]))
        _say(f"  {threshold:.2f}: missed / false, mean of the kinds: {first} %, held out {held} %")
    return {"chosen": chosen, "missed_false_first_held": curve}


def _table(rows: Sequence[_Kind], threshold: float) -> list[dict[str, Any]]:
    """For each kind, how many pairs are wrong and how many there are, in both halves."""
    _say(f"At {threshold}, wrong / all of the first half, of the held-out half")
    table = []
    for kind, is_cut in dict.fromkeys((row.kind, row.is_cut) for row in rows):
        both = [
            next((r for r in rows if (r.half, r.kind, r.is_cut) == (h, kind, is_cut)), None)
            for h in (0, 1)
        ]
        counts = [(0, 0) if r is None else (r.wrong(threshold), len(r.values)) for r in both]
        values = np.concatenate([r.values for r in both if r is not None])
        low, high = (float(v) for v in np.quantile(values, (0.01, 0.99)))
        table.append({"kind": kind, "is_cut": is_cut, "wrong_of": counts, "1%": low, "99%": high})
        what = {True: "cut", False: "none", None: "either"}[is_cut]
        text = ", ".join(f"{wrong:4d} /{count:4d}" for wrong, count in counts)
        _say(f"  {what:6s} {kind:34s} {text}   1 to 99 %: {low:.2f} to {high:.2f}")
    return table


def _correlation(before: Tensor, after: Tensor) -> Tensor:
    return differences(thumbnails([before]), thumbnails([after]))[0]


def _difference_of_luma(before: Tensor, after: Tensor) -> Tensor:
    """The simplest measure, to compare with: 64 columns of luma, each frame less its mean."""
    weights = torch.tensor((0.2126, 0.7152, 0.0722)).view(1, 3, 1, 1)
    a, b = ((F.avg_pool2d(x, 5) * weights).sum(1) for x in (before, after))
    return ((a - a.mean()) - (b - b.mean())).abs().mean()


def _milliseconds(width: int, height: int) -> float:
    """What a frame costs in a chunk of 30 with a lookahead of 15, the best of a few."""
    frames = list(torch.rand(4, 1, 3, height, width)) * 12
    frames = frames[:46]
    took = []
    with torch.inference_mode():
        for _ in range(5):
            start = time.perf_counter()
            cuts(frames, [(None, None)] * len(frames), "detect", before=None)
            took.append(1000 * (time.perf_counter() - start) / 30)
    return min(took)


def pairs(group: Sequence[Source], seed: int) -> Iterator[Pair]:
    """All pairs that are made from one half of the sources."""
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    videos = [source for source in group if len(source.shots[0]) > 1]
    shots = [shot for source in videos for shot in source.shots if len(shot) > 5]
    for source in videos:
        for a, b in pairwise(source.shots):
            yield Pair("a video's own", True, _float(a, len(a) - 1), _float(b, 0))
    yield from _cuts(group, shots, rng, generator)
    yield from _own(shots)
    yield from _light(group, shots, rng)
    yield from _motion(group, shots, rng)
    yield from _grain(shots, rng, generator)


def _cuts(
    group: Sequence[Source], shots: Sequence[Tensor], rng: random.Random, generator: torch.Generator
) -> Iterator[Pair]:
    def two() -> tuple[Tensor, Tensor]:
        a, b = rng.sample(shots, 2)
        return _any(a, rng), _any(b, rng)

    for _ in range(200):
        yield Pair("shot to shot", True, *two())
    for _ in range(150):
        one, other = rng.sample(group, 2)
        before, after = _any(one.shots[-1], rng), _any(other.shots[0], rng)
        yield Pair("shot or still to another", True, before, after)
    for _ in range(100):
        before, after = _framings(rng.choice(group).large, rng)
        yield Pair("two framings of one scene", True, before, after)
    for _ in range(100):
        dark = rng.uniform(0.1, 0.4)
        a, b = (_noisy(x * dark, 3 / 255, generator) for x in two())
        yield Pair("dark, with grain", True, a, b)
    for _ in range(100):
        a, b = (_noisy(x, rng.uniform(5, 25) / 255, generator) for x in two())
        yield Pair("with grain", True, a, b)
    for _ in range(100):
        a, b = (_letterboxed(x) for x in two())
        yield Pair("letterboxed", True, a, b)
    for i in range(100):
        picture = two()[0]
        black = torch.zeros_like(picture)
        yield Pair("to or from black", True, *((picture, black) if i % 2 else (black, picture)))
    for _ in range(100):
        shot = rng.choice(shots)
        t = rng.randrange(len(shot) // 2)
        later = _float(shot, t + len(shot) // 2)
        yield Pair("half a shot left out", None, _float(shot, t), later)


def _own(shots: Sequence[Tensor]) -> Iterator[Pair]:
    for shot in shots:
        for step in (1, 2, 3, 4):
            kind = "own pairs" if step == 1 else "frames dropped, 1 to 3"
            # Of the dropped frames a third each, so that they are as many as the own pairs.
            for t in range(0, len(shot) - step, 1 if step == 1 else 3):
                yield Pair(kind, False, _float(shot, t), _float(shot, t + step))
        for t in range(0, len(shot) - 1, 3):
            a, b = _float(shot, t), _float(shot, t + 1)
            yield Pair("letterboxed", False, _letterboxed(a), _letterboxed(b))
            yield Pair("low contrast", False, 0.4 + 0.1 * a, 0.4 + 0.1 * b)
            yield Pair("caption appears", False, a, _captioned(b))


def _light(group: Sequence[Source], shots: Sequence[Tensor], rng: random.Random) -> Iterator[Pair]:
    for kind, least, most in (("flash, up to 2x", 1.2, 2.0), ("flash, 2x to 5x", 2.0, 5.0)):
        for i in range(150):
            a, b = _neighbours(rng.choice(shots), rng)
            bright = (a * rng.uniform(least, most) + rng.uniform(0, 0.2)).clamp(0, 1)
            yield Pair(kind, False, *((b, bright) if i % 2 else (bright, b)))
    for _ in range(150):
        # Lightning or a lamp: one side of the frame is lit more.
        a, b = _neighbours(rng.choice(shots), rng)
        side = torch.linspace(rng.uniform(1, 3), rng.uniform(1, 3), _SIZE[1])
        yield Pair("flash from one side", False, a, (b * side).clamp(0, 1))
    for length in (4, 8, 16, 32):
        for _ in range(4):
            shot = rng.choice([shot for shot in shots if len(shot) > 4])
            frames = [_float(shot, t % len(shot)) for t in range(length + 1)]
            faded = [x * (1 - i / length) for i, x in enumerate(frames)]
            for a, b in pairwise(faded):
                yield Pair(f"fade to or from black, {length}", False, a, b)
                yield Pair(f"fade to or from black, {length}", False, b, a)
        for _ in range(6):
            one, other = (source.shots[0] for source in rng.sample(group, 2))
            mixed = [
                torch.lerp(_float(one, i), _float(other, i), i / length) for i in range(length + 1)
            ]
            for a, b in pairwise(mixed):
                yield Pair(f"cross-fade, {length}", False, a, b)
        for _ in range(3):
            shot = rng.choice(shots)
            frames = [_float(shot, t % len(shot)) * (1 + t / length) for t in range(length + 1)]
            for a, b in pairwise(frames):
                yield Pair("brightening", False, a.clamp(0, 1), b.clamp(0, 1))


def _motion(group: Sequence[Source], shots: Sequence[Tensor], rng: random.Random) -> Iterator[Pair]:
    # Share of the width that the camera moves from one frame to the next, in percent.
    for least, most in ((0, 5), (5, 10), (10, 20), (20, 30), (30, 45)):
        for _ in range(150):
            picture = rng.choice(group).large
            a, b = _panned(picture, rng.uniform(least, most) / 100, rng)
            yield Pair(f"pan, {least} to {most} % of the width", False, a, b)
    for closer, closest in ((1.02, 1.1), (1.1, 1.3)):
        for i in range(150):
            picture = rng.choice(group).large
            zoomed = _window(picture, 0.5, 0.5, 0.9 / rng.uniform(closer, closest))
            wide = _window(picture, 0.5, 0.5, 0.9)
            both = (wide, zoomed) if i % 2 else (zoomed, wide)
            yield Pair(f"zoom, {closer} to {closest}", False, *both)
    for _ in range(150):
        a, b = _neighbours(rng.choice(shots), rng)
        shift = (rng.randrange(-9, 10), rng.randrange(-16, 17))
        yield Pair("shake, up to 5 %", False, a, torch.roll(b, shift, (2, 3)))


def _grain(
    shots: Sequence[Tensor], rng: random.Random, generator: torch.Generator
) -> Iterator[Pair]:
    for sigma in (3, 10, 25, 50):
        for _ in range(100):
            a, b = (_noisy(x, sigma / 255, generator) for x in _neighbours(rng.choice(shots), rng))
            yield Pair(f"grain of {sigma}/255", False, a, b)
    for _ in range(200):
        dark = rng.uniform(0.02, 0.3)
        a, b = (_noisy(x * dark, 5 / 255, generator) for x in _neighbours(rng.choice(shots), rng))
        yield Pair("dark, with grain", False, a, b)
    for _ in range(100):
        a, b = (_noisy(torch.zeros(1, 3, *_SIZE), rng.uniform(0, 8) / 255, generator) for _ in "ab")
        yield Pair("black, with grain", False, a, b)


def _float(shot: Tensor, t: int) -> Tensor:
    return shot[min(t, len(shot) - 1)][None].float() / 255


def _any(shot: Tensor, rng: random.Random) -> Tensor:
    return _float(shot, rng.randrange(len(shot)))


def _neighbours(shot: Tensor, rng: random.Random) -> tuple[Tensor, Tensor]:
    t = rng.randrange(len(shot) - 1)
    return _float(shot, t), _float(shot, t + 1)


def _noisy(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """With grain of two sizes: one pixel, and two."""
    fine = torch.randn(x.shape, generator=generator)
    coarse = torch.randn(1, 3, x.shape[2] // 2, x.shape[3] // 2, generator=generator)
    coarse = F.interpolate(coarse, x.shape[-2:], mode="nearest")
    return (x + sigma * (fine + coarse) / 2**0.5).clamp(0, 1)


def _letterboxed(x: Tensor) -> Tensor:
    """As a 2.39:1 film in a 16:9 frame."""
    inner = F.interpolate(x, (134, x.shape[3]), mode="bilinear", antialias=True)
    return F.pad(inner, (0, 0, 23, 23))


def _captioned(x: Tensor) -> Tensor:
    out = x.clone()
    # Two lines of strokes, as far apart as those of letters.
    for top in (140, 158):
        out[..., top : top + 12, 60:260] *= 0.3
        out[..., top + 1 : top + 11, 60:260:4] = 1
    return out


def _window(picture: Tensor, x: float, y: float, share: float) -> Tensor:
    """The 16:9 part of `picture` around (x, y), each from 0 to 1; `share` of the largest one."""
    height, width = picture.shape[-2:]
    w = share * min(width, height * 16 / 9)
    h = w * 9 / 16
    left = min(max(x * width - w / 2, 0), width - w)
    top = min(max(y * height - h / 2, 0), height - h)
    part = picture[..., int(top) : int(top + h), int(left) : int(left + w)]
    return F.interpolate(part, _SIZE, mode="bilinear", antialias=True)


def _panned(picture: Tensor, share: float, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Two windows that lie `share` of their width apart, level or a little slanted."""
    height, width = picture.shape[-2:]
    window = rng.uniform(0.4, 0.6)
    w = window * min(width, height * 16 / 9)
    move = share * w / width
    slant = rng.uniform(-0.3, 0.3) * share * w / height
    half = w / 2 / width
    x = rng.uniform(half, 1 - half - move)
    y = rng.uniform(0.4, 0.6)
    both = _window(picture, x, y, window), _window(picture, x + move, y + slant, window)
    return both if rng.random() < 0.5 else both[::-1]


def _framings(picture: Tensor, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Two parts of a picture that share nothing, or a part and the whole."""
    if rng.random() < 0.5:
        share, y = rng.uniform(0.3, 0.48), rng.uniform(0.3, 0.7)
        width = share * min(1, picture.shape[2] / picture.shape[3] * 16 / 9)
        x = rng.uniform(width / 2, 1 - 1.5 * width)
        return _window(picture, x, y, share), _window(picture, x + width, y, share)
    close = _window(picture, rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.5))
    return _window(picture, 0.5, 0.5, 1), close


def sources(videos: Sequence[Path], cuts: dict[str, list[int]]) -> list[Source]:
    """The videos, then the stills."""
    found = []
    for path in videos:
        frames, large = _folder(path) if path.is_dir() else _video(path)
        borders = [0, *cuts.get(path.name, []), len(frames)]
        shots = [frames[i:j] for i, j in pairwise(borders)]
        found.append(Source(path.name, shots, large))
    for name in _STILLS:
        large = _picture(Path(skimage.data.__file__).with_name(_file(name)))
        found.append(Source(name, [_small(large)], large))
    return found


def _file(name: str) -> str:
    return f"{name}.jpg" if name in ("hubble_deep_field", "retina", "rocket") else f"{name}.png"


def _picture(path: Path) -> Tensor:
    array = np.array(Image.open(path).convert("RGB"))
    return torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255


def _small(picture: Tensor) -> Tensor:
    small = F.interpolate(picture, _SIZE, mode="bilinear", antialias=True)
    return (small * 255).round().clamp(0, 255).to(torch.uint8)


def _folder(path: Path) -> tuple[Tensor, Tensor]:
    pictures = [_picture(file) for file in sorted(path.glob("*.png"))]
    return torch.cat([_small(picture) for picture in pictures]), pictures[0]


def _video(path: Path) -> tuple[Tensor, Tensor]:
    import vapoursynth as vs

    clip: Any = vs.core.bs.VideoSource(str(path.resolve()), cachemode=0)
    # A video that names no matrix is read as BT.709.
    large = clip.resize.Bicubic(format=vs.RGB24, matrix_in=1)
    small = large.resize.Bicubic(_SIZE[1], _SIZE[0])

    def tensor(frame: Any) -> Tensor:
        return torch.from_numpy(np.stack([np.asarray(plane) for plane in frame]))

    frames = torch.stack([tensor(frame) for frame in small.frames()])
    return frames, tensor(large.get_frame(0))[None].float() / 255


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
