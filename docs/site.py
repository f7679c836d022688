"""Brings to the site what is not in docs/: README.md as its first page, others, and linked files.

Pages link to each other by their places in the repository, so that links work in a git host's view
of it. Here these become places on the site.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Pages outside docs/, and their places on the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/mpv.md": "mpv.md",
}
_LINK = re.compile(r"(?<=\]\()([^)#\s:]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and every file outside docs/ that a page links to."""
    for path, place in PAGES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    for page in [file for file in files if file.is_documentation_page()]:
        for target in _LINK.findall(page.content_string):
            path = _path(page.src_uri, target)
            outside = not path.startswith("docs/") and path not in PAGES
            if outside and (ROOT / path).is_file() and path not in files.src_uris:
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write the links of a page for the site."""
    here = PurePosixPath(page.file.src_uri).parent
    return _LINK.sub(
        lambda link: relpath(_place(_path(page.file.src_uri, link[1])), here), markdown
    )


def _path(page: str, target: str) -> str:
    """Where a link of a page leads in the repository."""
    sources = {place: path for path, place in PAGES.items()}
    source = PurePosixPath(sources.get(page, f"docs/{page}"))
    return normpath(source.parent / target)


def _place(path: str) -> str:
    """Where a file of the repository is on the site."""
    return PAGES.get(path, path.removeprefix("docs/"))
