"""A process that ends with its standard input, and leaves that to no process that it starts."""

import subprocess
import sys

SCRIPT = """
import subprocess, sys, time
from vs_vsr.job.lifeline import end_with_input
end_with_input()
look = "import sys; sys.exit(len(sys.stdin.read()))"
subprocess.run([sys.executable, "-c", look], check=True, timeout=20)
print("working", flush=True)
time.sleep(60)
"""


def test_it_ends_with_its_input_and_what_it_starts_has_an_empty_one() -> None:
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        # The input is open all the while: a child that read from it would wait.
        assert process.stdout.readline() == b"working\n"
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(20) == 130
