import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
from astropy.io import fits
from scipy.ndimage import gaussian_filter

from pipeline.config import SkyIngestConfig
from pipeline.sky.dq import DQ
from pipeline.sky.frame_results import product_of
from pipeline.sky.frames import open_frames, read_frame, write_products
from pipeline.sky.restore import Restoration, restore_frame
from pipeline.sky.tile_rows import _Axis
from pipeline.tasks import get_decoder, get_spec
from pipeline.tasks.spec import Column

STRIDE = 8


class Smoother:
    """A stand-in for a trained network: local (reach of 6 px), and only for sizes that fit its stride."""

    columns = get_spec("denoise").columns
    size_multiple = STRIDE
    receptive_field_px = None
    population = None
    lines: ClassVar = {}
    correlations: ClassVar = {}
    warnings = ()

    def __init__(self):
        self.largest_batch = 0

    def predict(self, batch):
        assert batch.images.shape[2] % STRIDE == batch.images.shape[3] % STRIDE == 0
        self.largest_batch = max(self.largest_batch, len(batch))
        sci = batch.images[:, 0].astype(np.float64)
        level = batch.events["level"][:, None, None]
        filled = np.where(np.isnan(sci), level, sci)
        restored = np.stack([gaussian_filter(tile, 1.5, truncate=4) for tile in filled])
        defect = (filled > level + 50 * batch.events["noise"][:, None, None]).astype(np.float32)
        return {
            "restored": restored.astype(np.float32),
            "restored_err": np.full(sci.shape, 0.5, np.float32),
            "defect_probability": defect,
            "painted": defect,
            "place": np.zeros_like(defect),
        }

    def flags(self, planes, dq, noise, kept=None, *, unless_sure=False):
        return get_decoder("denoise").flags(planes, dq, noise, kept, unless_sure=unless_sure)


@pytest.mark.parametrize(
    ("length", "tile", "overlap"),
    [
        (384, 64, 32),
        (100, 64, 32),
        (65, 64, 16),
        (37, 64, 32),
        (700, 256, 96),
        (530, 128, 64),
        (32, 64, 32),
        (20, 64, 32),
    ],
)
def test_weights_sum_to_one(length, tile, overlap):
    axis = _Axis(length, tile, overlap, STRIDE)
    total = np.zeros(length)
    for number, start in enumerate(axis.starts):
        assert start % STRIDE == 0
        weight = axis.weights(number)
        total[start : start + weight.size] += weight
    assert np.allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(20_000, (1048, 21)), (4000, (1072, 4)), (2048, (1072, 2)), (1400, (1400, 1)), (300, (304, 1))],
)
def test_tiles_are_of_one_size_that_covers_the_frame(length, expected):
    axis = _Axis(length, 1024, 96, 8)
    assert (axis.tile, len(axis.starts)) == expected
    assert 0 <= axis.starts[-1] + axis.tile - length < 8


@pytest.mark.parametrize("shape", [(200, 300), (64, 64), (97, 131), (40, 513), (8, 8)])
def test_tiled_equals_whole(shape, rng, write_fits):
    image = rng.normal(500, 10, shape)
    image[shape[0] // 2, shape[1] // 2] += 200
    frame = read_frame(write_fits(pixels=image.astype(np.float32)))
    tiled = restore_frame(frame, Smoother(), tile_px=64, overlap_px=32).sci
    whole = restore_frame(frame, Smoother(), tile_px=1024, overlap_px=32).sci
    assert tiled.shape == shape
    assert np.abs(tiled - whole).max() < 1e-3 * frame.noise


def test_the_models_that_ship_leave_no_seams(rng, write_fits):
    """With the default overlap; a shorter one does, and is warned of where there is more than one tile."""
    from pipeline.bundle.runtime import Predictor

    sci = rng.normal(500, 10, (420, 400)).astype(np.float32)
    y, x = np.indices(sci.shape)
    for cy, cx in rng.uniform(20, 380, (60, 2)):
        sci += (4000 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 3)).astype(np.float32)
    sci[np.arange(20, 380), np.arange(20, 380) // 3 + 100] += 800
    frame = read_frame(write_fits(pixels=sci, GAIN=1.0, RDNOISE=5.0))
    model = Predictor.load("sky-denoise", threads=1)
    whole = restore_frame(frame, model)
    assert not any("overlap" in text for text in whole.warnings)
    tiled = restore_frame(frame, model, tile_px=256)
    assert not any("overlap" in text for text in tiled.warnings)
    assert np.abs(tiled.sci - whole.sci).max() < 1e-3 * frame.noise
    short = restore_frame(frame, model, tile_px=256, overlap_px=64)
    assert np.abs(short.sci - whole.sci).max() > 1e-3 * frame.noise
    [warning] = [text for text in short.warnings if "overlap" in text]
    assert warning == (
        "tiles overlap by 64 px, and the model sees 126 px: where they meet, the result may differ from that in one "
        "piece; set predict.overlap_px to 176"
    )
    assert not any("overlap" in text for text in restore_frame(frame, model, overlap_px=64).warnings)


def test_one_tile_is_predicted_at_a_time(rng, write_fits):
    frame = read_frame(write_fits(pixels=rng.normal(0, 1, (64, 2000)).astype(np.float32)))
    predictor = Smoother()
    restore_frame(frame, predictor, tile_px=64, overlap_px=32)
    assert predictor.largest_batch == 1


def test_flags(rng, write_fits):
    image = rng.normal(500, 10, (96, 96)).astype(np.float32)
    image[10:13, 10:13] = np.nan
    image[30, 30] = 5000.0
    image[60, 60] = 60_000.0
    frame = read_frame(write_fits(pixels=image, SATURATE=50_000.0))
    result = restore_frame(frame, Smoother(), 64, 32)
    dq = result.dq
    assert np.isfinite(result.sci).all()
    assert dq[11, 11] == DQ.MISSING | DQ.RESTORED
    assert dq[30, 30] == DQ.RESTORED
    assert dq[60, 60] == DQ.SATURATED | DQ.LOW_CONFIDENCE
    assert dq[80, 80] == 0
    assert result.err[80, 80] == pytest.approx(0.5)


def test_known_bad_pixels_are_painted_over(rng, write_fits):
    image = rng.normal(500, 10, (64, 64)).astype(np.float32)
    image[20, 20] = 9000.0
    mask = np.zeros((64, 64), np.int16)
    mask[20, 20] = 1
    frame = read_frame(write_fits(pixels=image, extra=[fits.ImageHDU(mask, name="MASK")]))
    result = restore_frame(frame, Smoother(), 64, 32)
    assert result.sci[20, 20] < 600
    assert result.dq[20, 20] == DQ.BAD | DQ.RESTORED


def test_file_comes_back_in_its_unit_with_its_overscan(rng, write_fits, tmp_path):
    adu = np.full((80, 100), 300) + rng.normal(0, 3, (80, 100))
    adu[:, 20:] += rng.normal(200, 10, (80, 80))
    raw = np.rint(adu).astype(np.uint16)
    path = write_fits(pixels=raw, GAIN=2.0, RDNOISE=6.0, TRIMSEC="[21:100,1:80]", BIASSEC="[1:20,1:80]", OBJECT="field")
    frame = read_frame(path)
    product = product_of(frame, restore_frame(frame, Smoother(), tile_px=64, overlap_px=32))
    write_products(path, tmp_path / "out.fits", [product], ["a model"])
    with fits.open(tmp_path / "out.fits") as hdus:
        sci = hdus["SCI"].data
        assert np.array_equal(sci[:, :20], raw[:, :20])
        assert np.median(sci[:, 20:]) == pytest.approx(500, abs=3)
        assert np.std(sci[:, 24:]) < 0.4 * np.std(raw[:, 24:])
        assert hdus["ERR"].data[40, 60] == pytest.approx(0.25)
        assert hdus["SCI"].header["OBJECT"] == "field"
        assert hdus["SCI"].header["HISTORY"][0] == "a model"
        assert hdus["DQ"].data.shape == sci.shape


# ---- further planes --------------------------------------------------------------------------------------------------
class Toy:
    """A stand-in for a network whose planes are extensions of their own: how far a pixel is above the background."""

    columns = (
        Column("toy_flux", "sci", "light above the background", hdu="TOYFLUX"),
        Column("toy", "", "the same, in units of the background noise", hdu="TOY"),
        Column("toy_inner", "", "predicted, but not written"),
    )
    size_multiple = STRIDE
    receptive_field_px = None
    population = None
    lines: ClassVar = {}
    correlations: ClassVar = {}
    warnings = ()

    def predict(self, batch):
        level, noise = (batch.events[name][:, None, None].astype(np.float32) for name in ("level", "noise"))
        flux = np.where(np.isnan(batch.images[:, 0]), 0, batch.images[:, 0] - level)
        return {"toy_flux": flux, "toy": flux / noise, "toy_inner": np.ones_like(flux)}

    def flags(self, planes, dq, noise, kept=None, *, unless_sure=False):
        assert set(planes) == {"toy_flux", "toy", "toy_inner"}
        return np.where(planes["toy"] > 20, DQ.LOW_CONFIDENCE, 0).astype(np.uint16)


WCS = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 250.42, "CRVAL2": 36.46, "CRPIX1": 51.5, "CRPIX2": 40.5,
    "CDELT1": -2.1e-4, "CDELT2": 2.1e-4, "CROTA2": 1.5,
}  # fmt: skip


def written(path, out):
    """The frame of a file, and what becomes of it with `Toy`."""
    frame = read_frame(path)
    result = restore_frame(frame, Toy(), tile_px=64, overlap_px=32)
    write_products(path, out, [product_of(frame, result)])
    return frame, result


def test_a_further_plane_becomes_an_extension(rng, write_fits, tmp_path):
    pixels = rng.normal(500, 10, (80, 100)).astype(np.float32)
    path = write_fits(pixels=pixels, BUNIT="electron", OBJECT="toy", **WCS)
    frame, result = written(path, tmp_path / "out.fits")
    np.testing.assert_allclose(result.planes["TOYFLUX"][0], pixels - frame.level, atol=1e-3)
    with fits.open(tmp_path / "out.fits") as hdus:
        assert [hdu.name for hdu in hdus] == ["SCI", "ERR", "DQ", "TOYFLUX", "TOY"]
        assert hdus["TOYFLUX"].header["BUNIT"] == "electron"
        assert "BUNIT" not in hdus["TOY"].header
        assert np.array_equal(hdus["TOYFLUX"].data, result.planes["TOYFLUX"][0])
        assert np.array_equal(hdus["TOY"].data, result.planes["TOY"][0])
        assert hdus["TOY"].data.dtype.name == "float32"
        assert {name: hdus[0].header[name] for name in WCS} == WCS
        assert hdus[0].header["OBJECT"] == "toy"


def test_pixels_that_no_column_replaces_are_as_they_came(rng, write_fits, tmp_path):
    pixels = rng.normal(500, 10, (80, 100)).astype(np.float32)
    pixels[10, 10], pixels[40, 50] = np.nan, 5000.0
    frame, result = written(write_fits(pixels=pixels, BUNIT="electron"), tmp_path / "out.fits")
    again = read_frame(tmp_path / "out.fits")
    assert np.array_equal(fits.getdata(tmp_path / "out.fits"), pixels, equal_nan=True)
    assert np.array_equal(again.sci, frame.sci, equal_nan=True)
    assert np.array_equal(again.err, frame.err)
    assert result.dq[10, 10] == DQ.MISSING  # not restored: no task said so
    assert result.dq[40, 50] == DQ.LOW_CONFIDENCE
    assert np.array_equal(again.dq, result.dq)


def test_planes_in_the_unit_of_the_frame_are_written_in_that_of_the_file(rng, write_fits, tmp_path):
    adu = np.full((80, 100), 300) + rng.normal(0, 3, (80, 100))
    adu[:, 20:] += rng.normal(200, 10, (80, 80))
    raw = np.rint(adu).astype(np.uint16)
    path = write_fits(pixels=raw, GAIN=2.0, RDNOISE=6.0, TRIMSEC="[21:100,1:80]", BIASSEC="[1:20,1:80]")
    frame, _ = written(path, tmp_path / "out.fits")
    assert (frame.unit, frame.stored_unit, frame.factor) == ("electron", "adu", 2.0)
    with fits.open(tmp_path / "out.fits") as hdus:
        np.testing.assert_array_equal(hdus["SCI"].data, raw)
        flux, toy = hdus["TOYFLUX"].data, hdus["TOY"].data
        assert hdus["TOYFLUX"].header["BUNIT"] == "adu"
    # A difference has no zero point: the bias level is not added to it.
    np.testing.assert_allclose(flux[:, 20:], (frame.sci[:, 20:] - frame.level) / 2, atol=1e-3)
    np.testing.assert_allclose(toy[:, 20:], (frame.sci[:, 20:] - frame.level) / frame.noise, atol=1e-3)
    assert np.isnan(flux[:, :20]).all()  # the overscan was not looked at
    assert np.isnan(toy[:, :20]).all()


def test_a_plane_that_the_file_has_is_replaced(rng, write_fits, tmp_path):
    pixels = rng.normal(500, 10, (80, 100)).astype(np.float32)
    old = fits.ImageHDU(np.full((80, 100), 7, np.int16), fits.Header({"BUNIT": "mag", "ORIGIN": "here"}), name="TOY")
    other = fits.ImageHDU(np.full((4, 4), 8, np.int16), fits.Header({"BUNIT": "mag"}), name="TOY", ver=2)
    _, result = written(write_fits(pixels=pixels, extra=[old, other], BUNIT="electron"), tmp_path / "out.fits")
    with fits.open(tmp_path / "out.fits") as hdus:
        assert [(hdu.name, hdu.ver) for hdu in hdus] == [
            ("SCI", 1), ("TOY", 1), ("TOY", 2), ("ERR", 1), ("DQ", 1), ("TOYFLUX", 1),
        ]  # fmt: skip
        assert np.array_equal(hdus["TOY", 1].data, result.planes["TOY"][0])
        assert hdus["TOY", 1].header["ORIGIN"] == "here"
        assert "BUNIT" not in hdus["TOY", 1].header  # the new plane is a pure number
        assert hdus["TOY", 2].data.tolist() == other.data.tolist()
        assert hdus["TOY", 2].header["BUNIT"] == "mag"


def test_a_result_taken_as_input_gives_the_same_extensions(rng, write_fits, tmp_path):
    path = write_fits(pixels=rng.normal(500, 10, (80, 100)).astype(np.float32), BUNIT="electron")
    _, first = written(path, tmp_path / "one.fits")
    _, second = written(tmp_path / "one.fits", tmp_path / "two.fits")
    with fits.open(tmp_path / "one.fits") as one, fits.open(tmp_path / "two.fits") as two:
        assert [(hdu.name, hdu.ver) for hdu in two] == [(hdu.name, hdu.ver) for hdu in one]
        for name in ("SCI", "ERR", "DQ"):
            assert np.array_equal(one[name].data, two[name].data)
    np.testing.assert_allclose(second.planes["TOY"][0], first.planes["TOY"][0], atol=1e-3)


def test_bad_overlap_is_an_error(write_fits):
    frame = read_frame(write_fits())
    with pytest.raises(ValueError, match="overlap_px 64 must be at least 0 and below tile_px 64"):
        restore_frame(frame, Smoother(), 64, 64)


def test_reading_and_restoring_import_nothing_heavy():
    code = (
        "import sys, pipeline.sky.frames, pipeline.sky.restore\n"
        "from astropy.io import fits\n"
        "heavy = {'torch', 'photutils', 'ccdproc', 'galsim', 'scipy', 'skimage', 'matplotlib', 'ctapipe', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- trails ----------------------------------------------------------------------------------------------------------
class Trailing:
    """A stand-in for a network that only flags: what is bright is a trail, says its plane of logits."""

    columns = get_spec("defects").columns
    size_multiple = STRIDE
    receptive_field_px = None
    population = None
    lines: ClassVar = {"trail_logit": DQ.TRAIL}
    correlations: ClassVar = {}
    warnings = ()

    def predict(self, batch):
        level, noise = (batch.events[name][:, None, None] for name in ("level", "noise"))
        bright = np.nan_to_num(batch.images[:, 0]) > level + 5 * noise
        planes = {column.name: np.full(bright.shape, -9, np.float32) for column in self.columns}
        return planes | {"trail_logit": np.where(bright, 3, -8).astype(np.float32)}

    def flags(self, planes, dq, noise, kept=None, *, unless_sure=False):
        return np.zeros(dq.shape, np.uint16)


def blinking_trail(rng):
    """A raw frame of 240 x 320 px with 20 columns of overscan, and how far each pixel is from a trail's middle."""
    y, x = np.mgrid[:240, :320]
    distance = np.abs(0.3 * x - y + 60) / np.hypot(0.3, 1)
    adu = 300 + rng.normal(0, 3, y.shape)
    adu[:, 20:] += rng.normal(200, 10, (240, 300)) + np.where((distance < 2) & (x // 30 % 2 == 0), 300, 0)[:, 20:]
    return np.rint(adu).astype(np.uint16), distance


def test_a_trail_goes_on_across_the_exposed_part_where_it_cannot_be_seen(rng, write_fits):
    raw, distance = blinking_trail(rng)
    frame = read_frame(write_fits(pixels=raw, GAIN=2.0, RDNOISE=6.0, TRIMSEC="[21:320,1:240]", BIASSEC="[1:20,1:240]"))
    result = restore_frame(frame, Trailing(), tile_px=64, overlap_px=32)
    assert result.only_flags
    np.testing.assert_array_equal(result.sci, frame.sci)
    trail = (result.dq & DQ.TRAIL) != 0
    assert trail[:, 20:][distance[:, 20:] < 1].mean() > 0.98
    assert not trail[distance > 8].any()
    assert not trail[:, :20].any()


def test_a_trail_is_in_the_mask_that_is_written_strip_by_strip(rng, write_fits, tmp_path):
    raw, _ = blinking_trail(rng)
    path = write_fits(pixels=raw, GAIN=2.0, RDNOISE=6.0, TRIMSEC="[21:320,1:240]", BIASSEC="[1:20,1:240]")
    whole = restore_frame(read_frame(path), Trailing(), tile_px=64, overlap_px=32)
    with open_frames(path, SkyIngestConfig()) as (frame,):
        product = Restoration.of(frame, Trailing(), 64, 32).product()
        write_products(path, tmp_path / "out.fits", [product], ["a model"])
    with fits.open(tmp_path / "out.fits", checksum=True) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "DQ"]
        np.testing.assert_array_equal(hdus["DQ"].data, whole.dq)
        assert np.count_nonzero(hdus["DQ"].data & DQ.TRAIL) > 1000
        assert "a model" in str(hdus["DQ"].header["HISTORY"])
    before, after = path.read_bytes(), (tmp_path / "out.fits").read_bytes()
    assert after[2880 : 2880 + raw.nbytes] == before[2880 : 2880 + raw.nbytes]
