"""Upscales a clip through vspipe and ffmpeg, and makes a side-by-side picture of one frame.

    python examples/demo.py [CLIP] [--folder demo]

CLIP is any video; by default the sample. The result is FOLDER/<name>_x4.mkv, the picture
FOLDER/<name>_x4.png: bicubic on the left, BasicVSR on the right.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import vapoursynth as vs
from PIL import Image

HERE = Path(__file__).resolve().parent
core = vs.core


def as_picture(clip: vs.VideoNode, n: int) -> Image.Image:
    """Frame n of a clip as players show it."""
    matrix = vs.MATRIX_BT709 if clip.height > 576 or clip.width >= 1280 else vs.MATRIX_ST170_M
    guess = {} if clip.get_frame(n).props.get("_Matrix", 2) != 2 else {"matrix_in": matrix}
    frame = clip.resize.Bicubic(format=vs.RGB24, **guess).get_frame(n)
    return Image.fromarray(np.dstack([np.asarray(frame[i]) for i in range(3)]))


def side_by_side(source: Path, result: Path, picture: Path) -> None:
    """Write the middle frame twice: the source by bicubic, and the result."""
    low = core.bs.VideoSource(str(source), cachemode=0)
    high = core.bs.VideoSource(str(result), cachemode=0)
    n = len(low) // 2
    bicubic = as_picture(low, n).resize((high.width, high.height), Image.Resampling.BICUBIC)
    both = Image.new("RGB", (2 * high.width, high.height))
    both.paste(bicubic, (0, 0))
    both.paste(as_picture(high, n), (high.width, 0))
    both.save(picture)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser()
    parser.add_argument("clip", type=Path, nargs="?", default=HERE / "sample.mp4")
    parser.add_argument("--folder", type=Path, default=Path("demo"))
    args = parser.parse_args()
    source = args.clip.resolve()
    if not source.is_file():
        sys.exit(f"demo: clip must be a video file, got {args.clip}. Check the path.")
    args.folder.mkdir(parents=True, exist_ok=True)
    result = args.folder.resolve() / f"{source.stem}_x4.mkv"
    # vspipe is found beside this Python, ffmpeg in its wheel.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path, "FFMPEG": imageio_ffmpeg.get_ffmpeg_exe()}
    command = ["sh", str(HERE / "vspipe_ffmpeg.sh"), str(source), str(result)]
    subprocess.run(command, check=True, env=environment)
    side_by_side(source, result, result.with_suffix(".png"))
    sys.stderr.write(f"{result}\n{result.with_suffix('.png')}  (bicubic | BasicVSR)\n")


if __name__ == "__main__":
    main()
