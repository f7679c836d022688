"""The scripts of the docs, and the pipes that they go into, run on tiny clips and networks."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest
import torch
import vapoursynth as vs
from conftest import environment
from docs_blocks import ROOT, Block, blocks, commands, runs
from films import film
from networks import checkpoint

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
LANGUAGES = {
    "sh": "commands, which test_docs_commands.py and this file run",
    "console": "commands after $, with their answers",
    "python": "scripts, which this file runs",
    "text": "drawings, and what commands answer",
}
PIPES = {
    command: None
    for block in blocks("sh", "console")
    for command in commands(block)
    if command.startswith("vspipe ") and runs(command)
}
ONE_LINERS = {
    command: None
    for block in blocks("sh")
    for command in commands(block)
    if command.startswith("python -c ")
}

# What a piece of a script takes for granted.
GIVEN = """
import vapoursynth as vs
from vapoursynth import core
clip = core.bs.VideoSource("in.mkv", cachemode=0)[:4]
"""
# What those on tensors do.
TENSORS = """
from torch import rand
frames = five_frames = rand(1, 5, 3, 64, 64)
chunk_and_lookahead = rand(1, 17, 3, 64, 64)
state = None
"""
# A plugin that the tests do not have, and what stands in for it.
MISSING = {"core.bwdif.Bwdif(clip, field=1)": "clip.std.SetFieldBased(0)"}


def test_every_block_names_a_language_whose_blocks_are_run_or_need_not_be() -> None:
    assert {
        str(block): block.language for block in blocks() if block.language not in LANGUAGES
    } == {}


def network(filter_name: str, weights: str, folder: Path) -> str:
    """A small network of a filter that does what these published weights do."""
    kinds = {
        "EDVR/deblur": "EDVR deblur",
        "VRT/denoise": "VRT denoise",
        "VRT/interpolation": "VRT interpolate",
        "BasicVSRPP/denoise": "BasicVSRPP restore",
        "BasicVSRPP/ntire-decompress-track3": "BasicVSRPP restore",
    }
    return str(checkpoint(kinds.get(f"{filter_name}/{weights}", filter_name), folder))


def small(script: str, folder: Path) -> str:
    """The script with small networks, and without plugins that are not here."""

    def call(found: "re.Match[str]") -> str:
        start, name, clip, weights = found.groups()
        path = network("BasicVSR" if name.islower() else name, weights or "", folder)
        return f"{start}{name}({clip}, weights={path!r}"

    for missing, stand_in in MISSING.items():
        script = script.replace(missing, stand_in)
    script = re.sub(
        r'(core\.vsr\.|= )((?<=vsr\.)\w+|basicvsr)\((\w+)(?:, weights="([^"]*)")?', call, script
    )
    return re.sub(
        r'load_model\("(\w+)/([\w-]+)"',
        lambda found: f"load_model({network(found[1], found[2], folder)!r}",
        script,
    )


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    film(folder / "in.mkv", [40 * n for n in range(8)])
    return folder


@pytest.fixture
def here(films: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(films)
    monkeypatch.setenv("VSR_OFFLINE", "1")
    return films


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_each_script_runs(block: Block, here: Path) -> None:
    script = small(block.text, here)
    names: dict[str, Any] = {}
    if "vapoursynth" not in script:
        exec(TENSORS if "load_model" in script else GIVEN, names)
    names.setdefault("__name__", "script")
    if 'device="cuda' in script and not torch.cuda.is_available():
        with pytest.raises(vs.Error, match="device must be one that this machine has"):
            exec(script, names)
        return
    # Slices of a long film.
    exec(script.replace("clip[100:200]", "clip[2:10]"), names)
    if isinstance(names.get("clip"), vs.VideoNode):
        restores = re.search('weights="(de|ntire|interpolation)', block.text)
        with names["clip"].get_frame(1) as frame:
            assert frame.width == (64 if restores else 1920 if "width=1920" in script else 256)


@pytest.mark.slow
@pytest.mark.parametrize("command", PIPES)
def test_each_pipe_runs(command: str, here: Path) -> None:
    # What a script does is tried above and in test_examples.py: here it only makes larger pictures.
    whole = GIVEN.replace("[:4]", "")
    (here / "script.vpy").write_text(f"{whole}clip.resize.Bicubic(256, 192).set_output()\n")
    shutil.copytree(ROOT / "examples", here / "examples", dirs_exist_ok=True)
    command = re.sub(
        r"filter=(\w+) -a weights=(\w+)",
        lambda found: f"filter={found[1]} -a weights={network(found[1], found[2], here)}",
        command,
    )
    if "examples/upscale.vpy" in command and "weights=" not in command:
        path = network("BasicVSR", "", here)
        command = command.replace("-a source", f"-a weights={path} -a source")
    command = command.replace("ffmpeg", f"{shlex.quote(FFMPEG)} -y -v error")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        env={**environment(), "PWD": str(here)},
    )
    assert done.returncode == 0, done.stderr
    if "--info" in command:
        assert re.search("Width: (64|256)\n", done.stdout)
        # As the page shows it.
        (shown,) = (b.text for b in blocks("text") if b.text.startswith("upscale.vpy: "))
        assert "upscale.vpy" not in command or shown in done.stderr
    else:
        (out,) = re.findall(r"\S+$", command)
        assert (here / out.replace("%03d", "001")).stat().st_size


@pytest.mark.parametrize("command", ONE_LINERS)
def test_each_line_of_python_runs(command: str) -> None:
    exec(shlex.split(command)[2], {})
