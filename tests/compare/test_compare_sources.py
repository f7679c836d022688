"""What a source shows at a time: the right frame, in the right colours."""

import random
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import pytest
from films import HEIGHT, WIDTH, film
from PIL import Image
from reading import frames_of

from vs_vsr.compare.moments import clip_times, moments, spread_times
from vs_vsr.compare.sources import Source, open_source
from vs_vsr.errors import ArgumentError

LONG = 300


def silent(what: str, share: float) -> None:
    """For callers who need not know how far it is."""


@pytest.fixture(scope="module")
def h264(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 s, key frames 2 s apart, with open groups, chroma at the top left."""
    path = tmp_path_factory.mktemp("long") / "a.mp4"
    # After a key frame come pictures that are shown before it and need the group before.
    more = "keyint=50:bframes=3:b-adapt=0:open-gop=1:chromaloc=2"
    options = {"preset": "veryfast", "x264-params": more}
    return film(path, range(LONG), Fraction(1, 25), options=options)


def remuxed(source: Path, path: Path, shift: int = 0, damaged: int | None = None) -> Path:
    """The same packets in another container, `shift` ticks later, one of them damaged."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0], opaque=True)
        for number, packet in enumerate(old.demux(video=0)):
            if packet.dts is not None and packet.pts is not None:
                if number == damaged:
                    memoryview(packet).cast("B")[:] = b"\xff" * packet.size
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = copy
                new.mux(packet)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".264", ".avi", ".mpg", ".gif"])
def test_any_order_of_times_gives_the_frames_of_a_whole_reading(
    h264: Path, tmp_path: Path, suffix: str
) -> None:
    path = h264 if suffix == ".mp4" else tmp_path / f"a{suffix}"
    if suffix == ".gif":
        pictures = [
            Image.fromarray(np.full((HEIGHT, WIDTH), n % 256, np.uint8)) for n in range(LONG)
        ]
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40)
    elif suffix in (".avi", ".mpg"):
        options = {"g": "50", "bf": "2"}
        film(path, range(LONG), Fraction(1, 25), codec="mpeg4", options=options)
    elif suffix != ".mp4":
        remuxed(h264, path, shift=0 if suffix == ".264" else 20)
    frames = frames_of(path, matrix=6 if suffix in (".avi", ".mpg") else None)
    assert len(frames) == LONG
    source = open_source(path)
    numbers = random.Random(7).sample(range(LONG), 12)
    for n in [0, LONG - 1, *numbers, 5, 5, 4]:
        # In the middle of the time in which it is shown.
        assert np.array_equal(source.at(Fraction(2 * n + 1, 50)).rgb, frames[n]), n
    assert np.array_equal(source.at(Fraction(99)).rgb, frames[-1])
    found = source.times(Fraction(2), Fraction(4))
    assert [round(time * 25) for time in found] == list(range(50, 100))
    assert len(source.times(Fraction(0), Fraction(99))) >= LONG
    source.close()


def test_rounded_times_are_the_same_moment(tmp_path: Path) -> None:
    """Matroska's clock is 1 ms: 24000/1001 pictures a second are early and late in it."""
    unit = Fraction(1001, 24000)
    exact = film(tmp_path / "a.mp4", [1001 * n for n in range(48)], Fraction(1, 24000))
    rounded = film(tmp_path / "b.mkv", [round(n * unit * 1000) + 21 for n in range(48)])
    for first, second in ((exact, rounded), (rounded, exact)):
        pair = [open_source(first), open_source(second)]
        leading, times = clip_times(pair, Fraction(0), Fraction(2))
        assert leading is pair[0] and len(times) == 49
        shown = list(moments(pair, leading, times, scores=False, tell=silent))
        for moment, *want in zip(shown, frames_of(first), frames_of(second), strict=True):
            for picture, frame in zip(moment.pictures, want, strict=True):
                assert np.array_equal(picture.rgb, frame)


def test_sources_of_other_rates_meet_at_their_times(tmp_path: Path) -> None:
    slow = open_source(film(tmp_path / "slow.mkv", range(0, 800, 80)))
    fast = open_source(film(tmp_path / "fast.mkv", range(0, 800, 40)))
    leading, times = clip_times([slow, fast], Fraction("0.01"), Fraction("0.4"))
    assert leading is fast
    shown = list(moments([slow, fast], leading, times, scores=False, tell=silent))
    # What is shown at the start has begun before.
    assert [m.time for m in shown] == [Fraction(n, 25) for n in range(10)]
    assert [m.pictures[0].time for m in shown] == [Fraction(n // 2 * 2, 25) for n in range(10)]
    # A picture that stays is the same object.
    assert len({id(m.pictures[0]) for m in shown}) == 5
    # Between two pictures, it is the one that is shown, and once.
    between = [Fraction("0.09"), Fraction("0.12"), Fraction("0.2")]
    shown = list(moments([slow, fast], slow, between, scores=False, tell=silent))
    assert [m.time for m in shown] == [Fraction("0.08"), Fraction("0.16")]


def coded(path: Path, pixel_format: str, **tags: int) -> Path:
    """One lossless frame of noise."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        noise = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format=pixel_format)
        frame.pts = 0
        for name, value in tags.items():
            setattr(frame, "colorspace" if name == "colorspace" else name, value)
        out.mux([*stream.encode(frame), *stream.encode(None)])
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pixel_format", "tags", "matrix"),
    [
        ("yuv420p", {"colorspace": 1, "color_range": 1}, None),
        ("yuv444p", {"colorspace": 5, "color_range": 2}, None),
        ("yuv422p10le", {"colorspace": 9, "color_range": 1}, None),
        ("yuv440p", {"colorspace": 6}, None),
        ("yuv411p", {"colorspace": 6}, None),
        ("yuv420p16le", {"colorspace": 1}, None),
        # 48 rows and no matrix: BT.601, as the filters take it; with PQ BT.2020.
        ("yuv420p", {}, 6),
        ("yuv420p10le", {"color_trc": 16}, 9),
        ("gray", {"color_range": 1}, 6),
        ("gray10le", {"color_range": 1}, 6),
        ("bgr0", {}, None),
    ],
)
def test_colours_are_those_of_bestsource_and_zimg(
    tmp_path: Path, pixel_format: str, tags: dict[str, int], matrix: int | None
) -> None:
    path = coded(tmp_path / "a.mkv", pixel_format, **tags)
    source = open_source(path)
    assert np.array_equal(source.at(Fraction(0)).rgb, frames_of(path, matrix=matrix)[0])
    assert ("HDR" in source.note) == (tags.get("color_trc") == 16)


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *(("png", mode) for mode in ("RGB", "RGBA", "L", "P")),
        *(("bmp", "RGB"), ("tiff", "L"), ("webp", "RGBA"), ("gif", "P")),
    ],
)
def test_a_picture_is_itself_at_any_time(tmp_path: Path, mode: str, suffix: str) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).convert(mode)
    path = tmp_path / f"a.{suffix}"
    lossless: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    picture.save(path, **lossless)
    source = open_source(path)
    assert source.duration == 0 and source.is_still
    for time in (0, 100):
        assert np.array_equal(source.at(Fraction(time)).rgb, np.asarray(picture.convert("RGB")))


def test_subtitles_after_the_last_picture_are_no_part_of_it(tmp_path: Path) -> None:
    lines = [(0, 500, "a"), (3000, 4000, "b")]
    source = open_source(film(tmp_path / "a.mkv", range(0, 800, 40), subtitles=lines))
    assert abs(source.duration - Fraction("0.8")) < Fraction("0.041")


@pytest.mark.slow
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_pictures_are_upright(tmp_path: Path, rotation: int) -> None:
    path = film(tmp_path / "a.mp4", [0, 40], rotation=rotation, aspect=Fraction(4, 3))
    source = open_source(path)
    want, plain = frames_of(path, rotated=True)[1], frames_of(path)[1]
    picture = source.at(Fraction("0.05")).rgb
    # Chroma is enlarged before it is turned here, and after it there.
    assert abs(picture.astype(int) - want).mean() < 8 < abs(picture[::-1].astype(int) - want).mean()
    assert any(np.array_equal(picture, np.rot90(plain, turns)) for turns in (1, 2, 3))
    assert (source.height, source.width) == want.shape[:2]
    assert source.aspect == (Fraction(4, 3) if rotation == 180 else Fraction(3, 4))


@pytest.mark.slow
@pytest.mark.parametrize("rotation", [0, 90, 270])
def test_mirrored_pictures_are_mirrored_after_they_are_turned(
    tmp_path: Path, rotation: int
) -> None:
    film(tmp_path / "a.mp4", [0, 40])
    path = tmp_path / "b.mp4"
    mirror = ["-display_rotation", str(rotation), "-display_hflip"]
    copy = ["-loglevel", "error", *mirror, "-i", str(tmp_path / "a.mp4"), "-c", "copy", str(path)]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *copy], check=True)
    picture, want = open_source(path).at(Fraction(0)).rgb, frames_of(path, rotated=True)[0]
    assert abs(picture.astype(int) - want).mean() < 8


def test_what_cannot_be_decoded_is_left_out(h264: Path, tmp_path: Path) -> None:
    path = remuxed(h264, tmp_path / "a.mkv", damaged=120)
    with av.open(str(path)) as container, pytest.raises(av.FFmpegError):
        list(container.decode(video=0))
    frames = frames_of(h264)
    for n in (12, 287):
        assert np.array_equal(open_source(path).at(Fraction(n, 25)).rgb, frames[n])
    # All of it from the start.
    source = open_source(path)
    for second in range(12):
        source.at(Fraction(second))
    assert np.array_equal(source.at(Fraction(287, 25)).rgb, frames[287])


def scripted(folder: Path, text: str) -> Source:
    path = folder / "a.vpy"
    path.write_text(f"import vapoursynth as vs\nfrom vapoursynth import core\n{text}\n")
    return open_source(path)


def test_a_script_is_run_and_its_first_output_shown(tmp_path: Path) -> None:
    path = film(tmp_path / "b.mkv", range(0, 800, 40))
    source = scripted(
        tmp_path,
        f"clip = core.bs.VideoSource({str(path)!r}, cachemode=0).std.AssumeFPS(fpsnum=25)\n"
        "clip.std.FlipVertical().set_output()\nclip.set_output(1)",
    )
    assert (source.duration, source.width, source.height) == (Fraction("0.8"), WIDTH, HEIGHT)
    assert source.times(Fraction("0.1"), Fraction(9))[0] == Fraction("0.12")
    assert len(source.times(Fraction(0), Fraction(9))) == 20
    frames = frames_of(path)
    for n in (3, 0, 19):
        assert np.array_equal(source.at(Fraction(n, 25)).rgb, frames[n][::-1])
    assert np.array_equal(source.at(Fraction(100)).rgb, frames[19][::-1])


def test_names_in_a_script_are_from_its_folder(tmp_path: Path) -> None:
    film(tmp_path / "b.mkv", range(0, 800, 40))
    source = scripted(tmp_path, 'core.bs.VideoSource("b.mkv", cachemode=0).set_output()')
    assert (source.width, source.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("1 / 0", r"scripts that run, got .*a\.vpy \(ZeroDivisionError: division by zero\)\. Try"),
        ("raise SystemExit('no clip')", r"scripts that run, got .* \(SystemExit: no clip\)\."),
        ("", r"scripts with a clip of one format, size and rate, got .* End it with clip\.set"),
        (
            "clip = core.std.BlankClip(length=2)\nclip.std.AssumeFPS(fpsnum=25)"
            ".std.FrameEval(lambda n: 1 / 0).set_output()",
            r"scripts that give their frames, got a\.vpy \(.*division by zero",
        ),
    ],
)
def test_a_script_that_fails_is_a_sentence(tmp_path: Path, text: str, want: str) -> None:
    with pytest.raises(ArgumentError, match=f"(?s)^sources must be {want}"):
        scripted(tmp_path, text)


def test_a_source_that_does_not_say_how_long_it_is(h264: Path, tmp_path: Path) -> None:
    raw = open_source(remuxed(h264, tmp_path / "a.264"))
    with pytest.raises(ArgumentError, match=r"^sources must say how long they are, got a\.264"):
        spread_times([raw], 3)
    assert spread_times([raw, open_source(h264)], 3) == [3, 6, 9]
