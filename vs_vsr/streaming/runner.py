"""Runs a network along a plan, chunk by chunk, in whatever order they are asked for."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from vs_vsr.models.layers import Planes
from vs_vsr.models.stretch import Stretch
from vs_vsr.streaming.plan import Plan, Step
from vs_vsr.streaming.scenes import Marks, Scenes, cuts
from vs_vsr.streaming.state import Carried, StateCache
from vs_vsr.streaming.tiles import Tile

__all__ = ["Runner", "Stream"]


class Stream(Protocol):
    """A network, as a stream of stretches of a clip."""

    @property
    def scale(self) -> int:
        """How many times as large its pictures are."""

    def step(
        self,
        frames: Sequence[Tensor],
        stretch: Stretch,
        state: Any,
        out: Sequence[Planes] | None,
    ) -> Any:
        """Do the next stretch, with pictures or without, and return the state after it."""


class Runner:
    """One clip's stream: the network, the plan, and the states between chunks.

    Not for several threads at once. A chunk's pictures depend on the clip and the plan alone: where
    the state before a chunk is not at hand, it is made again from the segment's start, through the
    same operations on the same shapes, so to the same bits.
    """

    def __init__(self, model: Stream, plan: Plan, scenes: Scenes, tiles: Sequence[Tile]) -> None:
        """Run `model` along `plan`; `tiles` cover the frame, at least one."""
        self._model = model
        self._plan = plan
        self._scenes: Scenes = scenes
        self._tiles = tiles
        self._states = StateCache(1 if plan.spares else None)
        # Chunks that the source could not give: what follows in the segment starts cold after them.
        self._broken: set[int] = set()
        # Segment starts whose preroll may be what the source could not give, each with the chunks
        # before it whose part of that has not come yet.
        self._no_preroll: dict[int, set[int]] = {}
        # What the source gave for the last step that was done.
        self._given = range(0)
        # Chunks that are asked for and not yet done.
        self._wanted: set[int] = set()

    def next(self, chunk: int) -> Step:
        """What to run now on the way to the pictures of `chunk`."""
        known = self._states.newest(self._start(chunk), chunk)
        if known == chunk:
            return self._render_step(chunk)
        return self._plan.advance(known, cold=self._is_cold(known))

    def expected(self, chunk: int) -> Step:
        """Begin a request for `chunk`: the step for it if the chunks before it are done by then.

        Until `ended`, the state that the request has come to is kept. Without that, many seeks side
        by side would throw out each other's states, and none would ever get to its end.
        """
        self._wanted.add(chunk)
        return self._render_step(chunk)

    def ended(self, chunk: int) -> None:
        """The request for `chunk` is over."""
        self._wanted.discard(chunk)
        self._trim()

    @torch.inference_mode()
    def run(
        self, step: Step, frames: Sequence[Tensor], marks: Sequence[Marks], out: Sequence[Planes]
    ) -> bool:
        """Do one step.

        Args:
            step: As `next` gave it.
            frames: Its frames, each (1, 3, H, W), RGB, [0, 1], float32, on the network's device.
            marks: The scene cut marks of each frame.
            out: Where a rendering step writes: for each output frame its planes R, G, B, each
                (1, s*H, s*W); empty for other steps.

        Returns:
            Whether pictures that were made before are stale: frames came that they were made
            without.
        """
        is_first = step.chunk == self._start(step.chunk) and not self._plan.spares
        carried = None if is_first else self._states.get(step.chunk)
        stretch = self._stretch(step, frames, marks, carried)
        states = []
        # Tiles are summed up in float32 and rounded once.
        sums = out if len(self._tiles) == 1 else [_zeros(planes) for planes in out]
        for i, tile in enumerate(self._tiles):
            state = None if carried is None else carried.states[i]
            crops = [tile.crop(frame) for frame in frames]
            if len(self._tiles) == 1 or not step.render:
                state = self._model.step(crops, stretch, state, out if step.render else None)
            else:
                state = self._render(tile, crops, stretch, state, sums)
            states.append(state)
        if sums is not out:
            for planes, total in zip(out, sums, strict=True):
                for plane, part in zip(planes, total, strict=True):
                    plane.copy_(part)
        last = stretch.own.stop - 1
        self._states.put(step.chunk + 1, Carried(frames[last], marks[last], tuple(states)))
        self._trim()
        self._given = range(step.first, step.last)
        return self._mend(step.chunk)

    def failed(self, step: Step) -> None:
        """Take note that the source could not give the frames of `step`."""
        self._broken.add(step.chunk)
        if step.first == self._plan.output(step.chunk).start or self._has_preroll(step.chunk):
            # Frames before the chunk are not what is missing.
            self._no_preroll.pop(step.chunk, None)
        else:
            first = self._plan.render(step.chunk).first // self._plan.chunk
            self._no_preroll[step.chunk] = set(range(first, step.chunk))

    def _stretch(
        self,
        step: Step,
        frames: Sequence[Tensor],
        marks: Sequence[Marks],
        carried: Carried | None,
    ) -> Stretch:
        """What the frames of a step are; the ends of the clip are cuts too."""
        own = self._plan.output(step.chunk)
        active = self._plan.active(step)
        # With context the frame before the chunk is among the frames.
        at_start = carried is not None and step.first == own.start
        before = (carried.frame, carried.marks) if carried is not None and at_start else None
        found = cuts(frames, marks, self._scenes, before=before)
        if step.first == 0 or (step.first == own.start and self._plan.context):
            found.add(0)
        if step.last == self._plan.frames:
            found.add(len(frames))
        return Stretch(
            len(frames),
            range(own.start - step.first, own.stop - step.first),
            range(active.start - step.first, active.stop - step.first),
            step.first,
            found,
        )

    def _render(
        self,
        tile: Tile,
        frames: Sequence[Tensor],
        stretch: Stretch,
        state: Any,
        out: Sequence[Planes],
    ) -> Any:
        scale = self._model.scale
        height, width = frames[0].shape[-2:]
        pictures = frames[0].new_empty(len(out), 3, 1, scale * height, scale * width)
        state = self._model.step(frames, stretch, state, [p.unbind() for p in pictures])
        for planes, picture in zip(out, pictures, strict=True):
            for plane, part in zip(planes, picture, strict=True):
                tile.add(part, plane, scale)
        return state

    def _render_step(self, chunk: int) -> Step:
        return self._plan.render(chunk, cold=self._is_cold(chunk))

    def _trim(self) -> None:
        """Let go of old states, but of none that a request would go on from."""
        wanted = tuple(self._wanted)
        self._states.trim({self._states.newest(self._start(k), k) for k in wanted})

    def _start(self, chunk: int) -> int:
        """The chunk where the state that reaches `chunk` begins."""
        first = self._plan.segment_start(chunk)
        return max([first, *(k + 1 for k in tuple(self._broken) if first <= k < chunk)])

    def _is_cold(self, chunk: int) -> bool:
        """Whether `chunk` must not look back at frames that cannot be had."""
        if chunk == self._plan.segment_start(chunk):
            return chunk in self._no_preroll
        return chunk - 1 in self._broken

    def _has_preroll(self, chunk: int) -> bool:
        """Whether the last step was given all that `chunk` looks back at."""
        return self._was_given(self._plan.render(chunk).first, self._plan.output(chunk).start)

    def _was_given(self, first: int, last: int) -> bool:
        """Whether the last step was given the frames first..last (half open)."""
        return self._given.start <= first and last <= self._given.stop

    def _mend(self, chunk: int) -> bool:
        """Frames that could not be had came after all: what was made without them is stale."""
        starts = []
        for start, missing in tuple(self._no_preroll.items()):
            first, length = self._plan.render(start).first, self._plan.chunk
            missing -= {
                k for k in missing if self._was_given(max(first, k * length), (k + 1) * length)
            }
            if not missing:
                starts.append(start)
                del self._no_preroll[start]
                self._drop_after(start, start + 1)
        was_broken = chunk in self._broken
        if was_broken:
            self._broken.discard(chunk)
            # The state after it is new.
            self._drop_after(chunk, chunk + 2)
        return was_broken or bool(starts)

    def _drop_after(self, chunk: int, first: int) -> None:
        """Forget the states from the start of `first` on that `chunk` reaches."""
        self._states.drop(range(first, self._plan.reached(chunk).stop + 1))


def _zeros(planes: Planes) -> Planes:
    return [torch.zeros_like(plane, dtype=torch.float32) for plane in planes]
