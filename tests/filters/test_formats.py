"""Any constant format goes in and comes out, with its colours, properties and durations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs
from conftest import small_checkpoint
from formats import FORMATS

from vs_vsr.streaming.runner import Runner
from vs_vsr.transfer import host

core = vs.core


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network that adds nothing: what comes out is the bilinear enlargement."""
    path = small_checkpoint(tmp_path_factory.mktemp("weights"), channels=8, blocks=1)
    state = torch.load(path, weights_only=True)["params"]
    for name in ("conv_last.weight", "conv_last.bias"):
        state[name].zero_()
    torch.save({"params": state}, path)
    return str(path)


def peak(clip: vs.VideoNode) -> float:
    return 1.0 if clip.format.sample_type == vs.FLOAT else 2.0**clip.format.bits_per_sample - 1


def flat(format: vs.PresetVideoFormat) -> vs.VideoNode:
    blank = core.std.BlankClip(
        format=format, width=30, height=22, length=3, fpsnum=30000, fpsden=1001
    )
    scale = peak(blank)
    color = [0.3 * scale, 0.4 * scale, 0.6 * scale]
    if blank.format.sample_type == vs.FLOAT and blank.format.color_family == vs.YUV:
        color = [0.3, -0.1, 0.1]
    if blank.format.sample_type == vs.INTEGER:
        color = [round(value) for value in color]
    return core.std.BlankClip(blank, color=color[: blank.format.num_planes])


@pytest.mark.parametrize("format", FORMATS, ids=lambda f: vs.PresetVideoFormat(f).name)
def test_a_flat_clip_comes_out_as_it_went_in(weights: str, format: vs.PresetVideoFormat) -> None:
    clip = flat(format)
    out = core.vsr.BasicVSR(clip, weights=weights, precision="fp32")
    assert out.format.id == format
    assert (out.width, out.height, out.num_frames) == (120, 88, 3)
    assert (out.fps_num, out.fps_den) == (30000, 1001)
    frame, source = out.get_frame(1), clip.get_frame(1)
    tolerance = 1.01 if clip.format.sample_type == vs.INTEGER else 2e-3
    for p in range(clip.format.num_planes):
        want = np.asarray(source[p]).astype(float).mean()
        np.testing.assert_allclose(np.asarray(frame[p]).astype(float), want, atol=tolerance)


@pytest.mark.parametrize("matrix", [1, 4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize("full", [0, 1])
def test_matrix_and_range_of_each_frame_are_kept(weights: str, matrix: int, full: int) -> None:
    clip = flat(vs.YUV420P8).std.SetFrameProps(_Matrix=matrix, _Range=full, _ChromaLocation=2)
    first, rest = clip[0], clip[1:].std.SetFrameProps(_Matrix=5 if matrix != 5 else 1)
    out = core.vsr.BasicVSR(first + rest, weights=weights, precision="fp32")
    for n in range(3):
        want, got = (first + rest).get_frame(n), out.get_frame(n)
        for name in ("_Matrix", "_Range", "_ChromaLocation"):
            assert got.props[name] == want.props[name]
        for p in range(3):
            assert abs(int(np.asarray(got[p])[3, 3]) - int(np.asarray(want[p])[0, 0])) <= 1


@pytest.mark.parametrize("format", [vs.YUV444P8, vs.RGB24, vs.RGBS, vs.YUV422P8])
def test_a_chroma_location_stays(weights: str, format: vs.PresetVideoFormat) -> None:
    clip = flat(format).std.SetFrameProps(_ChromaLocation=2)
    out = core.vsr.BasicVSR(clip, weights=weights)
    assert out.get_frame(1).props["_ChromaLocation"] == 2
    # Where there is none, none is added.
    out = core.vsr.BasicVSR(flat(vs.RGB24), weights=weights)
    assert "_ChromaLocation" not in out.get_frame(1).props


def test_rgb_that_still_carries_the_matrix_of_its_yuv(weights: str) -> None:
    clip = flat(vs.RGB24).std.SetFrameProps(_Matrix=1)
    frame = core.vsr.BasicVSR(clip, weights=weights, precision="fp32").get_frame(0)
    assert frame.props["_Matrix"] == 0
    assert abs(int(np.asarray(frame[1])[3, 3]) - int(np.asarray(clip.get_frame(0)[1])[0, 0])) <= 1


@pytest.mark.parametrize(
    ("width", "height", "arguments", "matrix"),
    [
        (30, 22, {}, 6),
        (30, 22, {"matrix": "709"}, 1),
        (704, 576, {}, 5),
        (1280, 720, {}, 1),
    ],
)
def test_a_matrix_that_is_not_said_follows_from_the_size(
    weights: str, width: int, height: int, arguments: dict[str, str], matrix: int
) -> None:
    from vs_vsr.plugin.arguments import MATRICES, default_matrix

    given = arguments.get("matrix")
    assert (MATRICES[given] if given else default_matrix(width, height)) == matrix
    if width < 100:
        clip = flat(vs.YUV444P8).std.RemoveFrameProps("_Matrix")
        out = core.vsr.BasicVSR(clip, weights=weights, **arguments)
        assert out.get_frame(0).props["_Matrix"] == matrix


@pytest.mark.parametrize("transfer", [vs.TRANSFER_ST2084, vs.TRANSFER_ARIB_B67])
@pytest.mark.parametrize("unnamed", [None, vs.MATRIX_UNSPECIFIED])
def test_hdr_frames_that_name_no_matrix_are_bt2020(
    weights: str, transfer: int, unnamed: int | None
) -> None:
    tags = {"_Transfer": transfer, "_Primaries": 9, "_Range": 1}
    clip = flat(vs.YUV420P10).std.SetFrameProps(**tags).std.RemoveFrameProps("_Matrix")
    if unnamed is not None:
        clip = clip.std.SetFrameProps(_Matrix=unnamed)
    # The same numbers, but said to be something else: SDR, and HDR in a matrix of its own.
    sdr = clip.std.SetFrameProps(_Transfer=vs.TRANSFER_BT709)
    named = clip.std.SetFrameProps(_Matrix=vs.MATRIX_ST170_M)
    mixed = clip[0] + sdr[1] + named[2]
    for arguments, want in (({}, [9, 6, 6]), ({"matrix": "709"}, [1, 1, 6])):
        out = core.vsr.BasicVSR(mixed, weights=weights, precision="fp32", **arguments)
        frames = [out.get_frame(n) for n in range(3)]
        assert [frame.props["_Matrix"] for frame in frames] == want
        for n, frame in enumerate(frames):
            given = mixed.get_frame(n)
            assert {name: frame.props[name] for name in tags} == {
                name: given.props[name] for name in tags
            }
            # The way back is by the matrix of the way in, so the numbers are the same.
            for p in range(3):
                assert abs(int(np.asarray(frame[p])[3, 3]) - int(np.asarray(given[p])[0, 0])) <= 1


def test_what_the_network_sees_of_an_hdr_frame_is_by_bt2020(
    weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[float]] = []
    upload = host.upload

    def note(planes: Sequence[host.Array]) -> torch.Tensor:
        seen.append([float(plane[0, 0]) for plane in planes])
        return upload(planes)

    monkeypatch.setattr(host, "upload", note)
    clip = flat(vs.YUV444P10)[0].std.RemoveFrameProps("_Matrix")
    clip = clip.std.SetFrameProps(_Transfer=vs.TRANSFER_ST2084, _Range=1)
    core.vsr.BasicVSR(clip, weights=weights).get_frame(0)
    want = clip.resize.Bicubic(format=vs.RGBS, matrix_in=vs.MATRIX_BT2020_NCL).get_frame(0)
    assert seen == [[pytest.approx(float(np.asarray(want[p])[0, 0]), abs=1e-6) for p in range(3)]]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_ramp_of_ten_bit_pq_keeps_its_steps(weights: str, precision: str) -> None:
    """A step of bf16 is up to four ten-bit codes: what the network adds to is float32."""
    codes = np.arange(64, 941)
    blank = core.std.BlankClip(format=vs.YUV420P10, width=len(codes) + 1, height=16, length=1)

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        f = f.copy()
        np.asarray(f[0])[:] = np.append(codes, 940)
        for p in (1, 2):
            np.asarray(f[p])[:] = 512
        return f

    tags = {"_Transfer": vs.TRANSFER_ST2084, "_Primaries": vs.PRIMARIES_BT2020, "_Range": 0}
    ramp = blank.std.ModifyFrame(blank, draw).std.RemoveFrameProps("_Matrix")
    ramp = ramp.std.SetFrameProps(**tags)
    frame = core.vsr.BasicVSR(ramp, weights=weights, precision=precision).get_frame(0)
    assert {name: frame.props[name] for name in tags} == tags
    assert frame.props["_Matrix"] == vs.MATRIX_BT2020_NCL
    row = np.asarray(frame[0])[30].astype(int)
    # Bilinear at a quarter of a pixel, its ends held.
    place = (np.arange(len(row)) + 0.5) / 4 - 0.5
    want = np.interp(place, np.arange(len(codes) + 1), np.append(codes, 940))
    assert np.abs(row - want).max() <= 1
    assert set(row.tolist()) == set(codes.tolist())
    steps = np.diff(row)
    assert steps.min() >= 0 and steps.max() == 1
    for p in (1, 2):
        assert np.abs(np.asarray(frame[p]).astype(int) - 512).max() <= 1


def test_a_negative_matrix_names_none(weights: str) -> None:
    clip = flat(vs.YUV444P8).std.SetFrameProps(_Matrix=-1)
    assert core.vsr.BasicVSR(clip, weights=weights).get_frame(0).props["_Matrix"] == 6


@pytest.mark.parametrize("matrix", ["1", 1, vs.MATRIX_BT709])
def test_a_matrix_by_its_number(weights: str, matrix: str | int) -> None:
    from vs_vsr import basicvsr

    clip = flat(vs.YUV444P8).std.RemoveFrameProps("_Matrix")
    for out in (
        core.vsr.BasicVSR(clip, weights=weights, matrix=matrix),
        basicvsr(clip, weights=weights, matrix=matrix),
    ):
        assert out.get_frame(0).props["_Matrix"] == 1


def test_properties_and_durations_stay(weights: str) -> None:
    clip = flat(vs.YUV420P8).std.SetFrameProps(Mine=7, _SARNum=4, _SARDen=3, _PictType="B")

    def vary(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        f = f.copy()
        f.props["_DurationNum"], f.props["_DurationDen"] = 1 + n, 25
        return f

    clip = clip.std.ModifyFrame(clip, vary)
    out = core.vsr.BasicVSR(clip, weights=weights)
    for n in range(3):
        props = out.get_frame(n).props
        assert (props["Mine"], props["_SARNum"], props["_PictType"]) == (7, 4, "B")
        assert (props["_DurationNum"], props["_DurationDen"]) == (1 + n, 25)
        assert not [name for name in props if name.startswith("_Vsr")]


def test_an_alpha_plane_of_the_old_size_does_not_stay(weights: str) -> None:
    clip = flat(vs.RGBS)
    alpha = core.std.BlankClip(clip, format=vs.GRAYS)
    out = core.vsr.BasicVSR(clip.std.ClipToProp(alpha, prop="_Alpha"), weights=weights)
    assert "_Alpha" not in out.get_frame(0).props


def test_sixteen_bits_in_give_sixteen_bits_out(weights: str) -> None:
    ramp = core.std.BlankClip(format=vs.RGB48, width=64, height=16, length=1)

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        f = f.copy()
        for p in range(3):
            np.asarray(f[p])[:] = 20000 + np.arange(64) * 7
        return f

    out = core.vsr.BasicVSR(ramp.std.ModifyFrame(ramp, draw), weights=weights, precision="fp32")
    row = np.asarray(out.get_frame(0)[0])[30]
    assert len(set(row.tolist())) > 150  # 64 values of 8 bits could not
    assert (np.diff(row.astype(int)) >= 0).all()


def test_what_is_outside_the_range_is_clamped(weights: str) -> None:
    clip = core.std.BlankClip(format=vs.RGBS, width=30, height=22, length=1, color=[1.5, -0.5, 0.5])
    frame = core.vsr.BasicVSR(clip, weights=weights).get_frame(0)
    assert [float(np.asarray(frame[p])[5, 5]) for p in range(3)] == pytest.approx([1, 0, 0.5])


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 65), (67, 33), (8, 8)])
def test_any_size(weights: str, width: int, height: int) -> None:
    clip = core.std.BlankClip(format=vs.RGBS, width=width, height=height, length=2)
    frame = core.vsr.BasicVSR(clip, weights=weights).get_frame(1)
    assert (frame.width, frame.height) == (4 * width, 4 * height)


def test_frames_are_read_where_they_lie_and_pictures_are_written_where_they_go(
    weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clamped float32 copy of a frame is all that is made of it on its way in."""
    read: list[Sequence[host.Array]] = []
    uploaded: list[torch.Tensor] = []
    written: list[list[int]] = []
    upload, run = host.upload, Runner.run

    def note_upload(planes: Sequence[host.Array]) -> torch.Tensor:
        read.append(planes)
        uploaded.append(upload(planes))
        return uploaded[-1]

    def note_run(self: Runner, step: Any, frames: Any, marks: Any, out: Any, span: Any) -> bool:
        # What the network is given is what was uploaded, and no copy of it.
        assert all(any(frame is other for other in uploaded) for frame in frames)
        written.extend([plane.data_ptr() for plane in planes] for planes in out)
        return run(self, step, frames, marks, out, span)

    monkeypatch.setattr(host, "upload", note_upload)
    monkeypatch.setattr(Runner, "run", note_run)
    clip = core.std.BlankClip(flat(vs.RGBS), keep=True)
    source, frame = clip.get_frame(0), core.vsr.BasicVSR(clip, weights=weights).get_frame(0)
    addresses = [source.get_read_ptr(p).value for p in range(3)]
    # With keep=True the source's frame is the same memory in every request.
    assert [plane.ctypes.data for plane in read[0]] == addresses
    assert not read[0][0].flags.writeable
    assert written[0] == [frame.get_read_ptr(p).value for p in range(3)]
