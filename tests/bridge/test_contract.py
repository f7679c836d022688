"""What C and Python owe each other when the other side fails: interrupts, reloads, no memory."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from children import HEAD, python, run, stand_in_environment

MAKE = (
    "clip = core.std.BlankClip(format=vs.RGBS, width=8, height=8, length=40)\n"
    "out = core.vsr.BasicVSR(clip, weights='count')\n"
)

FORGET = {
    "reload": "import importlib; importlib.reload(sys.modules['vs_vsr.plugin.bridge'])",
    "reload of all": "import importlib\nfor name in ours: importlib.reload(sys.modules[name])",
    "purge": "for name in ours: del sys.modules[name]",
}


@pytest.mark.parametrize("forget", FORGET.values(), ids=FORGET)
def test_a_package_that_is_loaded_anew(forget: str) -> None:
    done = python(
        f"import gc, sys\n{MAKE}out.get_frame(0)\n"
        # The stand-in for the filters stays, as it would not be found again.
        "kept = 'vs_vsr.plugin.worker'\n"
        "ours = [n for n in sys.modules if n.startswith('vs_vsr') and n != kept]\n"
        f"{forget}\ngc.collect()\n"
        # What lived goes on, in the middle of its segment; what is new begins.
        "print(out.get_frame(20)[1][0, 0])\n"
        "new = core.vsr.BasicVSR(clip, weights='count')\n"
        "print(new.get_frame(20)[1][0, 0], out.get_frame(21)[1][0, 0])\n"
        "try: core.vsr.BasicVSR(clip, weights='refuse')\n"
        "except vs.Error as e: print(e)\n"
        "del out, new\ngc.collect()\n"
        "from vs_vsr.plugin import bridge\nprint(len(bridge._workers))\n"
    )
    assert done.stdout.splitlines() == [
        "5.0",
        "5.0 6.0",
        "BasicVSR: weights must be kind, got ''. Ask again.",
        "0",
    ], done.stderr
    assert (done.returncode, done.stderr) == (0, "")


SILENT = """
from vs_vsr.plugin import bridge
core.vsr.BasicVSR(clip)
silent = {kind}(lambda *a: None)
bridge._callbacks.{name} = silent
try:
    core.vsr.BasicVSR(clip).get_frame(20)
except vs.Error as e:
    print(e)
"""


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("create", "bridge._Create", "creating the filter was interrupted. Create it again."),
        ("next", "bridge._Next", "planning chunk 5 was interrupted. Ask for its frames again."),
        ("run", "bridge._Run", "computing frames 16 to 19 was interrupted. Ask for them again."),
    ],
)
def test_a_callback_that_does_not_answer(name: str, kind: str, message: str) -> None:
    """As when an interrupt ends it before its first instruction."""
    done = python(MAKE + SILENT.format(name=name, kind=kind))
    assert done.stdout == f"BasicVSR: {message}\n", done.stderr
    assert done.returncode == 0


def test_a_filter_that_python_does_not_know() -> None:
    done = python(
        f"{MAKE}from vs_vsr.plugin import bridge\nout.get_frame(0)\nbridge._workers.clear()\n"
        "try: out.get_frame(20)\nexcept vs.Error as e: print(e)\n"
    )
    assert done.stdout == ("bridge: the filter is no longer known. Create it again.\n")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("'the folder \\udcff'", "BasicVSR: ValueError: the folder \\udcff"),
        ("''", "BasicVSR: ValueError: no reason was given"),
        ("'a\\0b'", "BasicVSR: ValueError: a\\0b"),
    ],
)
def test_an_error_text_that_cannot_be_passed_on_as_it_is(text: str, message: str) -> None:
    raising = f"raise ValueError({text})"
    done = python(
        "import stand_in_filters as s\n"
        f"def fail(*a, **k): {raising}\n"
        f"{MAKE}s.Worker.next = fail\n"
        "try: out.get_frame(0)\nexcept vs.Error as e: print(e)\n"
        "s.create = fail\n"
        "try: core.vsr.BasicVSR(clip)\nexcept vs.Error as e: print(e)\n"
    )
    assert done.stdout.splitlines() == [message, message], done.stderr
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("where", "what", "message"),
    [
        ("attach", "KeyboardInterrupt", "creating the filter was interrupted. Create it again."),
        ("attach", "OSError('no')", "<class 'OSError'>: no"),
        ("import", "KeyboardInterrupt", "creating the filter was interrupted. Create it again."),
    ],
)
def test_a_package_that_fails_when_the_plugin_asks_for_it(
    where: str, what: str, message: str
) -> None:
    failing = {
        "attach": "from vs_vsr.plugin import bridge\nbridge.attach = fail\n",
        "import": "import builtins\nbuiltins.__import__ = fail\n",
    }
    done = python(
        f"def fail(*a, **k): raise {what}\n"
        "core.std.BlankClip\nclip = core.std.BlankClip(format=vs.RGBS, width=8, height=8)\n"
        f"make = core.vsr.BasicVSR\n{failing[where]}"
        "try: make(clip)\nexcept vs.Error as e: print(e)\n"
    )
    assert done.stdout == f"BasicVSR: {message}\n", done.stderr


def test_an_import_error_whose_text_is_no_utf_8() -> None:
    # Cut at 512 bytes, in the middle of a character of three.
    done = python(
        "import sys\nsys.modules['vs_vsr'] = None\n"
        "class Finder:\n"
        "    def find_spec(self, name, *a):\n"
        "        if name.startswith('vs_vsr'): raise ImportError('\\udcff' + 'あ' * 600)\n"
        "del sys.modules['vs_vsr']\nsys.meta_path.insert(0, Finder())\n"
        "try: core.vsr.BasicVSR(core.std.BlankClip(format=vs.RGBS, width=8, height=8))\n"
        "except vs.Error as e: print(str(e).encode('ascii', 'backslashreplace').decode())\n"
    )
    assert "vs_vsr: \\udcff\\u3042\\u3042" in done.stdout
    assert "\\u3042. Run the script in a Python where vs-vsr" in done.stdout
    assert done.returncode == 0


INTERRUPTED = f"""
import gc, signal, sys
{MAKE}
made = interrupts = ready = 0
while True:
    try:
        ready = ready or print("ready", flush=True) or 1
        while made < 1000 or interrupts < 100:
            try:
                core.vsr.BasicVSR(clip)
                made += 1
            except vs.Error:
                pass
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        break
    except KeyboardInterrupt:
        interrupts += 1
del out
gc.collect()
from vs_vsr.plugin import bridge
print(len(bridge._workers), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_ctrl_c_a_hundred_times_while_filters_are_made(tmp_path: Path) -> None:
    # One that comes between the handler and the next `try` ends the program, as it should: then
    # it is started again.
    for attempt in range(10):
        log = tmp_path / f"errors_{attempt}"
        status, output = interrupted_until_it_ends(log)
        if status != -signal.SIGINT:
            break
    assert (status, output.split()[-1:]) == (0, [b"0"]), log.read_text()[-2000:]


def interrupted_until_it_ends(log: Path) -> tuple[int, bytes]:
    # Python reports each interrupt that ends a callback: more than a pipe would hold.
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", HEAD + INTERRUPTED],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=stand_in_environment(),
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            end = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < end:
                os.kill(process.pid, signal.SIGINT)
                time.sleep(0.01)
        finally:
            process.kill()
        return process.wait(), process.stdout.read()


# Fails the allocation of this number that the plugin makes, and says that it did.
NO_MEMORY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
static int failing(void *caller) {
    static _Thread_local int busy;
    static int left = -1;
    Dl_info info;
    if (busy) return 0;
    busy = 1;
    int ours = dladdr(caller, &info) && strstr(info.dli_fname, "libvsr");
    if (ours && left < 0) left = atoi(getenv("FAIL_AT"));
    int fail = ours && left-- == 0;
    if (fail) (void)!write(2, "no memory\n", 10);
    busy = 0;
    return fail;
}
void *malloc(size_t n) { return failing(__builtin_return_address(0)) ? 0 : __libc_malloc(n); }
void *calloc(size_t n, size_t s) {
    return failing(__builtin_return_address(0)) ? 0 : __libc_calloc(n, s);
}
"""

SMALL = """
clip = core.std.BlankClip(format=vs.{format}, width=8, height=8, length=9)
try:
    out = core.vsr.BasicVSR(clip, weights="count", prefetch=1)
    del clip
    for n in (0, 8): out.get_frame(n)
    print("made")
except vs.Error as e:
    print(e)
out = None
from vs_vsr.plugin import bridge
print(len(bridge._workers))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is glibc's")
@pytest.mark.parametrize("format", ["RGBS", "YUV444P8"])
def test_every_allocation_may_fail(tmp_path: Path, format: str) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler here to build an allocator that fails")
    if "LD_PRELOAD" in os.environ:
        pytest.skip("another allocator is preloaded already")
    source, library = tmp_path / "failing.c", tmp_path / "failing.so"
    source.write_text(NO_MEMORY)
    command: list[str | Path] = [compiler, "-O1", "-shared", "-fPIC", source, "-o", library, "-ldl"]
    subprocess.run(command, check=True)
    answers = []
    # Until there are no more allocations to fail.
    for number in range(60):
        done = subprocess.run(
            [sys.executable, "-c", HEAD + SMALL.format(format=format)],
            capture_output=True,
            text=True,
            timeout=60,
            env={**stand_in_environment(), "LD_PRELOAD": str(library), "FAIL_AT": str(number)},
        )
        answer, workers = done.stdout.splitlines()
        assert (done.returncode, workers) == (0, "0"), done.stderr
        if "no memory" not in done.stderr:
            break
        answers.append(answer)
    else:
        pytest.fail("the allocations never end")
    assert answer == "made"
    sentences = {text for text in answers if text != "made"}
    # A prefetch that fails is no error: its frames come later. All other failures are reported.
    assert len([text for text in answers if text != "made"]) > 5
    assert all("no memory is left for" in text for text in sentences), sentences


def test_ctrl_c_at_creation() -> None:
    done = python(
        f"{MAKE}try: core.vsr.BasicVSR(clip, weights='interrupt')\nexcept vs.Error as e: print(e)\n"
    )
    assert done.stdout == "BasicVSR: creating the filter was interrupted. Create it again.\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_while_a_filter_is_destroyed_is_not_lost() -> None:
    done = python(
        f"{MAKE}from vs_vsr.plugin import bridge\n"
        "calls = []\n"
        "def destroy(instance, gone):\n"
        "    calls.append(instance)\n"
        "    if len(calls) < 4: raise KeyboardInterrupt\n"
        "    bridge._workers.pop(instance)\n"
        "    gone.contents.value = 1\n"
        "destroy = bridge._Destroy(destroy)\n"
        "bridge._callbacks.destroy = destroy\n"
        "new = core.vsr.BasicVSR(clip)\n"
        "try:\n    del new\n    for _ in range(100): pass\n"
        "except KeyboardInterrupt: print('interrupted')\n"
        "print(len(calls), len(set(calls)), len(bridge._workers))\n"
    )
    assert done.stdout == "interrupted\n4 1 1\n", done.stderr
    assert done.returncode == 0


@pytest.mark.slow
def test_no_thread_for_the_worker() -> None:
    """A creation fails where the system has no thread left, and nothing is left of it."""
    done = run(
        sys.executable,
        "-c",
        HEAD
        + "import threading\n"
        + "real = threading.Thread.start\n"
        + 'def none(self): raise RuntimeError("can\'t start new thread")\n'
        + "import sys\n"
        + "import vs_vsr.plugin.steps\n"
        + "import torch\nfrom vs_vsr.transfer.host import HostTransfer\n"
        + "class Runner: pass\n"
        + "arguments = 'BasicVSR', Runner(), torch.device('cpu'), HostTransfer()\n"
        + "threading.Thread.start = none\n"
        + "try: vs_vsr.plugin.steps.FilterWorker(*arguments)\n"
        + "except RuntimeError as e: print(e)\n"
        + "threading.Thread.start = real\n"
        + "vs_vsr.plugin.steps.FilterWorker(*arguments)\n"
        + "print(len(vs_vsr.plugin.steps._threads))\n",
    )
    assert done.stdout == "can't start new thread\n1\n", done.stderr
