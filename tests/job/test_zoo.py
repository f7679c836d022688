"""The zoo is what its names say, and the tools that compare two files find what is lost."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import streams
import zoo
from av.stream import Disposition
from av.video.frame import PictureType

UNREADABLE = ("headless.mp4", "text.mkv", "empty.mkv")
# Times are what is looked at.
NO_TIMES = ("raw.h264",)
READABLE = [name for name in zoo.ANIMALS if name not in (*UNREADABLE, *NO_TIMES)]
# Their streams can be copied as they are.
KEPT = (
    *("plain.mkv", "uneven.mkv", "uneven.mp4", "dvd.mkv", "odd.mkv"),
    *("two_tracks.mkv", "two_tracks.mp4", "ass_font.mkv", "srt.mkv"),
    *("chapters.mkv", "attachments.mkv", "chapter_track.mp4"),
    *("late.mkv", "late.mp4", "sync.mp4"),
)


def remux(
    source: Path,
    result: Path,
    change: Callable[[Any, Any], bool] = lambda old, new: True,
    chapters: bool = True,
) -> None:
    """Copy all streams; `change` sees each packet, and says whether it is written."""
    with av.open(str(source)) as old, av.open(str(result), "w") as new:
        copies = {}
        stream: Any
        for stream in old.streams:
            if stream.type == "data":
                continue
            if stream.type == "attachment":
                new.add_attachment(stream.name, stream.mimetype, stream.data)
                continue
            copy: Any = new.add_stream_from_template(stream)
            copy.metadata.update(stream.metadata)
            # MP4 reads a track's title as its name, and writes no name.
            copy.metadata.setdefault("title", stream.metadata.get("name", ""))
            copy.disposition = stream.disposition
            change(stream, copy)
            copies[stream.index] = copy
        new.metadata.update(old.metadata)
        if chapters:
            new.set_chapters(old.chapters())
        packet: Any
        for packet in old.demux():
            if (packet.dts is None and packet.pts is None) or packet.stream_index not in copies:
                continue
            if packet.dts is None:
                # The first packets of reordered streams in Matroska: their order is kept.
                packet.dts = packet.pts - 1000
            kept = change(packet, None)
            packet.stream = copies[packet.stream_index]
            if kept:
                new.mux(packet)


@pytest.mark.parametrize("name", READABLE)
def test_animals_are_the_same_each_time_and_can_be_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    view = streams.view(zoo.make(name, tmp_path))
    again = streams.view(zoo.make(name, tmp_path / "again"))
    assert view == again
    if name == "sound_only.mkv":
        assert view.video is None
    else:
        assert view.video is not None and view.video.times[0] == 0


@pytest.mark.parametrize("name", UNREADABLE)
def test_some_cannot_be_read(name: str, tmp_path: Path) -> None:
    with pytest.raises(av.error.FFmpegError):
        streams.view(zoo.make(name, tmp_path))


def seen(name: str, folder: Path) -> tuple[streams.View, streams.Track]:
    view = streams.view(zoo.make(name, folder))
    assert view.video is not None
    return view, view.video


def test_what_animals_have(tmp_path: Path) -> None:
    _, video = seen("uneven.mp4", tmp_path)
    steps = {b - a for a, b in zip(video.times, video.times[1:], strict=False)}
    assert len(steps) > 4
    assert seen("rotated.mp4", tmp_path)[1].rotation == 90
    assert seen("dvd.mkv", tmp_path)[1].aspect == Fraction(16, 15)
    assert seen("odd.mkv", tmp_path)[1].size == (65, 49)
    for name in ("hdr10.mkv", "hdr10.mp4", "dolby_vision.mp4"):
        _, video = seen(name, tmp_path)
        assert video.colour == (9, 16, 9, 1) and video.light == (1000, 400)
        assert video.mastering[-2:] == (Fraction(1, 200), Fraction(1000))
    assert seen("hlg.mkv", tmp_path)[1].colour == (9, 18, 9, 1)
    assert seen("pq_no_matrix.mkv", tmp_path)[1].colour == (9, 16, 2, 1)
    with av.open(str(tmp_path / "dolby_vision.mp4")) as container:
        assert "dovi_conf" in container.streams.video[0].codec_context.coded_side_data
    for name in ("two_tracks.mkv", "two_tracks.mp4"):
        view, _ = seen(name, tmp_path)
        assert [(t.language, t.title) for t in view.others] == [("deu", "Deutsch"), ("jpn", "解説")]
        assert view.others[0].times[0] == Fraction(1, 100)
        assert "hearing" in view.others[1].disposition and view.metadata["title"] == "The zoo"
    view, _ = seen("ass_font.mkv", tmp_path)
    assert [t.kind for t in view.others] == ["subtitle", "attachment"]
    assert len(view.others[0].packets) == 2 and len(view.others[1].attached[2]) == 2048
    for name in ("chapters.mkv", "chapter_track.mp4"):
        assert [c[2] for c in seen(name, tmp_path)[0].chapters] == ["Opening", "Zweites Kapitel"]
    view = seen("chapter_track.mp4", tmp_path)[0]
    assert [t.codec for t in view.others] == ["aac", "mov_text"]
    assert len(view.others[1].packets) == 2
    assert len(seen("one_frame.mkv", tmp_path)[1].times) == 1
    assert len(seen("truncated.mkv", tmp_path)[1].times) in range(8, 20)
    assert [t.kind for t in seen("cover.mp4", tmp_path)[0].others] == ["audio", "video"]
    assert [t.kind for t in seen("cover.mkv", tmp_path)[0].others] == ["video"]
    for name in ("late.mkv", "late.mp4"):
        sound = seen(name, tmp_path)[0].others[0]
        assert sound.times[0] == Fraction(-20, 1000)


def test_times_that_animals_lack(tmp_path: Path) -> None:
    with av.open(str(zoo.make("raw.h264", tmp_path))) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 12 and {frame.pts for frame in frames} == {None}
    assert PictureType.B in {frame.pict_type for frame in frames}
    with av.open(str(zoo.make("b_frames.avi", tmp_path))) as container:
        assert PictureType.B in {frame.pict_type for frame in container.decode(video=0)}
    with av.open(str(zoo.make("jumps.ts", tmp_path))) as container:
        times = [packet.dts for packet in container.demux(video=0) if packet.size]
    assert len(times) == 24 and times[:12] == times[12:]


def test_flags_of_interlaced_animals(tmp_path: Path) -> None:
    for name, flagged in (
        ("interlaced.mkv", True),
        ("interlaced_bottom.mkv", True),
        ("whole_but_flagged.mkv", True),
        ("interlaced_no_flags.mkv", False),
        ("telecined.mkv", False),
    ):
        with av.open(str(zoo.make(name, tmp_path))) as container:
            assert all(f.interlaced_frame == flagged for f in container.decode(video=0))


@pytest.mark.parametrize("name", ["sync.mkv", "sync.mp4"])
def test_the_flash_and_the_beep_are_at_one_time(name: str, tmp_path: Path) -> None:
    assert abs(streams.sync(zoo.make(name, tmp_path))) <= 0.002


@pytest.mark.parametrize(
    "name",
    KEPT,
)
def test_a_plain_remux_loses_nothing(name: str, tmp_path: Path) -> None:
    source = zoo.make(name, tmp_path)
    result = tmp_path / f"new{source.suffix}"
    remux(source, result)
    assert streams.differences(source, result) == []


def test_times_are_held_to_the_clock_of_the_container(tmp_path: Path) -> None:
    source, result = zoo.make("uneven.mp4", tmp_path), tmp_path / "new.mkv"
    remux(source, result)
    assert streams.differences(source, result) == []


def of(kind: str, do: Callable[[Any], Any]) -> Callable[[Any, Any], bool]:
    """Change the copies of the streams of a kind."""

    def change(old: Any, new: Any) -> bool:
        if new is not None and old.type == kind:
            do(new)
        return True

    return change


def packets(kind: str, do: Callable[[Any], Any]) -> Callable[[Any, Any], bool]:
    """Change the packets of a kind, or leave them out if `do` gives False."""

    def change(old: Any, new: Any) -> bool:
        return new is not None or old.stream.type != kind or do(old) is not False

    return change


def later(ms: int) -> Callable[[Any], None]:
    def shift(packet: Any) -> None:
        packet.pts += ms
        packet.dts += ms

    return shift


LOSSES: dict[str, tuple[str, Callable[[Any, Any], bool], str]] = {
    "language": (
        "two_tracks.mkv",
        of("audio", lambda s: s.metadata.pop("language")),
        "audio 1: language was 'deu', is ''",
    ),
    "title": (
        "two_tracks.mkv",
        of("audio", lambda s: s.metadata.pop("title")),
        "audio 1: title was 'Deutsch', is ''",
    ),
    "disposition": (
        "two_tracks.mkv",
        of("audio", lambda s: setattr(s, "disposition", Disposition.default)),
        "audio 2: disposition was",
    ),
    "sound late": (
        "two_tracks.mkv",
        packets("audio", later(50)),
        "audio 1: times are off by up to 0.0500 s",
    ),
    "sound cut": (
        "two_tracks.mkv",
        packets("audio", lambda packet: packet.pts < 300),
        "audio 1: packets are others",
    ),
    "picture lost": (
        "plain.mkv",
        packets("video", lambda packet: packet.pts < 400),
        "video: times: there were 12, there are 10",
    ),
    "picture late": (
        "uneven.mkv",
        packets("video", lambda p: later(2)(p) if p.pts > 500 else None),
        "video: times are off by up to 0.0020 s",
    ),
    "subtitle short": (
        "ass_font.mkv",
        packets("subtitle", lambda packet: setattr(packet, "duration", 20)),
        "subtitle 1: durations are others",
    ),
    "subtitle late": (
        "srt.mkv",
        packets("subtitle", later(30)),
        "subtitle 1: times are off by up to 0.0300 s",
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_lost_is_found(loss: str, tmp_path: Path) -> None:
    name, change, finding = LOSSES[loss]
    source, result = zoo.make(name, tmp_path), tmp_path / f"new{Path(name).suffix}"
    remux(source, result, change)
    found = streams.differences(source, result)
    assert any(text.startswith(finding) for text in found), found
    assert streams.differences(source, result, allow=[t.split(":")[0] for t in found]) == []


@pytest.mark.parametrize(
    ("one", "other", "findings"),
    [
        ("dvd.mkv", "plain.mkv", {"size", "aspect"}),
        ("rotated.mp4", "plain.mp4", {"rotation"}),
        ("hdr10.mkv", "hlg.mkv", {"mastering", "light", "transfer"}),
        ("two_tracks.mkv", "plain.mkv", {"audio", "language", "title", "metadata"}),
        ("ass_font.mkv", "srt.mkv", {"subtitle", "attachment"}),
        ("attachments.mkv", "ass_font.mkv", {"attachment", "subtitle"}),
        ("chapters.mkv", "plain.mkv", {"chapters"}),
        ("cover.mp4", "plain.mp4", {"cover", "audio"}),
    ],
)
def test_files_that_differ_are_told_apart(
    one: str, other: str, findings: set[str], tmp_path: Path
) -> None:
    found = streams.differences(zoo.make(one, tmp_path), zoo.make(other, tmp_path))
    words = {word.strip(":") for text in found for word in text.split()[:2]}
    assert findings <= words, found


def test_sound_that_is_late_is_measured(tmp_path: Path) -> None:
    source, result = zoo.make("sync.mkv", tmp_path), tmp_path / "new.mkv"
    remux(source, result, packets("audio", later(50)))
    assert streams.sync(result) == pytest.approx(0.050, abs=0.002)


def test_pictures_that_are_larger(tmp_path: Path) -> None:
    source = zoo.make("plain.mkv", tmp_path)
    found = streams.differences(source, source, scale=2)
    assert found == ["video: size was (64, 48), is (64, 48)"]
    assert streams.differences(source, source, scale=None) == []
