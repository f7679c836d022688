"""What is told twice of the packages: extras, wheels of the workflow, files of the container."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_extra_all_names_what_every_user_can_have() -> None:
    extras = dict(PROJECT["project"]["optional-dependencies"])
    (everything,) = extras.pop("all")
    named = set(re.findall(r"\w+", everything.partition("[")[2]))
    # The CUDA of torch decides about those two; the others are for development.
    assert set(extras) - {"cuda12", "cuda13", "bench", "docs", "dev"} <= named
    assert named <= {"weights", "cluster", "serve"}


def test_nothing_is_published_unless_every_wheel_is_there() -> None:
    workflow = (ROOT / ".github" / "workflows" / "wheels.yml").read_text()
    wheels = re.findall(r"only: (cp312-\w+) }", workflow)
    assert len(wheels) == len(set(wheels)) == 5
    assert f"-name '*.whl' | wc -l)\" = {len(wheels)}\n" in workflow
    command = PROJECT["tool"]["cibuildwheel"]["test-command"]
    assert (ROOT / command.removeprefix("python {project}/")).exists()


def test_the_container_is_built_from_all_that_the_build_reads() -> None:
    text = (ROOT / "Containerfile").read_text()
    copied = {
        name for line in re.findall(r"^COPY (?!--)(.*) ", text, re.M) for name in line.split()
    }
    project, build = PROJECT["project"], PROJECT["tool"]["scikit-build"]
    needed = {"CMakeLists.txt", "pyproject.toml", "native", project["readme"]}
    assert copied == {*needed, *project["license-files"], *build["wheel"]["packages"]}
