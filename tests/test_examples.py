"""The examples, run as a user runs them, with the released weights on the sample clip."""

import os
import subprocess
import sys
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
import vapoursynth as vs
from conftest import environment
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SAMPLE = EXAMPLES / "sample.mp4"

pytestmark = pytest.mark.usefixtures("real_weights")


def frames_of(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as file:
        return list(file.decode(video=0))


def test_vspipe_into_ffmpeg_with_a_relative_path(tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    arguments = "-a source=examples/sample.mp4 -a frames=5"
    script = (
        f"vspipe -c y4m examples/basicvsr.vpy {arguments} - | "
        f'"{ffmpeg}" -v error -i - -c:v ffv1 "{out}"'
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


def test_a_file_to_a_file_with_its_sound(tmp_path: Path) -> None:
    source, out = tmp_path / "with sound.mkv", tmp_path / "out.mkv"
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    tone = ["-f", "lavfi", "-i", "sine=duration=1", "-c:v", "copy", "-c:a", "flac"]
    subprocess.run([ffmpeg, "-v", "error", "-i", SAMPLE, *tone, source], check=True)
    command = [EXAMPLES / "vspipe_ffmpeg.sh", source, out, "frames=4", "chunk=2"]
    subprocess.run(command, check=True, env={**environment(), "FFMPEG": ffmpeg})
    with av.open(str(out)) as file:
        assert len(file.streams.audio) == 1
        assert file.streams.video[0].codec_context.colorspace == 1
    assert len(frames_of(out)) == 4
    assert not list(tmp_path.glob("*.part*"))


def test_a_file_to_a_file_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    command = [EXAMPLES / "vspipe_ffmpeg.sh", SAMPLE, out, "weights=none-such"]
    env = {**environment(), "FFMPEG": imageio_ffmpeg.get_ffmpeg_exe()}
    done = subprocess.run(command, check=False, capture_output=True, env=env)
    assert done.returncode == 1
    assert b"BasicVSR: weights must be a file or one of" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_mpv_script_with_a_clip_as_mpv_gives_it() -> None:
    source = vs.core.bs.VideoSource(str(SAMPLE), cachemode=0)
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
    assert max(asked) < 12 + 8 + 4


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
    sys.path.insert(0, str(EXAMPLES))
    try:
        import make_sample
    finally:
        sys.path.pop(0)
    from skimage import data

    made = make_sample.frame(Image.fromarray(data.astronaut()), 7)
    stored = frames_of(SAMPLE)[7].to_image()
    assert np.abs(np.asarray(made).astype(float) - np.asarray(stored)).mean() < 6
