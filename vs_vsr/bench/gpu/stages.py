"""The stages of a visit in their order, with their boxes: 8 minutes and 35 seconds in all."""

from vs_vsr.bench.gpu import (
    answers,
    ceilings,
    convolutions,
    end_to_end,
    gpu_clips,
    lanes,
    others,
    parts,
    right,
    versions,
)
from vs_vsr.bench.gpu.boxes import Stage

__all__ = ["STAGES"]

STAGES = (
    Stage("versions", 20, versions.measure),
    Stage("ceilings", 30, ceilings.measure),
    Stage("convolutions", 70, convolutions.measure),
    Stage("right", 55, right.measure),
    Stage("parts", 55, parts.measure),
    Stage("lanes", 35, lanes.measure),
    Stage("end_to_end", 100, end_to_end.measure),
    Stage("one_answer", 45, answers.measure),
    Stage("others", 45, others.measure),
    # Last, as a driver that cannot do it may crash or hang.
    Stage("gpu_clips", 60, gpu_clips.measure),
)
