"""The stages of a visit in their order, with their boxes: 8 minutes and 10 seconds in all."""

from vs_vsr.bench.gpu import (
    answers,
    ceilings,
    convolutions,
    end_to_end,
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
    Stage("convolutions", 90, convolutions.measure),
    Stage("right", 55, right.measure),
    Stage("parts", 60, parts.measure),
    Stage("lanes", 40, lanes.measure),
    Stage("end_to_end", 110, end_to_end.measure),
    Stage("one_answer", 45, answers.measure),
    Stage("others", 40, others.measure),
)
