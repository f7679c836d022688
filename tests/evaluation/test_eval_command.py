"""`vs-vsr eval`: its figures, its table and JSON, and its sentences."""

import json
import re
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import vapoursynth as vs
from conftest import drifting, small_checkpoint
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from vapoursynth import core

from vs_vsr import cli
from vs_vsr.evaluation.clips import open_clip
from vs_vsr.evaluation.degrade import Degradation, degraded
from vs_vsr.evaluation.measure import Pair, low_resolution, scores
from vs_vsr.evaluation.scores import luma
from vs_vsr.evaluation.separable import Array
from vs_vsr.plugin.plans import FILTERS

pytestmark = pytest.mark.slow

WIDTH, HEIGHT, FRAMES = 64, 48, 5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_checkpoint(tmp_path_factory.mktemp("weights"), channels=8, blocks=1))


def pictures(
    count: int = FRAMES, width: int = WIDTH, height: int = HEIGHT, seed: int = 3
) -> list[Array]:
    """A texture that moves, each (3, H, W), uint8."""
    frames = drifting(count, height, width, seed)
    return [(frame[0] * 255).round().byte().numpy() for frame in frames]


def write(folder: Path, frames: Sequence[Array], name: str = "{:04}.png") -> Path:
    folder.mkdir(parents=True)
    for n, frame in enumerate(frames):
        Image.fromarray(frame.transpose(1, 2, 0)).save(folder / name.format(n))
    return folder


def read(node: vs.VideoNode) -> list[Array]:
    return [np.stack([np.asarray(f[p]) for p in range(3)]) for f in node.frames(close=True)]


def clip_of(frames: Sequence[Array]) -> vs.VideoNode:
    _, height, width = frames[0].shape
    blank = core.std.BlankClip(format=vs.RGB24, width=width, height=height, length=len(frames))

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        f = f.copy()
        for p in range(3):
            np.asarray(f[p])[:] = frames[n][p]
        return f

    return blank.std.ModifyFrame(blank, draw)


def figures(
    true: Sequence[Array], kind: Degradation, weights: str, space: str = "y", **arguments: object
) -> tuple[float, float]:
    """Mean PSNR and SSIM of BasicVSR, by scikit-image."""
    low = clip_of([degraded(frame, kind) for frame in true])
    output = read(core.vsr.BasicVSR(low, weights=weights, precision="fp32", **arguments))
    found = []
    for a, b in zip(output, true, strict=True):
        if space == "y":
            a, b = luma(a), luma(b)
        settings: dict[str, Any] = {"channel_axis": 0 if space == "rgb" else None}
        settings |= {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        psnr = peak_signal_noise_ratio(b, a, data_range=255)
        found.append((psnr, structural_similarity(a, b, data_range=255, **settings)))
    psnr, ssim = np.mean(found, axis=0)
    return psnr, ssim


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What the command answers."""
    assert cli.main(["eval", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    return json.loads(evaluate(capsys, *arguments, "--json"))


def sentence(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What it says where it fails."""
    assert cli.main(["eval", *map(str, arguments)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    lines: list[str] = err.strip().splitlines()
    return lines[-1]


def test_every_combination_of_every_clip_has_a_row_and_the_mean_is_that_of_the_clips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: str
) -> None:
    clips = {"walk2": pictures(3), "walk10": pictures(2, seed=4)}
    for name, frames in clips.items():
        write(tmp_path / name, frames)
    options = ("--weights", checkpoint, "--precision", "fp32", "--degradation", "bd,BI")
    table = evaluate(capsys, tmp_path, *options, "--chunk", "0,1", "--lookahead", 0)
    rows = [line.split() for line in table.splitlines()]
    names = ["weights", "degradation", "precision", "chunk", "lookahead"]
    assert rows[0] == ["clip", *names, "frames", "PSNR,", "dB", "SSIM"]
    means: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows[1:9]:
        clip, _, kind, precision, chunk, lookahead, count, *got = row
        assert (precision, lookahead, int(count)) == ("fp32", "0", len(clips[clip]))
        degradation: Degradation = "BD" if kind == "BD" else "BI"
        want = figures(clips[clip], degradation, checkpoint, chunk=int(chunk), lookahead=0)
        assert list(map(float, got)) == pytest.approx(want, abs=1e-4)
        means.setdefault((kind, chunk), []).append(want)
    settings = [("BD", "0"), ("BD", "1"), ("BI", "0"), ("BI", "1")]
    # Clips as people count, settings in the order that was given.
    assert [row[0] for row in rows[1:]] == ["walk2"] * 4 + ["walk10"] * 4 + ["mean"] * 4
    assert [(row[2], row[4]) for row in rows[1:]] == settings * 3
    for row, setting in zip(rows[9:], settings, strict=True):
        assert list(map(float, row[-2:])) == pytest.approx(
            np.mean(means[setting], axis=0), abs=1e-4
        )
    assert len({row[-2] for row in rows[1:]}) == 12


def test_json_has_every_frame_and_rgb_is_another_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: str
) -> None:
    true = pictures()
    folder = write(tmp_path / "walk", true)
    options = ("--weights", checkpoint, "--precision", "fp32", "--degradation", "BI")
    found = answer(capsys, folder, *options, "--space", "rgb", "--device", "cpu")
    assert (found["filter"], found["space"], found["device"]) == ("BasicVSR", "rgb", "cpu")
    (clip,) = found["clips"]
    assert (clip["clip"], clip["width"], clip["height"]) == ("walk", WIDTH, HEIGHT)
    assert (clip["weights"], clip["degradation"]) == (checkpoint, "BI")
    assert len(clip["frames"]) == FRAMES
    want = figures(true, "BI", checkpoint, "rgb")
    assert (clip["psnr"], clip["ssim"]) == pytest.approx(want, abs=1e-9)
    for name in ("psnr", "ssim"):
        assert clip[name] == pytest.approx(np.mean([frame[name] for frame in clip["frames"]]))
    assert found["means"][0]["psnr"] == clip["psnr"]


def test_what_is_beyond_a_multiple_of_four_is_cut_off_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: str
) -> None:
    wide = pictures(2, WIDTH + 3, HEIGHT + 1)
    folder = write(tmp_path / "odd", wide)
    options = ("--weights", checkpoint, "--precision", "fp32", "--degradation", "BI", "--json")
    assert cli.main(["eval", str(folder), *options]) == 0
    out, err = capsys.readouterr()
    assert "odd: 64x48 of 67x49 pixels are measured" in err
    (clip,) = json.loads(out)["clips"]
    want = figures([frame[:, :HEIGHT, :WIDTH] for frame in wide], "BI", checkpoint)
    assert (clip["psnr"], clip["ssim"]) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("one", [True, False])
def test_ready_frames_go_in_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: str, one: bool
) -> None:
    true = pictures()
    write(tmp_path / "true/walk", true)
    folder = write(tmp_path / "low/walk", [degraded(frame, "BD") for frame in true])
    options = ("--weights", checkpoint, "--precision", "fp32")
    ready = folder if one else folder.parent
    found = answer(capsys, tmp_path / "true", "--input", ready, *options)
    assert found["input"] == str(ready)
    want = figures(true, "BD", checkpoint)
    assert (found["clips"][0]["psnr"], found["clips"][0]["ssim"]) == pytest.approx(want, abs=1e-9)
    assert "degradation" not in found["clips"][0]


def write_video(path: Path, frames: Sequence[Array]) -> Path:
    """Lossless RGB."""
    with av.open(str(path), "w") as container:
        _, height, width = frames[0].shape
        stream: Any = container.add_stream("ffv1", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        for frame in frames:
            picture = np.ascontiguousarray(frame.transpose(1, 2, 0))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_a_video_file_gives_what_its_frames_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: str
) -> None:
    true = pictures()
    video = write_video(tmp_path / "walk.mkv", true)
    options = ("--weights", checkpoint, "--precision", "fp32", "--degradation", "BI")
    (clip,) = answer(capsys, video, *options)["clips"]
    assert clip["clip"] == "walk"
    want = figures(true, "BI", checkpoint)
    assert (clip["psnr"], clip["ssim"]) == pytest.approx(want, abs=1e-9)
    assert [path.name for path in tmp_path.iterdir()] == ["walk.mkv"]


@pytest.mark.parametrize("tagged", [True, False])
def test_a_video_without_a_matrix_is_taken_as_the_filters_take_it(
    tmp_path: Path, tagged: bool
) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv444p"
        if tagged:
            stream.codec_context.colorspace = 1
        y, u, v = np.full((64, 64), 120), np.full((64, 64), 90), np.full((64, 64), 170)
        planes = np.stack([y, u, v]).astype(np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv444p")))
        container.mux(stream.encode(None))
    (picture,) = read(open_clip("GT", path))
    # Of BT.709, or of BT.601 by its size.
    kr, kb = (0.2126, 0.0722) if tagged else (0.299, 0.114)
    luma_, cb, cr = (120 - 16) / 219, (90 - 128) / 224, (170 - 128) / 224
    red, blue = luma_ + 2 * (1 - kr) * cr, luma_ + 2 * (1 - kb) * cb
    green = (luma_ - kr * red - kb * blue) / (1 - kr - kb)
    assert picture[:, 5, 5] == pytest.approx(255 * np.array([red, green, blue]), abs=1)


def test_frames_are_read_in_the_order_in_which_people_count(tmp_path: Path) -> None:
    frames = pictures(12, 16, 16)
    folder = write(tmp_path / "a", frames, "frame{}.png")
    (folder / "._frame0.png").write_bytes(b"what some systems leave")
    (folder / "notes.txt").write_text("no frame")
    assert np.array_equal(read(open_clip("GT", folder)), frames)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_frames_of_other_kinds_are_read_as_rgb(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(pictures(1)[0].transpose(1, 2, 0)).convert(mode)
    picture.save(tmp_path / "0.png")
    want = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(read(open_clip("GT", tmp_path))[0], want)


def test_a_clip_may_have_one_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: str
) -> None:
    folder = write(tmp_path / "still", pictures(1))
    rows = evaluate(capsys, folder, "--weights", checkpoint, "--degradation", "BI").splitlines()
    assert len(rows) == 2
    assert rows[1].split()[3] == "1"


def test_equal_pictures_are_infinite_in_the_table_and_null_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vs_vsr import filters

    folder = write(tmp_path / "walk", pictures(2))
    monkeypatch.setattr(filters, "edvr", lambda clip: clip)
    options = (folder, "--filter", "EDVR", "--degradation", "none")
    assert evaluate(capsys, *options).splitlines()[1].split()[-2:] == ["inf", "1.0000"]
    assert answer(capsys, *options)["clips"][0]["psnr"] is None


def test_paths_without_frames_are_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, text = tmp_path / "missing", tmp_path / "text.mkv"
    text.write_text("no video")
    (tmp_path / "empty").mkdir()
    bi = ("--degradation", "BI")
    assert sentence(capsys, missing, *bi) == (
        f"GT must be a file or a folder, got {missing}. Check the path."
    )
    assert sentence(capsys, tmp_path / "empty", *bi) == (
        "GT must be a video file, a folder of frames, or a folder of such folders, got "
        f"{tmp_path / 'empty'} without any. Frames are files .png, .bmp, .tif, .tiff, .webp, "
        ".jpg, .jpeg."
    )
    assert re.fullmatch(
        rf"GT must be a file with video, got {text} \(.+\)\. Check the file\.",
        sentence(capsys, text, *bi),
    )


def test_frames_that_cannot_be_measured_are_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: str
) -> None:
    mixed = write(tmp_path / "mixed", [*pictures(2), *pictures(1, 32, 32)])
    bi = ("--degradation", "BI", "--weights", checkpoint)
    assert sentence(capsys, mixed, *bi) == (
        f"GT must be frames of one size, got 64x48 in {mixed / '0000.png'} and 32x32 in "
        f"{mixed / '0002.png'}. Give each clip its own folder."
    )
    (mixed / "0002.png").write_text("no picture")
    assert sentence(capsys, mixed, *bi) == (
        f"GT must be files that hold a picture, got {mixed / '0002.png'} (no picture in it). "
        "Replace or remove it."
    )
    tiny = write(tmp_path / "tiny", pictures(2, 3, 48))
    assert sentence(capsys, tiny, *bi) == (
        "GT must be at least 4x4 pixels, as one block is, got 3x48. Choose larger frames."
    )
    small = write(tmp_path / "small", pictures(2, 48, 11))
    assert sentence(capsys, small, *bi) == (
        "GT must be at least 11x11 pixels, as the window of SSIM is, got 48x8. "
        "Choose larger frames."
    )
    other = write(tmp_path / "elsewhere" / "small", pictures(2))
    assert sentence(capsys, small, other, *bi) == (
        f"GT must be clips of different names, got {small} and {other}. "
        "Measure them one after another."
    )


def test_a_frame_that_cannot_be_read_later_is_the_same_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: str
) -> None:
    folder = write(tmp_path / "torn", pictures(3, 160, 128))
    torn = folder / "0002.png"
    torn.write_bytes(torn.read_bytes()[:3000])
    got = sentence(capsys, folder, "--degradation", "BI", "--weights", checkpoint)
    assert got.startswith(f"GT must be files that hold a picture, got {torn} (")
    assert got.endswith("Replace or remove it.")


def test_input_that_is_not_of_these_frames_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: str
) -> None:
    walk = write(tmp_path / "true/walk", pictures())
    short = write(tmp_path / "short", pictures(4, 16, 12))
    weights = ("--weights", checkpoint)
    assert sentence(capsys, walk, "--input", short, *weights) == (
        "BasicVSR: pictures must match those of GT, 64x48 and 5 frames, got 64x48 and 4 frames. "
        "Choose the input that belongs to GT, and weights for it."
    )
    assert "got 256x192 and 5 frames" in sentence(capsys, walk, "--degradation", "none", *weights)
    write(tmp_path / "true/foliage", pictures(2))
    assert sentence(capsys, tmp_path / "true", "--input", short, *weights) == (
        f"input must be a file or a folder, got {short / 'foliage'}. Check the path."
    )


def test_what_a_filter_refuses_is_its_own_sentence_before_anything_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: str
) -> None:
    walk = write(tmp_path / "walk", pictures())
    got = sentence(capsys, walk, "--degradation", "BI", "--weights", f"{checkpoint},nix")
    assert got.startswith("BasicVSR: weights must be a file or one of reds4, ")
    chunk = sentence(capsys, walk, "--degradation", "BI", "--chunk", -1, "--weights", checkpoint)
    assert chunk.startswith("BasicVSR: chunk must be ")


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        (["--degradation", "XX"], "--degradation: must be one of BI, BD, none, got XX. Choose"),
        (["--degradation", "BI", "--filter", "SPyNet"], "--filter: must be one of animesr, basic"),
        (["--degradation", "BI", "--filter", "nix"], "got nix. Choose one of these."),
        (["--degradation", "BI", "--chunk", "a"], "--chunk: invalid list of int value: 'a'"),
        ([], "one of the arguments --degradation --input is required"),
    ],
)
def test_arguments_that_are_none_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], want: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["eval", "x", *arguments])
    assert want in capsys.readouterr().err


def test_filters_are_known_as_in_core_vsr_and_as_in_their_papers() -> None:
    from vs_vsr.cli.eval import _filter

    for name in FILTERS:
        assert _filter(name.lower()) == name
    assert _filter("BasicVSR++") == "BasicVSRPP"


def test_progress_goes_to_standard_error_and_the_answer_alone_to_standard_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], checkpoint: str
) -> None:
    # With a path that fills a line, the count is still there.
    checkpoint = shutil.copy(checkpoint, str(tmp_path / f"{'small_' * 16}.pth"))
    walk = write(tmp_path / "walk", pictures())
    options = ["--weights", checkpoint, "--degradation", "BI", "--json"]
    assert cli.main(["eval", str(walk), *options]) == 0
    out, err = capfd.readouterr()
    (clip,) = json.loads(out)["clips"]
    assert f"walk {checkpoint} BI: {clip['psnr']:.4f} dB, {clip['ssim']:.4f}\n" in err
    assert f"{FRAMES}/{FRAMES}" in err


def test_a_long_clip_is_never_in_memory() -> None:
    count, early = 800, 200
    moving = pictures(24, 160, 128)
    truth = clip_of([moving[n % 24] for n in range(count)])
    output = low_resolution(truth, "BI").resize.Bicubic(160, 128)
    resident = []

    def report() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident.append(pages * 4096)

    found = scores(Pair(truth, output), "rgb", report)
    assert len(found.frames) == len(resident) == count
    # From the early one on, the frames of each clip are 37 MB as bytes and 295 MB in float64.
    assert max(resident) - resident[early] < 20e6
