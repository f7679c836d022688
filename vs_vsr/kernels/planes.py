"""The planes of a frame to a picture in float32, and a picture back to planes.

A frame has three planes R, G, B of uint8, uint16 (9 to 16 bits), float16 or float32, each with its
own row stride. Integers and floats are turned into each other as VapourSynth's resize does it for
full-range RGB without dither, to the bit: an integer is multiplied by the float32 nearest to
1/maximum, and a float times the maximum is rounded to the nearest integer, halves to the even one.

`unpack` and `pack` use a kernel where it is on and takes the tensors, else their plain form.
"""

from collections.abc import Sequence

from torch import Tensor

from vs_vsr.kernels.launch import FEATURES, MOST_ROWS, launch
from vs_vsr.kernels.selection import enabled

__all__ = ["pack", "pack_plain", "unpack", "unpack_plain"]

# Values that one thread reads or writes at once.
_RUN = 8


def unpack(planes: Sequence[Tensor] | Tensor, out: Tensor, maximum: int | None) -> None:
    """Read three planes into one picture, as `unpack_plain` does.

    By the kernel it is one launch on torch's current stream, and nothing is waited for.
    """
    if not enabled("unpack", out.device) or not _rows_alike(planes):
        unpack_plain(planes, out, maximum)
        return
    height, width = planes[0].shape
    rows = (planes[0].stride(0), *out.stride()[1:])
    launch(
        "unpack",
        {"PLANE": planes[0].dtype},
        (-(-width // _RUN), height, 3),
        (*planes, out),
        (height, width, *rows, maximum or 1, _in_runs(*planes, *out[0])),
    )


def pack(
    picture: Sequence[Tensor],
    planes: Sequence[Tensor],
    maximum: int | None,
    not_finite: Tensor | None = None,
) -> None:
    """Write a picture to three planes, as `pack_plain` does.

    By the kernel it is one launch on torch's current stream, and nothing is waited for.
    """
    alike = _rows_alike(planes) and len({x.stride() for x in picture}) == 1
    if not enabled("pack", planes[0].device) or not alike or picture[0].dtype not in FEATURES:
        pack_plain(picture, planes, maximum, not_finite)
        return
    height, width = planes[0].shape
    rows = (*picture[0].stride(), planes[0].stride(0))
    launch(
        "pack",
        {"VALUE": picture[0].dtype, "PLANE": planes[0].dtype},
        (-(-width // _RUN), height, 3),
        (*picture, *planes, not_finite),
        (height, width, *rows, maximum or 1, maximum is not None, _in_runs(*picture, *planes)),
    )


def _rows_alike(planes: Sequence[Tensor] | Tensor) -> bool:
    """Whether planes have one row stride, and no gap between neighbours in a row."""
    strides = {plane.stride() for plane in planes}
    return len(strides) == 1 and strides.pop()[1] == 1 and len(planes[0]) <= MOST_ROWS


def _in_runs(*planes: Tensor) -> bool:
    """Whether in every row of these planes runs of 8 values can be read or written at once."""

    def is_so(plane: Tensor) -> bool:
        size = plane.itemsize
        starts = (plane.data_ptr(), plane.stride(0) * size if len(plane) > 1 else 0)
        return plane.stride(1) == 1 and not any(at % min(16, _RUN * size) for at in starts)

    return all(map(is_so, planes))


def unpack_plain(planes: Sequence[Tensor] | Tensor, out: Tensor, maximum: int | None) -> None:
    """Read three planes into one picture, clamped to [0, 1]; a NaN becomes 0.

    Args:
        planes: R, G, B, each (H, W), uint8, uint16, float16 or float32, any strides; as one tensor
            they take fewer launches.
        out: Where the picture goes, (1, 3, H, W), float32, any strides; on the device of `planes`.
        maximum: What 1.0 is in planes of integers, 255 for 8 bits; None for floats.
    """
    together = isinstance(planes, Tensor)
    sources, targets = ((planes,), (out[0],)) if together else (planes, out[0])
    for plane, target in zip(sources, targets, strict=True):
        target.copy_(plane)
        if maximum is not None:
            target.mul_(1 / maximum)
        # clamp_ keeps a NaN.
        target.clamp_(0, 1).nan_to_num_(0)


def pack_plain(
    picture: Sequence[Tensor],
    planes: Sequence[Tensor],
    maximum: int | None,
    not_finite: Tensor | None = None,
) -> None:
    """Write a picture to three planes, clamped to [0, 1]; a NaN becomes 0.

    The picture is not changed, unless it shares its memory with the planes.

    Args:
        picture: R, G, B, each (H, W), float32, float16 or bfloat16, any strides.
        planes: Where they go, each (H, W), uint8, uint16, float16 or float32, any row stride; on
            the device of `picture`.
        maximum: What 1.0 is in planes of integers, 255 for 8 bits; None for floats.
        not_finite: (1,), int32, on that device. It becomes 1 if a value of the picture is infinite
            or NaN, and stays as it is if none is.
    """
    for source, target in zip(picture, planes, strict=True):
        if not_finite is not None:
            not_finite |= ~source.isfinite().all()
        values = source.float().clamp(0, 1).nan_to_num_(0)
        if maximum is not None:
            values = values.mul_(maximum).round_()
        target.copy_(values)
