"""What `vs-vsr models` says, held to the registry, to README.md and to the measurements."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vs_vsr
from vs_vsr import cli
from vs_vsr.errors import WeightsError
from vs_vsr.plugin.plans import FILTERS
from vs_vsr.weights.footage import CARDS, FOOTAGE, Card, Footage, card, footage
from vs_vsr.weights.registry import lookup, rows_of

ROOT = Path(__file__).resolve().parents[2]


def cells(title: str) -> list[list[str]]:
    """The rows of the table below a title of README.md."""
    text = (ROOT / "README.md").read_text().split(f"## {title}\n\n")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def test_the_table_of_the_readme_says_the_same() -> None:
    rows = cells("Which filter for which footage")
    plain = [re.sub(r"\[(.*?)\]\(.*?\)", r"\1", row[0]) for row in rows]
    assert plain == [row.what for row in FOOTAGE]
    for row, (_, filters, weights) in zip(FOOTAGE, rows, strict=True):
        pairs = [choice.split("/") for choice in row.choices]
        networks = list(dict.fromkeys(network for network, _ in pairs))
        assert re.findall("`(.*?)`", filters) == [*networks, *row.needs]
        names = re.findall("`(.*?)`", weights)
        # "-track2" is short for the first name with another end.
        stem = names[0].rpartition("-")[0]
        names = [stem + name if name.startswith("-") else name for name in names]
        assert names == list(dict.fromkeys(name for _, name in pairs))
        assert ("the default" in weights) == (FILTERS[row.filter].defaults.weights == row.weights)


@pytest.mark.parametrize("row", FOOTAGE, ids=lambda row: row.name)
def test_what_is_advised_can_be_called(row: Footage) -> None:
    for choice in row.choices:
        found = lookup(choice)
        assert found.filter in FILTERS
        assert f"x{found.scale}" in row.what or found.scale == 1
    assert row.non_commercial == ("not for commercial use" in row.what)
    twin = inspect.signature(getattr(vs_vsr, row.filter.lower()))
    assert set(row.needs) <= set(twin.parameters)


def test_each_name_means_one_kind_of_footage() -> None:
    names = [name for row in FOOTAGE for name in (row.name, *row.also)]
    assert len(set(names)) == len(names)
    assert {"film", "web", "dvd", "anime"} <= set(names)
    assert footage("web") is footage("real") and footage("film").weights == "reds4"
    with pytest.raises(
        WeightsError, match=r'^footage must be one of .*got "flim"\. Did you .*film'
    ):
        footage("flim")
    with pytest.raises(WeightsError, match=r"Run vs-vsr models to see what they mean\.$"):
        footage("?")


def test_each_filter_has_a_card() -> None:
    assert {known.filter for known in CARDS} == set(FILTERS)


@pytest.mark.parametrize("known", CARDS, ids=lambda known: known.filter)
def test_a_card_says_what_the_docs_say(known: Card) -> None:
    twin = inspect.getdoc(getattr(vs_vsr, known.filter.lower())) or ""
    assert twin.endswith(f"Source: {known.paper}.")
    # No figure that the measurements do not have.
    measured = (ROOT / "docs" / "measurements.md").read_text()
    figures = set(re.findall(r"\d+(?:[.,x]\d+)*", known.speed + known.memory))
    there = set(re.findall(r"\d+(?:[.,x]\d+)*", measured))
    assert figures <= there and (figures or "not measured" in known.speed)


def test_the_list_tells_what_to_use(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    lines = [line.strip() for line in capfd.readouterr().out.splitlines()]
    assert "use BasicVSR/reds4, or IconVSR/reds4" in lines
    assert "use VRT/denoise with sigma" in lines
    assert [line for line in lines if line.startswith("real, web, dvd ")]
    assert lines[-1].startswith("All about one: vs-vsr models BasicVSR|")


@pytest.mark.parametrize("name", ["BasicVSR++", "basicvsrpp"])
def test_all_about_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VSR_CACHE", str(tmp_path))
    assert cli.main(["models", name]) == 0
    out = capfd.readouterr().out
    assert out.startswith("BasicVSRPP: upscales by 4, deblurs") and "arXiv:2104.13371" in out
    assert "  for      noise, same size: denoise\n" in out
    assert "on a GPU: not measured" in out and "AMD EPYC" in out
    for row in rows_of("BasicVSRPP"):
        assert f"    {row.name}: not here; {row.task}" in out
    assert "        REDS4(BIx4): 32.39, 0.9069\n" in out
    assert "        (mmagic's metafile)\n" in out and "(no figures are published)" in out


def test_figures_that_are_no_pairs(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "VRT"]) == 0
    out = capfd.readouterr().out
    assert "sigma 10, 20, 30, 40, 50: DAVIS-test 40.82," in out and "not for commercial use" in out


@pytest.mark.parametrize(
    ("name", "hint"),
    [("BasicVRS", "Did you mean BasicVSR?"), ("SPyNet", ""), ("BasicVSR/reds4", ""), ("x", "")],
)
def test_a_network_that_there_is_not(
    name: str, hint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["models", name]) == 1
    err = capfd.readouterr().err
    assert err.startswith("network must be one of BasicVSR, IconVSR, ") and f'got "{name}". ' in err
    assert hint in err


def test_neither_waits_for_torch() -> None:
    code = (
        "import sys; from vs_vsr.cli import main; main(['models']); main(['models', 'EDVR']); "
        "sys.exit('torch' in sys.modules or 'vapoursynth' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_a_card_is_found_by_its_paper() -> None:
    assert card("basicvsr++").filter == "BasicVSRPP"
