"""Runs a recurrent network along a plan, chunk by chunk, in whatever order they are asked for."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vs_vsr.models.basicvsr import BasicVSR, ForwardState
from vs_vsr.models.layers import Planes
from vs_vsr.streaming.plan import Plan, Step
from vs_vsr.streaming.scenes import Marks, Scenes, cuts
from vs_vsr.streaming.state import Carried, StateCache
from vs_vsr.streaming.tiles import Tile

__all__ = ["Runner"]


class Runner:
    """One clip's stream: the network, the plan, and the states between chunks.

    Not for several threads at once. A chunk's pictures depend on the clip and the plan alone: where
    the state before a chunk is not at hand, it is made again from the segment's start, through the
    same operations on the same shapes, so to the same bits.
    """

    def __init__(self, model: BasicVSR, plan: Plan, scenes: Scenes, tiles: Sequence[Tile]) -> None:
        """Run `model` along `plan`; `tiles` cover the frame, at least one."""
        self._model = model
        self._plan = plan
        self._scenes: Scenes = scenes
        self._tiles = tiles
        self._states = StateCache()
        # Chunks that the source could not give: what follows in the segment starts cold after them.
        self._broken: set[int] = set()
        # Segment starts whose preroll may be what the source could not give.
        self._no_preroll: set[int] = set()

    def next(self, chunk: int) -> Step:
        """What to run now on the way to the pictures of `chunk`."""
        start = self._start(chunk)
        known = next((k for k in range(chunk, start, -1) if k in self._states), start)
        if known == chunk:
            return self.expected(chunk)
        return self._plan.advance(known, cold=self._is_cold(known))

    def expected(self, chunk: int) -> Step:
        """The step for `chunk` if the chunks before it are done by then."""
        return self._plan.render(chunk, cold=self._is_cold(chunk))

    @torch.inference_mode()
    def run(
        self, step: Step, frames: Sequence[Tensor], marks: Sequence[Marks], out: Sequence[Planes]
    ) -> None:
        """Do one step.

        Args:
            step: As `next` gave it.
            frames: Its frames, each (1, 3, H, W), RGB, [0, 1], float32, on the network's device.
            marks: The scene cut marks of each frame.
            out: Where a rendering step writes: for each output frame its planes R, G, B, each
                (1, s*H, s*W); empty for other steps.
        """
        warm_up = self._plan.output(step.chunk).start - step.first
        length = len(self._plan.output(step.chunk))
        carried = None if step.chunk == self._start(step.chunk) else self._states.get(step.chunk)
        before = None if carried is None else (carried.frame, carried.marks)
        found = cuts(frames, marks, self._scenes, before=before)
        early = {t for t in found if t < warm_up}
        late = {t - warm_up for t in found if t >= warm_up}
        states = []
        # Tiles are summed up in float32 and rounded once.
        sums = out if len(self._tiles) == 1 else [_zeros(planes) for planes in out]
        for i, tile in enumerate(self._tiles):
            crops = [tile.crop(frame) for frame in frames]
            state = None if carried is None else carried.states[i]
            state = self._model.advance(crops[:warm_up], state, cuts=early)
            if step.render:
                state = self._render(tile, crops[warm_up:], state, sums, late)
            else:
                state = self._model.advance(crops[warm_up:], state, cuts=late)
            if state is not None:
                states.append(state)
        if sums is not out:
            for planes, total in zip(out, sums, strict=True):
                for plane, part in zip(planes, total, strict=True):
                    plane.copy_(part)
        last = warm_up + length - 1
        self._states.put(step.chunk + 1, Carried(frames[last], marks[last], tuple(states)))
        self._mend(step.chunk)

    def failed(self, step: Step) -> None:
        """Take note that the source could not give the frames of `step`."""
        self._broken.add(step.chunk)
        if step.first < self._plan.output(step.chunk).start:
            self._no_preroll.add(step.chunk)

    def _render(
        self,
        tile: Tile,
        frames: Sequence[Tensor],
        state: ForwardState | None,
        out: Sequence[Planes],
        found: set[int],
    ) -> ForwardState:
        if len(self._tiles) == 1:
            return self._model.render(frames, state, out, cuts=found)
        scale = self._model.scale
        height, width = frames[0].shape[-2:]
        pictures = frames[0].new_empty(len(out), 3, 1, scale * height, scale * width)
        state = self._model.render(frames, state, [p.unbind() for p in pictures], cuts=found)
        for planes, picture in zip(out, pictures, strict=True):
            for plane, part in zip(planes, picture, strict=True):
                tile.add(part, plane, scale)
        return state

    def _start(self, chunk: int) -> int:
        """The chunk where the forward state that reaches `chunk` begins."""
        first = self._plan.segment_start(chunk)
        return max([first, *(k + 1 for k in tuple(self._broken) if first <= k < chunk)])

    def _is_cold(self, chunk: int) -> bool:
        """Whether `chunk` must not look back at frames that cannot be had."""
        if chunk == self._plan.segment_start(chunk):
            return chunk in self._no_preroll
        return chunk - 1 in self._broken

    def _mend(self, chunk: int) -> None:
        """A chunk that had failed was had after all: what was made without it is stale."""
        if chunk in self._broken:
            self._broken.discard(chunk)
            size = self._plan.segment // self._plan.chunk
            self._states.drop(range(chunk + 2, self._plan.segment_start(chunk) + size + 1))


def _zeros(planes: Planes) -> Planes:
    return [torch.zeros_like(plane, dtype=torch.float32) for plane in planes]
