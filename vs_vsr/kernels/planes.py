"""The planes of a frame to a picture in float32, and a picture back to planes.

A frame has three planes R, G, B of uint8, uint16 (9 to 16 bits), float16 or float32, each with its
own row stride. Integers and floats are turned into each other as VapourSynth's resize does it for
full-range RGB without dither, to the bit: an integer is multiplied by the float32 nearest to
1/maximum, and a float times the maximum is rounded to the nearest integer, halves to the even one.
"""

from collections.abc import Sequence

from torch import Tensor

__all__ = ["pack_plain", "unpack_plain"]


def unpack_plain(planes: Sequence[Tensor], out: Tensor, maximum: int | None) -> None:
    """Read three planes into one picture, clamped to [0, 1]; a NaN becomes 0.

    Args:
        planes: R, G, B, each (H, W), uint8, uint16, float16 or float32, any strides.
        out: Where the picture goes, (1, 3, H, W), float32, any strides; on the device of `planes`.
        maximum: What 1.0 is in planes of integers, 255 for 8 bits; None for floats.
    """
    for plane, target in zip(planes, out[0], strict=True):
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
