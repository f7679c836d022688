"""Networks that take a window of frames at once, as streams: VRT, and its frame interpolation."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vs_vsr.models.layers import Planes
from vs_vsr.models.stretch import Stretch, shots
from vs_vsr.models.vrt import VRT
from vs_vsr.streaming.plan import WindowPlan

__all__ = ["InterpolationStream", "WindowStream"]

# What windows have given so far for frames that later ones see too, by frame number: the sum of
# their pictures, (3, s*H, s*W), and how many they are.
_Sums = Mapping[int, tuple[Tensor, int]]


class WindowStream:
    """VRT over overlapping windows; where they overlap their pictures are averaged."""

    def __init__(
        self,
        model: VRT,
        plan: WindowPlan,
        *,
        tile: int,
        overlap: int,
        sigma: float | None,
        whole: bool = False,
    ) -> None:
        """Run `model` over the windows of `plan`.

        Args:
            model: Any VRT but for interpolation.
            plan: Where the windows lie.
            tile: Side of the spatial tiles in pixels, a multiple of 8; 0 is whole frames.
            overlap: Pixels that neighbouring tiles share.
            sigma: Noise level for a denoising network, in 1/255.
            whole: Whether to extend the clip to whole windows in time, as the reference does where
                it takes a clip at once; the plan then has one chunk.
        """
        self.scale = model.scale
        self._model = model
        self._plan = plan
        self._tile = tile
        self._overlap = overlap
        self._sigma = sigma
        self._whole = whole

    def step(
        self,
        frames: Sequence[Tensor],
        stretch: Stretch,
        state: _Sums | None,
        out: Sequence[Planes] | None,
    ) -> _Sums:
        """Run the windows that start in a stretch, and put out its own frames."""
        sums = dict(state or {})
        first, own = stretch.first, stretch.own
        for window in self._plan.windows((first + own.start) // self._plan.chunk):
            self._add(frames, stretch, range(window.start - first, window.stop - first), sums)
        if out is not None:
            # A window that the source could not give leaves frames to no other.
            uncovered = [i for i in own if first + i not in sums]
            if uncovered:
                self._add(frames, stretch, range(uncovered[0], uncovered[-1] + 1), sums)
            for i, planes in zip(own, out, strict=True):
                total, count = sums[first + i]
                for plane, channel in zip(planes, total, strict=True):
                    torch.div(channel[None], count, out=plane)
        return {n: entry for n, entry in sums.items() if n >= first + own.stop}

    def _add(
        self,
        frames: Sequence[Tensor],
        stretch: Stretch,
        window: range,
        sums: dict[int, tuple[Tensor, int]],
    ) -> None:
        """Add the pictures of one window to the sums; a cut makes two of it."""
        for shot in shots(window, stretch.cuts):
            clip = torch.stack([frames[i] for i in shot], dim=1)
            for i, picture in zip(shot, self._pictures(clip)[0], strict=True):
                total, count = sums.get(stretch.first + i, (0, 0))
                sums[stretch.first + i] = total + picture, count + 1

    def _pictures(self, clip: Tensor) -> Tensor:
        tile, overlap, sigma = self._tile, self._overlap, self._sigma
        if not self._whole:
            return self._model.in_space(clip, tile=tile, overlap=overlap, sigma=sigma)
        return self._model.tiled(
            clip, tile=(0, tile, tile), overlap=(0, overlap, overlap), sigma=sigma
        )


class InterpolationStream:
    """VRT's frame interpolation: each frame, and a new one between it and the next.

    A new frame is made of two frames on either side, those at the ends of the shot repeated. After
    the last frame of a shot there is none to be between, and it is repeated.
    """

    scale = 1

    def __init__(self, model: VRT, *, tile: int, overlap: int) -> None:
        """Run `model`; `tile` and `overlap` are as for `WindowStream`."""
        self._model = model
        self._tile = tile
        self._overlap = overlap

    def step(
        self,
        frames: Sequence[Tensor],
        stretch: Stretch,
        state: None,
        out: Sequence[Planes] | None,
    ) -> None:
        """Put out each own frame and the one after it."""
        for i, (planes, between) in zip(
            stretch.own, zip((out or ())[::2], (out or ())[1::2], strict=True), strict=True
        ):
            shot = stretch.shot(i)
            _copy(frames[i], planes)
            if i + 1 == shot.stop:
                _copy(frames[i], between)
                continue
            around = [min(max(k, shot.start), shot.stop - 1) for k in range(i - 1, i + 3)]
            clip = torch.stack([frames[k] for k in around], dim=1)
            picture = self._model.in_space(clip, tile=self._tile, overlap=self._overlap)
            _copy(picture[:, 0], between)


def _copy(picture: Tensor, planes: Planes) -> None:
    for plane, channel in zip(planes, picture.unbind(1), strict=True):
        plane.copy_(channel)
