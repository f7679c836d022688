"""The examples, run as a user runs them."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
import vapoursynth as vs
from colours import COLOURS, WIDTH, fields, film_of, plain_network, shown
from conftest import environment
from films import film
from PIL import Image

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SAMPLE = EXAMPLES / "sample.mp4"

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
real_weights = pytest.mark.usefixtures("real_weights")
core = vs.core


def frames_of(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as file:
        return list(file.decode(video=0))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_network(tmp_path_factory.mktemp("weights"))


def opened(path: Path) -> vs.VideoNode:
    return core.bs.VideoSource(str(path), cachemode=0)


def script(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run upscale.vpy into out.y4m of a folder, from there."""
    words = [word for argument in arguments for word in ("-a", argument)]
    return subprocess.run(
        ["vspipe", "-c", "y4m", *words, EXAMPLES / "upscale.vpy", "out.y4m"],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**environment(), "PWD": str(folder)},
    )


@pytest.mark.parametrize(
    ("format", "given", "tags", "want"),
    [
        (
            vs.YUV420P8,
            {"matrix": 6},
            {"colorspace": 6, "color_range": 1, "chroma_sample_location": 1},
            {"_Matrix": 1, "_ChromaLocation": 0, "_Range": 0},
        ),
        (
            vs.YUV420P10,
            {"matrix": 9},
            {"colorspace": 9, "color_primaries": 9, "color_trc": 16, "chroma_sample_location": 3},
            {"_Matrix": 9, "_Primaries": 9, "_Transfer": 16, "_ChromaLocation": 2, "_Range": 0},
        ),
        (vs.YUV420P10, {"matrix": 9}, {"color_trc": 18}, {"_Matrix": 9, "_Transfer": 18}),
        (vs.RGB30, {}, {}, {"_Matrix": 1, "_Range": 0}),
    ],
)
def test_what_the_script_tells_ffmpeg_makes_the_colours_right(
    format: int,
    given: dict[str, int],
    tags: dict[str, int],
    want: dict[str, int],
    weights: Path,
    tmp_path: Path,
) -> None:
    film_of(tmp_path / "in.mkv", fields(format, **given), **tags)
    (tmp_path / "net.pth").symlink_to(weights)
    done = script(tmp_path, "source=in.mkv", "weights=net.pth")
    assert done.returncode == 0, done.stderr
    (words,) = re.findall(r"upscale\.vpy: tell ffmpeg: (.*)", done.stderr)
    out = tmp_path / "out.mkv"
    command = [FFMPEG, "-v", "error", "-i", "out.y4m", *words.split(), "-c:v", "ffv1", out]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert opened(out).width == 4 * WIDTH
    np.testing.assert_allclose(shown(out), COLOURS, atol=3)
    props = opened(out).get_frame(0).props
    assert {name: props.get(name) for name in want} == want


def test_the_script_tells_of_pixels_that_are_not_square(weights: Path, tmp_path: Path) -> None:
    film(tmp_path / "in.mkv", [0, 40, 80], aspect=Fraction(128, 117))
    done = script(tmp_path, "source=in.mkv", f"weights={weights}")
    assert ",setsar=sar=128/117:max=65535 " in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("filter=EDVR", r"source must be a video file, got none\. Add -a source="),
        ("source=in.mkv filter=EVDR", r"filter must be one of .*, got EVDR\. Use one of these"),
        ("source=in.mkv chunks=4", r"BasicVSR: .* argument\(s\) named chunks"),
        ("source=in.mkv chunk=four", r"invalid literal .* 'four'"),
        ("source=in.mkv scenes=of", r'BasicVSR: scenes must be one of .*, got "of"\.'),
        ("source=in.mkv weights=none-such", r"BasicVSR: weights must be a file or one of"),
    ],
)
def test_an_argument_that_the_script_refuses(arguments: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "in.mkv").symlink_to(SAMPLE)
    done = script(tmp_path, *arguments.split())
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr


def test_every_argument_of_the_filter_is_passed_on(weights: Path, tmp_path: Path) -> None:
    # This network's pictures hardly depend on them, so the test is only that all are accepted.
    film_of(tmp_path / "in.mkv", fields(vs.YUV420P8, 4, matrix=6), colorspace=6)
    given = {
        "weights": weights, "device": "cpu", "precision": "fp32", "chunk": 2, "lookahead": 1,
        "segment": 4, "preroll": 1, "tile": 64, "overlap": 16, "scenes": "off", "matrix": "709",
        "prefetch": 1, "latency": "low",
    }  # fmt: skip
    taken = {part.split(":")[0] for part in core.vsr.BasicVSR.signature.split(";") if part}
    assert set(given) == taken - {"clip"}
    done = script(tmp_path, "source=in.mkv", *(f"{name}={value}" for name, value in given.items()))
    assert done.returncode == 0, done.stderr
    assert len(frames_of(tmp_path / "out.y4m")) == 4


def test_the_pipe_of_the_readme(weights: Path, tmp_path: Path) -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    script = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0]
    (pipe,) = re.findall(r"^(vspipe .*)$", readme, re.MULTILINE)
    clip = fields(vs.YUV420P8, matrix=6)
    film_of(tmp_path / "in.mkv", clip, colorspace=6, color_range=1)
    assert "BasicVSR(clip)" in script
    script = script.replace("BasicVSR(clip)", f"BasicVSR(clip, weights={str(weights)!r})")
    (tmp_path / "script.vpy").write_text(script)
    pipe = pipe.replace("ffmpeg", shlex.quote(FFMPEG) + " -v error")
    subprocess.run(pipe, shell=True, check=True, cwd=tmp_path, env=environment())
    np.testing.assert_allclose(shown(tmp_path / "out.mkv"), COLOURS, atol=3)


def mpv_script(video_in: vs.VideoNode, **variables: float) -> vs.VideoNode:
    vs.clear_outputs()
    exec((EXAMPLES / "mpv.vpy").read_text(), {"video_in": video_in, **variables})
    output = vs.get_output(0)
    assert isinstance(output, vs.VideoOutputTuple)
    return output.clip


@real_weights
def test_the_mpv_script_with_a_clip_as_mpv_gives_it() -> None:
    # The matrix in mpv's property; BT.2020, which does not follow from the size.
    source = opened(SAMPLE)[:8].std.RemoveFrameProps("_Matrix").std.SetFrameProps(_ColorSpace=9)
    asked: list[int] = []
    kept = 32

    def forward_only(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if n <= max(asked, default=0) - kept:
            raise ValueError(f"Frame {n} requested. Try increasing the buffered-frames suboption.")
        if n >= len(source):
            raise ValueError("EOF or filter EOF/reinit")
        asked.append(n)
        frame = source.get_frame(n).copy()
        if n == len(source) - 1:
            frame.props["_DurationNum"], frame.props["_DurationDen"] = -999_999, 1_000_000
        return frame

    endless = source.std.BlankClip(length=2**31 // 16)
    video_in = endless.std.ModifyFrame(endless, forward_only)
    clip = mpv_script(video_in, container_fps=24.0)
    known = mpv_script(source)
    assert not asked
    for n in range(len(source)):
        frame = clip.get_frame(n)
        assert (frame.width, frame.height) == (512, 384)
        assert frame.props["_Matrix"] == 9
        assert Fraction(frame.props["_DurationNum"], frame.props["_DurationDen"]) == Fraction(1, 24)
        # One frame ahead, and all pictures to the last are those of a clip of known length.
        assert max(asked) == min(n + 1, len(source) - 1)
        assert list(map(bytes, frame.readchunks())) == [
            bytes(plane) for plane in known.get_frame(n).readchunks()
        ]
    with pytest.raises(vs.Error, match="EOF"):
        clip.get_frame(len(source))
    # mpv reads tags in the picture that it has thrown away with the frame.
    asked.clear()
    kept = 1
    with pytest.raises(vs.Error, match="increasing the buffered-frames"):
        mpv_script(video_in, container_fps=24.0).get_frame(0)


@real_weights
def test_the_demo(tmp_path: Path) -> None:
    demo: list[str | Path] = [sys.executable, EXAMPLES / "demo.py", "--folder", "demo"]
    done = subprocess.run(
        demo, check=True, cwd=tmp_path, env=os.environ, stderr=subprocess.PIPE, text=True
    )
    assert "BasicVSR with reds4" in done.stderr and "sample_x4.mkv is done: " in done.stderr
    tmp_path /= "demo"
    assert sorted(os.listdir(tmp_path)) == ["sample_x4.mkv", "sample_x4.png"]
    assert len(frames_of(tmp_path / "sample_x4.mkv")) == 24
    picture = np.asarray(Image.open(tmp_path / "sample_x4.png"))
    assert picture.shape == (384, 1024, 3)
    bicubic, ours = (half.astype(float) for half in np.split(picture, 2, axis=1))
    # One picture twice, in the same colours, the right one sharper.
    assert np.abs(bicubic.mean((0, 1)) - ours.mean((0, 1))).max() < 2
    assert np.abs(np.diff(ours, axis=1)).mean() > 1.1 * np.abs(np.diff(bicubic, axis=1)).mean()


def test_the_demo_of_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no film")
    demo: list[str | Path] = [sys.executable, EXAMPLES / "demo.py", "notes.txt"]
    done = subprocess.run(demo, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    # On a slow machine there are lines about progress in between.
    command, *_, sentence = done.stderr.splitlines()
    assert command.startswith("vs-vsr upscale notes.txt demo/notes_x4.mkv --force --preview")
    assert sentence.startswith("input must be ") and "notes.txt" in sentence
    assert not list((tmp_path / "demo").iterdir())


def test_the_sample_is_what_its_script_makes(tmp_path: Path) -> None:
    make_sample = runpy.run_path(str(EXAMPLES / "make_sample.py"))
    from skimage import data

    made = make_sample["frame"](Image.fromarray(data.astronaut()), 7)
    stored = frames_of(SAMPLE)[7].to_image()
    assert np.abs(np.asarray(made).astype(float) - np.asarray(stored)).mean() < 6
