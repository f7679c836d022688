"""The joined file: the parts' pictures, the source's everything else, all in its place in time."""

import hashlib
import resource
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import films
import numpy as np
import pytest
from av.stream import Disposition

from vs_vsr.errors import JobError
from vs_vsr.job.join import dropped, join
from vs_vsr.job.plan import JobPlan
from vs_vsr.job.source import probe, seconds

# Uneven, as of a telephone; a part ends within the run of B-frames that an encoder would make.
TIMES = (0, 40, 80, 130, 200, 240, 280, 320, 360, 420)
PARTS = ((0, 4), (4, 9), (9, 10))
CHAPTERS = ((0, 200, "One"), (200, 460, "Two"))
LINES = ((50, 300, "Hallo"), (310, 400, "Welt"))


@dataclass
class Packets:
    """Of one stream: bytes, times in seconds, and what is said of it."""

    kind: str
    codec: str
    data: list[bytes]
    times: list[Fraction]
    durations: list[Fraction]
    language: str
    title: str
    disposition: Disposition


def streams(path: Path) -> list[Packets]:
    with av.open(str(path)) as container:
        found = [
            Packets(
                s.type,
                s.codec_context.codec.canonical_name if s.codec_context else "",
                [],
                [],
                [],
                s.language or "",
                s.metadata.get("title", s.metadata.get("name", "")),
                s.disposition,
            )
            for s in container.streams
        ]
        for packet in container.demux():
            if packet.size and packet.pts is not None:
                unit = seconds(packet.stream.time_base)
                found[packet.stream.index].data.append(bytes(packet))
                found[packet.stream.index].times.append(packet.pts * unit)
                found[packet.stream.index].durations.append((packet.duration or 0) * unit)
    return found


def of_kind(found: Sequence[Packets], kind: str) -> list[Packets]:
    return [s for s in found if s.kind == kind]


def pictures_of_parts(plan: JobPlan, folder: Path) -> str:
    digest = hashlib.sha256()
    for part in range(len(plan.parts)):
        films.decoded_into(digest, plan.part_file(folder, part))
    return digest.hexdigest()


def joined(plan: JobPlan, tmp_path: Path) -> Path:
    films.make_parts(plan, tmp_path / "job")
    said: list[float] = []
    out = join(plan, tmp_path / "job", said.append, force=True)
    assert out == Path(plan.out) and said == sorted(said) and said[-1] == 1
    assert films.decoded(out) == pictures_of_parts(plan, tmp_path / "job")
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".partial")] == []
    return out


def check_times(plan: JobPlan, out: Path, origin: Fraction = Fraction(0)) -> None:
    """Pictures are where the plan has them: exactly in MP4, to 0.5 ms in Matroska."""
    video = streams(out)[0]
    wanted = [t * plan.unit - origin for t in plan.times[plan.first : plan.last]]
    slack = Fraction(1, 2000) if out.suffix == ".mkv" else 0
    assert len(video.times) == len(wanted)
    assert all(abs(a - b) <= slack for a, b in zip(sorted(video.times), wanted, strict=True))


def check_copies(source: Path, out: Path, kind: str, origin: Fraction = Fraction(0)) -> None:
    """Streams of a kind are the source's: bytes, times, languages, titles, dispositions."""
    before, after = of_kind(streams(source), kind), of_kind(streams(out), kind)
    assert len(before) == len(after) > 0
    for a, b in zip(before, after, strict=True):
        assert a.data == b.data and a.codec == b.codec
        # Both clocks round: Matroska's to 1 ms.
        assert all(
            abs(x - origin - y) <= Fraction(1, 1000) for x, y in zip(a.times, b.times, strict=True)
        )
        assert (a.language, a.title) == (b.language, b.title)
        if source.suffix == out.suffix:
            assert a.disposition == b.disposition


def a_film(path: Path, **changes: object) -> Path:
    arguments: dict[str, object] = {
        "sound": ("eng", "fra"),
        "chapters": CHAPTERS,
        "metadata": {"title": "A film", "comment": "Ein Kommentar"},
    }
    return films.film(path, TIMES, **{**arguments, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("before", [".mkv", ".mp4"])
@pytest.mark.parametrize(
    ("codec", "picture_format", "after"),
    [
        *(("x264", "YUV420P8", after) for after in (".mkv", ".mp4", ".mov")),
        *(("x265", "YUV420P10", after) for after in (".mkv", ".mp4", ".mov")),
        *(("av1", "YUV420P10", after) for after in (".mkv", ".mp4")),
        ("ffv1", "YUV444P10", ".mkv"),
    ],
)
def test_everything_arrives(
    tmp_path: Path, codec: str, picture_format: str, before: str, after: str
) -> None:
    source = a_film(tmp_path / f"in{before}")
    out = tmp_path / f"out{after}"
    plan = films.plan_of(source, out, TIMES, PARTS, codec=codec, picture_format=picture_format)
    assert dropped(probe(source), out) == []
    joined(plan, tmp_path)
    check_times(plan, out)
    check_copies(source, out, "audio")
    with av.open(str(source)) as a, av.open(str(out)) as b:
        assert b.metadata["title"] == "A film"
        assert {k.lower(): v for k, v in b.metadata.items()}["comment"] == "Ein Kommentar"
        assert b.streams.video[0].language == "jpn"
        for x, y in zip(a.chapters(), b.chapters(), strict=True):
            assert x["metadata"] == y["metadata"]
            for key in ("start", "end"):
                assert x[key] * seconds(x["time_base"]) == y[key] * seconds(y["time_base"])


@pytest.mark.parametrize("after", [".mkv", ".mp4"])
def test_colour_rotation_and_aspect_arrive(tmp_path: Path, after: str) -> None:
    source = a_film(tmp_path / "in.mkv", rotation=270, aspect=Fraction(16, 15))
    out = tmp_path / f"out{after}"
    plan = films.plan_of(
        source,
        out,
        TIMES,
        PARTS,
        codec="x265",
        picture_format="YUV420P10",
        colour=films.HDR,
        rotation=270,
        aspect=(16, 15),
    )
    info = probe(joined(plan, tmp_path))
    assert (info.rotation, info.sample_aspect, info.bits) == (270, (16, 15), 10)
    assert info.colour == films.HDR
    if after == ".mp4":
        with av.open(str(out)) as container:
            assert container.streams.video[0].codec_context.codec_tag == "hvc1"


def test_subtitles_and_fonts_arrive_in_matroska(tmp_path: Path) -> None:
    source = a_film(
        tmp_path / "in.mkv",
        subtitles=LINES,
        fonts=[("a.ttf", b"font" * 500), ("b.ttf", b"other" * 500)],
    )
    out = joined(films.plan_of(source, tmp_path / "out.mkv", TIMES, PARTS), tmp_path)
    check_copies(source, out, "subtitle")
    with av.open(str(source)) as a, av.open(str(out)) as b:
        fonts = [[(s.name, s.mimetype, s.data) for s in c.streams.attachments] for c in (a, b)]
        headers = [c.streams.subtitles[0].codec_context.extradata for c in (a, b)]
    assert fonts[0] == fonts[1] and len(fonts[0]) == 2
    assert headers[0] == headers[1]


def test_text_becomes_the_text_of_the_container(tmp_path: Path) -> None:
    source = a_film(tmp_path / "in.mkv", subtitles=LINES, fonts=[("a.ttf", b"font")])
    out = tmp_path / "out.mp4"
    assert dropped(probe(source), out) == [
        "dropped: the styling of subtitle stream 3 (ass, ger, Untertitel), which becomes mov_text",
        "dropped: attachment stream 4 (font/ttf, a.ttf), which .mp4 files cannot have",
    ]
    joined(films.plan_of(source, out, TIMES, PARTS), tmp_path)
    (lines,) = of_kind(streams(out), "subtitle")
    # Two bytes of length before each text; MP4 has empty ones in between.
    texts = [
        (time, duration, data[2:].decode())
        for time, duration, data in zip(lines.times, lines.durations, lines.data, strict=True)
        if len(data) > 2
    ]
    assert texts == [
        (Fraction(start, 1000), Fraction(end - start, 1000), text) for start, end, text in LINES
    ]
    assert (lines.language, lines.title) == ("ger", "Untertitel")

    back = tmp_path / "back.mkv"
    plan = films.plan_of(out, back, [16 * t for t in TIMES], PARTS)
    joined(plan, tmp_path)
    (again,) = of_kind(streams(back), "subtitle")
    assert again.codec == "subrip"
    assert [d.decode() for d in again.data] == [text for _, _, text in LINES]


def test_a_cover_arrives(tmp_path: Path) -> None:
    source = films.with_cover(a_film(tmp_path / "plain.mp4"), tmp_path / "in.mp4")
    for name in ("out.mkv", "out.mp4"):
        out = joined(films.plan_of(source, tmp_path / name, TIMES, PARTS), tmp_path)
        (cover,) = [s for s in streams(out) if s.disposition & Disposition.attached_pic]
        (wanted,) = [s for s in streams(source) if s.disposition & Disposition.attached_pic]
        assert cover.codec == wanted.codec == "mjpeg" and cover.data == wanted.data
        assert [o.kind for o in probe(out).others].count("picture") == 1


def test_the_styling_is_all_that_webm_loses_but_not_aac(tmp_path: Path) -> None:
    source = a_film(tmp_path / "in.mkv", subtitles=LINES)
    lines = dropped(probe(source), tmp_path / "out.webm")
    assert [line.rpartition("which")[2].strip() for line in lines] == [
        ".webm files cannot have",
        ".webm files cannot have",
        "becomes webvtt",
    ]
    plan = films.plan_of(source, tmp_path / "out.webm", TIMES, PARTS, codec="av1")
    joined(plan, tmp_path)


@pytest.mark.parametrize("after", [".mkv", ".mp4"])
@pytest.mark.parametrize("start", [-100, 0, 300, 36_000_000])
def test_sound_keeps_its_distance_from_the_pictures(tmp_path: Path, after: str, start: int) -> None:
    """A file that begins late, sound before or after the first picture."""
    times = [t + 36_000_000 for t in TIMES]
    source = films.film(
        tmp_path / "in.mkv",
        times,
        sound=("eng",),
        sound_start=Fraction(36_000_000 + min(start, 300), 1000),
        chapters=[(36_000_100, 36_000_200, "One")],
    )
    plan = films.plan_of(source, tmp_path / f"out{after}", times, PARTS)
    out = joined(plan, tmp_path)
    before, now = streams(source), streams(out)
    wanted = before[1].times[0] - min(before[0].times)
    assert abs(now[1].times[0] - min(now[0].times) - wanted) <= Fraction(1, 1000)
    assert now[1].data == before[1].data
    assert -Fraction(1, 40) <= min(now[0].times[0], now[1].times[0]) <= Fraction(1, 1000)
    with av.open(str(out)) as container:
        # One without a name comes before it in MP4.
        chapter = container.chapters()[-1]
        shift = chapter["start"] * seconds(chapter["time_base"]) - min(now[0].times)
    assert abs(shift - Fraction(100, 1000)) <= Fraction(1, 1000)


@pytest.mark.parametrize("after", [".mkv", ".mp4"])
def test_sound_that_an_edit_list_hides_stays_hidden(tmp_path: Path, after: str) -> None:
    # In MP4, times before 0 are not played.
    source = films.film(
        tmp_path / "in.mp4", TIMES, sound=("eng",), sound_start=Fraction(-100, 1000)
    )
    assert len([t for t in streams(source)[1].times if t < 0]) > 3
    out = joined(films.plan_of(source, tmp_path / f"out{after}", TIMES, PARTS), tmp_path)
    check_copies(source, out, "audio")
    start, samples = heard(source)
    again, same = heard(out)
    assert start == 0 and abs(again) <= Fraction(1, 1000)
    assert np.array_equal(samples, same)


def heard(path: Path) -> tuple[Fraction, np.ndarray[Any, Any]]:
    """When the sound begins, in seconds, and its samples."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    assert frames[0].pts is not None
    start = frames[0].pts * seconds(frames[0].time_base)
    return start, np.concatenate([frame.to_ndarray() for frame in frames], axis=1)


@pytest.mark.parametrize("after", [".mkv", ".mp4"])
def test_a_range_is_cut_out_of_everything(tmp_path: Path, after: str) -> None:
    source = a_film(tmp_path / "in.mkv", subtitles=LINES, sound_seconds=Fraction(2))
    out = tmp_path / f"out{after}"
    plan = films.plan_of(source, out, TIMES, ((2, 5), (5, 8)))
    joined(plan, tmp_path)
    origin, end = Fraction(80, 1000), Fraction(360, 1000)
    check_times(plan, out, origin)
    before, now = streams(source), streams(out)
    priming = Fraction(1024, 48000)
    kept = [
        (t - origin, d)
        for t, d in zip(before[1].times, before[1].data, strict=True)
        if origin - priming <= t < end
    ]
    assert [d for _, d in kept] == now[1].data
    assert all(
        abs(a - b) <= Fraction(1, 1000) for (a, _), b in zip(kept, now[1].times, strict=True)
    )
    lines = of_kind(now, "subtitle")[0]
    texts = [
        (time, time + duration)
        for time, duration, data in zip(lines.times, lines.durations, lines.data, strict=True)
        if len(data) > 2
    ]
    assert texts == [(0, Fraction(220, 1000)), (Fraction(230, 1000), Fraction(280, 1000))]
    with av.open(str(out)) as container:
        found = [
            tuple(c[key] * seconds(c["time_base"]) for key in ("start", "end"))
            for c in container.chapters()
        ]
    assert found == [(0, Fraction(120, 1000)), (Fraction(120, 1000), Fraction(280, 1000))]


@pytest.mark.parametrize("unit", [Fraction(1, 24000), Fraction(1, 90000), Fraction(1001, 24000)])
def test_mp4_is_exact_in_any_unit(tmp_path: Path, unit: Fraction) -> None:
    step = 1 if unit.numerator > 1 else 1001
    times = [n * step for n in range(40)]
    source = a_film(tmp_path / "in.mkv")
    plan = films.plan_of(
        source,
        tmp_path / "out.mp4",
        times,
        ((0, 17), (17, 39), (39, 40)),
        unit=unit,
        last_duration=step,
    )
    out = joined(plan, tmp_path)
    check_times(plan, out)
    rate = probe(out).rate
    assert abs(rate * step * unit - 1) < Fraction(1, 1000)


def test_a_steady_rate_is_in_the_header_and_no_other(tmp_path: Path) -> None:
    steady = [round(n * Fraction(1001, 24)) for n in range(48)]
    source = films.film(tmp_path / "in.mkv", steady)
    out = tmp_path / "out.mkv"
    joined(films.plan_of(source, out, steady, ((0, 30), (30, 48)), last_duration=42), tmp_path)
    with av.open(str(out)) as container:
        first, *_ = container.demux(video=0)
        assert container.streams.video[0].guessed_rate == Fraction(24000, 1001)
        assert first.duration == 41
    joined(films.plan_of(source, out, [2 * t * t for t in steady], ((0, 48),)), tmp_path)
    with av.open(str(out)) as container:
        assert not container.streams.video[0].average_rate


def test_a_stream_of_a_broadcast(tmp_path: Path) -> None:
    """Times of 1/90000 s, a start that is not 0, and sound without a header: into MP4, exactly."""
    times = [n * 3003 for n in range(1, 30)]
    source = films.film(
        tmp_path / "in.ts", times, Fraction(1, 90000), sound=("eng",), format="mpegts"
    )
    shown = sorted(streams(source)[0].times)
    plan = films.plan_of(
        source, tmp_path / "out.mp4", [int(t * 90000) for t in shown], ((0, 11), (11, 29))
    )
    out = joined(plan, tmp_path)
    before, now = streams(source), streams(out)
    check_times(plan, out, min(before[1].times))
    assert abs(now[1].times[-1] - before[1].times[-1] + before[1].times[0]) < Fraction(1, 40000)
    assert len(now[1].data) == len(before[1].data)


@pytest.mark.parametrize("after", [".mkv", ".mp4"])
def test_teletext_is_dropped_by_name(tmp_path: Path, after: str) -> None:
    """There is no decoder for it, so PyAV gives its stream no codec context."""
    plain = films.film(tmp_path / "plain.mkv", TIMES, sound=("eng",))
    source = with_teletext(plain, tmp_path / "in.ts")
    lines = dropped(probe(source), tmp_path / f"out{after}")
    assert lines == ["dropped: subtitle stream 2 (deu), whose codec is unknown"]
    shown = [int(t * 90000) for t in sorted(streams(source)[0].times)]
    plan = films.plan_of(source, tmp_path / f"out{after}", shown, PARTS)
    out = joined(plan, tmp_path)
    assert [s.kind for s in streams(out)] == ["video", "audio"]


def with_teletext(source: Path, path: Path) -> Path:
    """A TS of a film's streams and one of teletext, with a page without text."""
    with av.open(str(source)) as old, av.open(str(path), "w", format="mpegts") as new:
        copies = {s.index: new.add_stream_from_template(s) for s in old.streams}
        teletext = new.add_mux_stream("dvb_teletext")
        teletext.time_base = Fraction(1, 90000)
        teletext.metadata["language"] = "deu"
        page: Any = av.Packet(b"\x10" + (b"\x02\x2c" + bytes(44)) * 3)
        page.pts = page.dts = 9000
        page.time_base, page.stream = teletext.time_base, teletext
        new.mux(page)
        packet: Any
        for packet in old.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    return path


def test_one_picture_in_all(tmp_path: Path) -> None:
    source = films.film(tmp_path / "in.mkv", [0], sound=("eng",))
    for codec in ("x264", "x265", "av1"):
        for name in ("out.mkv", "out.mp4"):
            plan = films.plan_of(source, tmp_path / name, [0], [(0, 1)], codec=codec)
            check_times(plan, joined(plan, tmp_path))


def test_many_parts_are_not_open_at_once(tmp_path: Path) -> None:
    times = range(0, 40 * 120, 40)
    source = films.film(tmp_path / "in.mkv", [0, 40])
    plan = films.plan_of(
        source, tmp_path / "out.mkv", times, [(n, n + 2) for n in range(0, 120, 2)]
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
    try:
        check_times(plan, joined(plan, tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_decoding_times_never_fall(tmp_path: Path) -> None:
    options = {"bframes": "3", "b-adapt": "0", "b-pyramid": "normal"}
    source = a_film(tmp_path / "in.mkv")
    times = range(0, 40 * 30, 40)
    plan = films.plan_of(
        source,
        tmp_path / "out.mp4",
        times,
        ((0, 1), (1, 14), (14, 16), (16, 30)),
        unit=Fraction(1, 1000),
        options=options,
    )
    out = joined(plan, tmp_path)
    with av.open(str(out)) as container:
        pairs = [(p.pts, p.dts) for p in container.demux(video=0) if p.size]
    dts = [d for _, d in pairs if d is not None]
    assert len(dts) == 30 and all(a < b for a, b in pairwise(dts))
    assert all(p is not None and d is not None and p >= d for p, d in pairs)
    # There is reordering to test.
    assert [p for p, _ in pairs] != sorted(p or 0 for p, _ in pairs)


def a_job(tmp_path: Path, name: str = "out.mkv") -> JobPlan:
    plan = films.plan_of(a_film(tmp_path / "in.mkv"), tmp_path / name, TIMES, PARTS)
    films.make_parts(plan, tmp_path / "job")
    return plan


def fails(plan: JobPlan, tmp_path: Path, sentence: str) -> None:
    parts = sorted((tmp_path / "job").rglob("*"))
    with pytest.raises(JobError, match=sentence) as e:
        join(plan, tmp_path / "job", lambda done: None)
    assert "\n" not in str(e.value)
    assert not Path(plan.out).exists() and not list(tmp_path.glob(".*"))
    assert sorted((tmp_path / "job").rglob("*")) == parts


def test_a_missing_part_is_one_sentence(tmp_path: Path) -> None:
    plan = a_job(tmp_path)
    plan.part_file(tmp_path / "job", 1).unlink()
    fails(plan, tmp_path, r"the part .*00001.mp4 could not be read")


def test_a_part_with_another_header_is_one_sentence(tmp_path: Path) -> None:
    plan = a_job(tmp_path)
    other = films.plan_of(
        tmp_path / "in.mkv", tmp_path / "out.mkv", TIMES, PARTS, options={"cabac": "0"}
    )
    films.make_parts(other, tmp_path / "other")
    shutil.copy(other.part_file(tmp_path / "other", 1), plan.part_file(tmp_path / "job", 1))
    fails(plan, tmp_path, r"one codec header, got another in .*00001.mp4")


def test_a_part_of_another_length_is_one_sentence(tmp_path: Path) -> None:
    plan = a_job(tmp_path)
    shutil.copy(plan.part_file(tmp_path / "job", 0), plan.part_file(tmp_path / "job", 1))
    fails(plan, tmp_path, r"00001.mp4 must have 5 pictures, got 4")


def test_a_source_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    plan = a_job(tmp_path)
    (tmp_path / "in.mkv").unlink()
    fails(plan, tmp_path, r"in.mkv, which does not exist")


@pytest.mark.parametrize("size", [0, 1000, 5000])
def test_a_full_disk_is_one_sentence(tmp_path: Path, size: int) -> None:
    plan = a_job(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        fails(plan, tmp_path, r"could not be written into .*Make room")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    joined(plan, tmp_path)


def test_a_folder_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    plan = replace(a_job(tmp_path), out=str(tmp_path / "gone" / "out.mkv"))
    fails(plan, tmp_path, r"could not be written into .*gone")


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    plan = a_job(tmp_path)
    Path(plan.out).write_text("older")
    plan.part_file(tmp_path / "job", 2).write_bytes(b"")
    with pytest.raises(JobError):
        join(plan, tmp_path / "job", lambda done: None)
    assert Path(plan.out).read_text() == "older"
    joined(plan, tmp_path)


def test_a_file_that_came_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    plan = a_job(tmp_path)
    films.make_parts(plan, tmp_path / "job")
    Path(plan.out).write_text("another's")
    with pytest.raises(JobError, match="one that was made since the job began"):
        join(plan, tmp_path / "job", lambda done: None)
    assert Path(plan.out).read_text() == "another's"
    assert not list(tmp_path.glob(".out*"))


def test_what_comes_back_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets that are lost on the way into the file are noticed."""
    plan = a_job(tmp_path)
    from vs_vsr.job import join as room

    whole = room._pictures

    def one_less(*arguments: object) -> object:
        return list(whole(*arguments))[:-1]  # type: ignore[arg-type]

    monkeypatch.setattr(room, "_pictures", one_less)
    fails(plan, tmp_path, "9 pictures instead of 10")


def test_dolby_vision_hdr10_plus_and_mirrors_are_named(tmp_path: Path) -> None:
    info = probe(a_film(tmp_path / "in.mkv"))
    info = replace(info, dolby_vision=True, hdr10_plus=True, mirrored=True)
    lines = dropped(info, tmp_path / "out.mkv")
    names = ["Dolby Vision", "HDR10+", "the flag that makes players mirror"]
    for line, name in zip(lines, names, strict=True):
        assert line.startswith(f"dropped: {name} ")
