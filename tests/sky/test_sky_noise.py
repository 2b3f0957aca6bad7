"""What the pixels say about gain, zero point, noise, uncertainty, saturation, and about lightpool's own cards."""

import json
import logging

import numpy as np
import pytest
from astropy.io import fits
from scipy.ndimage import gaussian_filter

from pipeline.config import SkyIngestConfig
from pipeline.sky import cards
from pipeline.sky.background import box_noise, quantised_noise, robust_background
from pipeline.sky.dq import DQ
from pipeline.sky.frames import checked_uncertainty, fingerprint, read_frame, read_frames
from pipeline.sky.ingest import ingest_frame

N = 128
SKY_E, READ_NOISE_E, PEAK_E = 900.0, 5.0, 40_000.0
NOISE_E = np.sqrt(SKY_E + READ_NOISE_E**2)
PEAK_SNR = PEAK_E / np.sqrt(PEAK_E + SKY_E + READ_NOISE_E**2)


@pytest.fixture(scope="module")
def electrons():
    """A sky of 900 electrons with a star of 40,000 in its peak, read with a noise of 5 electrons."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:N, :N]
    star = PEAK_E * np.exp(-((x - 64) ** 2 + (y - 64) ** 2) / 4)
    return rng.poisson(star + SKY_E) + rng.normal(0, READ_NOISE_E, (N, N))


@pytest.mark.parametrize("value", [-1e9, -1e20, 1e12])
def test_a_row_of_any_number_leaves_the_background(rng, value):
    """Beside its square, in float64, the noise of the sky has no digit left."""
    pixels = rng.normal(900, 30, (N, N)).astype(np.float32)
    pixels[60] = value
    level, noise = robust_background(pixels)
    assert level == pytest.approx(900, abs=3)
    assert noise == pytest.approx(30, rel=0.05)


def peak_snr(frame):
    return (frame.sci[64, 64] - frame.level) / frame.err[64, 64]


def said(frame, *texts):
    """Whether each text is in a warning, and there is no other warning."""
    left = [warning for warning in frame.warnings if not any(text in warning for text in texts)]
    return left == [] and all(any(text in warning for warning in frame.warnings) for text in texts)


# ---- honest frames ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("to_pixels", "header", "zero_known"),
    [
        (lambda e: e.astype("f4"), {"BUNIT": "electron", "RDNOISE": 5.0}, True),
        (lambda e: e.astype("f4"), {"BUNIT": "electron"}, True),
        (lambda e: (e / 2).astype("f4"), {"GAIN": 2.0, "RDNOISE": 5.0, "ZEROCOR": "done"}, True),
        (lambda e: np.round(e / 2 + 1000).astype("u2"), {"GAIN": 2.0, "RDNOISE": 5.0, "BIASLVL": 1000.0}, True),
        (lambda e: np.round(e / 2 + 1000).astype("u2"), {"GAIN": 2.0, "RDNOISE": 5.0}, False),
        (lambda e: np.round(e / 2 + 1000).astype("i4"), {"GAIN": 2.0}, False),
        (lambda e: (e / 2 + 100).astype("f4"), {"GAIN": 2.0, "RDNOISE": 5.0, "PEDESTAL": 100}, True),
    ],
)
def test_honest_frames_are_believed(to_pixels, header, zero_known, electrons, write_fits):
    frame = read_frame(write_fits(pixels=to_pixels(electrons), **header))
    assert (frame.unit, frame.zero_known, frame.warnings) == ("electron", zero_known, ())
    assert np.median(frame.err) == pytest.approx(NOISE_E, rel=0.05)
    assert peak_snr(frame) == pytest.approx(PEAK_SNR, rel=0.03)


def test_stars_everywhere_do_not_contradict_a_model(rng, write_fits):
    """A star on every 22 pixels: the rms within a box is twenty times the noise."""
    y, x = np.mgrid[:N, :N]
    field = np.full((N, N), SKY_E)
    for column, row, flux in zip(*rng.uniform(0, N, (2, 750)), np.exp(rng.uniform(7.6, 12.9, 750)), strict=True):
        field += flux / (4 * np.pi) * np.exp(-((x - column) ** 2 + (y - row) ** 2) / 4)
    pixels = np.round(rng.poisson(field) / 2 + 500).astype(np.uint16)
    frame = read_frame(write_fits(pixels=pixels, GAIN=2.0, RDNOISE=5.0, BIASLVL=500.0))
    assert frame.noise > 10 * NOISE_E
    assert (frame.unit, frame.zero_known, frame.warnings) == ("electron", True, ())
    assert np.percentile(frame.err, 1) == pytest.approx(NOISE_E, rel=0.03)


def test_a_mosaic_of_colours_does_not_contradict_a_model(rng, write_fits):
    mosaic = np.tile([[1600.0, 900.0], [900.0, 400.0]], (64, 64))
    pixels = np.round(rng.poisson(mosaic) / 2 + 200).astype(np.uint16)
    frame = read_frame(write_fits(pixels=pixels, GAIN=2.0, RDNOISE=5.0, BIASLVL=200.0))
    assert (frame.warnings, frame.zero_known) == ((), True)


# ---- the gain is not that of the pixels ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("scale", "zero", "dtype", "header", "text"),
    [
        (1 / 65536, 0, "f4", {"EGAIN": 0.25}, "less than that of any camera"),
        (1 / 75, 0, "f4", {"EGAIN": 0.25}, "the gain 0.25 of EGAIN is not believed"),
        (1 / 60, 0, "f4", {"GAIN": 2.0, "RDNOISE": 5.0}, "where photons and read noise give"),
        (1 / 60, 0, "f4", {"GAIN": 2.0, "ZEROCOR": "done"}, "the pixels are averages, rates or scaled"),
        (1, 500, "u2", {"GAIN": 26, "INSTRUME": "ZWO ASI1600MM Pro"}, "GAIN = 26 is a setting of the camera"),
        (1, 500, "u2", {"GAIN": 26}, "the gain 26 of GAIN is not believed"),
        (1, 500, "u2", {"GAIN": 10}, "the gain 10 of GAIN is not believed"),
        (1, 500, "u2", {"GAIN": 120}, "GAIN = 120 is not taken as the gain"),
        (1, 500, "u2", {"GAIN": 0}, "GAIN = 0 is not taken as the gain"),
        (1, 500, "u2", {"GAIN": "1,95"}, "GAIN = 1,95 is not a number"),
        (4, 0, "i4", {"EGAIN": 1.0, "ZEROCOR": "done", "RDNOISE": 5.0}, "the gain 1 of EGAIN is not believed"),
    ],
)
def test_a_gain_of_other_pixels(scale, zero, dtype, header, text, electrons, write_fits):
    pixels = electrons * scale + zero
    frame = read_frame(write_fits(pixels=(pixels if dtype == "f4" else np.round(pixels)).astype(dtype), **header))
    assert (frame.unit, frame.gain_e_per_adu, frame.zero_known) == ("adu", None, False)
    assert said(frame, text, "photon noise of sources is that of")
    assert np.median(frame.err) == pytest.approx(NOISE_E * scale, rel=0.05)
    # Without a zero point, the photon noise of a source is known to some 25 %.
    assert peak_snr(frame) == pytest.approx(PEAK_SNR, rel=0.05 if zero == 0 and scale < 1 else 0.45)


def test_a_configured_gain_is_used_and_doubted(electrons, write_fits):
    path = write_fits(pixels=(electrons / 65536).astype(np.float32))
    frame = read_frame(path, SkyIngestConfig(gain_e_per_adu=0.25))
    assert (frame.unit, frame.gain_e_per_adu) == ("electron", 0.25)
    assert "the gain 0.25 of the configuration is doubtful, because it would make the noise" in frame.warnings[0]


def test_an_uneven_sensitivity_does_not_contradict_a_gain(rng, write_fits):
    flat = rng.poisson(50_000 * rng.normal(1, 0.01, (N, N)))
    frame = read_frame(write_fits(pixels=np.round(flat / 2 + 500).astype(np.uint16), GAIN=2.0, RDNOISE=5.0))
    assert (frame.unit, frame.warnings) == ("electron", ())


# ---- the noise is not that of the level ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("sky_left", "scale", "dtype", "header"),
    [
        (0, 1.0, "f4", {"BUNIT": "electron", "RDNOISE": 5.0}),
        (100, 1.0, "f4", {"BUNIT": "electron", "RDNOISE": 5.0}),
        (0, 0.5, "f4", {"GAIN": 2.0, "RDNOISE": 5.0, "ZEROCOR": "done"}),
        (0, 0.5, "i2", {"GAIN": 2.0, "RDNOISE": 5.0, "ZEROCOR": "done"}),
    ],
)
def test_a_sky_that_was_subtracted(sky_left, scale, dtype, header, electrons, write_fits):
    pixels = (electrons - SKY_E + sky_left) * scale
    frame = read_frame(write_fits(pixels=(np.round(pixels) if dtype == "i2" else pixels).astype(dtype), **header))
    assert (frame.unit, frame.zero_known) == ("electron", False)
    assert said(frame, "the sky was subtracted, or the gain is wrong")
    assert np.median(frame.err) == pytest.approx(NOISE_E, rel=0.05)
    assert peak_snr(frame) == pytest.approx(PEAK_SNR, rel=0.03)


@pytest.mark.parametrize("n_frames", [4, 16])
def test_averages_of_electrons(n_frames, rng, write_fits):
    y, x = np.mgrid[:N, :N]
    scene = SKY_E + PEAK_E * np.exp(-((x - 64) ** 2 + (y - 64) ** 2) / 4)
    mean = np.mean([rng.poisson(scene) + rng.normal(0, READ_NOISE_E, (N, N)) for _ in range(n_frames)], axis=0)
    frame = read_frame(write_fits(pixels=mean.astype(np.float32), BUNIT="electron", RDNOISE=5.0))
    assert said(frame, "the pixels are averaged, resampled or not counts")
    assert np.median(frame.err) == pytest.approx(NOISE_E / np.sqrt(n_frames), rel=0.05)
    assert peak_snr(frame) == pytest.approx(PEAK_SNR * np.sqrt(n_frames), rel=0.05)


@pytest.mark.parametrize("sky_e", [SKY_E, 0.0])
def test_electrons_per_second(sky_e, electrons, write_fits):
    pixels = ((electrons - SKY_E + sky_e) / 300).astype(np.float32)
    frame = read_frame(write_fits(pixels=pixels, BUNIT="electron", RDNOISE=5.0, EXPTIME=300.0))
    assert said(frame, "photon noise of sources is scaled alike")
    assert np.median(frame.err) == pytest.approx(NOISE_E / 300, rel=0.05)
    assert peak_snr(frame) == pytest.approx(PEAK_SNR, rel=0.05)


@pytest.mark.parametrize(
    ("unit", "gain", "per_unit"),
    [
        ("ELECTRONS/S", {}, 200.0), ("electron/s", {"GAIN": 2.5}, 200.0), ("e-/s", {}, 200.0),
        ("adu/s", {"GAIN": 2.5}, 500.0), ("DN/S", {"GAIN": 2.5}, 500.0),
    ],
)  # fmt: skip
def test_rates_have_the_photons_of_their_exposure(unit, gain, per_unit, electrons, write_fits):
    """Stars of a frame in electrons per second had the noise of its sky, whatever their flux."""
    pixels = electrons - SKY_E
    pixels[20:30, 20:30] += 40_000
    frame = read_frame(write_fits(pixels=(pixels / per_unit).astype(np.float32), BUNIT=unit, EXPTIME=200.0, **gain))
    assert frame.unit == unit
    assert any(f"photon noise of {per_unit:.3g} electron per {unit} above the background" in n for n in frame.notes)
    star = np.median(frame.err[20:30, 20:30])
    assert star == pytest.approx((40_000 + NOISE_E**2) ** 0.5 / per_unit, rel=0.02)
    assert np.median(frame.err) == pytest.approx(NOISE_E / per_unit, rel=0.1)


@pytest.mark.parametrize("cards", [{"BUNIT": "adu/s", "EXPTIME": 200.0}, {"BUNIT": "electron/s"}, {"BUNIT": "MJy/sr"}])
def test_rates_without_gain_or_exposure_have_the_noise_of_the_sky(cards, electrons, write_fits):
    pixels = ((electrons - SKY_E) / 200).astype(np.float32)
    pixels[20:30, 20:30] += 200
    frame = read_frame(write_fits(pixels=pixels, **cards))
    assert any("without a gain, photon noise is not known" in note for note in frame.notes)
    assert frame.err[25, 25] == pytest.approx(np.median(frame.err), rel=0.1)


def test_rates_without_a_unit_whose_sky_was_subtracted(electrons, write_fits):
    pixels = ((electrons - SKY_E) / 0.25 / 600).astype(np.float32)
    frame = read_frame(write_fits(pixels=pixels, EGAIN=0.25, EXPTIME=600.0))
    assert frame.unit == "adu"
    assert said(
        frame, "less than that of any camera", "150 electron per adu, which the gain gives if the pixels are rates"
    )
    assert peak_snr(frame) == pytest.approx(PEAK_SNR, rel=0.03)


def test_resampled_pixels_have_their_measured_noise(rng, write_fits):
    pixels = gaussian_filter(rng.normal(SKY_E, NOISE_E, (N, N)), 0.7).astype(np.float32)
    frame = read_frame(write_fits(pixels=pixels, BUNIT="electron", RDNOISE=5.0))
    assert said(frame, "resampled")
    assert np.median(frame.err) == pytest.approx(pixels.std(), rel=0.03)


# ---- bias ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", ["[6389 6422 1 9600]", False, True, 32, 0, "F"])
def test_an_overscan_that_is_no_subtraction(value, electrons, write_fits):
    pixels = np.round(electrons / 2 + 1000).astype(np.uint16)
    frame = read_frame(write_fits(pixels=pixels, GAIN=2.0, RDNOISE=5.0, OVERSCAN=value))
    assert (frame.zero_known, frame.bias_level) == (False, 0.0)
    assert np.median(frame.err) == pytest.approx(NOISE_E, rel=0.05)
    assert any("OVERSCAN" in note and "does not say that the bias is subtracted" in note for note in frame.notes)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ({"BIASLVL": 1e9}, "the bias level 1e+09 of BIASLVL is not believed: the pixels have the level 1450"),
        ({"BIASLVL": -50.0}, "the bias level -50 of BIASLVL is not believed"),
        ({"PEDESTAL": 30_000}, "the bias level 30000 of PEDESTAL is not believed"),
        ({"BIASLVL": "1000,0"}, "BIASLVL = 1000,0 is not a number"),
        ({"BIASLVL": 100.0}, "the zero point is not believed: the noise is"),
        ({"ZEROCOR": "done"}, "the zero point is not believed: the noise is"),
    ],
)
def test_a_bias_level_that_is_not_that_of_the_pixels(header, text, electrons, write_fits):
    pixels = np.round(electrons / 2 + 1000).astype(np.uint16)
    frame = read_frame(write_fits(pixels=pixels, GAIN=2.0, RDNOISE=5.0, **header))
    assert said(frame, text)
    assert (frame.unit, frame.zero_known) == ("electron", False)
    assert peak_snr(frame) == pytest.approx(PEAK_SNR, rel=0.03)


def test_an_overscan_within_the_exposed_part_is_none(electrons, write_fits):
    pixels = np.round(electrons / 2 + 1000).astype(np.uint16)
    frame = read_frame(write_fits(pixels=pixels, GAIN=2.0, BIASSEC="[1:30,1:128]", DATASEC="[11:128,1:128]"))
    assert (frame.zero_known, frame.bias_level) == (False, 0.0)
    assert any("overlaps the exposed section" in note for note in frame.notes)


# ---- uncertainties that come with the frame --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("factor", "kept"),
    [(1.0, True), (1.25, True), (0.75, True), (0.5, False), (0.16, False), (3.0, False), (30.0, False)],
)
def test_an_err_plane_must_fit_the_pixels(factor, kept, electrons, write_fits):
    err = np.full((N, N), factor * NOISE_E, np.float32)
    path = write_fits(
        pixels=electrons.astype(np.float32), BUNIT="electron", RDNOISE=5.0, extra=[fits.ImageHDU(err, name="ERR")]
    )
    frame = read_frame(path)
    assert np.median(frame.err) == pytest.approx(NOISE_E * (factor if kept else 1), rel=0.03)
    assert frame.warnings == () if kept else said(frame, "the uncertainty of the file is not believed")
    assert frame.zero_known


@pytest.mark.parametrize("sigma_px", [0.5, 0.7, 1.0])
def test_the_honest_err_of_resampled_pixels_is_kept(sigma_px, rng, write_fits):
    """Single pixels scatter by a third of ERR, sums of many by as much as it says."""
    pixels = gaussian_filter(rng.normal(SKY_E, NOISE_E, (2 * N, 2 * N)), sigma_px).astype(np.float32)
    err = fits.ImageHDU(np.full(pixels.shape, NOISE_E, np.float32), name="ERR")
    frame = read_frame(write_fits(pixels=pixels, BUNIT="electron", extra=[err]))
    assert frame.warnings == ()
    assert np.median(frame.err) == pytest.approx(NOISE_E)


def test_checked_uncertainty_of_a_frame_in_memory(electrons, write_fits):
    frame = read_frame(write_fits(pixels=electrons.astype(np.float32), BUNIT="electron", RDNOISE=5.0))
    assert checked_uncertainty(frame, frame.err).err is frame.err
    checked = checked_uncertainty(frame, frame.err / 10, "after calibration")
    assert said(checked, "the uncertainty after calibration is not believed: it is 3.0")
    np.testing.assert_array_equal(checked.err, frame.err)


# ---- measuring noise -------------------------------------------------------------------------------------------------
def test_three_kinds_of_noise(rng):
    white = box_noise(rng.normal(100, 10, (256, 256)))
    for noise in (white.pixel, white.spread, white.coarse):
        assert np.median(noise) == pytest.approx(10, rel=0.1)
    smooth = gaussian_filter(rng.normal(100, 10, (256, 256)), 1.0)
    correlated = box_noise(smooth)
    assert np.median(correlated.spread) == pytest.approx(smooth.std(), rel=0.03)
    assert np.median(correlated.pixel) < 0.5 * smooth.std()
    assert 2 * smooth.std() < np.median(correlated.coarse) < 10
    gradient = box_noise(rng.normal(0, 10, (256, 256)) + np.arange(256))
    assert np.median(gradient.pixel) == pytest.approx(10, rel=0.1)


def test_boxes_that_hold_nothing_are_left_out(rng):
    image = rng.normal(100, 10, (192, 192))
    image[:64] = 0
    image[64:128] = np.nan
    assert len(box_noise(image)) == 3
    assert len(box_noise(np.full((64, 64), np.nan))) == 0
    assert len(box_noise(image, np.ones(image.shape, bool))) == 0
    assert len(box_noise(rng.normal(0, 1, (3, 3)))) == 0


@pytest.mark.parametrize("noise", [0.15, 0.3, 0.6])
def test_integers_with_less_noise_than_a_step(noise, rng, write_fits):
    pixels = np.round(rng.normal(100, noise, (200, 200))).astype(np.int16)
    frame = read_frame(write_fits(pixels=pixels))
    assert frame.noise == pytest.approx(max(pixels.std(), 1 / np.sqrt(12)), rel=0.1)


def test_a_mask_has_no_noise(rng):
    mask = np.where(rng.random((100, 100)) < 0.05, 8.0, 0.0)
    assert quantised_noise(mask, 0.0) == 0.0
    assert quantised_noise(8 - mask, 8.0) == 0.0


# ---- saturation ------------------------------------------------------------------------------------------------------
def bright_field(rng, top):
    """Stars up to far above `top` on a sky of 1000, with noise of 10."""
    y, x = np.mgrid[:N, :N]
    field = rng.normal(1000, 10, (N, N))
    for column, row in rng.uniform(10, N - 10, (2, 12)).T:
        field += rng.uniform(0.5, 2) * top * np.exp(-((x - column) ** 2 + (y - row) ** 2) / 8)
    return field


@pytest.mark.parametrize(
    ("top", "dtype", "scale"),
    [
        (4095, "i2", 1),
        (16383, "i2", 1),
        (32767, "i2", 1),
        (65535, "u2", 1),
        (65532, "u2", 1),  # 14 bits, shifted
        (65520, "u2", 1),  # 12 bits, shifted
        (50_000, "u2", 1),  # a full well
        (65535, "f4", 65535),  # [0, 1]
    ],
)
def test_pixels_that_share_the_largest_value_are_saturated(top, dtype, scale, rng, write_fits):
    field = bright_field(rng, top)
    pixels = (np.clip(np.round(field), 0, top) / scale).astype(dtype)
    frame = read_frame(write_fits(pixels=pixels))
    assert frame.saturation == pytest.approx(top / scale)
    assert np.array_equal((frame.dq & DQ.SATURATED) != 0, np.round(field) >= top)


def test_a_cosmic_ray_above_the_full_well(rng, write_fits):
    pixels = np.clip(np.round(bright_field(rng, 50_000)), 0, 50_000).astype(np.uint16)
    pixels[2, 3] = 61_000
    assert read_frame(write_fits(pixels=pixels)).saturation == pytest.approx(50_000)


def test_unsaturated_stars_are_not_flagged(rng, write_fits):
    pixels = np.round(bright_field(rng, 20_000)).astype(np.uint16)
    assert read_frame(write_fits(pixels=pixels)).saturation is None
    assert (
        read_frame(write_fits("bias.fits", pixels=np.round(rng.normal(300, 4, (N, N))).astype("u2"))).saturation is None
    )


@pytest.mark.parametrize(
    ("value", "comment", "saturation", "warned"),
    [
        (30_000.0, "", 30_000.0, False),
        (60_000.0, "[e-] full well", 30_000.0, False),
        (120_000.0, "", 50_000.0, False),  # above the value at which pixels are clipped
        (500.0, "", 50_000.0, True),  # below the sky
        (0.0, "", 50_000.0, False),
        ("none", "", 50_000.0, False),
    ],
)
def test_saturation_of_the_header(value, comment, saturation, warned, rng, write_fits):
    pixels = np.clip(np.round(bright_field(rng, 50_000)), 0, 50_000).astype(np.uint16)
    frame = read_frame(write_fits(pixels=pixels, GAIN=2.0, SATURATE=(value, comment)))
    assert frame.saturation == pytest.approx(saturation)
    assert frame.warnings == () if not warned else said(frame, "SATURATE = 500 is not believed: it lies within the sky")


# ---- lightpool's own cards -------------------------------------------------------------------------------------------
@pytest.fixture
def reread(electrons, write_fits, tmp_path):
    """An ingested frame, changed by another program, and read again: `reread(change of pixels, change of header)`."""
    raw = np.round(electrons / 2 + 1000).astype(np.uint16)
    ingest_frame(write_fits(pixels=raw, GAIN=2.0, RDNOISE=5.0, BIASLVL=1000.0), tmp_path / "i.fits", SkyIngestConfig())

    def read(change, change_header=lambda header: None, *, planes=True, compress=False):
        with fits.open(tmp_path / "i.fits") as hdus:
            pixels, header = change(hdus[0].data.copy()), hdus[0].header.copy()
            companions = [fits.ImageHDU(hdu.data, hdu.header) for hdu in hdus[1:]] if planes else []
        change_header(header)
        image = fits.PrimaryHDU(pixels, header)
        if compress:
            image = fits.CompImageHDU(pixels, header, compression_type="GZIP_2", quantize_level=0)
            companions = [image, *companions]
            image = fits.PrimaryHDU()
        fits.HDUList([image, *companions]).writeto(tmp_path / "changed.fits")
        return read_frame(tmp_path / "changed.fits")

    return read


STALE = "the pixels are not those that lightpool ingested"


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i4"])
@pytest.mark.parametrize("compress", [False, True])
def test_equal_pixels_keep_their_cards(dtype, compress, reread):
    frame = reread(lambda pixels: pixels.astype(dtype), compress=compress and dtype != "<f8")
    assert (frame.warnings, frame.unit, frame.zero_known) == ((), "electron", True)
    assert np.median(frame.err) == pytest.approx(NOISE_E, rel=0.01)


@pytest.mark.parametrize(
    ("change", "level", "noise", "texts"),
    [
        (lambda e: e - 900, 0.0, NOISE_E, ("the sky was subtracted",)),
        (lambda e: e / 300, 3.0, NOISE_E / 300, ("averaged, resampled or not counts",)),
        (lambda e: e[::-1].copy(), 900.0, NOISE_E, ()),
        (lambda e: e[10:100, 20:90].copy(), 900.0, NOISE_E, ()),
    ],
)
def test_changed_pixels_are_measured_again(change, level, noise, texts, reread):
    frame = reread(change, planes=False)
    assert said(frame, STALE, *texts)
    assert frame.level == pytest.approx(level, abs=0.1 * noise + 2e-3 * level)
    assert np.median(frame.err) == pytest.approx(noise, rel=0.05)
    assert frame.saturation is None
    assert frame.section is None


@pytest.mark.parametrize("factor", [0.5, 2.0, 1 / 300])
def test_our_err_beside_changed_pixels(factor, reread):
    frame = reread(lambda pixels: pixels * np.float32(factor))
    assert any("the uncertainty of the file is not believed" in text for text in frame.warnings)
    assert np.median(frame.err) == pytest.approx(frame.noise, rel=0.5)


def test_a_gain_is_not_applied_twice(reread):
    frame = reread(lambda pixels: pixels / 300, lambda header: header.remove("BUNIT"), planes=False)
    assert said(frame, STALE)
    assert (frame.unit, frame.bias_level, frame.zero_known) == ("adu", 0.0, False)
    assert frame.level == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize(
    "damage", [lambda h: h.remove("LPSUM"), lambda h: h.set("LPNOISE", "n/a"), lambda h: h.set("LPSUM", "00000000")]
)
def test_cards_of_ours_that_are_damaged(damage, reread):
    assert said(reread(lambda pixels: pixels, damage), STALE)


def test_our_mask_beside_flipped_pixels(rng, write_fits, tmp_path):
    pixels = np.clip(np.round(bright_field(rng, 65_535)), 0, 65_535).astype(np.uint16)
    ingest_frame(write_fits(pixels=pixels), tmp_path / "i.fits", SkyIngestConfig())
    with fits.open(tmp_path / "i.fits") as hdus:
        hdus[0].data = hdus[0].data[:, ::-1].copy()
        hdus.writeto(tmp_path / "flipped.fits")
    frame = read_frame(tmp_path / "flipped.fits")
    assert said(frame, STALE, "the mask is not used: most pixels that it calls saturated or defective")
    assert np.array_equal((frame.dq & DQ.SATURATED) != 0, pixels[:, ::-1] == 65_535)


def test_fingerprint_is_of_values_and_places():
    pixels = np.random.default_rng(0).normal(0, 1, (300, 200)).astype(np.float32)
    pixels[4, 5], pixels[6, 7] = np.nan, 0.0
    same = pixels.astype(">f8")
    same[4, 5], same[6, 7] = np.inf, -0.0
    assert fingerprint(same) == fingerprint(pixels) != fingerprint(pixels[::-1])
    changed = pixels.copy()
    changed[299, 199] = np.nextafter(changed[299, 199], np.float32(9))
    assert fingerprint(changed) != fingerprint(pixels)
    assert fingerprint(pixels) != fingerprint(pixels.reshape(200, 300))
    assert len(fingerprint(pixels)) == 8


# ---- warnings on their way -------------------------------------------------------------------------------------------
def test_warnings_reach_screen_header_sidecar_and_the_next_reader(electrons, write_fits, tmp_path, caplog):
    path = write_fits(pixels=(electrons / 65536).astype(np.float32), EGAIN=0.25)
    with caplog.at_level(logging.WARNING):
        result = ingest_frame(path, tmp_path / "out.fits", SkyIngestConfig())
    texts = result["warnings"]
    assert len(texts) == 2
    assert [record.getMessage() for record in caplog.records] == [f"frame.fits: {text}" for text in texts]
    sidecar = json.loads((tmp_path / "out.fits.provenance.json").read_text())
    assert sidecar["warnings"] == texts
    header = fits.getheader(tmp_path / "out.fits")
    assert header[cards.N_WARNINGS.keyword] == 2
    assert cards.warnings_in(header["HISTORY"]) == texts
    assert read_frame(tmp_path / "out.fits").warnings == tuple(texts)


def test_each_image_has_its_own_warnings(electrons, write_fits, tmp_path):
    good = fits.ImageHDU(electrons.astype(np.float32), fits.Header({"RDNOISE": 5.0}), name="SCI", ver=1)
    bare = fits.ImageHDU((electrons - SKY_E).astype(np.float32), fits.Header({"RDNOISE": 5.0}), name="SCI", ver=2)
    path = write_fits(pixels=np.empty((0,), np.float32), BUNIT="electron", extra=[good, bare])
    first, second = read_frames(path)
    assert (first.unit, second.unit) == ("electron", "electron")
    assert first.warnings == ()
    assert said(second, "the sky was subtracted")
    ingest_frame(path, tmp_path / "out.fits", SkyIngestConfig())
    with fits.open(tmp_path / "out.fits") as hdus:
        assert [hdus["SCI", n].header["LPNWARN"] for n in (1, 2)] == [0, 1]


def test_long_warnings_are_joined_again():
    texts = ["a warning of é " + "many words " * 30 + "and an-end", "short"]
    lines = [line for text in texts for line in cards.warning_lines(text)]
    assert max(map(len, lines)) <= 72
    header = fits.Header()
    for line in ("first", *lines, "lightpool: a note", "  no continuation"):
        header.add_history(line)
    assert cards.warnings_in(header["HISTORY"]) == [texts[0].replace("é", "?"), texts[1]]
