"""VRT as a stream along a plan of its windows."""

from collections.abc import Sequence

from torch import Tensor

from vs_vsr.models.stream import Planes, Span
from vs_vsr.models.vrt import VRT
from vs_vsr.models.vrt_tiles import WindowSums
from vs_vsr.streaming.plan import WindowPlan

__all__ = ["WindowStream"]


class WindowStream:
    """VRT with what it needs beside the frames: its windows, its tiles, the noise level."""

    def __init__(
        self,
        network: VRT,
        plan: WindowPlan | None,
        *,
        tile: int,
        overlap: int,
        sigma: float | None = None,
        extend: bool = False,
    ) -> None:
        """Run `network` over the windows of `plan`.

        Args:
            network: Any VRT.
            plan: Where the windows lie; None for interpolation, whose windows are four frames.
            tile: Side of the spatial tiles in pixels, a multiple of 8; 0 is whole frames.
            overlap: Pixels that neighbouring tiles share.
            sigma: Noise level for a denoising network, in units of 1/255.
            extend: As in `VRT.step`; the plan then has one chunk.
        """
        self.scale = network.scale
        self.frames_per_input = network.frames_per_input
        self._network = network
        self._plan = plan
        self._tile = tile
        self._overlap = overlap
        self._sigma = sigma
        self._extend = extend

    def step(
        self,
        frames: Sequence[Tensor],
        span: Span,
        state: WindowSums | None,
        out: Sequence[Planes] | None,
    ) -> WindowSums | None:
        """As `Stream.step`, over the windows that start within the span's output frames."""
        windows = None
        if self._plan is not None:
            # The plan counts frames of the clip, the network positions in the span.
            chunk = (span.first + span.output.start) // self._plan.chunk
            windows = [
                range(window.start - span.first, window.stop - span.first)
                for window in self._plan.windows(chunk)
            ]
        return self._network.step(
            frames,
            span,
            state,
            out,
            windows=windows,
            tile=self._tile,
            overlap=self._overlap,
            sigma=self._sigma,
            extend=self._extend,
        )
