"""A filter's arguments are listed in C, in Python and in the docs: the lists must agree."""

import inspect
import os
import re
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
import vapoursynth as vs
from conftest import assert_made_table
from networks import NETWORKS, checkpoint

import vs_vsr
from vs_vsr import filters
from vs_vsr.models.iconvsr import IconVSR
from vs_vsr.models.realbasicvsr import RealBasicVSR
from vs_vsr.plugin import worker
from vs_vsr.plugin.arguments import Arguments, Defaults
from vs_vsr.plugin.contract import ClipInfo
from vs_vsr.plugin.plans import FILTERS
from vs_vsr.weights.sizes import NetworkOptions

PAGE = Path(__file__).resolve().parents[2] / "docs" / "filters.md"


def signature(name: str) -> dict[str, str]:
    """Names and types of the arguments that the compiled plugin has registered."""
    parts = getattr(vs.core.vsr, name).signature.strip(";").split(";")
    return {part.split(":")[0]: part.split(":")[1] for part in parts}


def twin(name: str) -> dict[str, Any]:
    """Names and annotations of the arguments of the typed function."""
    hints = typing.get_type_hints(getattr(filters, name.lower()), {"VideoNode": vs.VideoNode})
    (common,) = get_args(hints.pop("arguments"))
    hints.pop("return")
    return {**hints, **typing.get_type_hints(common)}


def kinds(annotation: Any) -> set[str]:
    """What VapourSynth calls the type of an argument."""
    if get_origin(annotation) is Literal:
        return {"data"}
    parts = get_args(annotation) or (annotation,)
    if len(parts) > 1 or get_origin(annotation) is not None:
        return set().union(*(kinds(part) for part in parts if part is not type(None)))
    names = {vs.VideoNode: "vnode", int: "int", bool: "int", float: "float", str: "data"}
    return {names.get(annotation, "data" if issubclass(annotation, os.PathLike) else "?")}


def test_every_filter_is_everywhere() -> None:
    registered = {f.name for f in vs.core.vsr.functions() if f.signature.startswith("clip:")}
    assert registered == set(FILTERS) == {small.filter for small in NETWORKS.values()}
    twins = {name for name in filters.__all__ if name.islower()}
    assert {name.lower() for name in registered} == twins
    assert set(filters.__all__) < set(vs_vsr.__all__)


@pytest.mark.parametrize("name", FILTERS)
def test_the_typed_twin_has_the_arguments_that_are_registered(name: str) -> None:
    registered, typed = signature(name), twin(name)
    assert typed.keys() == registered.keys()
    for argument, kind in registered.items():
        # A matrix is a name or a number, which VapourSynth passes on as text.
        assert kinds(typed[argument]) - ({"int"} if argument == "matrix" else set()) == {kind}
    # All but the clip may be left out, in C as in Python.
    parts = getattr(vs.core.vsr, name).signature.strip(";").split(";")
    assert [part.split(":")[0] for part in parts if not part.endswith(":opt")] == ["clip"]
    parameters = inspect.signature(getattr(filters, name.lower())).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    assert needed == ["clip"]


class Recording(dict[str, Any]):
    """Arguments that know which of them were asked for."""

    def __init__(self, **values: Any) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def __contains__(self, name: object) -> bool:
        self.asked.add(str(name))
        return super().__contains__(name)

    def __getitem__(self, name: str) -> Any:
        self.asked.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)


@pytest.mark.parametrize("name", FILTERS)
def test_every_argument_that_is_registered_is_read_and_no_other(name: str, tmp_path: Path) -> None:
    clip = ClipInfo(64, 64, 20, int(vs.RGBS), 25, 1)
    for key, small in NETWORKS.items():
        if small.filter == name:
            weights = str(checkpoint(key, tmp_path))
            values = Recording(weights=weights, device="cpu", **small.arguments)
            worker.create(name, values, clip)
            # Of each kind of weights, as what one of them ignored would be ignored in silence.
            assert values.asked == signature(name).keys() - {"clip"}


def documented() -> Iterator[tuple[str, set[str]]]:
    """Each argument in the table of the page, and the filters that have it."""
    section = PAGE.read_text().partition("\n## Arguments\n")[2].partition("\n## ")[0]
    for row in re.findall(r"^\| `(\w+)` \| ([^|]*) \|", section, re.MULTILINE):
        yield row[0], set(FILTERS) if row[1].strip() == "all" else set(re.findall(r"\w+", row[1]))


def test_the_page_lists_the_arguments_that_are_registered() -> None:
    rows = list(documented())
    assert len(dict(rows)) == len(rows)
    assert dict(rows) == {
        argument: {name for name in FILTERS if argument in signature(name)}
        for argument in {argument for name in FILTERS for argument in signature(name)}
    }


def chunk(defaults: Defaults, on_gpu: str) -> str:
    """The default of `chunk`, in the words of a page."""
    return on_gpu.format(defaults) if defaults.cpu_chunk else str(defaults.chunk)


def segment(defaults: Defaults) -> str:
    """The default of `segment`, in the words of the page."""
    return str(defaults.segment_frames or defaults.segment_chunks * defaults.chunk)


def defaults() -> str:
    """A row of docs/filters.md for each filter, from its row in plans.py."""
    names = ("chunk", "lookahead", "segment", "preroll", "tile", "overlap")
    head = ["filter", "`weights`", "`precision`", *(f"`{name}`" for name in names)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    rows = [(name, f"`{name}`", row.defaults) for name, row in FILTERS.items()]
    rows += [
        (name, f'`{name}`, `latency="low"`', row.low_latency)
        for name, row in FILTERS.items()
        if row.low_latency
    ]
    for name, title, d in rows:
        in_table = "{0.cpu_chunk}, on a GPU {0.chunk}"
        values = {**vars(d), "chunk": chunk(d, in_table), "segment": segment(d)}
        if d.cpu_chunk:
            longer = d.segment_chunks * d.cpu_chunk
            values["segment"] = f"{longer}, on a GPU {d.segment_frames}"
        if name == "VRT":
            values["chunk"] = f"{d.chunk}, or 2 windows of the network less `lookahead`"
        cells = [str(values[key]) if key in signature(name) else "" for key in names]
        precision = {None: "auto", torch.float32: "fp32"}[d.dtype]
        weights = f'`"{d.weights}"`' if d.weights else "must be named"
        lines.append(f"| {' | '.join([title, weights, f'`"{precision}"`', *cells])} |")
    return "\n".join(lines)


def test_the_defaults_on_the_page_are_those_of_the_plans() -> None:
    assert_made_table(PAGE, "<!-- defaults: made by tests/plugin/test_arguments.py -->", defaults())


def call(name: str) -> str:
    """A filter with all its arguments: their defaults, or only names where these are not fixed."""
    d = FILTERS[name].defaults
    known: dict[str, object] = {
        **{key: getattr(d, key) for key in ("lookahead", "preroll", "tile", "overlap")},
        **{"weights": d.weights, "chunk": chunk(d, "{0.cpu_chunk}"), "segment": segment(d)},
        **{"device": "auto", "precision": "auto" if d.dtype is None else "fp32"},
        **{"scenes": "auto", "latency": "normal"},
    }
    if d.cpu_chunk:
        known["segment"] = d.segment_chunks * d.cpu_chunk
    words = {"weights", "device", "precision", "scenes", "latency"}
    parts = []
    for argument in list(signature(name))[1:]:
        value = known.get(argument)
        shown = f'"{value}"' if argument in words else value
        parts.append(argument if value is None else f"{argument}={shown}")
    lines = textwrap.wrap(", ".join(["clip", *parts]), 72)
    return "\n    ".join([f"```text\ncore.vsr.{name}(", *lines]) + ")\n```"


@pytest.mark.parametrize("name", FILTERS)
def test_each_filter_is_shown_with_its_arguments(name: str) -> None:
    mark = f"<!-- {name}: made by tests/plugin/test_arguments.py -->"
    assert_made_table(PAGE, mark, f"\n{call(name)}\n")


@pytest.mark.parametrize("name", FILTERS)
def test_the_defaults_in_the_docstrings_are_those_of_the_plans(name: str) -> None:
    d, function = FILTERS[name].defaults, getattr(filters, name.lower())
    text = re.sub(r"\s+", " ", inspect.getdoc(function) or "")
    (common,) = get_args(typing.get_type_hints(function, {"VideoNode": vs.VideoNode})["arguments"])
    shared = re.sub(
        r"\s+", " ", f"{inspect.getdoc(common)} {inspect.getdoc(filters.CommonArguments)}"
    )
    if name == "VRT":
        assert f"default {d.lookahead}." in text
        assert f"`tile` is {d.tile}, a multiple of {d.tile_multiple}" in text
        assert f"(VRT: {d.overlap})" in shared
        return
    told = chunk(d, "{0.cpu_chunk} by default (on a GPU {0.chunk})")
    told = told if d.cpu_chunk else f"{told} by default"
    assert f'`chunk` is {told}, `weights` "{d.weights}"' in text
    assert f"default {d.overlap} (VRT" in shared
    where = shared if common is filters.RecurrentArguments else text
    for argument, value in (("lookahead", d.lookahead), ("preroll", d.preroll)):
        if argument in signature(name):
            assert re.search(rf"{argument}: [^:]*default {value}\.", where)
    if low := FILTERS[name].low_latency:
        for argument in ("chunk", "lookahead", "preroll"):
            told = f"`{argument}` ({getattr(low, argument)})"
            assert told in where
        assert "segment" not in signature(name) or f"`segment` ({segment(low)})" in where
    if "segment" in signature(name):
        assert re.search(rf"segment: [^:]*default {segment(d)}\b", where)


def test_the_defaults_of_a_networks_own_arguments_are_told_as_they_are() -> None:
    texts = (PAGE.read_text(), filters.iconvsr.__doc__ or "", NetworkOptions.__doc__ or "")
    page, twin_text, options = (re.sub(r"\s+", " ", text) for text in texts)
    stride, threshold = IconVSR(8, 1).keyframe_stride, RealBasicVSR(8, 1, 1).refine_threshold
    assert f"default {stride}, as the published" in page
    assert f"Default {stride}, as the published" in twin_text
    assert f"default {stride}." in options
    assert f"default {threshold:g}, which is one pass" in page
    assert f"in 1/255, default {threshold:g}." in options
    # Left out, nothing is passed on: the network's own default holds.
    for row in FILTERS.values():
        assert row.network_options(Arguments("X", {})) == {}
