"""A clip in memory, run through a network along a plan."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vs_vsr.errors import ShapeError
from vs_vsr.models.stream import Stream
from vs_vsr.streaming.plan import Plan
from vs_vsr.streaming.runner import Runner
from vs_vsr.streaming.scenes import Marks, Scenes
from vs_vsr.streaming.tiles import Tile, tiles

__all__ = ["Clip"]


class Clip:
    """The pictures of frames in memory, chunk by chunk and in any order, as a filter makes them."""

    def __init__(
        self,
        stream: Stream,
        plan: Plan,
        frames: Sequence[Tensor],
        *,
        scenes: Scenes = "off",
        marks: Sequence[Marks] | None = None,
        parts: Sequence[Tile] | None = None,
    ) -> None:
        """Run `stream` along `plan` over `frames`.

        Args:
            stream: A network, or what runs one.
            plan: A plan for as many frames.
            frames: Each (1, 3, H, W), RGB, [0, 1], float32, on the network's device. One that
                cannot be read may raise LookupError; it is asked for again later.
            scenes: Where cuts come from, as for a filter.
            marks: The scene cut marks of each frame; by default none.
            parts: Spatial tiles, as `tiles` gives them; by default whole frames.

        Raises:
            ShapeError: The plan is for another number of frames.
        """
        if len(frames) != plan.frames:
            raise ShapeError(
                f"Clip: frames must be as many as those of the plan ({plan.frames}), got "
                f"{len(frames)}. Make a plan for this clip."
            )
        height, width = frames[0].shape[-2:]
        self.plan = plan
        self.runner = Runner(
            stream, plan, scenes, parts or tiles(height, width, 0, 0, stream.scale)
        )
        self._frames = frames
        self._marks = marks or [(None, None)] * len(frames)
        self._size = (stream.scale * height, stream.scale * width)
        self._frames_per_input = stream.frames_per_input

    def __iter__(self) -> Iterator[Tensor]:
        """The pictures of each chunk, in order."""
        return (self.chunk(k) for k in range(self.plan.chunks))

    def chunk(self, chunk: int) -> Tensor:
        """The pictures of a chunk, after all steps that lead to them.

        Returns:
            (f*T, 3, s*H, s*W), not clamped: f pictures for each of its T frames.

        Raises:
            LookupError: A frame that these steps need cannot be read. Chunks that do not need it
                still can be made.
        """
        while True:
            step = self.runner.next(chunk)
            numbers = range(step.first, step.last)
            try:
                frames = [self._frames[n] for n in numbers]
            except LookupError:
                self.runner.failed(step)
                raise
            count = self._frames_per_input * len(self.plan.output(chunk)) if step.render else 0
            # NaN would show what no step has written.
            pictures = frames[0].new_full((count, 3, 1, *self._size), torch.nan)
            marks = [self._marks[n] for n in numbers]
            self.runner.run(step, frames, marks, pictures.unbind())
            if step.render:
                return pictures[:, :, 0]
