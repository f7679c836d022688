"""Formats that stand for all that a clip can have."""

import vapoursynth as vs

FORMATS = [
    vs.RGBS,
    vs.RGBH,
    vs.RGB24,
    vs.RGB48,
    vs.YUV420P8,
    vs.YUV422P10,
    vs.YUV444P16,
    vs.YUV444PS,
    vs.GRAY8,
    vs.GRAY16,
    vs.GRAYS,
]
