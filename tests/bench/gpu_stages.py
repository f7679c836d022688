"""Stages that end in every way; each has a row before."""

import os
import signal
import subprocess
import sys
import time

from vs_vsr.bench.gpu.record import Record
from vs_vsr.bench.gpu.setting import Setting


def done(setting: Setting, record: Record) -> None:
    record.add("first", device=setting.device)
    with record.part("bad part"):
        missing()
    record.add("after it", left=record.left_s() > 0)


def missing() -> None:
    raise LookupError("no such thing\nand more")


def raises(setting: Setting, record: Record) -> None:
    record.add("first")
    raise ValueError("the stage is wrong")


def crashes(setting: Setting, record: Record) -> None:
    record.add("first")
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(setting: Setting, record: Record) -> None:
    # A separate process, as vspipe is: it must end too.
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    record.add("first", child=child.pid)
    time.sleep(600)
