"""Tries an installed wheel with small networks of random weights, on the processor.

    python .ci/smoke.py

The plugin must be loaded without an import of vs_vsr, its filter must make a picture, and the
command a file of a file. Nothing is fetched.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import torch
import vapoursynth as vs

SETTINGS = {"device": "cpu", "precision": "fp32", "chunk": 2, "segment": 4}


def make_weights(path: Path) -> None:
    """Write a small BasicVSR, as its authors' files are laid out."""
    from vs_vsr.models.basicvsr import BasicVSR

    torch.manual_seed(0)
    state = BasicVSR(8, 1).state_dict()
    torch.save({"params": {k.removeprefix("upsampler."): v for k, v in state.items()}}, path)


def make_film(path: Path) -> None:
    """Write three grey pictures of 64x48."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in (60, 120, 180):
            picture = np.full((48, 64, 3), level, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())


def main() -> int:
    """Try it; an assertion or the command's own message says what is wrong."""
    # Before vs_vsr is imported, as in a user's script.
    version = vs.core.vsr.Version()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights, film, out = folder / "small.pth", folder / "in.mkv", folder / "out.mkv"
        make_weights(weights)
        clip = vs.core.std.BlankClip(None, 64, 48, vs.RGBS, 3, color=[0.2, 0.4, 0.6])
        clip = vs.core.vsr.BasicVSR(clip, str(weights), **SETTINGS)
        pixels = np.asarray(clip.get_frame(2)[1])
        assert pixels.shape == (192, 256) and 0 < pixels.mean() < 1, pixels

        make_film(film)
        words = [f"--{key}={value}" for key, value in SETTINGS.items()]
        command = [sys.executable, "-m", "vs_vsr", "upscale", str(film), str(out)]
        command += ["--weights", str(weights), *words, "--end-with-input"]
        # With an input that stays open, as vs-vsr serve starts it.
        with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=folder) as process:
            assert process.wait(600) == 0
        with av.open(str(out)) as file:
            sizes = [(picture.width, picture.height) for picture in file.decode(video=0)]
        assert sizes == [(256, 192)] * 3, sizes
    sys.stderr.write(f"smoke: the plugin {version} and the command work on {sys.platform}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
