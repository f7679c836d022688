"""How commands answer: a reader that has seen enough is no fault."""

import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's pipes")
def test_a_reader_that_goes_ends_the_command_quietly() -> None:
    code = (
        "import sys; from vs_vsr.cli.answers import tell\nfor _ in range(100_000): tell('x' * 80)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"x" * 80 + b"\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's pipes")
def test_a_list_through_head() -> None:
    # Short enough for the pipe: only the flush at the end finds out that nobody reads.
    command = f'"{sys.executable}" -m vs_vsr weights list VRT | head -1 >/dev/null'
    done = subprocess.run(command, shell=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    command = f'"{sys.executable}" -m vs_vsr weights list | true'
    assert subprocess.run(command, shell=True, capture_output=True).stderr == b""
