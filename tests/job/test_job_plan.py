"""What a job is: its text, its name, and what is refused."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from vs_vsr.errors import JobError
from vs_vsr.job import planning
from vs_vsr.job.plan import Colour, Encoder, JobPlan, Recipe, Source

PLAN = JobPlan(
    source=Source(
        path="/films/in.mkv",
        size=1000,
        modified_ns=1,
        packets="ab" * 32,
        track=0,
        width=64,
        height=48,
        frames=4,
    ),
    recipe=Recipe(
        filter="BasicVSR",
        weights="reds4",
        weights_sha256="cd" * 32,
        arguments={"chunk": 2, "segment": 2, "precision": "fp32"},
        deinterlace="",
        top_field_first=False,
        frames_per_input=1,
        width=256,
        height=192,
        format="YUV420P8",
    ),
    encoder=Encoder(name="libx264", options={"crf": "18"}, threads=2),
    colour=Colour(matrix=1, primaries=1, transfer=1, full_range=False, chroma_location=0),
    sample_aspect=(1, 1),
    rotation=0,
    time_base=(1, 1000),
    times=(0, 40, 90, 120),
    last_duration=30,
    cuts=(2,),
    parts=((0, 2), (2, 4)),
    versions={"torch": "2"},
    out="/films/out.mkv",
)


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    PLAN.save(tmp_path)
    assert JobPlan.load(tmp_path) == PLAN
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_times_of_pictures() -> None:
    assert [PLAN.duration(n) for n in range(4)] == [40, 50, 30, 30]
    assert (PLAN.first, PLAN.last, PLAN.unit) == (0, 4, Fraction(1, 1000))


def test_the_name_follows_what_comes_out_and_nothing_else() -> None:
    same = [
        replace(PLAN, out="/elsewhere/x.mkv"),
        replace(PLAN, source=replace(PLAN.source, path="/moved.mkv", modified_ns=2)),
    ]
    assert {plan.name for plan in same} == {PLAN.name}
    others = [
        replace(PLAN, source=replace(PLAN.source, packets="ef" * 32)),
        replace(PLAN, recipe=replace(PLAN.recipe, weights_sha256="00" * 32)),
        replace(PLAN, recipe=replace(PLAN.recipe, arguments={"chunk": 4})),
        replace(PLAN, encoder=replace(PLAN.encoder, threads=3)),
        replace(PLAN, versions={"torch": "3"}),
        replace(PLAN, cuts=()),
        replace(PLAN, parts=((0, 4),)),
    ]
    assert len({PLAN.name, *(plan.name for plan in others)}) == len(others) + 1


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{}",
        "[1]",
        json.dumps({"source": 1}),
    ],
)
def test_a_folder_without_a_plan(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "plan.json").write_text(text)
    with pytest.raises(JobError, match=r"job must be a folder with a plan\.json .* Make it with"):
        JobPlan.load(tmp_path)


# Segments as the filter's defaults are on a processor.
@pytest.mark.parametrize(
    ("size", "segment", "frames", "length"),
    [
        ((320, 180), 180, 10_000, 540),
        ((720, 480), 180, 10_000, 360),
        ((1920, 1080), 136, 10_000, 136),
        ((320, 180), 180, 2_000, 180),
    ],
)
def test_large_pictures_and_short_films_have_short_parts(
    size: tuple[int, int], segment: int, frames: int, length: int
) -> None:
    parts = planning._parts(5, frames, frames, segment=segment, pixels=size[0] * size[1])
    assert parts[0] == (5, length) and parts[-1][1] == frames
    assert {last - first for first, last in parts[1:-1]} == {length}
