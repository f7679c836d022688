"""Ends that come early: interrupts, closed pipes, scripts and cores that end while work goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import vapoursynth as vs
from children import HEAD, python, run, start

if sys.platform == "win32":
    pytest.skip("signals and pipes as POSIX has them", allow_module_level=True)

# The program itself: the command of that name is a script that starts it and has another status.
VSPIPE = Path(vs.__file__).with_name("vspipe")

CLIP = (
    "clip = core.std.BlankClip(format=vs.RGBS, width=64, height=48, length=2000)\n"
    "clip = core.vsr.BasicVSR(clip, chunk=8, weights={weights!r}, prefetch=1)\n"
)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)


def interrupted(process: subprocess.Popen[bytes], working: Path) -> tuple[bytes, bytes]:
    """Interrupt a process in the middle of a chunk; what it wrote."""
    wait_for(working, process)
    # As a terminal does it: to the command and to all that it started.
    os.killpg(process.pid, signal.SIGINT)
    try:
        return process.communicate(timeout=20)
    finally:
        process.kill()


def test_ctrl_c_in_vspipe(tmp_path: Path) -> None:
    script, working = tmp_path / "script.vpy", tmp_path / "working"
    script.write_text(HEAD + CLIP.format(weights=f"sleep {working}") + "clip.set_output()\n")
    process = start(VSPIPE, script, "/dev/null")
    _, errors = interrupted(process, working)
    assert process.returncode == 1
    assert b"Traceback" not in errors


@pytest.mark.parametrize("loop", ["clip.get_frame(8 * n)", "clip.output(open('/dev/null', 'wb'))"])
def test_ctrl_c_in_python(tmp_path: Path, loop: str) -> None:
    working = tmp_path / "working"
    script = (
        HEAD
        + CLIP.format(weights=f"sleep {working}")
        + f"try:\n    for n in range(200): {loop}\n"
        + "except KeyboardInterrupt:\n    print('stopped')\n"
    )
    process = start(sys.executable, "-c", script)
    output, errors = interrupted(process, working)
    assert (process.returncode, output, errors) == (0, b"stopped\n", b"")


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    script = tmp_path / "script.vpy"
    script.write_text(
        HEAD + CLIP.format(weights="") + "clip.resize.Bicubic(format=vs.YUV420P8, "
        "matrix_s='709').set_output()\n"
    )
    with start(VSPIPE, "-c", "y4m", script, "-") as process:
        assert process.stdout is not None
        assert process.stdout.read(9) == b"YUV4MPEG2"
        process.stdout.close()
        assert process.wait(20) in (1, -signal.SIGPIPE)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("sys.exit(0)", 0),
        ("raise RuntimeError('the script died')", 1),
        ("import builtins; builtins.kept = clip, futures, core", 0),
        ("del clip, futures", 0),
    ],
)
def test_a_script_that_ends_with_requests_in_flight(end: str, status: int) -> None:
    done = python(
        "import sys\ncore.num_threads = 4\n"
        + CLIP.format(weights="count")
        + "futures = [clip.get_frame_async(n) for n in range(200)]\nfutures[10].result()\n"
        + end
    )
    assert done.returncode == status
    assert done.stdout == ""
    assert ("the script died" in done.stderr) == bool(status)
    assert "Fatal" not in done.stderr


CORES = """
import threading, time

class Policy(vs.EnvironmentPolicy):
    def __init__(self): self.current = threading.local()
    def on_policy_registered(self, api): self.api = api
    def get_current_environment(self): return getattr(self.current, "environment", None)
    def set_environment(self, environment):
        old, self.current.environment = self.get_current_environment(), environment
        return old

policy = Policy()
vs.register_policy(policy)

def work(wait):
    environment = policy.api.create_environment()
    with policy.api.wrap_environment(environment).use():
        core = vs.core.core
        core.num_threads = 4
        blank = core.std.BlankClip(format=vs.RGBS, width=64, height=48, length=2000)
        clip = core.vsr.BasicVSR(blank, chunk=8, weights="count", prefetch=1)
        futures = [clip.get_frame_async(n) for n in range(64)]
        value = clip.get_frame(21)[1][0, 0]
        time.sleep(wait)
        if wait == 0:
            [future.result() for future in futures]
    del clip, blank, core
    policy.api.destroy_environment(environment)
    return value
"""


def test_cores_destroyed_with_requests_in_flight() -> None:
    done = python(
        CORES + "import sys\nprint([work(wait) for wait in (0.01, 0.001, 0.03)])\n"
        "from vs_vsr.plugin import bridge\nprint(len(bridge._workers))\n"
        "print(open('/proc/self/maps').read() if sys.platform == 'linux' else 'libvsr')\n"
    )
    values, workers, maps = done.stdout.split("\n", 2)
    assert (values, workers) == ("[22.0, 22.0, 22.0]", "0"), done.stderr
    # The last core has released its plugins, but what this plugin has given to Python stays valid.
    assert "libvsr" in maps
    assert done.returncode == 0


def test_cores_side_by_side() -> None:
    done = python(
        CORES
        + "values = []\n"
        + "threads = [threading.Thread(target=lambda: values.append(work(0))) for _ in range(4)]\n"
        + "for thread in threads: thread.start()\n"
        + "for thread in threads: thread.join()\n"
        + "print(values)\n"
    )
    assert done.stdout == "[22.0, 22.0, 22.0, 22.0]\n", done.stderr
    assert done.returncode == 0


def test_a_failing_chunk_in_vspipe(tmp_path: Path) -> None:
    script = tmp_path / "script.vpy"
    script.write_text(HEAD + CLIP.format(weights="run 1") + "clip.set_output()\n")
    done = run("vspipe", script, "/dev/null")
    assert done.returncode == 1
    assert "frame 8 with error: BasicVSR: ValueError: the network exploded" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_message_goes_to_the_log(tmp_path: Path) -> None:
    script = tmp_path / "script.vpy"
    script.write_text(HEAD + CLIP.format(weights="log") + "clip[:9].set_output()\n")
    done = run("vspipe", script, "/dev/null")
    assert done.stderr.count("the stand-in is here") == 1
    assert done.stdout == ""
