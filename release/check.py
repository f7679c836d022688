"""Walks the checklist of a release: each line is green, or red with what to do.

    python release/check.py                        all of it; the tests take most of the time
    python release/check.py git version changelog  some of it

CONTRIBUTING.md says what comes before and after it.
"""

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from vs_vsr.weights import store
from vs_vsr.weights.rows import ROWS

ROOT = Path(__file__).resolve().parents[1]

_VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")
# A whole hash, the eight digits of it that a file's name has, or none.
_HASH = re.compile(r"([0-9a-f]{64}|[0-9a-f]{8})?")
# What of GitHub's files follows which of its schemas.
_SCHEMAS = {
    "github-workflows": "workflows/*.yml",
    "github-issue-forms": "ISSUE_TEMPLATE/*.yml",
}
_TESTS_OF_TABLES = ("tests/plugin/test_arguments.py", "tests/weights/test_what_loads.py")
# What a wheel must have beside Python files, and what is left to the source distribution.
_IN_WHEEL = (
    r"vs_vsr/py\.typed",
    r"vs_vsr/compare/page\.html",
    r"vs_vsr/kernels/\w+\.cu",
    r".*\.(so|dylib|dll)",
    r".*\.dist-info/licenses/LICENSE",
)
_NOT_IN_WHEEL = r"(tests|release|docs|bundle)/.*"
_IN_SDIST = ("pyproject.toml", "CMakeLists.txt", "LICENSE", "native/vsr.c", "vs_vsr/__init__.py")


class Red(Exception):
    """A line that is not as it must be: what was found, and what to do now."""


@dataclass(frozen=True)
class Step:
    """A line of the checklist."""

    check: Callable[[Path], str]
    """Given the checkout; what is found, or `Red`."""
    what: str

    @property
    def name(self) -> str:
        """As the user names it."""
        return self.check.__name__


def git(root: Path) -> str:
    """The checkout is that of a commit of main, which has no tag of this version yet."""
    changed = _run(root, "git", "status", "--porcelain").splitlines()
    if changed:
        raise Red(f"{len(changed)} files are not committed, as {changed[0][3:]}. Commit them.")
    branch = _run(root, "git", "branch", "--show-current")
    if branch != "main":
        raise Red(f"the branch is {branch or 'none'}. Release from main: git switch main")
    tag = f"v{_version(root)}"
    if _run(root, "git", "tag", "--list", tag):
        raise Red(f"the tag {tag} is there. Write the next version into pyproject.toml.")
    return f"main, clean, {tag} is free"


def version(root: Path) -> str:
    """The version is the same everywhere."""
    wanted = _version(root)
    ask = "from vapoursynth import core; print(core.vsr.Version()['version'])"
    found = {
        "the installed package": metadata.version("vs-vsr"),
        "the compiled plugin": _run(root, sys.executable, "-c", ask),
    }
    for where, said in found.items():
        if said != wanted:
            raise Red(
                f"pyproject.toml says {wanted}, {where} {said}. Install it again: pip install -e ."
            )
    return wanted


def changelog(root: Path) -> str:
    """The newest section is this version's, and nothing waits above it."""
    wanted = _version(root)
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    bodies = [body.strip() for body in re.split(r"^## .*$", text, flags=re.MULTILINE)[1:]]
    if titles[:1] != ["Unreleased"]:
        raise Red('the first section is not "## Unreleased". Put it there, empty.')
    if bodies[0] and wanted in titles:
        raise Red(
            f'"## Unreleased" has text, and {wanted} has a section. Write the next version into '
            "pyproject.toml."
        )
    if bodies[0]:
        raise Red(f'"## Unreleased" has text. Put "## {wanted}" below its title, an empty line on.')
    if titles[1:2] != [wanted]:
        raise Red(f'there is no "## {wanted}" below "## Unreleased". Write what is new for users.')
    if not bodies[1]:
        raise Red(f'"## {wanted}" is empty. Write what is new for users.')
    return f"{wanted}: {len(re.findall('^- ', bodies[1], re.MULTILINE))} points"


def licence(root: Path) -> str:
    """The licence is told alike, and so are those of all weights."""
    project = _project(root)
    text = " ".join((root / "LICENSE").read_text(encoding="utf-8").split())
    if not text.startswith("Apache License Version 2.0, January 2004"):
        raise Red("LICENSE is not the text of Apache-2.0. Restore it.")
    if (project.get("license"), project.get("license-files")) != ("Apache-2.0", ["LICENSE"]):
        raise Red('pyproject.toml must say license = "Apache-2.0", license-files = ["LICENSE"].')
    without = [row.full_name for row in ROWS if not row.licence]
    if without:
        raise Red(f"{', '.join(without)} have no licence in vs_vsr/weights/rows.py. Find it.")
    return f"Apache-2.0; {len(ROWS)} files of weights with theirs"


def weights(root: Path) -> str:
    """Every hash is one, and files that the extra `weights` brings have theirs."""
    for row in ROWS:
        if not _HASH.fullmatch(row.sha256):
            raise Red(f"{row.full_name} has no SHA-256: {row.sha256}. Mend vs_vsr/weights/rows.py.")
    carried = [row for row in ROWS if row.carried_by]
    for row in carried:
        files = store.copies(row)
        if not files:
            raise Red(f'{row.full_name} is not here. Install it: pip install -e ".[weights]"')
        for file in files:
            if not store.is_intact(file, row):
                raise Red(f"{file} is not the published {row.full_name}. Compare its SHA-256.")
    return f"{len(ROWS)} rows, {len(carried)} files whole"


def forms(root: Path) -> str:
    """The workflows and the issue forms are what GitHub takes."""
    count = 0
    for schema, pattern in _SCHEMAS.items():
        files = sorted((root / ".github").glob(pattern))
        if not files:
            raise Red(f"there is no .github/{pattern}. Restore it.")
        check = ("-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}")
        _run(root, sys.executable, *check, *map(str, files), hint="Mend what it names.")
        count += len(files)
    return f"{count} files"


def tables(root: Path) -> str:
    """The tables that tests make are in the docs as they are made today."""
    hint = f"Write them: VSR_WRITE_DOCS=1 python -m pytest {' '.join(_TESTS_OF_TABLES)}"
    _run(root, sys.executable, "-m", "pytest", "-q", *_TESTS_OF_TABLES, hint=hint)
    return "as made today"


def docs(root: Path) -> str:
    """The site of the documentation is built without a warning."""
    with tempfile.TemporaryDirectory() as site:
        build = ("-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", site)
        _run(root, sys.executable, *build, hint="Mend what it names.")
        return f"{len(list(Path(site).rglob('*.html')))} pages"


def packages(root: Path) -> str:
    """The source distribution builds, the wheel is built from it, and its filters run."""
    wanted = _version(root)
    with tempfile.TemporaryDirectory() as folder:
        dist = Path(folder, "dist")
        build = (sys.executable, "-m", "build", "--outdir", str(dist), str(root))
        _run(root, *build, hint="Mend what it names.")
        (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
        with tarfile.open(sdist) as archive:
            check_sdist(archive.getnames(), wanted)
        with zipfile.ZipFile(wheel) as members:
            check_wheel(wheel.name, members.namelist(), wanted)
        _try_wheel(Path(folder, "env"), wheel, root / ".ci" / "smoke.py")
    return f"{sdist.name}, {wheel.name}"


def check_sdist(names: Sequence[str], wanted: str) -> None:
    """See that a source distribution has what the build needs.

    Raises:
        Red: It has not.
    """
    for name in _IN_SDIST:
        if f"vs_vsr-{wanted}/{name}" not in names:
            raise Red(f"the source distribution lacks {name}. Look at sdist in pyproject.toml.")


def check_wheel(file: str, names: Sequence[str], wanted: str) -> None:
    """See that a wheel has what it must have, and nothing else.

    Raises:
        Red: It is not so.
    """
    if not file.startswith(f"vs_vsr-{wanted}-py3-none-"):
        raise Red(f"the wheel is {file}. It must be vs_vsr-{wanted}-py3-none-PLATFORM.whl.")
    for pattern in _IN_WHEEL:
        if not any(re.fullmatch(pattern, name) for name in names):
            raise Red(f"the wheel lacks {pattern}. Look at wheel in pyproject.toml.")
    for name in names:
        if re.fullmatch(_NOT_IN_WHEEL, name):
            raise Red(f"the wheel has {name}. Look at wheel.packages in pyproject.toml.")


def tests(root: Path) -> str:
    """All tests pass."""
    said = _run(root, "make", "test", hint="Mend what fails.")
    return said.splitlines()[-1].strip("= ") if said else "passed"


# What is quick comes first.
STEPS = (
    Step(git, "git"),
    Step(version, "one version"),
    Step(changelog, "changelog"),
    Step(licence, "licence"),
    Step(weights, "hashes of weights"),
    Step(forms, "workflows and forms"),
    Step(tables, "tables in docs"),
    Step(docs, "site of the docs"),
    Step(packages, "sdist and wheel"),
    Step(tests, "tests"),
)


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Walk it; 1 if a line is red."""
    known = {step.name: step for step in STEPS}
    parser = argparse.ArgumentParser(prog="release/check.py", description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(known))
    names = parser.parse_args(argv).steps or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"STEP must be one of {', '.join(known)}, got {unknown[0]}. Choose of these.")
    red = 0
    for name in names:
        try:
            found, is_green = known[name].check(root), True
        except Red as e:
            found, is_green = str(e), False
            red += 1
        sys.stdout.write(f"{_coloured(is_green)}  {known[name].what:19}  {found}\n")
        sys.stdout.flush()
    if not red:
        what = f"Tag it: git tag -a v{_version(root)}" if names == list(known) else "Walk the rest."
        sys.stdout.write(f"All green. {what}\n")
    return 1 if red else 0


def _coloured(is_green: bool) -> str:
    word, code = ("green", 32) if is_green else ("red  ", 31)
    return f"\033[{code}m{word}\033[0m" if sys.stdout.isatty() else word


def _project(root: Path) -> dict[str, object]:
    with (root / "pyproject.toml").open("rb") as file:
        project: dict[str, object] = tomllib.load(file)["project"]
    return project


def _version(root: Path) -> str:
    found = str(_project(root)["version"])
    if not _VERSION.fullmatch(found):
        raise Red(f"pyproject.toml says version {found}. Write it as 1.2.3 or 1.2.3rc1.")
    return found


def _run(root: Path, *command: str, hint: str = "") -> str:
    """What a command prints.

    Raises:
        Red: It fails, or is not there.
    """
    shown = " ".join(Path(word).name if word == sys.executable else word for word in command)
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, env={**os.environ, "PATH": path}
        )
    except FileNotFoundError:
        raise Red(f"{command[0]} is not here. Install it.") from None
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        missing = re.search(r"No module named (\w+)$", lines[-1] if lines else "")
        if missing:
            name = missing[1].replace("_", "-")
            raise Red(f"{name} is not here. Install it: pip install {name}")
        about = "".join(f"\n       {line}" for line in lines[-15:])
        raise Red(f"{shown} failed. {hint}{about}")
    return done.stdout.rstrip()


def _try_wheel(folder: Path, wheel: Path, smoke: Path) -> None:
    """Run the smoke test with a wheel that is installed beside VapourSynth and nothing else.

    torch and the rest, 5 GB, are read from this environment.
    """
    venv.create(folder, with_pip=True)
    python = str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    # VapourSynth loads plugins from the environment that it is in.
    beside = [f"{n}=={metadata.version(n)}" for n in ("vapoursynth", "vapoursynth-bestsource")]
    _run(folder, python, "-m", "pip", "install", "-q", "--no-deps", *beside, str(wheel))
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    others = [path for path in sys.path if path.endswith("site-packages")]
    Path(_run(folder, python, "-c", ask), "others.pth").write_text("\n".join(others))
    _run(folder, python, str(smoke), hint="Mend what it names.")


if __name__ == "__main__":
    sys.exit(main())
