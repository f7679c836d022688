"""The rooms of the package: who may import whom, what is public, what goes to standard output."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "vs_vsr"
MODULES = sorted(PACKAGE.rglob("*.py"))

# The rooms from the inside out: each may import from those before it and from itself.
ROOMS = [
    "errors",
    "models",
    "streaming",
    "transfer",
    "bridge",
    "weights",
    "options",
    "streams",
    "filters",
]
OUTER = ["cli", "__main__", "bench", "__init__", "functions"]


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_inwards(path: Path) -> None:
    own = room(path)
    if own in OUTER:
        return
    for name in imported(path):
        if name.startswith("vs_vsr."):
            other = name.split(".")[1]
            # The bridge finds the filters when the first one is created.
            if (own, other) != ("bridge", "filters"):
                assert ROOMS.index(other) <= ROOMS.index(own), f"{own} imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_public_names_are_listed_and_exist(path: Path) -> None:
    name = ".".join(["vs_vsr", *path.relative_to(PACKAGE).with_suffix("").parts])
    if path.stem == "__main__":
        return
    module = import_module(name.removesuffix(".__init__"))
    public = getattr(module, "__all__", [])
    assert list(public) == sorted(public)
    for item in public:
        assert hasattr(module, item)


def test_dir_lists_the_public_names() -> None:
    import vs_vsr

    assert set(vs_vsr.__all__) <= set(dir(vs_vsr))


def test_importing_the_package_brings_neither_torch_nor_vapoursynth() -> None:
    code = (
        "import sys, vs_vsr; sys.exit(bool({'torch', 'vapoursynth', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "path", [p for p in MODULES if room(p) != "cli"], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_nothing_but_the_command_line_writes_to_standard_output(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("stdout", "__stdout__") or path.parent.name == "bench"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print"


def test_the_changelog_has_this_version() -> None:
    from vs_vsr import __version__

    assert f"## {__version__}\n" in (PACKAGE.parent / "CHANGELOG.md").read_text()
