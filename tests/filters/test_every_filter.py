"""Every filter through VapourSynth: one answer per frame, cuts, whole clips, sizes, timing."""

import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs
from networks import NETWORKS, ONE_EACH, checkpoint

from vs_vsr.weights.loader import load_model

core = vs.core
LENGTH, CUT = 13, 6
# Small chunks make many borders; each filter takes the arguments that it has.
SMALL = {"chunk": 3, "lookahead": 2, "segment": 6, "preroll": 2}

# These two stream as the other VRT does, slowly.
STREAMS = [name for name in NETWORKS if name not in ("VRT x4", "VRT denoise")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


def moving(
    length: int = LENGTH, size: tuple[int, int] = (40, 36), *, cut: int | None = None,
    odd: Iterable[int] = (), **blank: Any,
) -> vs.VideoNode:  # fmt: skip
    """A texture that moves; frames in `odd` show another."""

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        out = f.copy()
        y, x = np.mgrid[0 : f.height, 0 : f.width]
        for p in range(3):
            texture = np.sin((x + 1.5 * n) / (2 + p)) * np.cos((y - n / 2) / (3 + (n in odd)))
            np.asarray(out[p])[:] = 0.5 + 0.4 * texture
        if n == cut:
            out.props["_SceneChangePrev"] = 1
        return out

    width, height = size
    clip = core.std.BlankClip(
        format=vs.RGBS, width=width, height=height, length=length, fpsnum=25, fpsden=1, **blank
    )
    return clip.std.ModifyFrame(clip, draw)


def filtered(name: str, folder: Path, clip: vs.VideoNode, **options: Any) -> vs.VideoNode:
    small = NETWORKS[name]
    weights = str(checkpoint(name, folder))
    given = {"weights": weights, "precision": "fp32", **small.arguments, **options}
    node: vs.VideoNode = getattr(clip.vsr, small.filter)(**given)
    return node


def small(name: str) -> dict[str, int]:
    signature = getattr(core.vsr, NETWORKS[name].filter).signature
    not_taken = {"lookahead"} if "interpolate" in name else set()
    return {k: v for k, v in SMALL.items() if f"{k}:" in signature and k not in not_taken}


def pixels(frame: vs.VideoFrame) -> bytes:
    return b"".join(bytes(plane) for plane in frame.readchunks())


def size_for(name: str) -> tuple[int, int]:
    return (64, 64) if name.startswith("VRT") else (40, 36)


@pytest.mark.slow
@pytest.mark.parametrize("name", STREAMS)
def test_one_answer_per_frame(name: str, folder: Path) -> None:
    clip = moving(size=size_for(name), cut=CUT)
    options = small(name)
    clip_out = filtered(name, folder, clip, **options)
    want = [pixels(frame) for frame in clip_out.frames()]
    assert len(set(want)) >= LENGTH - 1
    back = filtered(name, folder, clip, **options)
    last = back.num_frames - 1
    assert [pixels(back.get_frame(last - i)) for i in range(last + 1)] == want[::-1]
    asked = [last, 2, last // 2, 0, last // 2 + 1]
    futures = [filtered(name, folder, clip, **options).get_frame_async(n) for n in asked]
    assert [pixels(future.result()) for future in futures] == [want[n] for n in asked]


@pytest.mark.slow
# Of VRT the one whose windows are pairs too.
@pytest.mark.parametrize("name", [name for name in STREAMS if name != "VRT deblur"])
def test_nothing_crosses_a_cut(name: str, folder: Path) -> None:
    size, options = size_for(name), small(name)
    rate = 2 if "interpolate" in name else 1

    def pictures(**changes: Any) -> list[bytes]:
        clip = moving(size=size, **changes)
        return [pixels(f) for f in filtered(name, folder, clip, **options).frames()]

    before, after = range(CUT), range(CUT, LENGTH)
    want = pictures(cut=CUT)
    assert pictures(cut=CUT, odd=after)[: rate * CUT] == want[: rate * CUT]
    assert pictures(cut=CUT, odd=before)[rate * CUT :] == want[rate * CUT :]
    # Without the mark they see each other.
    seen = pictures()
    assert pictures(odd=after)[: rate * CUT] != seen[: rate * CUT]


@pytest.mark.slow
# Of the two networks of VRT that restore, the one that takes a strength too.
@pytest.mark.parametrize(
    "name", [n for n in NETWORKS if n not in ("VRT interpolate", "VRT deblur")]
)
def test_the_whole_clip_at_once_is_the_network(name: str, folder: Path) -> None:
    width, height = size_for(name)
    clip = moving(size=(width, height))
    tile = {"tile": 0} if name.startswith("VRT") else {}
    out = filtered(name, folder, clip, chunk=0, **tile)
    got = np.stack([np.stack([np.asarray(p) for p in f]) for f in out.frames()])
    stacked = np.stack([np.stack([np.asarray(p) for p in f]) for f in clip.frames()])
    frames = torch.from_numpy(stacked).clamp(0, 1)[None]
    model: Any = load_model(checkpoint(name, folder), **NETWORKS[name].options)
    if name.startswith("VRT"):
        sigma = {"sigma": 20} if model.denoises else {}
        want = model.tiled(frames, tile=(0, 0, 0), overlap=(0, 0, 0), **sigma)
    else:
        want = model(frames)
    np.testing.assert_allclose(got, want[0].clamp(0, 1).numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EDVR", "EDVR deblur", "BasicVSRPP", "RealBasicVSR"])
def test_chunks_that_see_enough_are_the_whole_clip(name: str, folder: Path) -> None:
    clip = moving()
    enough = dict.fromkeys(small(name), LENGTH) | {"chunk": 4}
    if "segment" in enough:
        enough["segment"] = 16
    chunks = filtered(name, folder, clip, **enough)
    whole = filtered(name, folder, clip, chunk=0)
    for a, b in zip(chunks.frames(), whole.frames(), strict=True):
        np.testing.assert_allclose(np.asarray(a[1]), np.asarray(b[1]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("length", [1, 2])
def test_short_clips_of_odd_size_in_yuv(name: str, length: int, folder: Path) -> None:
    clip = core.std.BlankClip(
        format=vs.YUV420P8, width=38, height=26, length=length, color=[90, 120, 140]
    )
    out = filtered(name, folder, clip)
    scale = 4 if out.width > clip.width else 1
    assert (out.width, out.height) == (38 * scale, 26 * scale)
    assert out.format.id == vs.YUV420P8
    assert len(list(out.frames())) == length * (2 if "interpolate" in name else 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EDVR", "IconVSR", "BasicVSRPP restore"])
def test_spatial_tiles_cover_the_frame(name: str, folder: Path) -> None:
    clip = moving(3, (150, 90))
    tiled = filtered(name, folder, clip, tile=64, overlap=32)
    whole = filtered(name, folder, clip)
    for a, b in zip(tiled.frames(), whole.frames(), strict=True):
        error = np.abs(np.asarray(a[0]) - np.asarray(b[0]))
        assert np.isfinite(error).all()
        assert error.mean() < 0.02


def timing(clip: vs.VideoNode) -> list[tuple[Fraction, Fraction | None, int, int]]:
    rows = []
    for frame in clip.frames():
        props = frame.props
        time = props.get("_AbsoluteTime")
        rows.append(
            (
                Fraction(props["_DurationNum"], props["_DurationDen"]),
                None if time is None else Fraction(time).limit_denominator(10000),
                props.get("_SceneChangePrev", 0),
                props.get("_SceneChangeNext", 0),
            )
        )
    return rows


def test_interpolation_doubles_the_rate_and_halves_the_durations(folder: Path) -> None:
    lengths = [Fraction(1, 25), Fraction(1, 50), Fraction(3, 25), Fraction(1, 10)]

    def mark(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        out = f.copy()
        out.props["_DurationNum"], out.props["_DurationDen"] = lengths[n].as_integer_ratio()
        out.props["_AbsoluteTime"] = float(sum(lengths[:n]))
        out.props["_SceneChangePrev"] = int(n == 2)
        out.props["_SceneChangeNext"] = int(n == 1)
        return out

    clip = moving(4, (64, 64))
    clip = clip.std.ModifyFrame(clip, mark)
    out = filtered("VRT interpolate", folder, clip)
    assert (out.num_frames, out.fps) == (8, 50)
    rows = timing(out)
    assert [row[0] for row in rows] == [n / 2 for n in lengths for _ in range(2)]
    starts = [sum(lengths[: i // 2]) + lengths[i // 2] / 2 * (i % 2) for i in range(8)]
    assert [row[1] for row in rows] == starts
    assert [row[2] for row in rows] == [0, 0, 0, 0, 1, 0, 0, 0]
    assert [row[3] for row in rows] == [0, 0, 0, 1, 0, 0, 0, 0]
    given, made = list(clip.frames()), list(out.frames())
    assert [pixels(f) for f in made[::2]] == [pixels(f) for f in given]
    # The last frame of each shot is repeated; between others there is something new.
    assert [pixels(made[i]) == pixels(made[i - 1]) for i in (1, 3, 5, 7)] == [False, True] * 2


@pytest.mark.slow
def test_an_endless_clip_is_interpolated_too(folder: Path) -> None:
    clip = core.std.BlankClip(format=vs.RGBS, width=64, height=64, length=2**31 - 1)
    out = filtered("VRT interpolate", folder, clip)
    # As many whole pairs as a clip has frames.
    assert out.num_frames == 2**31 - 2
    assert out.get_frame(2**31 - 3).width == 64
    out.get_frame(5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_EACH)
def test_a_source_that_fails_at_a_frame(name: str, folder: Path) -> None:
    def fail(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if n == 4:
            raise ValueError("torn tape")
        return f

    clip = moving(size=size_for(name))
    out = filtered(name, folder, clip.std.ModifyFrame(clip, fail), **small(name))
    with pytest.raises(vs.Error, match="torn tape"):
        out.get_frame((out.num_frames // LENGTH) * 4)
    last = out.num_frames - 1
    for _ in range(2):
        # A seek over the frame may fail once.
        try:
            frame = out.get_frame(last)
        except vs.Error:
            continue
    assert np.isfinite(np.asarray(frame[0])).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("IconVSR", {"keyframe": 0}, "IconVSR: keyframe must be at least 1, got 0."),
        (
            "EDVR",
            {"padding": "mirror"},
            'EDVR: padding must be one of "reflection_circle", "replicate", got "mirror".',
        ),
        (
            "RealBasicVSR",
            {"refine_threshold": -1},
            "RealBasicVSR: refine_threshold must be from 0 to 255, got -1.0. Leave it out",
        ),
        ("VRT deblur", {"tile": 100}, "VRT: tile must be a multiple of 8, got 100. Use 96."),
        (
            "VRT deblur",
            {"chunk": 3, "lookahead": 4},
            "VRT: lookahead must be at most chunk (3), got 4. Use 3.",
        ),
        ("VRT denoise", {"sigma": 300}, "VRT: sigma must be from 0 to 255, got 300.0."),
        (
            "VRT deblur",
            {"sigma": 3},
            "VRT: sigma is for denoising weights only, got 3.0. Leave it out.",
        ),
        (
            "VRT interpolate",
            {"lookahead": 1},
            "VRT: lookahead is not for interpolation weights, got 1. Leave it out.",
        ),
    ],
)
def test_own_arguments_that_break_their_rules(
    name: str, options: dict[str, Any], message: str, folder: Path
) -> None:
    with pytest.raises(vs.Error, match="^" + re.escape(message)):
        filtered(name, folder, moving(2, (64, 64)), **options)


def test_denoising_needs_the_noise_level(folder: Path) -> None:
    weights = str(checkpoint("VRT denoise", folder))
    message = r"^VRT: sigma must be given for weights that denoise, got none\."
    with pytest.raises(vs.Error, match=message):
        moving(2, (64, 64)).vsr.VRT(weights=weights)


def test_weights_that_are_not_free_must_be_named() -> None:
    message = r"^VRT: weights must be named, .*CC BY-NC 4\.0\), got none\. Name a file or one of .*"
    with pytest.raises(vs.Error, match=message + "reds-16frames"):
        moving(2).vsr.VRT()


def test_weights_of_another_network(folder: Path) -> None:
    weights = str(checkpoint("EDVR", folder))
    message = r"^IconVSR: weights must be a checkpoint of IconVSR, got one of EDVR"
    with pytest.raises(vs.Error, match=message):
        moving(2).vsr.IconVSR(weights=weights)
    # The same once EDVR has built the network.
    moving(2).vsr.EDVR(weights=weights)
    with pytest.raises(vs.Error, match=message):
        moving(2).vsr.IconVSR(weights=weights)


def test_each_filter_has_its_own_arguments_only(folder: Path) -> None:
    with pytest.raises(vs.Error, match="lookahead"):
        filtered("EDVR", folder, moving(2), lookahead=3)
    with pytest.raises(vs.Error, match="sigma"):
        filtered("IconVSR", folder, moving(2), sigma=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ONE_EACH if name != "VRT interpolate"])
def test_the_typed_twin_is_the_same_filter(name: str, folder: Path) -> None:
    import vs_vsr

    small, weights = NETWORKS[name], checkpoint(name, folder)
    clip = moving(3, size_for(name))
    twin = getattr(vs_vsr, small.filter.lower())
    pictures = twin(clip, weights=weights, precision="fp32", chunk=2, **small.arguments)
    want = filtered(name, folder, clip, chunk=2)
    assert [pixels(f) for f in pictures.frames()] == [pixels(f) for f in want.frames()]


def test_the_typed_twin_wants_a_clip() -> None:
    import vs_vsr

    clip: Any = "film.mkv"
    with pytest.raises(ValueError, match=r"^EDVR: clip must be a VideoNode, got 'film\.mkv'"):
        vs_vsr.edvr(clip)


def test_interpolation_of_a_rate_that_cannot_be_doubled(folder: Path) -> None:
    clip = core.std.BlankClip(format=vs.RGBS, length=2, fpsnum=2**62, fpsden=1)
    message = r"^VRT: clip must be at a rate whose numerator is at most \d+, got \d+\. Set its rate"
    with pytest.raises(vs.Error, match=message):
        filtered("VRT interpolate", folder, clip)
