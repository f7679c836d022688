"""The code blocks of the docs, and which of their commands cannot run in a test."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

__all__ = ["CANNOT_RUN", "PAGES", "ROOT", "Block", "blocks", "commands", "runs"]

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("examples/*.md"))]
PAGES += sorted(ROOT.glob("docs/**/*.md"))

# Commands that no test runs as they stand, by how they begin, and why.
CANNOT_RUN = {
    r"python3 -m venv |\. \S+/activate$|pip install ": "changes the environment of the tests",
    r"vs-vsr serve": "does not end: tests/serve and tests/cli/test_serve_command.py run it",
    r"ssh ": "needs another machine",
    r"podman ": "needs podman",
    r"vsstubs$": "tests/test_stubs.py makes the stub elsewhere",
    r"ray |export RAY_|vs-vsr upscale .* --cluster": "needs a cluster: tests/job/test_cluster.py",
    r"mpv |.*\| mpv |export (VSSCRIPT_PATH|LD_LIBRARY_PATH)=": "needs mpv built with VapourSynth",
    r"python -m vs_vsr\.bench": "takes minutes: tests/bench runs them with tiny sizes",
    r"vs-vsr weights fetch ": "needs a network: tests/weights/test_fetch.py",
    r"vs-vsr doctor": "tests/cli/test_doctor.py runs it",
}


@dataclass(frozen=True)
class Block:
    """A block of code on a page."""

    page: str
    line: int
    language: str
    """As the fence names it; an indented block has commands, "sh"."""
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """All blocks of the docs in these languages; in any, if none is named."""
    return [
        block
        for page in PAGES
        for block in _of(page)
        if block.language in languages or not languages
    ]


def _of(page: Path) -> Iterator[Block]:
    for token in MarkdownIt().parse(page.read_text()):
        if token.type in ("fence", "code_block"):
            language = token.info if token.type == "fence" else "sh"
            first = (token.map or [0])[0] + 1
            yield Block(str(page.relative_to(ROOT)), first, language, token.content)


def commands(block: Block) -> list[str]:
    """The commands of a block: of a console those after its prompts; no comments, no output."""
    lines = block.text.replace("\\\n", "").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [line for line in map(str.strip, lines) if line and not line.startswith("#")]


def runs(command: str) -> bool:
    """Whether a test runs the command."""
    return not any(re.match(start, command) for start in CANNOT_RUN)
