"""examples/mpv.vpy in a real mpv, which VSR_MPV names; .ci/mpv builds one."""

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs
from colours import film_of
from conftest import environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("real_weights"),
    pytest.mark.skipif(
        "VSR_MPV" not in os.environ,
        reason="VSR_MPV names no mpv that has VapourSynth: .ci/mpv builds one",
    ),
]

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "mpv.vpy"
FILTER = f"--vf=vapoursynth={SCRIPT}:buffered-frames="
WIDTH, HEIGHT, FRAMES = 64, 48, 30
core = vs.core


def drawn(format: int = vs.YUV420P8, length: int = FRAMES, **conversion: Any) -> vs.VideoNode:
    """A texture that moves, each frame by another step."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        out = f.copy()
        for p in range(3):
            wave = np.sin((x + n * n / 7) / (3 + p)) * np.cos((y - 2 * n) / (4 + p))
            np.asarray(out[p])[:] = (127.5 + 120 * wave).astype(np.uint8)
        return out

    clip = core.std.BlankClip(format=vs.RGB24, width=WIDTH, height=HEIGHT, length=length)
    return clip.std.ModifyFrame(clip, draw).resize.Bicubic(format=format, **conversion)


def pictures(path: Path, first: int = 0) -> list[bytes]:
    """What the script makes of a film from a frame on, where its length is known."""
    clip = core.bs.VideoSource(str(path), cachemode=0)[first:]
    matrix = int(clip.get_frame(0).props["_Matrix"])
    vs.clear_outputs()
    exec(SCRIPT.read_text(), {"video_in": clip.std.SetFrameProps(_ColorSpace=matrix)})
    output = vs.get_output(0)
    assert isinstance(output, vs.VideoOutputTuple)
    return planes(output.clip)


def planes(clip: vs.VideoNode) -> list[bytes]:
    return [b"".join(map(bytes, frame.readchunks())) for frame in clip.frames(close=True)]


def started(folder: Path, *arguments: str | Path) -> "subprocess.Popen[bytes]":
    """The player with the script."""
    library = Path(vs.__file__).parent / "libvsscript.so"
    # mpv 0.41 and older are linked with the library; newer ones open the one that is named.
    variables = {"LD_LIBRARY_PATH": str(library.parent), "VSSCRIPT_PATH": str(library)}
    # Memory that is read after it was freed holds no old values, so that it is noticed.
    variables["MALLOC_PERTURB_"] = "165"
    quiet = ("--no-config", "--really-quiet", f"--log-file={folder / 'mpv.log'}")
    return subprocess.Popen(
        [os.environ["VSR_MPV"], *quiet, f"{FILTER}16:concurrent-frames=2", *arguments],
        env=environment() | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finished(folder: Path, *arguments: str | Path) -> str:
    """What mpv logged while it played to the end, after which nothing is on standard output."""
    process = started(folder, *arguments)
    try:
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    log = (folder / "mpv.log").read_text()
    assert (process.returncode, out, errors) == (0, b"", b""), log
    return log


class Player:
    """An mpv that is told what to do through its socket."""

    def __init__(self, process: "subprocess.Popen[bytes]", path: Path) -> None:
        self.process = process
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        while not path.exists() and process.poll() is None:
            time.sleep(0.02)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rw")
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def __call__(self, *command: Any) -> Any:
        """Give a command, and what mpv answers."""
        self._lines.write(json.dumps({"command": command}) + "\n")
        self._lines.flush()
        while True:
            answer = self._read()
            if "event" not in answer:
                assert answer["error"] == "success", (command, answer)
                return answer.get("data")
            self.events.append(answer)

    def wait_for(self, event: str) -> None:
        """Go on where the event has come since this was asked last."""
        while event not in [e["event"] for e in self.events]:
            self.events.append(self._read())
        self.events.clear()

    def _read(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._lines.readline())
        return answer

    def megabytes(self) -> int:
        """Resident memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") >> 20


@contextmanager
def playing(folder: Path, *arguments: str | Path) -> Iterator[Player]:
    path = folder / "socket"
    process = started(folder, f"--input-ipc-server={path}", "--vo=null", *arguments)
    player = None
    try:
        player = Player(process, path)
        yield player
        out, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
        if player:
            player.close()
    log = (folder / "mpv.log").read_text()
    assert (process.returncode, out, errors) == (0, b"", b""), log
    assert not faults(log), log


def faults(log: str) -> list[str]:
    """Errors and fatal errors, which mpv marks so."""
    return [line for line in log.splitlines() if "][e][" in line or "][f][" in line]


@pytest.mark.parametrize(
    ("format", "matrix", "tags"),
    [
        (vs.YUV420P8, 6, {"color_range": 1}),
        (vs.YUV420P8, 1, {"color_range": 2, "chroma_sample_location": 1}),
        (vs.YUV420P10, 9, {"color_range": 1, "color_primaries": 9, "color_trc": 16}),
    ],
    ids=["limited", "full", "hdr"],
)
def test_the_pictures_are_those_of_a_clip_of_known_length(
    format: int, matrix: int, tags: dict[str, int], tmp_path: Path
) -> None:
    clip = drawn(format, length=12, matrix=matrix, range=tags["color_range"] - 1)
    film = film_of(tmp_path / "in.mkv", clip, colorspace=matrix, **tags)
    out = tmp_path / "out.mkv"
    assert not faults(finished(tmp_path, film, f"--o={out}", "--ovc=ffv1"))
    made = core.bs.VideoSource(str(out), cachemode=0)
    assert (made.width, made.height, made.format.id) == (4 * WIDTH, 4 * HEIGHT, format)
    # All of them, the last one too.
    assert planes(made) == pictures(film)
    assert made.get_frame(0).props["_Matrix"] == matrix


def test_a_film_of_one_frame(tmp_path: Path) -> None:
    film = film_of(tmp_path / "in.mkv", drawn(length=1, matrix=6), colorspace=6, color_range=1)
    out = tmp_path / "out.mkv"
    assert not faults(finished(tmp_path, film, f"--o={out}", "--ovc=ffv1"))
    assert planes(core.bs.VideoSource(str(out), cachemode=0)) == pictures(film)


def test_frames_that_mpv_has_thrown_away(tmp_path: Path) -> None:
    film = film_of(tmp_path / "in.mkv", drawn(matrix=6), colorspace=6, color_range=1)
    # It keeps one, and AnimeSR looks one ahead.
    log = finished(tmp_path, film, "--vo=null", f"{FILTER}1:concurrent-frames=1")
    assert any("Try increasing the buffered-frames suboption." in line for line in faults(log))


def test_playing_from_the_middle(tmp_path: Path) -> None:
    film = film_of(tmp_path / "in.mkv", drawn(matrix=6), colorspace=6, color_range=1)

    def played(how: str) -> tuple[int, list[bytes]]:
        """The first frame that is shown, and all pictures."""
        out = tmp_path / f"{how}.mkv"
        log = finished(
            tmp_path, film, "--start=0.8", f"--hr-seek={how}", f"--o={out}", "--ovc=ffv1"
        )
        (start,) = re.findall(r"playback restart complete @ ([0-9.]+),", log)
        return round(25 * float(start)), planes(core.bs.VideoSource(str(out), cachemode=0))

    keyframe, shown = played("no")
    assert 0 < keyframe < 20
    assert shown == pictures(film, keyframe)
    # An exact seek makes every picture from the keyframe on, and shows those after it.
    assert played("yes") == (20, shown[20 - keyframe :])


def test_seeks_pauses_speeds_and_another_film(tmp_path: Path) -> None:
    for name, length in (("a.mkv", 75), ("b.mkv", 50)):
        film_of(tmp_path / name, drawn(length=length, matrix=6), colorspace=6, color_range=1)
    with playing(tmp_path, tmp_path / "a.mkv", tmp_path / "b.mkv", "--keep-open=always") as mpv:
        mpv.wait_for("playback-restart")
        sizes = []
        for n in range(30):
            mpv("set_property", "pause", n % 3 == 0)
            mpv("set_property", "speed", (1, 0.5, 4)[n % 3])
            target = (7 * n % 29) / 10
            mpv("seek", target, "absolute+exact" if n % 2 else "absolute+keyframes")
            mpv.wait_for("playback-restart")
            if n % 6 == 3:
                # Paused, it stands still at the frame that it was told.
                assert mpv("get_property", "time-pos") == pytest.approx(target, abs=0.041)
            assert mpv("get_property", "video-out-params/w") == 4 * WIDTH
            sizes.append(mpv.megabytes())
        # What thirty loads of the script leave behind.
        assert max(sizes[20:]) - max(sizes[5:10]) < 20, sizes
        mpv("set_property", "speed", 1)
        mpv("playlist-next")
        mpv.wait_for("playback-restart")
        assert mpv("get_property", "filename") == "b.mkv"
        mpv("set_property", "pause", False)
        mpv("quit")
