"""The file of a part: what goes in comes out, and a fault leaves nothing behind."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import films
import numpy as np
import pytest

from vs_vsr.errors import JobError
from vs_vsr.job.encode import PartWriter, average_rate, check_part
from vs_vsr.job.plan import JobPlan
from vs_vsr.job.source import seconds

TIMES = (0, 40, 80, 130, 200, 240, 280, 320)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return films.film(tmp_path_factory.mktemp("source") / "a.mkv", TIMES)


def a_plan(source: Path, **changes: object) -> JobPlan:
    return films.plan_of(source, Path("/out.mkv"), TIMES, [(0, 3), (3, 8)], **changes)  # type: ignore[arg-type]


def write(path: Path, plan: JobPlan, part: int = 1) -> Path:
    first, last = plan.parts[part]
    with PartWriter(path, plan, first) as writer:
        for n in range(first, last):
            writer.write(films.picture(n, plan.recipe.format))
    assert 0 < writer.bytes_written < path.stat().st_size
    return path


@contextmanager
def a_full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond `size`: "File too large" where a disk says "No space left"."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "picture_format",
    ["YUV420P8", "YUV420P10", "YUV444P10", "GRAY8", "GRAY10", "RGB24", "RGB30"],
)
def test_every_sample_arrives(tmp_path: Path, source: Path, picture_format: str) -> None:
    plan = a_plan(source, codec="ffv1", picture_format=picture_format)
    path = tmp_path / "a.mkv"
    with PartWriter(path, plan, 0) as writer:
        for n in range(3):
            # As VapourSynth's planes: rows with something behind them.
            planes = [np.pad(p, ((0, 0), (0, 9)))[:, :-9] for p in films.picture(n, picture_format)]
            writer.write(planes)
    with av.open(str(path)) as container:
        for n, frame in enumerate(container.decode(video=0)):
            planes = films.picture(n, picture_format)
            if picture_format == "RGB24":
                got = list(frame.to_ndarray(format="rgb24").transpose(2, 0, 1))
            else:
                kind = planes[0].dtype
                got = [
                    np.frombuffer(p, kind).reshape(p.height, -1)[:, : p.width] for p in frame.planes
                ]
                if picture_format == "RGB30":
                    got = [got[2], got[0], got[1]]
            assert all(np.array_equal(a, b) for a, b in zip(got, planes, strict=True))
    assert check_part(path, plan, 0) == check_part(path, plan, 0)


@pytest.mark.parametrize(
    ("codec", "picture_format", "unit"),
    [
        (codec, picture_format, unit)
        for unit in (Fraction(1, 1000), Fraction(1001, 24000), Fraction(1, 90000))
        for codec, picture_format in (
            ("x264", "YUV420P8"),
            ("x265", "YUV420P10"),
            ("av1", "YUV420P10"),
            ("ffv1", "YUV420P8"),
        )
        # Where these times are apart less than Matroska's clock can tell.
        if (codec, unit.denominator) != ("ffv1", 90000)
    ],
)
def test_a_part_has_the_times_of_the_plan(
    tmp_path: Path, source: Path, codec: str, picture_format: str, unit: Fraction
) -> None:
    plan = a_plan(source, codec=codec, picture_format=picture_format, unit=unit)
    path = write(tmp_path / f"a{plan.encoder.suffix}", plan)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.size]
        clock = Fraction(stream.time_base.numerator, stream.time_base.denominator)
    assert packets[0].is_keyframe and (codec == "ffv1" or not packets[1].is_keyframe)
    shown = sorted(p.pts * clock for p in packets if p.pts is not None)
    wanted = [(t - plan.times[3]) * unit for t in plan.times[3:]]
    slack = Fraction(0) if codec != "ffv1" else clock / 2
    assert all(abs(a - b) <= slack for a, b in zip(shown, wanted, strict=True))
    assert check_part(path, plan, 1) == films.decoded(path)
    # And each is its own picture: neighbours differ by 7 and more.
    with av.open(str(path)) as container:
        for n, frame in enumerate(container.decode(video=0)):
            luma = np.frombuffer(frame.planes[0], np.uint8 if "P8" in picture_format else np.uint16)
            luma = luma.reshape(frame.height, -1)[:, : frame.width]
            wanted_luma = films.picture(n + 3, picture_format)[0]
            error = np.abs(luma.astype(float) - wanted_luma).mean()
            assert error < (1 if "P8" in picture_format else 4) * 3


@pytest.mark.parametrize("codec", ["x264", "x265", "av1", "ffv1"])
def test_the_same_pictures_make_the_same_part(tmp_path: Path, source: Path, codec: str) -> None:
    plan = a_plan(source, codec=codec)
    a, b = (write(tmp_path / f"{n}{plan.encoder.suffix}", plan) for n in (1, 2))
    assert check_part(a, plan, 1) == check_part(b, plan, 1)


@pytest.mark.parametrize("codec", ["x264", "x265", "av1"])
def test_one_picture_is_a_part_too(tmp_path: Path, source: Path, codec: str) -> None:
    plan = replace(a_plan(source, codec=codec), parts=((0, 7), (7, 8)))
    # x265 has left the decoding time of a single picture undefined: not always wrong.
    for _ in range(10):
        path = write(tmp_path / "a.mp4", plan)
        check_part(path, plan, 1)
    with av.open(str(path)) as container:
        packet = next(container.demux(video=0))
        assert packet.pts == 0 and packet.dts is not None
        # Ours: earlier by as many pictures as any encoder reorders.
        assert packet.dts * seconds(packet.time_base) == -16 * Fraction(40, 1000)


def test_an_exception_leaves_no_file(tmp_path: Path, source: Path) -> None:
    plan = a_plan(source)
    path = tmp_path / "a.mp4"
    with pytest.raises(KeyboardInterrupt), PartWriter(path, plan, 0) as writer:
        writer.write(films.picture(0))
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="broadcast"), PartWriter(path, plan, 0) as writer:
        writer.write([plane[:-2] for plane in films.picture(0)])
    with pytest.raises(TypeError), PartWriter(path, plan, 0) as writer:
        writer.write(films.picture(0, "YUV420P10"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence(tmp_path: Path, source: Path) -> None:
    plan = a_plan(source)
    with (
        a_full_disk(2000),
        pytest.raises(JobError, match=r"a.mp4 could not be written into .*Make room") as e,
    ):
        write(tmp_path / "a.mp4", plan)
    assert str(tmp_path) in str(e.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_one_sentence(tmp_path: Path, source: Path) -> None:
    with pytest.raises(JobError, match=r"could not be written into .*gone"):
        write(tmp_path / "gone" / "a.mp4", a_plan(source))


def test_what_is_not_the_part_is_found(tmp_path: Path, source: Path) -> None:
    plan = a_plan(source)
    path = write(tmp_path / "a.mp4", plan)
    whole = path.read_bytes()
    with pytest.raises(JobError, match="5 pictures instead of 3"):
        check_part(path, plan, 0)
    other = replace(plan, times=(*TIMES[:-1], 321))
    with pytest.raises(JobError, match="picture 4 at another time"):
        check_part(path, other, 1)
    other = replace(plan, recipe=replace(plan.recipe, width=128))
    with pytest.raises(JobError, match="pictures of 64x48"):
        check_part(path, other, 1)
    path.write_bytes(whole[:-100])
    with pytest.raises(JobError, match="damaged"):
        check_part(path, plan, 1)
    path.write_bytes(b"")
    with pytest.raises(JobError, match="damaged"):
        check_part(path, plan, 1)
    with pytest.raises(JobError, match="damaged"):
        check_part(tmp_path / "none.mp4", plan, 1)


def test_a_part_in_which_a_packet_is_lost_is_found(tmp_path: Path, source: Path) -> None:
    plan = a_plan(source)
    path = write(tmp_path / "a.mp4", plan)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    place = data.index(packets[0])
    data[place : place + len(packets[0])] = bytes(len(packets[0]))
    path.write_bytes(data)
    with pytest.raises(JobError, match="damaged"):
        check_part(path, plan, 1)


def test_the_average_rate(source: Path) -> None:
    plan = a_plan(source)
    steady = replace(
        plan, times=tuple(round(n * Fraction(1001, 24)) for n in range(500)), last_duration=42
    )
    assert average_rate(steady) == Fraction(24000, 1001)
    assert average_rate(replace(plan, times=(7,), last_duration=40)) == 25
