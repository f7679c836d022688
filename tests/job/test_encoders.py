"""Which encoders there are, and what each takes."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import films
import pytest

from vs_vsr.errors import JobError
from vs_vsr.job.encoders import check_container, encoder, lost_in, pixel_format
from vs_vsr.job.plan import Encoder


def make(name: str, **changes: object) -> Encoder:
    arguments: dict[str, object] = {
        "crf": None,
        "preset": None,
        "threads": 4,
        "options": {},
        "picture_format": "YUV420P10",
        "colour": films.HDR,
        "width": 64,
        "height": 48,
        "rate": Fraction(24),
    }
    return encoder(name, **{**arguments, **changes})  # type: ignore[arg-type]


def test_what_each_encoder_is_told() -> None:
    assert make("x264").options == {
        "preset": "medium",
        "crf": "17",
        "x264-params": f"open-gop=0:repeat-headers=1:mastering-display={films.MASTERING}"
        ":cll=1000,400",
        "g": "240",
    }
    assert make("x265", crf=20.5, preset="slow", options={"aq-mode": "3"}).options == {
        "preset": "slow",
        "crf": "20.5",
        "x265-params": "open-gop=0:repeat-headers=1:log-level=error:frame-threads=2:pools=4"
        f":master-display={films.MASTERING}:max-cll=1000,400:aq-mode=3",
        "g": "240",
    }
    assert make("av1", threads=32).options["svtav1-params"] == (
        "irefresh-type=2:lp=6:mastering-display="
        "G(0.265,0.69)B(0.15,0.06)R(0.68,0.32)WP(0.3127,0.329)L(1000,0.0001)"
        ":content-light=1000,400"
    )
    lossless = make("ffv1", picture_format="RGB48")
    assert lossless.options == {"level": "3", "slices": "16", "slicecrc": "1", "g": "1"}
    assert lossless.suffix == ".mkv"


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("x256", {}, "encoder must be one of .*, got x256. Did you mean x265?"),
        ("x264", {"crf": 99}, r"crf must be 0 \(best\) to 51 for x264, got 99. 17 is"),
        ("av1", {"crf": 0}, r"crf must be 1 \(best\) to 63 for av1, got 0. 24 is"),
        (
            "x265",
            {"preset": "fst"},
            "encoder-preset must be one of ultrafast, .*, got fst. medium is",
        ),
        ("ffv1", {"crf": 3}, "crf must be left out for ffv1, got 3"),
        ("x265", {"options": {"bitrate": "5000"}}, "constant, got bitrate.*Use --crf"),
        ("x265", {"options": {"open-gop": "1"}}, "leave open-gop alone"),
        ("x264", {"options": {"nonsense": "1"}}, "ones that it knows.*nonsense"),
        ("x265", {"options": {"nonsense": "1"}}, "ones that it knows.*nonsense"),
        ("av1", {"options": {"nonsense": "1"}}, "ones that it knows.*nonsense"),
        ("ffv1", {"options": {"nonsense": "1"}}, "must be among .*slicecrc, got nonsense"),
        ("x264", {"options": {"a": "1:crf=3"}}, "without a colon, got a=1:crf=3"),
        ("x264", {"threads": 0}, "threads must be 1 or more, got 0"),
        ("x264", {"picture_format": "YUV444P12"}, "one that x264 takes, got YUV444P12"),
        ("av1", {"picture_format": "YUV444P10"}, "one that av1 takes, got YUV444P10"),
        ("x265", {"width": 8, "height": 8}, "libx265 cannot encode YUV420P10 at 8x8 here"),
    ],
)
def test_what_an_encoder_does_not_take(
    name: str, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(JobError, match=sentence):
        make(name, **changes)


def test_nvidia_without_a_gpu_is_one_sentence() -> None:
    # With one, it is an encoder like the others.
    for name in ("h264_nvenc", "hevc_nvenc", "av1_nvenc"):
        try:
            made = make(name, picture_format="YUV420P8", width=640, height=480)
        except JobError as e:
            assert "needs an NVIDIA GPU" in str(e)
        else:
            assert made.options["rc"] == "vbr" and made.options["b"] == "0"


def test_no_log_level_is_left_behind() -> None:
    make("x264")
    assert av.logging.get_level() is None


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("YUV420P8", "yuv420p"),
        ("YUV422P10", "yuv422p10le"),
        ("YUV444P16", "yuv444p16le"),
        ("GRAY8", "gray"),
        ("GRAY16", "gray16le"),
        ("RGB24", "bgr0"),
        ("RGB30", "gbrp10le"),
        ("RGB48", "gbrp16le"),
    ],
)
def test_names_of_formats(name: str, want: str) -> None:
    assert pixel_format(name) == want
    av.VideoFormat(want)


def test_which_files_take_what() -> None:
    x265, av1, ffv1 = (replace(make(name), options={}) for name in ("x265", "av1", "ffv1"))
    for name in ("a.mkv", "a.MP4", "a.mov", "a.m4v"):
        check_container(Path(name), x265, (4, 3))
    check_container(Path("a.webm"), av1, (1, 1))
    check_container(Path("a.mp4"), av1, (4, 3))
    for made, name, aspect, sentence in (
        (x265, "a.webm", (1, 1), "must end in .mkv or .mp4 or .m4v or .mov for the encoder x265"),
        (x265, "a.avi", (1, 1), "got a.avi"),
        (x265, "a", (1, 1), "got a. Choose"),
        (ffv1, "a.mp4", (1, 1), "must end in .mkv"),
        (av1, "a.mkv", (4, 3), r"not square \(4:3\), got a.mkv. Use .mp4, x265, or --square"),
        (ffv1, "a.mkv", (4, 3), "Use x265, or --square-pixels"),
    ):
        with pytest.raises(JobError, match=sentence):
            check_container(Path(name), made, aspect)


def test_hdr10_that_is_lost_is_named() -> None:
    assert [lost_in(make(name), films.HDR) for name in ("x264", "x265", "av1")] == [[], [], []]
    (line,) = lost_in(make("ffv1"), films.HDR)
    assert line.startswith("dropped: HDR10's data") and "ffv1" in line
    assert lost_in(make("ffv1"), films.SDR) == []
