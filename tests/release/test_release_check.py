"""The checklist of a release: each line is green where it should be, and red where it should."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release_check", ROOT / "release" / "check.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclass looks itself up there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CHECK = load()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout in which all that needs no build is green."""
    project = '[project]\nversion = "7.8.9"\nlicense = "Apache-2.0"\nlicense-files = ["LICENSE"]\n'
    (tmp_path / "pyproject.toml").write_text(project)
    text = "# Changelog\n\n## Unreleased\n\n## 7.8.9\n\nNew.\n\n- a\n- b\n\n## 7.8.8\n\nOld.\n"
    (tmp_path / "CHANGELOG.md").write_text(text)
    shutil.copy(ROOT / "LICENSE", tmp_path)
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "--quiet", "--message=a")
    return tmp_path


def git(root: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *words], cwd=root, check=True)


def edit(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new))


def red(step: Callable[[Path], str], root: Path) -> str:
    with pytest.raises(CHECK.Red) as e:
        step(root)
    return str(e.value)


def test_git_must_be_clean_on_main_and_without_the_tag(root: Path) -> None:
    assert CHECK.git(root) == "main, clean, v7.8.9 is free"
    git(root, "tag", "v7.8.9")
    assert red(CHECK.git, root) == (
        "the tag v7.8.9 is there. Write the next version into pyproject.toml."
    )
    git(root, "switch", "--quiet", "--create", "other")
    assert red(CHECK.git, root) == "the branch is other. Release from main: git switch main"
    (root / "new.txt").write_text("")
    assert red(CHECK.git, root) == "1 files are not committed, as new.txt. Commit them."


def test_the_version_is_that_of_the_package_and_of_the_plugin(root: Path) -> None:
    from vs_vsr import __version__

    assert CHECK.version(ROOT) == __version__
    assert red(CHECK.version, root) == (
        f"pyproject.toml says 7.8.9, the installed package {__version__}. Install it again: "
        "pip install -e ."
    )
    edit(root, "pyproject.toml", "7.8.9", "7.8")
    assert red(CHECK.changelog, root) == (
        "pyproject.toml says version 7.8. Write it as 1.2.3 or 1.2.3rc1."
    )


@pytest.mark.parametrize(
    ("old", "new", "want"),
    [
        (
            "## Unreleased\n\n## 7.8.9\n",
            "## Unreleased\n",
            '"## Unreleased" has text. Put "## 7.8.9" below its title, an empty line on.',
        ),
        (
            "## Unreleased\n",
            "## Unreleased\n\n- c\n",
            '"## Unreleased" has text, and 7.8.9 has a section. Write the next version into '
            "pyproject.toml.",
        ),
        (
            "## Unreleased\n\n",
            "",
            'the first section is not "## Unreleased". Put it there, empty.',
        ),
        (
            "## 7.8.9",
            "## 7.9.0",
            'there is no "## 7.8.9" below "## Unreleased". Write what is new for users.',
        ),
        ("New.\n\n- a\n- b\n", "", '"## 7.8.9" is empty. Write what is new for users.'),
    ],
)
def test_the_changelog(root: Path, old: str, new: str, want: str) -> None:
    assert CHECK.changelog(root) == "7.8.9: 2 points"
    edit(root, "CHANGELOG.md", old, new)
    assert red(CHECK.changelog, root) == want


def test_licences(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CHECK.licence(root) == CHECK.licence(ROOT)
    without = replace(CHECK.ROWS[0], licence="")
    with monkeypatch.context() as patch:
        patch.setattr(CHECK, "ROWS", [without])
        assert red(CHECK.licence, root).startswith(f"{without.full_name} have no licence")
    edit(root, "pyproject.toml", '"Apache-2.0"', '"MIT"')
    assert red(CHECK.licence, root).startswith('pyproject.toml must say license = "Apache-2.0"')
    (root / "LICENSE").write_text("Mine.")
    assert red(CHECK.licence, root) == "LICENSE is not the text of Apache-2.0. Restore it."


def test_hashes_of_weights(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, real_weights: None
) -> None:
    monkeypatch.setenv("VSR_CACHE", str(tmp_path))
    assert re.fullmatch(r"\d+ rows, 5 files whole", CHECK.weights(ROOT))
    row = next(row for row in CHECK.ROWS if row.carried_by)
    monkeypatch.setattr(CHECK, "ROWS", [replace(row, sha256="0" * 64)])
    assert re.fullmatch(
        rf".*{row.carried_by[1]} is not the published {row.full_name}\. Compare its SHA-256\.",
        red(CHECK.weights, root),
    )
    monkeypatch.setattr(CHECK, "ROWS", [replace(row, sha256="0" * 63)])
    assert red(CHECK.weights, root).startswith(f"{row.full_name} has no SHA-256: 000")
    monkeypatch.setattr(CHECK, "ROWS", [replace(row, carried_by=("not-there", "x"))])
    assert red(CHECK.weights, root).startswith(f"{row.full_name} is not here. Install it: pip")


def test_what_a_package_must_have() -> None:
    names = [f"vs_vsr-7.8.9/{name}" for name in CHECK._IN_SDIST]
    CHECK.check_sdist(names, "7.8.9")
    with pytest.raises(CHECK.Red, match=r"distribution lacks native/vsr\.c\. Look at sdist in"):
        CHECK.check_sdist([name for name in names if "vsr.c" not in name], "7.8.9")
    file = "vs_vsr-7.8.9-py3-none-linux_x86_64.whl"
    names = [
        *("vs_vsr/py.typed", "vs_vsr/compare/page.html", "vs_vsr/kernels/warp.cu"),
        *("vapoursynth/plugins/vsr.so", "vs_vsr-7.8.9.dist-info/licenses/LICENSE"),
    ]
    CHECK.check_wheel(file, names, "7.8.9")
    with pytest.raises(CHECK.Red, match=r"the wheel is vs_vsr-7\.8\.8-"):
        CHECK.check_wheel(file.replace("9", "8"), names, "7.8.9")
    with pytest.raises(CHECK.Red, match=r"the wheel has tests/conftest\.py"):
        CHECK.check_wheel(file, [*names, "tests/conftest.py"], "7.8.9")
    for name in names:
        with pytest.raises(CHECK.Red, match="the wheel lacks "):
            CHECK.check_wheel(file, [n for n in names if n != name], "7.8.9")


def test_each_line_says_its_colour_and_the_status_is_that_of_all(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert CHECK.main(["changelog", "git"], root) == 0
    assert capsys.readouterr().out == (
        "green  changelog            7.8.9: 2 points\n"
        "green  git                  main, clean, v7.8.9 is free\n"
        "All green. Walk the rest.\n"
    )
    (root / "LICENSE").unlink()
    # A line that is red does not keep the others from being walked.
    assert CHECK.main(["git", "changelog"], root) == 1
    assert capsys.readouterr().out == (
        "red    git                  1 files are not committed, as LICENSE. Commit them.\n"
        "green  changelog            7.8.9: 2 points\n"
    )
    with pytest.raises(SystemExit, match="2"):
        CHECK.main(["nix"], root)
    assert "STEP must be one of git, version, " in capsys.readouterr().err


def test_a_command_that_fails_or_is_not_there_is_told(root: Path) -> None:
    code = "import sys; print('what it named'); sys.exit(3)"
    with pytest.raises(CHECK.Red) as e:
        CHECK._run(root, sys.executable, "-c", code, hint="Mend it.")
    found = r"python\S* -c .* failed\. Mend it\.\n       what it named"
    assert re.fullmatch(found, str(e.value))
    with pytest.raises(CHECK.Red, match=r"^not-there is not here\. Install it: pip install not-th"):
        CHECK._run(root, sys.executable, "-m", "not_there")
    with pytest.raises(CHECK.Red, match=r"^nix-nix is not here\. Install it\.$"):
        CHECK._run(root, "nix-nix")


def document(name: str) -> Any:
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"no {name} here: it is left out of source distributions")
    return yaml.safe_load(path.read_text())


def test_the_forms_are_what_github_takes() -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    if not (ROOT / ".github").is_dir():
        pytest.skip("no .github here: it is left out of source distributions")
    for schema, pattern in CHECK._SCHEMAS.items():
        files = sorted(map(str, (ROOT / ".github").glob(pattern)))
        if files:
            command = ["-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files]
            subprocess.run([sys.executable, *command], check=True)


def test_a_form_that_github_would_refuse_is_red(root: Path) -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    assert red(CHECK.forms, root) == "there is no .github/workflows/*.yml. Restore it."
    for name, text in (
        ("workflows/ci.yml", "on: push\njobs: {a: {runs-on: b, steps: [{run: c}]}}"),
        ("ISSUE_TEMPLATE/bug.yml", "name: a\ndescription: b\nbody: [{type: nix}]"),
    ):
        (root / ".github" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / ".github" / name).write_text(text)
    assert "vendor.github-issue-forms" in red(CHECK.forms, root)
    edit(
        root,
        ".github/ISSUE_TEMPLATE/bug.yml",
        "type: nix",
        "type: markdown, attributes: {value: c}",
    )
    assert CHECK.forms(root) == "2 files"


def test_the_forms_name_commands_that_there_are() -> None:
    from vs_vsr.cli import main

    for name in ("bug", "quality", "weights"):
        form = document(f".github/ISSUE_TEMPLATE/{name}.yml")
        ids = [item["id"] for item in form["body"] if "id" in item]
        assert len(ids) == len(set(ids))
        for line in re.findall(r"`(vs-vsr [^`]+)`", str(form)):
            with pytest.raises(SystemExit, match="0"):
                main([shlex.split(line)[1], "--help"])


def test_the_hooks_run_what_make_check_runs() -> None:
    (local,) = document(".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    hooks = {hook["id"]: hook["entry"] for hook in local["hooks"]}
    lint = re.findall(r"^\t\$\(BIN\)/(\S+(?: \w+)?)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"ruff format", "ruff check", "mypy"} <= set(lint)
    for command, hook in (("ruff format", "format"), ("ruff check", "lint"), ("mypy", "types")):
        assert hooks[hook].startswith(f".venv/bin/python -m {command}")
    assert hooks["check"] == "make check"
