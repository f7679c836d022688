"""The documentation as a site: it is built without a warning, and loads nothing from elsewhere."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs_blocks import ROOT
from test_layout import ROOMS


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_is_whole(tmp_path: Path) -> None:
    if not all(map(importlib.util.find_spec, ("material", "mkdocstrings"))):
        pytest.skip('the site is not built: pip install "vs-vsr[docs]"')
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(
        [*command, "--site-dir", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    pages = {str(page.relative_to(tmp_path)): page.read_text() for page in tmp_path.rglob("*.html")}
    assert {"index.html", "contributing.html", "api/package.html"} < set(pages)
    for name, page in pages.items():
        loaded = re.findall(r'<(?:script|img|iframe|link)\b[^>]*?(?:src|href)="?([^" >]+)', page)
        # On the page for a missing file all start at the root.
        assert not [x for x in loaded if re.match(r"(\w+:)?//", x)], name
        text = re.sub(r"<(pre|code|script)\b.*?</\1>", "", page, flags=re.DOTALL)
        # Tables, fences, lists and links that were not understood.
        assert not re.search(r"\|---|```|<p>- |\n- |\]\(", text), name
    for drawing in (ROOT / "docs" / "drawings").glob("*.svg"):
        assert (tmp_path / "drawings" / drawing.name).exists()


def test_the_drawing_of_the_rooms_has_all_of_them() -> None:
    drawing = (ROOT / "docs" / "drawings" / "rooms.svg").read_text()
    drawn = re.findall(r'y="(\d+)" class="code"[^>]*>(\w+)<', drawing)
    rows = {room: int(y) for y, room in drawn}
    assert set(rows) == set(ROOMS)
    # Each imports from rooms that are drawn below it, or beside it.
    for room, others in ROOMS.items():
        assert all(rows[other] >= rows[room] for other in others), room
