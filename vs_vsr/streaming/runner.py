"""Runs a network along a plan, in whatever order chunks are asked for."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vs_vsr.models.stream import Planes, Span, Stream
from vs_vsr.streaming.gaps import Gaps
from vs_vsr.streaming.plan import Plan, Step
from vs_vsr.streaming.scenes import Marks, Scenes, cuts
from vs_vsr.streaming.state import Carried, StateCache
from vs_vsr.streaming.tiles import Tile

__all__ = ["Runner"]


class Runner:
    """One clip's stream: the network, the plan, and the states between chunks.

    A chunk's pictures depend on the clip and the plan alone. If the state before a chunk was not
    kept, it is made again from the start of the segment, through the same operations on the same
    shapes, so to the same bits.

    `next`, `span`, `run` and `failed` are for one thread at a time; other threads may call
    `expected` and `ended` meanwhile.
    """

    def __init__(
        self,
        stream: Stream,
        plan: Plan,
        scenes: Scenes,
        tiles: Sequence[Tile],
        gaps: Gaps | None = None,
    ) -> None:
        """Run `stream` along `plan`.

        Args:
            stream: The network.
            plan: What it runs along.
            scenes: Where cuts are.
            tiles: At least one; they cover the frame.
            gaps: Those of the clip, where several runners share its chunks: what one of them could
                not get, the others do without too. Only one of them may run at a time.
        """
        self._stream = stream
        self._plan = plan
        self._scenes: Scenes = scenes
        self._tiles = tiles
        self._states = StateCache(1 if plan.state_is_cache else None)
        self._gaps = gaps or Gaps(plan)
        self._gaps.on_stale(self._states.drop)
        # Chunks that are asked for and not yet done.
        self._wanted: set[int] = set()

    def next(self, chunk: int) -> Step:
        """The step to run now on the way to the pictures of `chunk`."""
        newest = self._states.newest(self._gaps.start(chunk), chunk)
        if newest == chunk:
            return self._render_step(chunk)
        return self._plan.advance(newest, cold=self._gaps.is_cold(newest))

    def expected(self, chunk: int) -> Step:
        """Begin a request for `chunk`; return its step for when the chunks before it are done.

        Until `ended`, the state that the request has reached is kept. Otherwise many seeks side by
        side would throw out each other's states, and none would ever finish.
        """
        self._wanted.add(chunk)
        return self._render_step(chunk)

    def ended(self, chunk: int) -> None:
        """End the request for `chunk`."""
        self._wanted.discard(chunk)
        self._trim()

    @torch.inference_mode()
    def span(self, step: Step, frames: Sequence[Tensor], marks: Sequence[Marks]) -> Span:
        """The span of a step, with its cuts; the ends of the clip are cuts too.

        Only this reads values back from the frames. A device that is still busy with the step
        before can do it beside that step, so that `run` need not wait.

        Args:
            step: As `next` gave it.
            frames: As for `run`.
            marks: As for `run`.
        """
        carried = self._carried(step)
        output = self._plan.output(step.chunk)
        active = self._plan.active(step)
        # With context, the frame before the chunk is among the frames of the step.
        at_start = carried is not None and step.first == output.start
        before = (carried.frame, carried.marks) if carried is not None and at_start else None
        cut_positions = cuts(frames, marks, self._scenes, before=before)
        # With context, only a cold step begins at its chunk: then a shot begins there too.
        if step.first == 0 or (step.first == output.start and self._plan.context):
            cut_positions.add(0)
        if step.last == self._plan.frames:
            cut_positions.add(len(frames))
        return Span(
            len(frames),
            range(output.start - step.first, output.stop - step.first),
            range(active.start - step.first, active.stop - step.first),
            step.first,
            cut_positions,
        )

    @torch.inference_mode()
    def run(
        self,
        step: Step,
        frames: Sequence[Tensor],
        marks: Sequence[Marks],
        out: Sequence[Planes],
        span: Span | None = None,
    ) -> bool:
        """Do one step.

        Args:
            step: As `next` gave it.
            frames: Its frames, each (1, 3, H, W), RGB, [0, 1], float32, on the network's device.
            marks: The scene cut marks of each frame.
            out: Where a rendering step writes: for each output frame its planes R, G, B, each
                (1, s*H, s*W), or all in one tensor; empty for other steps. Places are taken from
                it as by `Stream.step`.
            span: What `span` gave for this step; by default it is asked now.

        Returns:
            Whether pictures that were made before are stale, as frames have come that they were
            made without.
        """
        span = span or self.span(step, frames, marks)
        carried = self._carried(step)
        states = []
        # Tiles are summed in float32 and rounded once.
        height, width = (self._stream.scale * side for side in frames[0].shape[-2:])
        sums = out
        if len(self._tiles) > 1:
            sums = [frames[0].new_zeros(3, 1, height, width) for _ in range(len(out))]
        for i, tile in enumerate(self._tiles):
            state = None if carried is None else carried.states[i]
            crops = [tile.crop(frame) for frame in frames]
            if len(self._tiles) == 1 or not step.render:
                state = self._stream.step(crops, span, state, out if step.render else None)
            else:
                state = self._render(tile, crops, span, state, sums)
            states.append(state)
        if sums is not out:
            for planes, total in zip(out, sums, strict=True):
                for plane, part in zip(planes, total, strict=True):
                    plane.copy_(part)
        last = span.output.stop - 1
        self._states.put(step.chunk + 1, Carried(frames[last], marks[last], tuple(states)))
        self._trim()
        return bool(self._gaps.done(step))

    @property
    def has_gaps(self) -> bool:
        """Whether the source could not give some frames, so that pictures may become stale."""
        return self._gaps.any

    def failed(self, step: Step) -> None:
        """Note that the source could not give the frames of `step`."""
        self._gaps.failed(step)

    def _carried(self, step: Step) -> Carried | None:
        """What the chunk before has left for this step."""
        # Where a state begins, none is carried in. One that is only a cache is always used.
        is_first = step.chunk == self._gaps.start(step.chunk) and not self._plan.state_is_cache
        return None if is_first else self._states.get(step.chunk)

    def _render(
        self,
        tile: Tile,
        frames: Sequence[Tensor],
        span: Span,
        state: Any,
        out: Sequence[Planes],
    ) -> Any:
        """Do the step for one tile, and add its share of the pictures to `out`."""
        scale = self._stream.scale
        height, width = frames[0].shape[-2:]
        pictures = frames[0].new_empty(len(out), 3, 1, scale * height, scale * width)
        state = self._stream.step(frames, span, state, pictures.unbind())
        for planes, picture in zip(out, pictures, strict=True):
            for plane, part in zip(planes, picture, strict=True):
                tile.add(part, plane, scale)
        return state

    def _render_step(self, chunk: int) -> Step:
        return self._plan.render(chunk, cold=self._gaps.is_cold(chunk))

    def _trim(self) -> None:
        """Drop old states, except those that a request would go on from."""
        wanted = tuple(self._wanted)
        self._states.trim({self._states.newest(self._gaps.start(k), k) for k in wanted})
