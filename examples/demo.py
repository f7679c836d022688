"""Upscales a clip with `vs-vsr upscale`, and makes a side-by-side picture of its middle.

    python examples/demo.py [CLIP] [--folder demo]

CLIP is any video; by default the sample. The result is FOLDER/<name>_x4.mkv, the picture
FOLDER/<name>_x4.png: enlarged by interpolation on the left, BasicVSR on the right.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import av

SAMPLE = Path(__file__).resolve().with_name("sample.mp4")


def middle(clip: Path) -> float:
    """The middle of a file in seconds; 0 where it does not say how long it is."""
    try:
        with av.open(str(clip)) as file:
            return (file.duration or 0) / av.time_base / 2
    except av.FFmpegError:
        return 0.0  # the command says what is wrong with it


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser()
    parser.add_argument("clip", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--folder", type=Path, default=Path("demo"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    out = args.folder / f"{args.clip.stem}_x4.mkv"
    command = ["upscale", str(args.clip), str(out), "--force"]
    for options in (["--preview", f"{middle(args.clip):.3f}"], []):
        words = [*command, *options]
        sys.stderr.write(f"{shlex.join(['vs-vsr', *words])}\n")
        status = subprocess.run([sys.executable, "-m", "vs_vsr", *words], check=False).returncode
        if status:
            return status
    picture = out.with_suffix(".png")
    # Named after its time, which is the middle's or a little earlier.
    made = args.folder.glob(f"{out.stem}.preview.*.png")
    max(made, key=lambda path: path.stat().st_mtime_ns).replace(picture)
    sys.stderr.write(f"{picture}  (interpolated | BasicVSR)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
