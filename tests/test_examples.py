"""The examples, run as a user runs them."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import pytest
import torch
import vapoursynth as vs
from conftest import environment, small_network
from PIL import Image

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SAMPLE = EXAMPLES / "sample.mp4"

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
real_weights = pytest.mark.usefixtures("real_weights")
core = vs.core

# Eight flat fields, no component at the end of its range.
COLOURS = np.array([[r, g, b] for r in (60, 200) for g in (60, 200) for b in (60, 200)], np.uint8)
WIDTH, HEIGHT = 176, 144


def frames_of(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as file:
        return list(file.decode(video=0))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that adds nothing to its bilinearly upscaled input: colours stay as they are."""
    state = small_network(8, 1).state_dict()
    for name in state:
        if "conv_last" in name:
            state[name] = torch.zeros_like(state[name])
    path = tmp_path_factory.mktemp("weights") / "plain.pth"
    torch.save(state, path)
    return path


def film(path: Path, video: vs.VideoNode, *words: str) -> Path:
    """`video` in a file, without loss where `words` name no encoder."""
    encoder = () if "-c:v" in words else ("-c:v", "ffv1")
    command = [FFMPEG, "-v", "error", "-i", "-", *words, *encoder, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        video.output(process.stdin, y4m=True)
        process.stdin.close()
    assert process.returncode == 0
    return path


def fields(format: int, length: int = 3, **conversion: Any) -> vs.VideoNode:
    """The colours side by side, as YUV."""
    clip = core.std.BlankClip(
        format=vs.RGB24, width=WIDTH, height=HEIGHT, length=length, fpsnum=24000, fpsden=1001
    )

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        out = f.copy()
        for p in range(3):
            np.asarray(out[p])[:] = COLOURS[:, p].repeat(WIDTH // len(COLOURS))
        return out

    return clip.std.ModifyFrame(clip, draw).resize.Bicubic(format=format, **conversion)


def middles(frame: vs.VideoFrame, plane: int) -> np.ndarray:
    """The values in the middle of each field."""
    values = np.asarray(frame[plane]).astype(int)
    step = values.shape[1] // len(COLOURS)
    return values[values.shape[0] // 2, step // 2 :: step]


def opened(path: Path) -> vs.VideoNode:
    return core.bs.VideoSource(str(path), cachemode=0)


def shown(path: Path) -> np.ndarray:
    """The colours of a file by its own tags, (fields, 3)."""
    assert opened(path).get_frame(0).props["_Matrix"] != vs.MATRIX_UNSPECIFIED
    frame = opened(path).resize.Bicubic(format=vs.RGB24).get_frame(1)
    return np.stack([middles(frame, p) for p in range(3)], axis=1)


def upscaled(source: Path, weights: Path, *arguments: str, suffix: str = ".mkv") -> Path:
    out = source.with_name(f"out{suffix}")
    command: list[str | Path] = [
        EXAMPLES / "vspipe_ffmpeg.sh",
        source,
        out,
        f"weights={weights}",
        *arguments,
    ]
    subprocess.run(command, check=True, env={**environment(), "FFMPEG": FFMPEG})
    return out


@pytest.mark.parametrize(
    ("format", "matrix", "full", "tags"),
    [
        (vs.YUV420P8, vs.MATRIX_ST170_M, 0, "colorspace=smpte170m:range=tv"),
        (vs.YUV422P8, vs.MATRIX_BT470_BG, 1, "colorspace=bt470bg:range=pc"),
        (vs.YUV420P10, vs.MATRIX_BT709, 0, "colorspace=bt709:range=tv:color_trc=bt709"),
    ],
)
def test_colours_from_file_to_file(
    format: int, matrix: int, full: int, tags: str, weights: Path, tmp_path: Path
) -> None:
    clip = fields(format, matrix=matrix, range=full)
    words = ("-vf", f"setparams={tags}", "-chroma_sample_location", "left")
    source = film(tmp_path / "source.mkv", clip, *words)
    np.testing.assert_allclose(shown(source), COLOURS, atol=3)
    out = upscaled(source, weights)
    assert opened(out).format.id == format
    assert (opened(out).width, opened(out).fps) == (4 * WIDTH, clip.fps)
    np.testing.assert_allclose(shown(out), shown(source), atol=3)
    props = opened(out).get_frame(0).props
    assert props["_Matrix"] == vs.MATRIX_BT709
    assert props["_Transfer"] == opened(source).get_frame(0).props["_Transfer"]
    assert props["_ChromaLocation"] == 0


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_comes_out_as_it_came_in(transfer: int, weights: Path, tmp_path: Path) -> None:
    source = film(
        tmp_path / "source.mkv",
        fields(vs.YUV420P10, matrix=vs.MATRIX_BT2020_NCL),
        *("-vf", f"setparams=colorspace=9:color_primaries=9:color_trc={transfer}:range=tv"),
        *("-c:v", "libx265", "-x265-params"),
        "log-level=error:lossless=1:hdr10=1:max-cll=1000,400:chromaloc=2:"
        "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)",
    )
    want = opened(source).get_frame(0)
    light = [name for name in want.props if name.startswith(("MasteringDisplay", "ContentLight"))]
    assert len(light) == 8
    out = opened(upscaled(source, weights))
    assert out.format.id == vs.YUV420P10
    got = out.get_frame(0)
    for name in (*light, "_Matrix", "_Primaries", "_Transfer", "_Range", "_ChromaLocation"):
        assert got.props[name] == want.props[name], name
    for p in range(3):
        np.testing.assert_allclose(middles(got, p), middles(want, p), atol=6)


def test_pixels_that_are_not_square_stay_so(weights: Path, tmp_path: Path) -> None:
    clip = fields(vs.YUV420P8, matrix=vs.MATRIX_ST170_M)
    source = film(tmp_path / "source.mkv", clip, "-vf", "setsar=sar=128/117:max=1000")
    props = opened(upscaled(source, weights)).get_frame(0).props
    assert (props["_SARNum"], props["_SARDen"]) == (128, 117)
    with av.open(str(tmp_path / "out.mkv")) as file:
        assert str(file.streams.video[0].display_aspect_ratio) == "1408/1053"


def times(path: Path, folder: Path) -> list[float]:
    core.bs.VideoSource(str(path), cachemode=0, timecodes=str(folder / "times"))
    return [float(x) for x in (folder / "times").read_text().splitlines() if x[:1] != "#"]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_variable_frame_rate_stays(suffix: str, weights: Path, tmp_path: Path) -> None:
    words = ("-vf", "settb=1/1000,setpts=33*N+mod(7*N\\,11)+100*floor(N/5)", "-fps_mode", "vfr")
    clip = fields(vs.YUV420P8, length=12, matrix=vs.MATRIX_ST170_M)
    source = film(tmp_path / "source.mkv", clip, *words, "-enc_time_base", "1/1000")
    want = times(source, tmp_path)
    assert len(set(np.diff(want))) > 2
    out = upscaled(source, weights, suffix=suffix)
    np.testing.assert_allclose(times(out, tmp_path), want, atol=0.51)


def test_a_lost_variable_frame_rate_is_reported(weights: Path, tmp_path: Path) -> None:
    clip = fields(vs.YUV420P8, length=4, matrix=vs.MATRIX_ST170_M)
    words = ("-vf", "settb=1/1000,setpts=40*N*N", "-fps_mode", "vfr", "-enc_time_base", "1/1000")
    source = film(tmp_path / "source.mkv", clip, *words)
    arguments = ["-a", f"source={source}", "-a", f"weights={weights}"]
    command: list[str | Path] = [
        "vspipe",
        "-c",
        "y4m",
        *arguments,
        EXAMPLES / "upscale.vpy",
        tmp_path / "out.y4m",
    ]
    done = subprocess.run(command, check=True, capture_output=True, env=environment())
    assert b"upscale.vpy: The frame rate varies, and y4m loses that" in done.stderr
    assert b"Tell ffmpeg: -vf setparams=colorspace=1:range=tv" in done.stderr


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "chunks=4",
            r"upscale\.vpy: arguments must be among source, .* those of BasicVSR \(weights, .*\), "
            r"got chunks\. Did you mean chunk\?",
        ),
        ("sigma=3", r"those of BasicVSR .*, got sigma\. Leave it out\."),
        ("chunk=four", r'upscale\.vpy: chunk must be a whole number, got "four"\. Write chunk='),
        ("frames=0", r"upscale\.vpy: frames must be at least 1, got 0\. Leave it out"),
        (
            "filter=EVDR",
            r'upscale\.vpy: filter must be one of .*, got "EVDR"\. Did you mean EDVR\?',
        ),
        ("scenes=of", r'BasicVSR: scenes must be one of .*, got "of"\.'),
        ("refine_threshold=low filter=RealBasicVSR", r"refine_threshold must be a number, got"),
    ],
)
def test_an_argument_that_the_script_refuses(argument: str, message: str, tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    command: list[str | Path] = [EXAMPLES / "vspipe_ffmpeg.sh", SAMPLE, out, *argument.split()]
    env = {**environment(), "FFMPEG": FFMPEG}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert "vspipe failed, so" in done.stderr
    assert not list(tmp_path.iterdir())


def test_every_argument_of_the_filter_is_passed_on(weights: Path, tmp_path: Path) -> None:
    # This network's pictures hardly depend on them, so the test is only that all are accepted.
    film(tmp_path / "source.mkv", fields(vs.YUV420P8, 4, matrix=vs.MATRIX_ST170_M))
    (tmp_path / "net.pth").symlink_to(weights)
    given = {
        "weights": "net.pth", "device": "cpu", "precision": "fp32", "chunk": 2, "lookahead": 1,
        "segment": 4, "preroll": 1, "tile": 64, "overlap": 16, "scenes": "off", "matrix": "709",
        "prefetch": 1,
    }  # fmt: skip
    taken = {part.split(":")[0] for part in core.vsr.BasicVSR.signature.split(";") if part}
    assert set(given) == taken - {"clip"}
    command: list[str | Path] = [EXAMPLES / "vspipe_ffmpeg.sh", "source.mkv", "out.mkv"]
    command += [f"{name}={value}" for name, value in given.items()]
    env = {**environment(), "FFMPEG": FFMPEG, "PWD": str(tmp_path)}
    subprocess.run(command, check=True, env=env, cwd=tmp_path)
    assert len(opened(tmp_path / "out.mkv")) == 4


def test_the_pipe_of_the_readme(weights: Path, tmp_path: Path) -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    script = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0]
    (pipe,) = re.findall(r"^    (vspipe .*)$", readme, re.MULTILINE)
    clip = fields(vs.YUV420P8, matrix=vs.MATRIX_ST170_M)
    film(tmp_path / "in.mkv", clip, "-vf", "setparams=colorspace=smpte170m:range=tv")
    assert "BasicVSR(clip)" in script
    script = script.replace("BasicVSR(clip)", f"BasicVSR(clip, weights={str(weights)!r})")
    (tmp_path / "script.vpy").write_text(script)
    pipe = pipe.replace("ffmpeg", shlex.quote(FFMPEG) + " -v error")
    subprocess.run(pipe, shell=True, check=True, cwd=tmp_path, env=environment())
    np.testing.assert_allclose(shown(tmp_path / "out.mkv"), COLOURS, atol=3)


@real_weights
def test_vspipe_into_ffmpeg_with_a_relative_path(tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    arguments = "-a source=examples/sample.mp4 -a frames=5"
    script = (
        f"vspipe -c y4m examples/upscale.vpy {arguments} - | "
        f'"{FFMPEG}" -v error -i - -c:v ffv1 "{out}"'
    )
    root = EXAMPLES.parent
    subprocess.run(
        script, shell=True, check=True, cwd=root, env={**environment(), "PWD": str(root)}
    )
    frames = frames_of(out)
    assert len(frames) == 5
    assert (frames[0].width, frames[0].height) == (512, 384)
    # The picture is the sample's, only larger: reduced again it is the same.
    small = frames[2].reformat(128, 96, format="gray", interpolation="AREA").to_ndarray()
    source = frames_of(SAMPLE)[2].to_ndarray(format="gray")
    assert np.abs(small.astype(float) - source).mean() < 4


def test_a_file_to_a_file_with_its_sound(weights: Path, tmp_path: Path) -> None:
    source = tmp_path / "with sound.mkv"
    tone = ["-f", "lavfi", "-i", "sine=duration=1", "-c:v", "copy", "-c:a", "flac"]
    subprocess.run([FFMPEG, "-v", "error", "-i", SAMPLE, *tone, source], check=True)
    out = upscaled(source, weights, "frames=4", "chunk=2")
    with av.open(str(out)) as file:
        assert len(file.streams.audio) == 1
        assert file.streams.video[0].codec_context.colorspace == 1
    assert len(frames_of(out)) == 4
    assert not list(tmp_path.glob("*.part*"))


def test_a_file_to_a_file_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    command: list[str | Path] = [EXAMPLES / "vspipe_ffmpeg.sh", SAMPLE, out, "weights=none-such"]
    env = {**environment(), "FFMPEG": FFMPEG}
    done = subprocess.run(command, check=False, capture_output=True, env=env)
    assert done.returncode == 1
    assert b"BasicVSR: weights must be a file or one of" in done.stderr
    assert not list(tmp_path.iterdir())


@real_weights
def test_the_mpv_script_with_a_clip_as_mpv_gives_it() -> None:
    # The matrix in mpv's property; BT.2020, which does not follow from the size.
    source = opened(SAMPLE).std.RemoveFrameProps("_Matrix").std.SetFrameProps(_ColorSpace=9)
    asked: list[int] = []

    def forward_only(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if n >= len(source) or n < max(asked, default=0) - 32:
            raise ValueError(f"mpv has no frame {n}")
        asked.append(n)
        return source.get_frame(n)

    endless = source.std.BlankClip(length=2**31 - 1)
    video_in = endless.std.ModifyFrame(endless, forward_only)
    vs.clear_outputs()
    exec((EXAMPLES / "mpv.vpy").read_text(), {"video_in": video_in})
    assert not asked
    clip = vs.get_output(0).clip
    for n in range(12):
        frame = clip.get_frame(n)
        assert (frame.width, frame.height) == (512, 384)
        assert frame.props["_Matrix"] == 9
        # One frame ahead, and none twice.
        assert sorted(asked) == [*range(n + 2)]


@real_weights
def test_the_demo(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, EXAMPLES / "demo.py", "--folder", tmp_path], check=True, env=os.environ
    )
    assert len(frames_of(tmp_path / "sample_x4.mkv")) == 24
    picture = np.asarray(Image.open(tmp_path / "sample_x4.png"))
    assert picture.shape == (384, 1024, 3)
    bicubic, ours = (half.astype(float) for half in np.split(picture, 2, axis=1))
    # One picture twice, in the same colours, the right one sharper.
    assert np.abs(bicubic.mean((0, 1)) - ours.mean((0, 1))).max() < 2
    assert np.abs(np.diff(ours, axis=1)).mean() > 1.1 * np.abs(np.diff(bicubic, axis=1)).mean()


def test_the_sample_is_what_its_script_makes(tmp_path: Path) -> None:
    make_sample = runpy.run_path(str(EXAMPLES / "make_sample.py"))
    from skimage import data

    made = make_sample["frame"](Image.fromarray(data.astronaut()), 7)
    stored = frames_of(SAMPLE)[7].to_image()
    assert np.abs(np.asarray(made).astype(float) - np.asarray(stored)).mean() < 6
