"""`vs-vsr compare`: its page, its still and its sentences."""

import base64
import hashlib
import re
import shlex
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from docs_blocks import blocks, commands
from films import HEIGHT, WIDTH, film
from PIL import Image
from reading import Array, Page, frames_of
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vs_vsr import cli
from vs_vsr.compare import page as page_module
from vs_vsr.compare import still as still_module
from vs_vsr.evaluation.scores import luma

# All that a file name may have, and what a page might take for markup or for its own marks.
HOSTILE = "<script>alert(1)<!--\"'&amp;{{data}}\\u003c\n\udcff.mkv"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the docs' commands name: 20 pictures in 0.8 s, and others of 2 minutes."""
    monkeypatch.chdir(tmp_path)
    times = range(0, 800, 40)
    film(tmp_path / "a.mkv", times)
    film(tmp_path / "b.mkv", times, options={"preset": "veryfast", "crf": "40"})
    return tmp_path


def small(path: Path) -> Path:
    """Half as large: of RGB noise."""
    noise = np.random.default_rng(3).integers(0, 256, (HEIGHT // 2, WIDTH // 2, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def compare(capsys: pytest.CaptureFixture[str], *arguments: object) -> Page:
    """Run the command; the page that it writes."""
    assert cli.main(["compare", *map(str, arguments)]) == 0
    return Page(Path(capsys.readouterr().out.removesuffix("\n")))


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What it says where it fails; nothing is left behind."""
    before = set(Path.cwd().iterdir())
    assert cli.main(["compare", *map(str, arguments)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and set(Path.cwd().iterdir()) == before
    return err.strip().splitlines()[-1]


def test_the_page_holds_the_frames_of_its_sources_bit_for_bit(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = compare(capsys, "a.mkv", "b.mkv", small(folder / "c.png"))
    assert page.title == "" and page.texts["title"] == ["a.mkv | b.mkv | c.png"]
    first, second = frames_of(folder / "a.mkv"), frames_of(folder / "b.mkv")
    still = np.asarray(Image.open("c.png"))
    data = page.data
    assert (data["box"], data["isClip"]) == ([WIDTH, HEIGHT], False)
    assert [s["name"] for s in data["sources"]] == ["a.mkv", "b.mkv", "c.png"]
    assert data["sources"][0]["about"] == "64x48, h264 yuv420p"
    # The length is 0.8 s, so sixths are at 3.33, 6.67, 10, 13.33 and 16.67 frames.
    assert [moment["at"] for moment in data["moments"]] == [
        f"0:00.{40 * n:03}" for n in (3, 6, 10, 13, 16)
    ]
    for k, n in enumerate((3, 6, 10, 13, 16)):
        for source, want in enumerate((first[n], second[n], still)):
            assert np.array_equal(page.picture(k, source), want)
        assert data["moments"][k]["times"] == [f"0:00.{40 * n:03}"] * 2 + ["still picture"]
        a, b = (luma(picture.transpose(2, 0, 1)) for picture in (first[n], second[n]))
        psnr = peak_signal_noise_ratio(a, b, data_range=255)
        ssim = structural_similarity(
            *(a, b),
            data_range=255,
            gaussian_weights=True,
            use_sample_covariance=False,
        )
        scores = data["moments"][k]["scores"]
        assert scores[0] is None and scores[1][0] == f"{psnr:.2f} dB" and scores[2] is None
        # Those of scikit-image have the border too.
        assert float(scores[1][1]) == pytest.approx(ssim, abs=0.02)
    # A picture that stays is in it once.
    assert len(page.addresses) == 11 and set(folder.iterdir()) == {
        folder / name for name in ("a.mkv", "b.mkv", "c.png", "compare.html")
    }
    (note,) = data["notes"]
    assert (
        note == "Enlarged to 64x48 by nearest neighbour, so that you see its pixels: c.png (32x24)."
    )


def test_the_page_needs_and_may_open_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.mkv").rename(folder / HOSTILE)
    page = compare(capsys, HOSTILE, "b.mkv", "--frames", 1)
    name = HOSTILE.replace("\udcff", "\\udcff")
    assert page.data["sources"][0]["name"] == name
    # Neither can it end the element that the data is in, nor comment its end out.
    assert "<" not in page.texts["json"][0]
    # Two scripts, that of the page and its data, and no tag that the template has not.
    assert [len(page.texts[kind]) for kind in ("script", "json", "style", "title")] == [1, 1, 1, 1]
    assert page.texts["title"] == [f"{name} | b.mkv"]
    template = Path(page_module.__file__).with_name("page.html").read_text()
    assert sorted(page.tags) == sorted([*re.findall(r"<([a-z]\w*)", template), "img", "img"])
    assert len(page.addresses) == 2
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    style, script = (
        base64.b64encode(hashlib.sha256(page.texts[kind][0].encode()).digest()).decode()
        for kind in ("style", "script")
    )
    assert page.policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; "
        f"script-src 'sha256-{script}'"
    )
    assert "http" not in page.texts["script"][0] + page.texts["style"][0]


def test_a_clip_has_every_picture_of_its_range_and_can_be_played(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = compare(capsys, "a.mkv", "b.mkv", "--clip", "0.2", "0:00.4", "--out", "clip.html")
    assert page.data["isClip"]
    assert [m["time"] for m in page.data["moments"]] == [0.2, 0.24, 0.28, 0.32, 0.36]
    frames = frames_of(folder / "b.mkv")
    for k in range(5):
        assert np.array_equal(page.picture(k, 1), frames[5 + k])
        assert page.data["moments"][k]["scores"] == [None, None]


def test_equal_pictures_and_equal_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "x").mkdir()
    film(folder / "x" / "a.mkv", range(0, 800, 40))
    page = compare(capsys, "a.mkv", "x/a.mkv", "--at", "0.5")
    assert [s["name"] for s in page.data["sources"]] == [f"{folder.name}/a.mkv", "x/a.mkv"]
    assert page.data["moments"][0]["scores"][1] == ["equal", "1.0000"]
    assert page.data["moments"][0]["at"] == "0:00.480"


def test_jpeg_and_bicubic(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(folder / "c.png")
    sources = ("a.mkv", "c.png", "--frames", 1, "--force")
    page = compare(capsys, *sources, "--scaler", "bicubic")
    assert page.picture(0, 1).shape == (HEIGHT, WIDTH, 3)
    # Within rounding that of a kernel with b = 0, c = 0.5, which Pillow has too.
    want = np.asarray(Image.open("c.png").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    # Pillow has another rule at the borders.
    assert abs(page.picture(0, 1).astype(int) - want)[4:-4, 4:-4].max() <= 1
    assert "by bicubic: c.png (32x24)" in page.data["notes"][0]
    true = frames_of(folder / "a.mkv")[10]
    errors = []
    for quality in (1, 31):
        page = compare(capsys, *sources, "--quality", quality)
        assert page.addresses[0].startswith("data:image/jpeg;base64,")
        errors.append(abs(page.picture(0, 0).astype(int) - true).mean())
    assert errors[0] < 2 < errors[1]


def test_a_page_is_bounded(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "_MOST_BYTES", 30_000)
    assert refused(capsys, "a.mkv", "b.mkv", "--clip", "0", "0.8") == (
        "a page must have at most 0 MB of pictures, got more after 3 moments. Choose fewer with "
        "--frames, --at or --clip, or add --quality 2 for JPEG."
    )


def test_a_still_has_a_row_for_each_moment_and_a_column_for_each_source(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not even a line break in a name makes a second line.
    name = "<\n\udcff\xe9>.mkv"
    (folder / "a.mkv").rename(folder / name)
    small(folder / "c.png")
    command = ["compare", name, "b.mkv", "c.png", "--at", "0.4", "0.1", "--out", "still.png"]
    assert cli.main(command) == 0
    assert capsys.readouterr().out == "still.png\n"
    picture = np.asarray(Image.open("still.png"))
    strip, cell = 32, 32 + 24 * 8
    assert picture.shape == (2 * (strip + HEIGHT), 3 * cell, 3)
    left = (cell - WIDTH) // 2
    enlarged = np.asarray(Image.open("c.png")).repeat(2, 0).repeat(2, 1)
    for row, n in enumerate((2, 10)):
        for column, source in enumerate((name, "b.mkv", "")):
            top, across = row * (strip + HEIGHT), column * cell
            want: Array = frames_of(folder / source)[n] if source else enlarged
            got = picture[top + strip :, across + left :][:HEIGHT, :WIDTH]
            assert np.array_equal(got, want)
            # Named: white letters, in one line.
            text = picture[top : top + strip, across : across + cell]
            assert text.max() > 200 and text[:6].max() < 60
    monkeypatch.setattr(still_module, "_MOST_PIXELS", 3 * WIDTH * HEIGHT)
    assert refused(capsys, *command[1:], "--force") == (
        "a PNG must have at most 9,216 pixels, got 2 times 3 of 64x48. Choose fewer moments, or "
        "write a page: --out compare.html."
    )


def test_shapes_that_differ_and_pixels_that_are_not_square(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film(folder / "wide.mkv", [0, 40], aspect=Fraction(3, 2))
    page = compare(capsys, "a.mkv", "wide.mkv", "--frames", 1)
    assert page.data["box"] == [96, 48]
    assert page.data["notes"][1:] == [
        "a.mkv has another shape than the largest one, and is stretched to it."
    ]


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        ("a.mkv", "sources must be two to 9 files, got 1. Name a second one."),
        ("a.mkv " * 10, "sources must be two to 9 files, got 10. Leave some out."),
        (
            "a.mkv b.mkv --out x.gif",
            "out must end in .html or .png, got x.gif. Write --out compare.html.",
        ),
        (
            "a.mkv b.mkv --out x.png --clip 0 1",
            "clip must be left out for a PNG, got it with --out x.png. Write a page: --out "
            "compare.html",
        ),
        (
            "a.mkv b.mkv --quality 0",
            "quality must be 1 (best) to 31, got 0. Leave it out for PNG, which loses nothing.",
        ),
        (
            "a.mkv b.mkv --out no/x.html",
            "out must be in a folder that exists, got no/x.html. Make no first.",
        ),
        (
            "a.mkv b.mkv --out there.html",
            "out must be a new file, got there.html, which exists. Choose another name, or add "
            "--force to overwrite it.",
        ),
        (
            "c.png b.mkv --out c.png --force",
            "out must be another file than the sources, got c.png. Choose another name.",
        ),
        (
            "a.mkv b.mkv --at 1",
            "at must be before the end of a.mkv (0:00.800), got 0:01.000. Choose an earlier time.",
        ),
        (
            "a.mkv b.mkv --clip 0.2 0.1",
            "clip must be a start and a later end, got 0:00.200 and 0:00.100. Write --clip 0:10 "
            "0:12.",
        ),
        ("a.mkv b.mkv --at x", 'at must be seconds or H:MM:SS, got "x". Write --at 1:30.'),
        ("a.mkv b.mkv --frames 0", "frames must be at least 1, got 0. Write --frames 5."),
        (
            "c.png c.png --at 1",
            "at must be left out for still pictures, got it for 2 of them. Leave it out.",
        ),
        ("a.mkv no.mkv", "input must be a file, got no.mkv, which does not exist."),
        ("a.mkv no.vpy", "sources must be files, got no.vpy, which does not exist."),
    ],
)
def test_what_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: str, want: str
) -> None:
    (folder / "there.html").write_text("kept")
    small(folder / "c.png")
    assert refused(capsys, *shlex.split(arguments)) == want
    assert (folder / "there.html").read_text() == "kept"


def test_what_is_no_video_is_refused_before_the_page_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "text.mkv").write_text("no video")
    assert refused(capsys, "a.mkv", "text.mkv").startswith("input must be a media file that FFmpeg")


def test_the_commands_of_the_docs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("in.mkv", "out.mkv", "basicvsr.mkv", "animesr.mkv"):
        film(folder / name, [12_000 * n for n in range(12)])
    (folder / "up.vpy").write_text(
        "from vapoursynth import core\ncore.std.BlankClip(length=500, fpsnum=4).set_output()"
    )
    shown = [command for block in blocks("sh", "console") for command in commands(block)]
    shown = [command for command in shown if command.startswith("vs-vsr compare ")]
    assert len(shown) >= 5
    for line in shown:
        words = shlex.split(line, comments=True)[1:]
        assert cli.main([*words, "--force"]) == 0, line
        assert Path(capsys.readouterr().out.strip()).stat().st_size > 1000
