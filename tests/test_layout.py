"""The rooms of the package: who may import whom, what is public, what goes to standard output."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "vs_vsr"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}

# Each room, a folder or a file of the package, and the rooms that it imports from: all of them.
ROOMS = {
    "errors": set(),
    "kernels": {"errors"},
    "filters": {"errors"},
    "devices": {"errors", "kernels"},
    "models": {"errors", "kernels"},
    "transfer": {"errors", "kernels"},
    "streaming": {"errors", "models"},
    "weights": {"errors", "models"},
    "plugin": {"devices", "errors", "models", "streaming", "transfer", "weights"},
    "__init__": {"filters", "weights"},
    "job": {"devices", "errors", "plugin", "streaming", "weights"},
    "evaluation": {"errors", "filters", "plugin"},
    "compare": {"errors", "evaluation", "job", "plugin"},
    "serve": {"errors", "job", "weights"},
    "cli": {
        *("__init__", "compare", "devices", "errors", "evaluation", "filters", "job"),
        *("serve", "weights"),
    },
    "__main__": {"cli"},
    "bench": {
        *("devices", "evaluation", "job", "kernels", "models"),
        *("plugin", "streaming", "transfer", "weights"),
    },
}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imports(module: str) -> Iterator[tuple[str, str | None]]:
    """Modules of the package that a module imports, and the name that it takes from each."""
    path = MODULES[module]
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "vs_vsr":
                    yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            if base.split(".")[0] == "vs_vsr":
                for alias in node.names:
                    whole = f"{base}.{alias.name}"
                    yield (whole, None) if whole in MODULES else (base, alias.name)


def test_each_room_imports_from_the_rooms_of_the_table_and_from_no_other() -> None:
    found: dict[str, set[str]] = {}
    for module in MODULES:
        others = {room(other) for other, _ in imports(module)}
        found.setdefault(room(module), set()).update(others - {room(module)})
    assert found == ROOMS


def test_no_modules_import_each_other_in_a_circle() -> None:
    # CycleError names the circle. The package itself stands for its __init__.
    graph = {m: {other for other, _ in imports(m)} for m in MODULES}
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("import vs_vsr.errors", ("vs_vsr.errors", None)),
        ("from vs_vsr import filters", ("vs_vsr.filters", None)),
        ("from vs_vsr import edvr", ("vs_vsr", "edvr")),
        ("from vs_vsr.errors import VsrError", ("vs_vsr.errors", "VsrError")),
        ("from . import plan", ("vs_vsr.streaming.plan", None)),
        ("from .plan import Plan", ("vs_vsr.streaming.plan", "Plan")),
        ("from ..errors import VsrError", ("vs_vsr.errors", "VsrError")),
        ("from .. import errors", ("vs_vsr.errors", None)),
        ("def f():\n    from vs_vsr import cli", ("vs_vsr.cli", None)),
    ],
)
def test_no_form_of_import_is_overlooked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, want: tuple[str, str | None]
) -> None:
    path = tmp_path / "new.py"
    path.write_text(source)
    monkeypatch.setitem(MODULES, "vs_vsr.streaming.new", path)
    assert list(imports("vs_vsr.streaming.new")) == [want]


def defined(node: ast.AST) -> set[str]:
    """Public names that a module makes, within its `if` and `try` too; imports make none."""
    names = set()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(child.name)
        elif isinstance(child, ast.Name):
            names |= {child.id} if isinstance(child.ctx, ast.Store) else set()
        elif not isinstance(child, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            names |= defined(child)
    return {name for name in names if not name.startswith("_")}


def test_no_form_of_definition_is_overlooked() -> None:
    source = (
        "a, (b, *c) = 1, (2, 3)\nd: int = 4\ntype e = int\nasync def f(): g = 1\n"
        "if d:\n    class h: i = 1\nelse:\n    for j in ():\n        k = [x for x in ()]\n"
        "try: import l\nexcept OSError: m = 1\nwith open('') as n: pass\n_o = 1\n"
    )
    assert defined(ast.parse(source)) == set("abcdefhjkmn")


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_listed_and_what_is_listed_exists(module: str) -> None:
    if module == "vs_vsr.__main__":
        return  # importing it runs it
    public = getattr(import_module(module), "__all__", [])
    assert all(hasattr(import_module(module), name) for name in public)
    made = defined(ast.parse(MODULES[module].read_text()))
    if module == "vs_vsr":
        assert made == set() and len(set(public)) == len(public)
    else:
        assert set(public) == made and len(public) == len(made)


@pytest.mark.parametrize("module", MODULES)
def test_modules_take_public_names_from_each_other(module: str) -> None:
    for other, name in imports(module):
        if name not in (None, "*"):
            assert name in import_module(other).__all__, f"{module} takes {name} from {other}"


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_imported_by_a_name_in_a_string(module: str) -> None:
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("import_module", "__import__"):
                texts = [a.value for a in ast.walk(node) if isinstance(a, ast.Constant)]
                assert not any("vs_vsr" in str(text) for text in texts)


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("vs_vsr", "torch vapoursynth numpy"),
        ("vs_vsr.filters", "torch vapoursynth numpy"),
        ("vs_vsr.cli", "torch vapoursynth numpy starlette"),
        ("vs_vsr.serve.server", "torch vapoursynth numpy"),
        ("vs_vsr.streaming.plan", "torch vapoursynth numpy"),
        ("vs_vsr.streaming.gaps", "torch vapoursynth numpy"),
        ("vs_vsr.plugin.bridge", "torch vapoursynth"),
        ("vs_vsr.plugin.worker", "vapoursynth torchvision"),
    ],
)
def test_what_an_import_does_not_bring(module: str, without: str) -> None:
    code = f"import sys, {module}; print(*set({without.split()}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_dir_lists_the_public_names() -> None:
    import vs_vsr

    assert set(vs_vsr.__all__) <= set(dir(vs_vsr))


@pytest.mark.parametrize("module", [m for m in MODULES if m != "vs_vsr.cli.answers"])
def test_only_the_answers_of_the_command_line_go_to_standard_output(module: str) -> None:
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in ("sys.stdout", "sys.__stdout__")
        if isinstance(node, ast.ImportFrom) and node.module == "sys":
            assert not {"stdout", "__stdout__"} & {alias.name for alias in node.names}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print"


def test_the_changelog_has_this_version_and_what_comes() -> None:
    from vs_vsr import __version__

    text = (PACKAGE.parent / "CHANGELOG.md").read_text()
    assert f"## {__version__}\n" in text
    assert text.index("## Unreleased\n") < text.index(f"## {__version__}\n")


def test_the_readme_fits_on_two_screens() -> None:
    assert len((PACKAGE.parent / "README.md").read_text().splitlines()) <= 90
