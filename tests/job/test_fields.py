"""Interlaced and telecined sources are found by their pictures, and undone by plugins."""

import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import vapoursynth as vs
import zoo
from conftest import environment
from vapoursynth import core

from vs_vsr.errors import JobError
from vs_vsr.job import fields
from vs_vsr.job.fields import Fields, check, deinterlaced, look, times_after

CLIPS = sorted((Path(__file__).resolve().parents[3] / "shared" / "clips").glob("*.mp4"))


def clip_of(pictures: "np.ndarray[Any, Any]", form: int = vs.GRAY8, flag: int = 0) -> Any:
    """A clip of (count, height, width, 3), of its green alone."""
    count, height, width, _ = pictures.shape
    blank = core.std.BlankClip(None, width, height, vs.GRAY8, count, keep=True)

    def filled(n: int, f: Any) -> Any:
        frame = f.copy()
        np.asarray(frame[0])[:] = pictures[n, :, :, 1]
        return frame

    clip = blank.std.ModifyFrame(blank, filled).std.SetFieldBased(flag)
    changes = {"matrix": 1} if core.get_video_format(form).color_family == vs.YUV else {}
    return clip if form == vs.GRAY8 else clip.resize.Point(format=form, **changes)


def order_of(path: Path) -> str:
    with av.open(str(path)) as container:
        number = container.streams.video[0].codec_context.field_order
    return {1: "progressive", 2: "top", 3: "bottom"}.get(number, "unknown")


def looked(name: str, folder: Path) -> Fields:
    path = zoo.make(name, folder)
    return look(core.bs.VideoSource(str(path), cachemode=0, rff=0), order_of(path))


@pytest.mark.parametrize(
    ("name", "kind", "top_first", "note"),
    [
        ("interlaced.mkv", "interlaced", True, ""),
        ("interlaced_bottom.mkv", "interlaced", False, ""),
        ("interlaced_no_flags.mkv", "interlaced", True, "says progressive"),
        ("telecined.mkv", "telecined", True, "says progressive"),
        ("whole_but_flagged.mkv", "progressive", True, "says interlaced"),
    ],
)
def test_sources_with_fields(
    name: str, kind: str, top_first: bool, note: str, tmp_path: Path
) -> None:
    found = looked(name, tmp_path)
    assert (found.kind, found.top_first) == (kind, top_first)
    assert note in found.note and bool(note) == bool(found.note)


WHOLE = (
    *("plain.mkv", "uneven.mkv", "rotated.mp4", "dvd.mkv", "odd.mkv", "hdr10.mkv"),
    *("two_tracks.mkv", "truncated.mkv", "one_frame.mkv", "sync.mkv"),
    *("grey.mkv", "rgb.mkv", "full_chroma.mkv", "old.avi", "broadcast.ts"),
)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_pictures_are_left_alone(name: str, tmp_path: Path) -> None:
    found = looked(name, tmp_path)
    assert (found.kind, found.note) == ("progressive", "")


def test_pictures_decide_which_field_is_first() -> None:
    clip = clip_of(zoo.interlaced(24, 96, 64, top_first=False), flag=2)
    found = look(clip, "top")
    assert (found.kind, found.top_first) == ("interlaced", False)
    assert found.note == (
        "The file says top field first, but its pictures are not: taken as bottom field first."
    )


def test_all_formats_are_looked_at() -> None:
    formats = (vs.GRAY8, vs.YUV420P8, vs.YUV422P10, vs.YUV444P16, vs.RGB24, vs.RGBS, vs.GRAYS)
    for form in formats:
        assert look(clip_of(zoo.interlaced(17, 96, 64), form), "unknown").kind == "interlaced"
        assert look(clip_of(zoo.moving(17, 96, 64), form), "unknown").kind == "progressive"


def test_without_motion_a_comb_must_speak_for_the_flags() -> None:
    picture = zoo.interlaced(1, 96, 64)
    still = np.repeat(picture, 20, 0)
    assert look(clip_of(still, flag=2), "unknown").kind == "interlaced"
    assert look(clip_of(still), "unknown").kind == "progressive"
    assert look(clip_of(picture, flag=1), "bottom") == Fields("interlaced", False, "")
    whole = np.repeat(zoo.moving(1, 96, 64), 20, 0)
    assert look(clip_of(whole, flag=2), "top").kind == "progressive"


def test_cuts_are_no_combs_and_hide_none() -> None:
    shots = [zoo.moving(6, 96, 64) ^ np.uint8(k * 31) for k in range(8)]
    assert look(clip_of(np.concatenate(shots)), "unknown").kind == "progressive"
    shots = [zoo.interlaced(6, 96, 64) ^ np.uint8(k * 31) for k in range(8)]
    assert look(clip_of(np.concatenate(shots)), "unknown").kind == "interlaced"


def woven(clip: Any, kind: str) -> Any:
    """A progressive clip as fields: two moments a picture, or 3:2 pulldown."""
    top = not kind.endswith("bottom")
    cycle = [0, 1, 2, 3, 2, 5, 4, 7, 6, 7]
    parts = clip.std.SetFieldBased(0).std.SeparateFields(tff=top)
    if kind.startswith("interlaced"):
        parts = core.std.SelectEvery(parts, 4, [0, 3])
    else:
        parts = core.std.SelectEvery(parts, 8, cycle)
    return parts.std.DoubleWeave(tff=top)[::2].std.SetFieldBased(0)


@pytest.mark.slow
@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.stem)
def test_real_clips(path: Path) -> None:
    clip = core.bs.VideoSource(str(path), cachemode=0, rff=0)
    assert look(clip, "unknown").kind == "progressive"
    for kind in ("interlaced top", "interlaced bottom", "telecined top", "telecined bottom"):
        found = look(woven(clip, kind), "unknown")
        assert f"{found.kind} {'top' if found.top_first else 'bottom'}" == kind


@pytest.mark.parametrize("lines", [0.25, 0.5, 1.0, -1.0, 1.5])
def test_a_slow_tilt_is_no_comb(lines: float) -> None:
    # Moved by a line, whole pictures fit the fields of their neighbours as combed ones do.
    photo = clip_of(zoo.moving(1, 96, 192)).std.Loop(40)
    clip = core.std.Splice(
        [
            photo[n].resize.Bicubic(src_top=80 + n * lines, src_height=64, height=64)
            for n in range(40)
        ]
    )
    assert look(clip, "unknown").kind == "progressive"


def test_long_clips_are_looked_at_in_few_places() -> None:
    asked = []
    blank = core.std.BlankClip(None, 64, 48, vs.GRAY8, 200_000, keep=True)

    def counted(n: int, f: Any) -> Any:
        asked.append(n)
        return f

    look(blank.std.ModifyFrame(blank, counted), "unknown")
    assert len(set(asked)) == 128 and min(asked) > 10_000 and max(asked) < 190_000


INTERLACED, TELECINED = Fields("interlaced", True, ""), Fields("telecined", False, "")


def test_the_refusal_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "core", SimpleNamespace())
    with pytest.raises(JobError) as e:
        check(INTERLACED, "")
    assert str(e.value) == (
        "source must have progressive pictures, got interlaced ones (top field first). "
        "Add --deinterlace bwdif, after pip install vapoursynth-bwdif; or --progressive if they "
        "are whole after all."
    )
    with pytest.raises(JobError) as e:
        check(TELECINED, "bwdif")
    assert str(e.value) == (
        "deinterlace must be a plugin that is installed, got bwdif. "
        "Install it: pip install vapoursynth-bwdif."
    )
    monkeypatch.setattr(fields, "core", SimpleNamespace(vivtc=None))
    assert fields.available() == ["ivtc"]
    with pytest.raises(JobError, match=r"bottom field first\)\. Add --deinterlace ivtc; or"):
        check(TELECINED, "")
    check(TELECINED, "ivtc")
    check(Fields("progressive", True, ""), "")


def test_pictures_taken_as_whole_lose_their_flags() -> None:
    clip = deinterlaced(clip_of(zoo.moving(2, 64, 48), flag=2), "", top_first=True)
    assert clip.get_frame(0).props["_FieldBased"] == 0


def test_times_of_a_telecined_source() -> None:
    times = [7 + round(n * Fraction(1001, 30)) for n in range(17)]  # ms, as in Matroska
    shown, last = times_after("ivtc", times, 33)
    assert len(shown) == 3 * 4 + 2
    assert shown[:5] == [7 + round(n * Fraction(1001, 24)) for n in range(5)]
    # Two pictures of an unfinished cycle stay where they are.
    assert shown[-2:] == [times[15], times[16]] and last == 33
    assert times_after("bwdif", times, 33) == (times, 33)
    assert times_after("", times, 33) == (times, 33)
    assert times_after("ivtc", [], 1) == ([], 1)
    with pytest.raises(JobError, match=r"got one that is .* Use --deinterlace bwdif\."):
        times_after("ivtc", [*times[:9], *(t + 40 for t in times[9:])], 33)


SCRIPT = """
import sys
import numpy as np
sys.path.insert(0, {tests!r})
import zoo
from test_fields import clip_of
from vapoursynth import core
from vs_vsr.job.fields import available, check, deinterlaced, look, times_after

assert available() == []
core.std.LoadPlugin({bwdif!r})
core.std.LoadPlugin({vivtc!r})
assert available() == ["bwdif", "ivtc"]
for top in (True, False):
    # The flags of the file are wrong.
    clip = clip_of(zoo.interlaced(16, 96, 64, top_first=top), flag=1 if top else 2)
    found = look(clip, "unknown")
    check(found, "bwdif")
    whole = deinterlaced(clip, "bwdif", top_first=found.top_first)
    assert len(whole) == len(clip)
    for n in range(len(clip)):
        frame = whole.get_frame(n)
        assert frame.props["GotField"] == top and frame.props["_FieldBased"] == 0
        # All lines are of the earlier moment.
        kept, made = np.asarray(clip.get_frame(n)[0])[1 - top :: 2], np.asarray(frame[0])
        assert (made[0::2] == kept).all() and (made[1::2] == kept).all()
    assert look(whole, "unknown").kind == "progressive"
clip = clip_of(zoo.telecined(27, 96, 64))
found = look(clip, "unknown")
check(found, "ivtc")
film = deinterlaced(clip, "ivtc", top_first=found.top_first)
frame = film.get_frame(0)
assert frame.props["GotOrder"] == 1 and frame.props["_FieldBased"] == 0
assert len(film) == len(times_after("ivtc", range(27), 1)[0])
"""


@pytest.mark.slow
def test_the_plugins_get_what_they_need(tmp_path: Path) -> None:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        pytest.skip("no C compiler to build stand-ins for the plugins")
    source = Path(__file__).with_name("deinterlacers.c")
    built = {}
    for name, define in (("bwdif", "-DBWDIF"), ("vivtc", "-DVIVTC")):
        built[name] = str(tmp_path / f"lib{name}.so")
        command = [compiler, "-shared", "-fPIC", define, "-I", vs.get_include(), str(source)]
        subprocess.run([*command, "-o", built[name]], check=True)
    # In a process of its own: a plugin stays loaded.
    tests = str(Path(__file__).parent)
    subprocess.run(
        [sys.executable, "-c", SCRIPT.format(tests=tests, **built)],
        check=True,
        env={**environment(), "PYTHONPATH": str(Path(__file__).parents[1])},
    )


def rolled(count: int, lines: float) -> Any:
    """A smooth texture that moves down by so many lines a picture, (count, 64, 96, 3)."""
    rng = np.random.default_rng(4)
    coarse = np.fft.rfft2(rng.normal(size=(64, 96)))
    fy, fx = np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(96)[None]
    coarse *= np.exp(-((fy * 7) ** 2) - (fx * 7) ** 2)
    shifted = [np.fft.irfft2(coarse * np.exp(-2j * np.pi * fy * lines * n)) for n in range(count)]
    scaled = 128 + 40 * np.array(shifted) / np.std(shifted)
    return scaled.clip(0, 255).astype(np.uint8)[..., None].repeat(3, -1)


@pytest.mark.parametrize("lines", [0.5, 1, 1.5, 2, 3])
def test_whole_pictures_that_move_up_or_down(lines: float) -> None:
    # By a line a picture they fit the fields of their neighbours as well as fields do.
    assert look(clip_of(rolled(32, lines)), "progressive").kind == "progressive"
