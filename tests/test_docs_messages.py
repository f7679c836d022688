"""The messages that the docs quote are those that the code has, word for word."""

import ast
import re

import pytest
import vapoursynth as vs
from docs_blocks import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
MESSAGES = re.findall(r"^\*\*`(.+)`\*\*$", PAGE.read_text(), re.MULTILINE)
MESSAGES += re.findall(
    r"^\| `([^`]+)` \|", (ROOT / "docs" / "many-machines.md").read_text(), re.MULTILINE
)
# VapourSynth's own, which are raised below.
OF_VAPOURSYNTH = ("No attribute with the name", "…: Function does not take")


def texts() -> set[str]:
    """Every text in the code; "…" stands for what is put into it."""
    found = set()
    for path in (ROOT / "vs_vsr").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    for path in (ROOT / "CMakeLists.txt", *(ROOT / "native").glob("*.c")):
        for literal in re.findall(r'(?:"(?:[^"\\]|\\.)*"[\s\\]*)+', path.read_text()):
            text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', literal)).replace('\\"', '"')
            found.add(re.sub(r"%\w", "…", text))
    return found


TEXTS = texts()


def in_one_text(message: str) -> bool:
    """Whether a text of the code has this; "…" stands for any words of it."""
    parts = message.split("…")
    pattern = re.compile(".*?".join(map(re.escape, parts)), re.DOTALL)
    return any(max(parts, key=len) in text and pattern.search(text) for text in TEXTS)


@pytest.mark.parametrize("message", [m for m in MESSAGES if not m.startswith(OF_VAPOURSYNTH)])
def test_each_message_is_in_the_code(message: str) -> None:
    if in_one_text(message):
        return
    # Put together of several: who says it, the rule, what to do.
    parts = [part.strip() for part in re.split(r"…|[:,.] |got | must be ", message)]
    missing = [part for part in parts if len(part) > 3 and not in_one_text(part)]
    assert len(parts) > 2 and missing == []


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 50


@pytest.mark.parametrize("message", [m for m in MESSAGES if m.startswith(OF_VAPOURSYNTH)])
def test_each_message_of_vapoursynth_is_raised(message: str) -> None:
    clip = vs.core.std.BlankClip(length=1)
    with pytest.raises((AttributeError, vs.Error)) as e:
        if "attribute" in message:
            vs.core.nosuch  # noqa: B018
        clip.vsr.BasicVSR(chunks=4)
    parts = message.replace("name vsr ", "name nosuch ").split("…")
    assert re.fullmatch(".*".join(map(re.escape, parts)), str(e.value))
