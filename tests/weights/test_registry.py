import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from vs_vsr.errors import WeightsError
from vs_vsr.weights import registry
from vs_vsr.weights.registry import lookup, rows_of
from vs_vsr.weights.rows import ROWS, Row

# Networks whose names in the list beside the checkout are not those of filters.
FILTERS = {
    "BasicVSR++": "BasicVSRPP",
    "SpyNet": "SPyNet",
    "EDVR feature extractor": "EDVRFeatures",
}

# Where figures were read: in our words, and in those of the list beside the checkout.
SOURCES = {
    "mmagic's metafile": "metafile.yml",
    "model zoo": "ModelZoo.md",
    "Table 1": "VRT Table 1",
    "the paper of BasicVSR": "BasicVSR paper",
    "the paper of VRT": "VRT paper",
}


def by_file(rows: tuple[Row, ...] = ROWS) -> dict[str, Row]:
    return {row.file: row for row in rows}


@pytest.fixture
def official(shared: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]]
    entries = json.loads((shared / "checkpoints.json").read_text())["checkpoints"]
    return entries


def test_every_official_file_has_a_row(official: list[dict[str, Any]]) -> None:
    rows = by_file()
    for entry in official:
        row = rows[entry["file"]]
        assert row.filter == FILTERS.get(entry["model"], entry["model"])
        assert (row.task, row.scale) == (entry["task"], entry["scale"])
        assert row.degradation == (entry["degradation"] or "")
        assert bool(row.sha256) == bool(entry["sha256_prefix"])
        assert row.sha256.startswith(entry["sha256_prefix"] or "")


def test_training_sets_and_licences_are_the_official_ones(official: list[dict[str, Any]]) -> None:
    def plain(text: str) -> str:
        return text.lower().replace("-", "")

    for entry in official:
        row, licence = by_file()[entry["file"]], entry["licence"]
        assert plain(row.trained_on) == plain(entry["training_set"])
        name = licence["licence"].replace("CC-BY-NC-", "CC BY-NC ")
        assert row.licence == f"{name} ({licence['repo']})"
        assert row.non_commercial == ("BY-NC" in licence["licence"])


def test_published_figures_are_pairs_of_psnr_and_ssim(official: list[dict[str, Any]]) -> None:
    for entry in official:
        expected: dict[str, tuple[float, ...]] = {}
        for metric in entry["metrics"]:
            pair = [metric[k] for k in metric if k.startswith(("PSNR", "SSIM"))]
            # Of a set on both RGB and Y, Y is kept; it comes first.
            if len(pair) == 2:
                expected.setdefault(metric["dataset"], tuple(pair))
        row = by_file()[entry["file"]]
        assert row.published == expected
        assert bool(row.published_in) == bool(row.published or row.other_figures)
        # What is no pair is told in words, with every number.
        others = {
            value
            for metric in entry["metrics"]
            if metric["dataset"] not in expected
            for value in metric.values()
            if isinstance(value, float)
        }
        assert others == {float(text) for text in re.findall(r"\d+\.\d+", row.other_figures)}
        if row.published_in:
            for said, source in SOURCES.items():
                assert (said in row.published_in) == (source in entry["metrics_source"])


def address(url: str) -> str:
    """The address that gives the file itself, or nothing where a person must look for it."""
    if "/sh/" in url or "sharepoint" in url or url.startswith("pypi:"):
        return ""
    found = re.fullmatch(r"https://drive\.google\.com/file/d/(.+)/view", url)
    if found:
        return f"https://drive.google.com/uc?id={found[1]}"
    return url.replace("?dl=0", "?dl=1")


def test_addresses_are_the_official_ones(official: list[dict[str, Any]]) -> None:
    for entry in official:
        row, urls = by_file()[entry["file"]], entry["urls"]
        assert list(row.urls) == [direct for url in urls if (direct := address(url))]
        pages = [u for u in urls if not address(u) and not u.startswith("pypi:")]
        if not urls:
            pages = re.findall(r"https://\S+", entry["notes"])
        assert [row.page] == (pages or [""])
        for url in urls:
            if url.startswith("pypi:"):
                assert row.carried_by is not None
                for part in row.carried_by:
                    assert part in url


def test_no_two_rows_share_a_name_or_a_file() -> None:
    for values in ([row.full_name.lower() for row in ROWS], [row.file.lower() for row in ROWS]):
        assert len(set(values)) == len(values)
    for row in ROWS:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", row.name)
        # A name with a suffix would be taken for a file.
        assert Path(row.name).suffix == ""


def test_every_row_has_an_address_and_hashes_agree_with_file_names() -> None:
    for row in ROWS:
        assert row.urls or row.page
        for url in (*row.urls, *filter(None, [row.page])):
            assert urlsplit(url).scheme == "https"
        assert re.fullmatch(r"(\w{8}|\w{64})?", row.sha256)
        hashed = re.search(r"-([0-9a-f]{8})\.pth$", row.file)
        # Otherwise the file itself was hashed, or no hash is published.
        assert row.sha256.startswith(hashed[1]) if hashed else len(row.sha256) in (0, 64)


def test_only_vrts_weights_are_not_for_commercial_use() -> None:
    assert {row.filter for row in ROWS if row.non_commercial} == {"VRT"}
    assert all(row.non_commercial for row in rows_of("VRT"))


@pytest.mark.parametrize(
    "name", ["VRT/denoise", "vrt/DENOISE", "BasicVSRPP/denoise", "basicvsr++/denoise"]
)
def test_a_name_may_say_its_filter(name: str) -> None:
    filter_name, _, rest = name.replace("++", "pp").partition("/")
    row = lookup(name)
    assert (row.filter.lower(), row.name) == (filter_name.lower(), rest.lower())
    assert lookup(name, row.filter) is row


def test_a_name_of_several_filters_lists_them() -> None:
    with pytest.raises(WeightsError) as caught:
        lookup("deblur-gopro")
    full_names = "BasicVSRPP/deblur-gopro, VRT/deblur-gopro"
    assert str(caught.value) == (
        'weights must name one file, got "deblur-gopro", which may be '
        f"{full_names}. Choose one of these."
    )
    for name in full_names.split(", "):
        assert lookup(name).full_name == name
    assert lookup("reds4").full_name == "BasicVSR/reds4"
    assert lookup("REDS4", "EDVR").file == "EDVR_L_x4_SR_REDS_official-9f5f5039.pth"
    assert lookup("reds-16frames").filter == "VRT"


def test_a_name_of_another_filter_is_refused() -> None:
    with pytest.raises(WeightsError, match=r'^EDVR: weights must be for EDVR, got "VRT/denoise"\.'):
        lookup("VRT/denoise", "EDVR")


def test_an_unknown_name_of_a_filter_gets_the_nearest_and_all() -> None:
    for name, filter_name in (("vimeo90-bi", "BasicVSR"), ("BasicVSR/vimeo90-bi", None)):
        with pytest.raises(WeightsError, match=r"Did you mean vimeo90k-bi or ") as caught:
            lookup(name, filter_name)
        for row in rows_of("BasicVSR"):
            assert row.name in str(caught.value)
    with pytest.raises(WeightsError, match=r'got "qqq"\. Choose one of these\.'):
        lookup("qqq", "VRT")
    with pytest.raises(WeightsError, match=r'^VRT: .*, interpolation, got "VRT/x"\. Choose one'):
        lookup("VRT/x")


def test_a_filter_is_no_name() -> None:
    names = "VRT/interpolation"
    with pytest.raises(WeightsError) as caught:
        lookup("vrt")
    assert str(caught.value).startswith(
        'weights must be a file or a published name, got "vrt", which is a filter. Choose one of '
        "VRT/reds-6frames, "
    )
    assert str(caught.value).endswith(f"{names}.")
    message = r'^VRT: weights must .*, got "VRT", which is a filter\. Choose one of reds-6frames,'
    with pytest.raises(WeightsError, match=message):
        lookup("VRT", "VRT")


def test_an_unknown_name_of_no_filter_gets_the_nearest() -> None:
    with pytest.raises(WeightsError, match=r"Did you mean VRT/interpolation( or|\?)"):
        lookup("interpolate")
    with pytest.raises(WeightsError, match=r"Did you mean (\S+ or )*BasicVSRPP/denoise( or|\?)"):
        lookup("denoising")
    with pytest.raises(WeightsError, match=r"Did you mean VRT/denoise( or|\?)"):
        lookup("VTR/denoise")
    with pytest.raises(WeightsError, match=r"Run vs-vsr weights list to see all\."):
        lookup("qqq")


def test_rows_of_a_filter() -> None:
    assert {row.filter for row in rows_of("basicvsr")} == {"BasicVSR"}
    assert rows_of("BasicVSR++") == rows_of("BasicVSRPP") != []
    assert rows_of() == list(ROWS)
    with pytest.raises(
        WeightsError,
        match=r'^weights: filter must be one of BasicVSR, IconVSR, .*, got "Basic"\. Choose',
    ):
        rows_of("Basic")


def test_added_rows_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(ROWS[0], filter="Other", file="small.pth")
    monkeypatch.setattr(registry, "ROWS", (*ROWS, other))
    assert lookup("reds4", "Other") is lookup("other/reds4") is other
