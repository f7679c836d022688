"""How a network is run: over a clip span by span, one after another.

A whole clip is one span. Networks are for inference: they have no gradients, reuse memory while
they compute, and are not made for torch.export or ONNX. Pictures are not clamped, so they may lie a
little outside [0, 1].
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from vs_vsr.errors import ShapeError

__all__ = [
    "Network",
    "Planes",
    "Span",
    "Stream",
    "check_clip",
    "reflected",
    "run_clip",
    "shots",
]

Planes = Sequence[Tensor] | Tensor
"""Where one picture is written: its planes R, G and B, each (B, s*H, s*W), with any strides; as one
tensor, (3, B, s*H, s*W), they may be written at once."""

# A frame in [0, 255] exceeds this unless it is black; the overshoot of a resize does not.
_MOST = 2.0


@dataclass(frozen=True)
class Span:
    """A run of frames of a clip. Positions count from its first frame, which is 0.

    frames     context | preroll |     output     | lookahead | context
    active             [-------- branches run over these -----]
    """

    count: int
    """Number of frames."""
    output: range
    """Positions of the frames whose pictures are wanted."""
    active: range
    """Positions that recurrent branches run over; only windows look at the others."""
    first: int = 0
    """Number of its first frame in the clip."""
    cuts: Collection[int] = field(default_factory=frozenset)
    """Every t where a shot begins; `count` too where a shot ends after the last frame."""

    @classmethod
    def whole(cls, count: int) -> "Span":
        """A whole clip, which is one shot."""
        return cls(count, range(count), range(count), cuts=frozenset((0, count)))

    def shot(self, position: int) -> range:
        """The part of the shot around `position` that lies within the span."""
        return next(shot for shot in shots(range(self.count), self.cuts) if position in shot)


def shots(positions: range, cuts: Collection[int]) -> list[range]:
    """Split a run of positions at the cuts; no part is empty."""
    first, last = positions.start, positions.stop
    borders = [first, *sorted(cut for cut in set(cuts) if first < cut < last), last]
    return [range(i, j) for i, j in pairwise(borders) if i < j]


def reflected(position: int, shot: range, radius: int, centre: int | None = None) -> int:
    """The frame that a window reads for a position beyond the ends of its shot.

    The window mirrors about itself (EDVR's "reflection_circle"). The frame k before the shot's
    first one is the k-th frame after the window of radius `radius` around `centre`, and likewise at
    the end: of frames 0, 1, 2, ... the window of radius 2 around 1 is 4 0 1 2 3.

    Args:
        position: Any position.
        shot: Positions of the shot's frames. If it is too short for the rule, its farthest frame is
            taken.
        radius: Radius of the window.
        centre: Centre of the window. By default the shot's first or last frame: then all windows
            get the same frames beyond an end, as in IconVSR, which pads its clip once.

    Returns:
        A position within the shot; `position` itself if it is one.
    """
    if position < shot.start:
        centre = shot.start if centre is None else centre
        return min(centre + radius + shot.start - position, shot.stop - 1)
    last = shot.stop - 1
    if position > last:
        centre = last if centre is None else centre
        return max(centre - radius - (position - last), shot.start)
    return position


class Stream(Protocol):
    """What runs over a clip span by span: a network, or a network with a plan of its windows."""

    @property
    def scale(self) -> int:
        """By what factor its pictures are larger than the frames, each way: 4, or 1."""

    @property
    def frames_per_input(self) -> int:
        """How many pictures it makes for each output frame of a span."""

    def step(
        self, frames: Sequence[Tensor], span: Span, state: Any, out: Sequence[Planes] | None
    ) -> Any:
        """Do the next span: carry the state over it, and make its pictures.

        Args:
            frames: The frames of the span, each (B, 3, H, W), RGB, [0, 1], float32.
            span: Which frames these are.
            state: What the step before returned; None starts cold.
            out: Where the pictures of the output frames go, `frames_per_input` for each; None
                makes no pictures. Each place is taken from it once, in order, when the pictures
                before it are written: so a caller can hand these out already.

        Returns:
            The state after the output frames. Its bits are the same with pictures and without.
        """


class Network(nn.Module):
    """A network for clips, for inference: pictures from frames, not clamped, without gradients."""

    scale: int
    """By what factor its pictures are larger than the frames, each way: 4, or 1."""
    frames_per_input: int = 1
    """How many pictures it makes for each frame: 2 if it interpolates."""

    if TYPE_CHECKING:
        # For type checkers only: the `__call__` of nn.Module takes and returns Any.
        def __call__(self, frames: Tensor) -> Tensor:
            """As `forward`."""

        # Each network has its own.
        def step(
            self, frames: Sequence[Tensor], span: Span, state: Any, out: Sequence[Planes] | None
        ) -> Any:
            """As `Stream.step`."""

    def forward(self, frames: Tensor) -> Tensor:
        """Make all pictures of a clip.

        Args:
            frames: (B, T, 3, H, W), RGB, [0, 1], float32; any size.

        Returns:
            (B, T, 3, s*H, s*W), float32, not clamped; s is `scale`.

        Raises:
            ShapeError: `frames` has another shape or other values.
        """
        check_clip(self, frames)
        return run_clip(self, frames)

    def stream(
        self,
        frames: Tensor,
        state: Any = None,
        *,
        lookahead: int = 0,
        preroll: int = 0,
        context: tuple[int, int] = (0, 0),
        first: int = 0,
        cuts: Collection[int] = (),
        **options: Any,
    ) -> tuple[Tensor, Any]:
        """Make the pictures of the next chunk of a clip.

        Args:
            frames: The chunk with the frames around it that the arguments below name,
                (B, N, 3, H, W), RGB, [0, 1], float32.
            state: What the call for the chunk before returned; None starts cold.
            lookahead: Number of frames after the chunk that only the backward pass sees.
            preroll: Number of frames before the chunk that warm its state up.
            context: Number of frames before and after all these, which only windows look at.
            first: Number of the first of `frames` in the clip. It places keyframes, and finds what
                a state keeps for single frames.
            cuts: Every t where a shot begins with frame t of these; N too where the clip or a shot
                ends after the last one. The start of a clip (`first` 0, no state) is a cut without
                being named.
            options: Other arguments that the `step` of this network takes.

        Returns:
            The pictures of the chunk, (B, f*T, 3, s*H, s*W), float32, not clamped, where s is
            `scale` and f is `frames_per_input`; and the state after the chunk.

        Raises:
            ShapeError: `frames` has another shape or other values, or no frame is left for the
                chunk.
        """
        check_clip(self, frames)
        count = frames.shape[1]
        active = range(context[0], count - context[1])
        output = range(active.start + preroll, active.stop - lookahead)
        if not output:
            raise ShapeError(
                f"{type(self).__name__}: frames must be (B, T, 3, H, W) with T above the "
                f"{count - (output.stop - output.start)} frames before and after the chunk, got "
                f"{tuple(frames.shape)}. Give the chunk's frames too."
            )
        # With a state the clip goes on, even if the caller does not number its frames.
        starts = {0} if first == 0 and state is None else set()
        span = Span(count, output, active, first, starts | set(cuts))
        return _run(self, frames, span, state, **options)


def check_clip(network: object, frames: object) -> None:
    """Refuse what is not a clip: (B, T, 3, H, W) with at least one frame, float32 in [0, 1].

    Values a little outside pass, as a resize leaves them. Looking for the greatest value is one
    pass over the input, which costs next to nothing beside the network.

    Raises:
        ShapeError: `frames` is something else.
    """
    name = type(network).__name__
    if not isinstance(frames, Tensor):
        kind = f"{type(frames).__module__}.{type(frames).__qualname__}".removeprefix("builtins.")
        raise ShapeError(
            f"{name}: frames must be a torch.Tensor, got {kind}. Make one: torch.as_tensor(…)."
        )
    if frames.ndim != 5 or frames.shape[2] != 3 or not frames.numel():
        raise ShapeError(
            f"{name}: frames must be (B, T, 3, H, W), got {tuple(frames.shape)}. Stack the frames "
            "in this order."
        )
    if not frames.is_floating_point():
        raise ShapeError(
            f"{name}: frames must be float32 in [0, 1], got {frames.dtype}. Divide by 255 (for 8 "
            "bits): frames.float() / 255."
        )
    # A meta tensor has no values to look at.
    most = 0.0 if frames.is_meta else float(frames.amax())
    if most > _MOST:
        raise ShapeError(
            f"{name}: frames must be float32 in [0, 1], got values up to {most:g}. Divide by the "
            "greatest value that their format has (255 for 8 bits)."
        )


def run_clip(network: Stream, frames: Tensor) -> Tensor:
    """Make all pictures of a clip, (B, f*T, 3, s*H, s*W), from its frames, (B, T, 3, H, W)."""
    return _run(network, frames, Span.whole(frames.shape[1]), None)[0]


def _run(
    network: Stream, frames: Tensor, span: Span, state: Any, **options: Any
) -> tuple[Tensor, Any]:
    """Do one step over stacked frames, and stack its pictures."""
    b, _, _, h, w = frames.shape
    count = network.frames_per_input * len(span.output)
    out = frames.new_empty(b, count, 3, network.scale * h, network.scale * w)
    planes = [picture.transpose(0, 1) for picture in out.unbind(1)]
    return out, network.step(frames.unbind(1), span, state, planes, **options)
