"""Frame interpolation: the source's own frames among the new ones, and the time of each."""

from fractions import Fraction

import numpy as np
import pytest
import vapoursynth as vs
from formats import FORMATS
from networks import checkpoint

core = vs.core


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(checkpoint("VRT interpolate", tmp_path_factory.mktemp("weights")))


def noise(format: vs.PresetVideoFormat, length: int = 3) -> vs.VideoNode:
    """Every value that the format has, those outside of its range too, NaN and infinity."""
    blank = core.std.BlankClip(format=format, width=64, height=64, length=length, fpsnum=25)

    def draw(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        out = f.copy()
        random = np.random.default_rng(n)
        for p in range(f.format.num_planes):
            plane = np.asarray(out[p])
            if f.format.sample_type == vs.INTEGER:
                plane[:] = random.integers(0, 2**f.format.bits_per_sample, plane.shape)
            else:
                plane[:] = random.uniform(-2, 3, plane.shape)
                plane[0, :2] = np.nan, np.inf
        return out

    return blank.std.ModifyFrame(blank, draw)


def pixels(frame: vs.VideoFrame) -> list[bytes]:
    return [bytes(plane) for plane in frame.readchunks()]


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS, ids=lambda f: vs.PresetVideoFormat(f).name)
def test_the_sources_own_frames_are_handed_out(weights: str, format: vs.PresetVideoFormat) -> None:
    clip = noise(format).std.SetFrameProps(Mine=[1, 2])
    out = core.vsr.VRT(clip, weights=weights, scenes="off")
    # Backwards as well: it does not depend on what was computed before.
    for n in (4, 2, 0):
        want, got = clip.get_frame(n // 2), out.get_frame(n)
        assert pixels(got) == pixels(want)
        assert got.props["Mine"] == [1, 2]
        assert Fraction(got.props["_DurationNum"], got.props["_DurationDen"]) == Fraction(1, 50)
        assert not [name for name in got.props if name.startswith("_Vsr")]
    between = out.get_frame(1)
    assert pixels(between) != pixels(clip.get_frame(0))
    assert between.format.id == format
    # Old and new frames have the same properties except for the time.
    own, new = dict(out.get_frame(0).props), dict(between.props)
    assert {**own, "_AbsoluteTime": 0} == {**new, "_AbsoluteTime": 0}


@pytest.mark.parametrize("format", [vs.RGBS, vs.YUV444P8])
def test_own_frames_are_refused_as_others_are(weights: str, format: int) -> None:
    clip = noise(format).std.SetFrameProps(_FieldBased=2)
    out = core.vsr.VRT(clip, weights=weights)
    with pytest.raises(vs.Error, match=r"^VRT: clip must be progressive, got _FieldBased=2"):
        out.get_frame(2)


@pytest.mark.parametrize(
    ("duration", "half"),
    [
        ((1, 25), (1, 50)),
        ((1001, 30000), (1001, 60000)),
        ((2, 2**63 - 1), (1, 2**63 - 1)),
        # What cannot be halved exactly becomes as short as the properties can express.
        ((5, 2**63 - 2), (5, 2**63 - 1)),
        ((2**62 + 2, 2), (2**61 + 1, 2)),
        ((0, 1), (0, 1)),
    ],
)
def test_a_duration_is_halved(
    weights: str, duration: tuple[int, int], half: tuple[int, int]
) -> None:
    def mark(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        out = f.copy()
        out.props["_DurationNum"], out.props["_DurationDen"] = duration
        return out

    clip = noise(vs.RGBS, 2)
    out = core.vsr.VRT(clip.std.ModifyFrame(clip, mark), weights=weights)
    for n in (0, 1):
        props = out.get_frame(n).props
        assert Fraction(props["_DurationNum"], props["_DurationDen"]) == Fraction(*half)
