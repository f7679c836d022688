"""What a file is, on files made here; and one sentence for each that is none."""

import os
import struct
from fractions import Fraction
from pathlib import Path

import films
import pytest

from vs_vsr.errors import JobError
from vs_vsr.job import source
from vs_vsr.job.encode import PartWriter
from vs_vsr.job.source import packets_hash, probe

TIMES = (0, 40, 80, 130, 200, 240)


def test_all_that_a_file_says(tmp_path: Path) -> None:
    path = films.film(
        tmp_path / "a.mkv",
        TIMES,
        sound=("eng", "fra"),
        subtitles=[(50, 200, "Hallo")],
        fonts=[("a.ttf", b"font")],
        chapters=[(0, 200, "One"), (200, 240, "Two")],
        rotation=90,
        aspect=Fraction(16, 15),
    )
    info = probe(path)
    assert (info.track, info.codec, info.width, info.height) == (0, "h264", 64, 48)
    assert (info.pixel_format, info.bits, info.field_order) == ("yuv420p", 8, "progressive")
    assert (info.sample_aspect, info.rotation, info.mirrored) == ((16, 15), 90, False)
    assert info.time_base == Fraction(1, 1000) and info.duration > Fraction(1, 5)
    assert (info.dolby_vision, info.hdr10_plus, info.chapters) == (False, False, 2)
    assert [str(other) for other in info.others] == [
        "audio stream 1 (aac, eng, Sound in eng)",
        "audio stream 2 (aac, fra, Sound in fra)",
        "subtitle stream 3 (ass, ger, Untertitel)",
        "attachment stream 4 (font/ttf, a.ttf)",
    ]
    assert (info.colour.matrix, info.colour.full_range) == (1, False)


@pytest.mark.parametrize("codec", ["x264", "x265", "av1"])
def test_hdr10_goes_through_an_encoder_and_comes_back(tmp_path: Path, codec: str) -> None:
    first = films.film(tmp_path / "a.mp4", TIMES)
    plan = films.plan_of(
        first,
        tmp_path / "b.mp4",
        TIMES,
        [(0, 6)],
        codec=codec,
        colour=films.HDR,
        picture_format="YUV420P10",
        aspect=(4, 3),
    )
    path = tmp_path / "part.mp4"
    with PartWriter(path, plan, 0) as writer:
        for n in range(6):
            writer.write(films.picture(n, "YUV420P10"))
    info = probe(path)
    assert info.colour == films.HDR
    assert (info.bits, info.sample_aspect) == (10, (4, 3))


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_is_what_a_player_does(tmp_path: Path, degrees: int) -> None:
    for name in ("a.mp4", "a.mkv"):
        assert probe(films.film(tmp_path / name, TIMES, rotation=degrees)).rotation == degrees


def test_a_mirror_is_no_rotation() -> None:
    unit = 1 << 16
    mirror = struct.pack("=9i", -unit, 0, 0, 0, unit, 0, 0, 0, 1 << 30)
    assert source._orientation(mirror) == (0, True)
    assert source._orientation(b"") == (0, False)


def test_the_hash_is_of_sizes_times_and_pictures(tmp_path: Path) -> None:
    path = films.film(tmp_path / "a.mkv", TIMES, sound=("eng",))
    same = films.film(tmp_path / "b.mkv", TIMES)
    later = films.film(tmp_path / "c.mkv", (*TIMES[:-1], 250))
    assert packets_hash(path, 0) == packets_hash(same, 0) != packets_hash(later, 0)
    assert packets_hash(path, 1) != packets_hash(path, 0)


def test_raw_pictures_of_one_size_have_other_hashes(tmp_path: Path) -> None:
    hashes = set()
    for name, sample in (("a.y4m", 50), ("b.y4m", 51), ("again.y4m", 50)):
        picture = b"FRAME\n" + bytes([sample]) * (64 * 48 * 3 // 2)
        path = tmp_path / name
        path.write_bytes(b"YUV4MPEG2 W64 H48 F25:1 Ip A1:1 C420jpeg\n" + picture * 3)
        hashes.add(packets_hash(path, 0))
    assert len(hashes) == 2


def test_files_that_are_none_are_one_sentence(tmp_path: Path) -> None:
    whole = films.film(tmp_path / "whole.mp4", TIMES, sound=("eng",)).read_bytes()
    (tmp_path / "text.mkv").write_text("This is no film.\n")
    (tmp_path / "empty.mkv").touch()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "folder.mkv").mkdir()
    for name, sentence in {
        "none.mkv": "does not exist",
        "text.mkv": "must be a media file",
        "empty.mkv": "is empty",
        "cut.mp4": "must be a media file",
        "folder.mkv": "got the folder",
    }.items():
        with pytest.raises(JobError, match=sentence) as e:
            probe(tmp_path / name)
        assert str(tmp_path / name) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = films.film(tmp_path / "a.mkv", TIMES)
    path.chmod(0)
    with pytest.raises(JobError, match="may read"):
        probe(path)


def test_sound_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.mka"
    films.sound_only(path)
    with pytest.raises(JobError, match=r"must have a video stream.*audio only"):
        probe(path)


def test_pictures_that_cannot_be_decoded(tmp_path: Path) -> None:
    path = films.film(tmp_path / "a.mp4", TIMES)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start : data.index(b"moov") - 4] = bytes(data.index(b"moov") - 4 - start)
    path.write_bytes(data)
    with pytest.raises(JobError, match=r"can decode.*none of its first"):
        probe(path)


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    films.film(tmp_path / "a.mp4", TIMES)
    playlist = tmp_path / "list.mp4"
    for named in ("http://127.0.0.1:9/a.mp4", "a.mp4"):
        playlist.write_text(f"ffconcat version 1.0\nfile {named}\n")
        with pytest.raises(JobError, match=r"has its pictures in it, got .*name one of those\.$"):
            probe(playlist)
    track = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\na.mp4\n#EXT-X-ENDLIST\n"
    for name in ("list.mp4", "list.m3u8"):
        (tmp_path / name).write_text(track)
        with pytest.raises(JobError):
            probe(tmp_path / name)
