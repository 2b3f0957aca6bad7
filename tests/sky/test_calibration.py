"""Bias, dark and flat frames that are odd, wrong, or of several chips: right values, or a message that says why not."""

import numpy as np
import pytest
from astropy.io import fits

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError, UserError
from pipeline.sky.dq import DQ, has
from pipeline.sky.frames import read_frame
from pipeline.sky.ingest import ingest_frame

SHAPE = (96, 96)
RESPONSE = 1 - 0.3 * np.square(np.indices(SHAPE) - 47.5).sum(axis=0) / 2 / 48**2
LIGHT = float(np.median(RESPONSE))  # what a flat is divided by
BIAS, DARK_PER_S, SKY, FLAT = 1000.0, 0.5, 800.0, 20_000.0


@pytest.fixture
def night(tmp_path, rng):
    """Write a frame of 100 s, a bias, a dark of 200 s and a flat; `night(flat=pixels)` replaces pixels of one."""

    def write(name, pixels, exposure, cards):
        hdu = fits.PrimaryHDU(np.asarray(pixels, np.float32))
        hdu.header.update({"GAIN": 1.0, "RDNOISE": 5.0} | ({"EXPTIME": exposure} if exposure is not None else {}))
        hdu.header.update(cards)
        hdu.writeto(tmp_path / f"{name}.fits", overwrite=True)
        return str(tmp_path / f"{name}.fits")

    def make(**changes):
        good = {
            "bias": (BIAS + rng.normal(0, 5, SHAPE), 0.0),
            "dark": (BIAS + rng.poisson(200 * DARK_PER_S, SHAPE) + rng.normal(0, 5, SHAPE), 200.0),
            "flat": (BIAS + rng.poisson(FLAT * RESPONSE), 5.0),
            "frame": (BIAS + rng.poisson(SKY * RESPONSE + 100 * DARK_PER_S) + rng.normal(0, 5, SHAPE), 100.0),
        }
        cards = changes.pop("cards", {})
        files = {}
        for name, (pixels, exposure) in good.items():
            change = changes.get(name)
            pixels = change(pixels) if callable(change) else pixels if change is None else change
            files[name] = write(name, pixels, changes.get(f"{name}_s", exposure), cards.get(name, {}))
        return files

    return make


@pytest.fixture
def calibrated(tmp_path, caplog):
    """Ingest with the masters named: the frame, and the warnings that were given."""

    def run(files, *kinds, **settings):
        masters = {kind: (files[kind],) for kind in kinds}
        caplog.clear()
        ingest_frame(files["frame"], tmp_path / "out.fits", SkyIngestConfig(**masters, **settings), force=True)
        return read_frame(tmp_path / "out.fits"), [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]

    return run


def _set(value, *where):
    def change(pixels):
        pixels = pixels.copy()
        pixels[where] = value
        return pixels

    return change


def test_good_masters_give_the_sky_and_its_noise_without_a_warning(night, calibrated):
    frame, warnings = calibrated(night(), "bias", "dark", "flat")
    assert warnings == []
    corner, centre = frame.sci[:16, :16], frame.sci[40:56, 40:56]
    assert np.median(centre) == pytest.approx(LIGHT * SKY, rel=0.01)
    assert np.median(corner) == pytest.approx(np.median(centre), rel=0.015)
    # What was read, and the pixels of the single bias, dark and flat: their noise is in the result too.
    assert np.median(frame.err[40:56, 40:56]) == pytest.approx(centre.std(), rel=0.1)
    assert np.median(frame.err[:16, :16]) == pytest.approx(corner.std(), rel=0.15)
    assert not has(frame.dq, DQ.BAD).any()


@pytest.mark.parametrize("kind", ["bias", "dark", "flat"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_pixel_without_a_value_concerns_that_pixel_alone(night, calibrated, kind, value):
    frame, warnings = calibrated(night(**{kind: _set(value, 10, 12)}), "bias", "dark", "flat")
    assert warnings == []
    assert np.argwhere(has(frame.dq, DQ.BAD)).tolist() == [[10, 12]]
    assert np.isfinite(frame.sci).all()
    assert np.isfinite(frame.err).all()
    assert np.median(frame.sci[:16, :16]) == pytest.approx(LIGHT * SKY, rel=0.015)
    # It keeps its value, less the level of the master.
    assert frame.sci[10, 12] == pytest.approx(SKY, rel=0.4)


@pytest.mark.parametrize("value", [0.0, -500.0, BIAS, BIAS + 3])
def test_a_dead_pixel_of_a_flat_is_not_divided_by_it(night, calibrated, value):
    frame, _ = calibrated(night(flat=_set(value, 10, 12)), "bias", "flat")
    assert np.argwhere(has(frame.dq, DQ.BAD)).tolist() == [[10, 12]]
    assert frame.sci[10, 12] == pytest.approx(SKY * 0.83, rel=0.25)


def test_a_value_missing_in_one_of_several_files_is_taken_from_the_others(night, calibrated, tmp_path):
    files = night()
    pixels = fits.getdata(files["flat"])
    others = [str(tmp_path / f"flat{n}.fits") for n in range(3)]
    for n, name in enumerate(others):
        fits.writeto(name, _set(np.nan, n, n)(pixels * (1 + n)), overwrite=True)
    config = SkyIngestConfig(bias=(files["bias"],), flat=tuple(others))
    ingest_frame(files["frame"], tmp_path / "out.fits", config)
    frame = read_frame(tmp_path / "out.fits")
    assert not has(frame.dq, DQ.BAD).any()
    assert np.median(frame.sci[:16, :16]) == pytest.approx(np.median(frame.sci[40:56, 40:56]), rel=0.05)


def test_blank_integers_of_a_master_are_no_values(night, calibrated, tmp_path):
    files = night()
    stored = np.rint(fits.getdata(files["flat"])).astype(np.int16)
    stored[5, 6] = -32768
    hdu = fits.PrimaryHDU(stored)
    hdu.header["BLANK"] = -32768
    hdu.writeto(files["flat"], overwrite=True)
    frame, _ = calibrated(files, "bias", "flat")
    assert np.argwhere(has(frame.dq, DQ.BAD)).tolist() == [[5, 6]]


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        (np.zeros(SHAPE), "flat .*holds no light: its median is"),
        (np.full(SHAPE, np.nan), "flat .*has a value in 0% of the exposed pixels"),
        (np.where(np.arange(96) < 60, np.nan, 20_000.0) * np.ones(SHAPE), "flat .*has a value in 3.% of"),
        (np.where(np.arange(96) < 50, 1.0, 20_000.0) * np.ones(SHAPE), "flat .*has light in 48% of the exposed pixels"),
        (-np.ones(SHAPE), "flat .*holds no light: its median is -1"),
    ],
)
def test_a_flat_that_is_none(night, calibrated, flat, message):
    with pytest.raises(UserError, match=message):
        calibrated(night(flat=flat), "flat")


def test_a_flat_as_dark_as_its_bias(night, calibrated, rng):
    with pytest.raises(UserError, match=r"flat .*holds no light: its median is"):
        calibrated(night(flat=BIAS + rng.normal(0, 5, SHAPE)), "bias", "flat")


@pytest.mark.parametrize("value", [1.0, 65535.0])
def test_a_flat_of_one_value_is_named(night, calibrated, value):
    _, warnings = calibrated(night(flat=np.full(SHAPE, value)), "flat")
    assert any(f"has the value {value:.5g} in 100% of its pixels" in text for text in warnings)


@pytest.mark.parametrize("scale", [1.0, 500.0])
def test_a_flat_without_its_bias_is_not_freed_of_it_twice(night, calibrated, scale):
    frame, warnings = calibrated(night(flat=RESPONSE * scale), "bias", "dark", "flat")
    assert any("the bias is not subtracted from the flat flat.fits" in text for text in warnings)
    assert np.median(frame.sci[:16, :16]) == pytest.approx(np.median(frame.sci[40:56, 40:56]), rel=0.015)


def test_a_card_of_a_flat_says_that_its_bias_is_gone(night, calibrated):
    files = night(flat=RESPONSE * FLAT, cards={"flat": {"BIASCOR": True}})
    frame, warnings = calibrated(files, "bias", "dark", "flat")
    assert any("its card BIASCOR says that this was done" in text for text in warnings)
    assert np.median(frame.sci[:16, :16]) == pytest.approx(np.median(frame.sci[40:56, 40:56]), rel=0.015)


def test_a_flat_that_bends_the_background_is_named(night, calibrated):
    _, warnings = calibrated(night(flat=BIAS + FLAT * (2 - RESPONSE)), "bias", "dark", "flat")
    assert any("the flat does not fit this frame" in text for text in warnings)


def test_a_flat_through_another_filter_is_named(night, calibrated):
    files = night(cards={"flat": {"FILTER": "B"}, "frame": {"FILTER": "R"}})
    _, warnings = calibrated(files, "bias", "dark", "flat")
    assert warnings == ["frame.fits: the flat flat.fits was taken through another filter: FILTER is B, the frame's R"]


def test_a_file_that_calls_itself_something_else_is_named(night, calibrated):
    files = night(cards={"flat": {"IMAGETYP": "Bias Frame"}, "bias": {"IMAGETYP": "zero"}, "dark": {"OBSTYPE": "DARK"}})
    _, warnings = calibrated(files, "bias", "dark", "flat")
    assert warnings == ["frame.fits: the flat flat.fits calls itself Bias Frame (IMAGETYP): is it in the right list?"]


def test_a_bias_above_the_frame_is_refused(night, calibrated):
    with pytest.raises(InputFileError, match=r"less the bias \([0-9.]+ ADU\) its background is -1.*ingest\.sky\.bias"):
        calibrated(night(bias=lambda pixels: pixels + 2000), "bias")


def test_a_bias_is_not_subtracted_twice_from_the_frame(night, calibrated):
    files = night(frame=lambda pixels: pixels - BIAS, cards={"frame": {"BIASCOR": True}})
    frame, warnings = calibrated(files, "bias")
    assert any("the bias frames are not used: the card BIASCOR" in text for text in warnings)
    assert frame.level == pytest.approx(0.85 * SKY + 50, rel=0.1)
    frame, _ = calibrated(files, "bias", "dark", "flat")  # dark and flat are raw: they still have theirs
    assert np.median(frame.sci[40:56, 40:56]) == pytest.approx(LIGHT * SKY, rel=0.01)
    assert np.median(frame.sci[:16, :16]) == pytest.approx(LIGHT * SKY, rel=0.015)


def test_saturation_is_what_is_left_of_it(night, calibrated):
    frame, _ = calibrated(night(), "bias", saturation_adu=50_000.0)
    assert frame.saturation == pytest.approx(49_000, abs=1)


def test_a_dark_without_its_bias(night, calibrated, rng):
    dark = rng.poisson(100, SHAPE) + rng.normal(0, 5, SHAPE)
    frame, warnings = calibrated(night(dark=dark), "bias", "dark")
    assert any("the bias is not subtracted from the dark dark.fits: with a level of" in text for text in warnings)
    assert np.median(frame.sci[40:56, 40:56]) == pytest.approx(SKY, rel=0.01)


def test_a_dark_of_another_camera_is_refused(night, calibrated):
    with pytest.raises(UserError, match=r"the dark .* has a level of .* ADU, less than the bias"):
        calibrated(night(dark=lambda pixels: pixels - 300), "bias", "dark")


def test_a_dark_brighter_than_the_frame_is_refused(night, calibrated):
    with pytest.raises(InputFileError, match=r"less the dark \(25.. ADU\) its background is -.*ingest\.sky\.dark"):
        calibrated(night(dark=lambda pixels: pixels + 5000), "bias", "dark")


@pytest.mark.parametrize("seconds", [0.0, -5.0, "unknown"])
def test_exposure_times_that_cannot_be(night, calibrated, seconds):
    for kind in ("dark", "frame"):
        with pytest.raises(UserError, match=rf"{kind}\.fits has an exposure time of {seconds} \(EXPTIME\)"):
            calibrated(night(**{f"{kind}_s": seconds}), "bias", "dark")


def test_a_dark_scaled_far(night, calibrated):
    files = night(dark=lambda pixels: pixels - 95, dark_s=5.0)
    _, warnings = calibrated(files, "bias", "dark")
    assert any("exposed for 5 s and the frame for 100 s: scaled by 20" in text for text in warnings)
    assert any("the noise of the dark" in text for text in warnings)


def test_an_unscaled_dark_takes_the_bias_with_it(night, calibrated):
    frame, _ = calibrated(night(dark_s=100.0), "dark", bias_level_adu=BIAS)
    assert np.median(frame.sci[40:56, 40:56]) == pytest.approx(SKY - 50, rel=0.01)  # the dark is that of 200 s
    assert frame.zero_known


def test_an_unscaled_dark_without_bias_leaves_the_frame_its_own(night, calibrated):
    frame, _ = calibrated(night(dark=lambda pixels: pixels - BIAS, dark_s=100.0), "dark", bias_level_adu=BIAS)
    assert np.median(frame.sci[40:56, 40:56]) == pytest.approx(SKY - 50, rel=0.01)


def test_darks_of_several_exposures_are_scaled_one_by_one(night, calibrated, tmp_path, rng):
    files = night()
    darks = []
    for n, seconds in enumerate((50.0, 100.0, 400.0)):
        pixels = BIAS + rng.poisson(seconds * DARK_PER_S, SHAPE) + rng.normal(0, 5, SHAPE)
        darks.append(str(tmp_path / f"dark{n}.fits"))
        fits.writeto(darks[-1], pixels.astype(np.float32), fits.Header({"EXPTIME": seconds}))
    ingest_frame(files["frame"], tmp_path / "o.fits", SkyIngestConfig(bias=(files["bias"],), dark=tuple(darks)))
    assert np.median(read_frame(tmp_path / "o.fits").sci[40:56, 40:56]) == pytest.approx(SKY, rel=0.01)
    with pytest.raises(UserError, match="the darks are exposed for 50 to 400 s; configure"):
        ingest_frame(files["frame"], tmp_path / "o2.fits", SkyIngestConfig(dark=tuple(darks)))


def test_the_exposure_time_may_stand_in_the_primary_header(night, calibrated):
    files = night()
    for name in ("frame", "dark"):
        pixels, header = fits.getdata(files[name], header=True)
        primary = fits.PrimaryHDU(header=fits.Header({"EXPTIME": header["EXPTIME"]}))
        image = fits.ImageHDU(pixels, fits.Header({"GAIN": 1.0}), name="SCI")
        fits.HDUList([primary, image]).writeto(files[name], overwrite=True)
    frame, _ = calibrated(files, "bias", "dark")
    assert np.median(frame.sci[40:56, 40:56]) == pytest.approx(SKY, rel=0.01)


def test_masters_in_electrons_are_brought_to_adu(night, calibrated):
    files = night(dark=lambda pixels: pixels * 2, cards={"dark": {"BUNIT": "electron"}, "frame": {"GAIN": 2.0}})
    frame, _ = calibrated(files, "bias", "dark")
    assert np.median(frame.sci[40:56, 40:56]) == pytest.approx(2 * SKY, rel=0.01)
    with pytest.raises(UserError, match=r"the dark .* is in electron/s; ingest\.sky\.dark needs ADU or electrons"):
        calibrated(night(cards={"dark": {"BUNIT": "electron/s"}}), "dark")


@pytest.mark.parametrize(("name", "utype"), [("ERR", None), ("UNCERT", "StdDevUncertainty")])
def test_the_uncertainty_of_a_master_is_in_that_of_the_frame(night, calibrated, name, utype):
    files = night()
    without, _ = calibrated(files, "bias")
    with fits.open(files["bias"]) as hdus:
        uncertainty = fits.ImageHDU(np.full(SHAPE, 40.0, np.float32), name=name)
        if utype:
            uncertainty.header["UTYPE"] = utype
        mask = fits.ImageHDU(np.zeros(SHAPE, np.uint8), name="MASK")
        mask.data[8, 9] = 1
        fits.HDUList([fits.PrimaryHDU(hdus[0].data, hdus[0].header), uncertainty, mask]).writeto(
            files["bias"], overwrite=True
        )
    frame, _ = calibrated(files, "bias")
    expected = np.sqrt(np.median(without.err) ** 2 - 5**2 + 40**2)  # it replaces the noise that was measured, 5 ADU
    assert np.median(frame.err) == pytest.approx(expected, rel=0.02)
    assert np.argwhere(has(frame.dq, DQ.BAD)).tolist() == [[8, 9]]


def test_a_file_unlike_the_others_is_named(night, calibrated, tmp_path):
    files = night()
    config = SkyIngestConfig(bias=(files["bias"], files["bias"], files["flat"]))
    result = ingest_frame(files["frame"], tmp_path / "o.fits", config)
    assert any("the bias flat.fits has a level of" in text for text in result["warnings"])


def test_flags_of_an_ingested_master_are_heeded(night, calibrated, tmp_path):
    files = night()
    ingest_frame(files["flat"], tmp_path / "ingested.fits", SkyIngestConfig(background_box_px=16))
    with fits.open(tmp_path / "ingested.fits", mode="update") as hdus:
        hdus["DQ"].data[3, 4] = DQ.HOT
    files["flat"] = str(tmp_path / "ingested.fits")
    frame, _ = calibrated(files, "bias", "flat")
    assert np.argwhere(has(frame.dq, DQ.BAD)).tolist() == [[3, 4]]


# ---- several chips ---------------------------------------------------------------------------------------------------
@pytest.fixture
def chips(tmp_path, rng):
    """Write a file of several images; each is (level, header cards)."""

    def write(name, *images, primary=None):
        hdus = [fits.PrimaryHDU(header=fits.Header(primary or {}))]
        for level, cards in images:
            hdus.append(fits.ImageHDU(np.rint(rng.normal(level, 5, (64, 64))).astype(np.uint16), fits.Header(cards)))
        fits.HDUList(hdus).writeto(tmp_path / name)
        return str(tmp_path / name)

    return write


def _sci(version, **cards):
    return {"EXTNAME": "SCI", "EXTVER": version, **cards}


@pytest.mark.parametrize(
    "bias",
    [
        ((1000, _sci(1)), (3000, _sci(2))),
        ((3000, _sci(2)), (1000, _sci(1))),  # another order
        ((1000, {}), (3000, {})),  # no names: the same place
        ((1000, _sci(1)), (9, {"EXTNAME": "ERR", "EXTVER": 1}), (3000, _sci(2)), (9, {"EXTNAME": "DQ", "EXTVER": 2})),
    ],
)
def test_each_chip_takes_its_own_master(chips, tmp_path, bias):
    frame = chips("frame.fits", (1500, _sci(1)), (3500, _sci(2)))
    ingest_frame(frame, tmp_path / "o.fits", SkyIngestConfig(bias=(chips("bias.fits", *bias),)))
    with fits.open(tmp_path / "o.fits") as hdus:
        levels = [float(np.median(hdus["SCI", n].data)) for n in (1, 2)]
    assert levels == pytest.approx([500, 500], abs=3)


def test_a_chip_is_known_by_its_card(chips, tmp_path):
    frame = chips("frame.fits", (1500, _sci(1, CCDNAME="A")), (3500, _sci(2, CCDNAME="B")))
    bias = chips("bias.fits", (3000, _sci(1, CCDNAME="B")), (1000, _sci(2, CCDNAME="A")))
    ingest_frame(frame, tmp_path / "o.fits", SkyIngestConfig(bias=(bias,)))
    with fits.open(tmp_path / "o.fits") as hdus:
        assert np.median(hdus["SCI", 2].data) == pytest.approx(500, abs=3)
    other = chips("other.fits", (1000, {"CCDNAME": "C"}), (1000, {"CCDNAME": "D"}))
    with pytest.raises(UserError, match=r"the bias .*other\.fits is of another chip: CCDNAME is C, D, and A in frame"):
        ingest_frame(frame, tmp_path / "o2.fits", SkyIngestConfig(bias=(other,)))


def test_one_image_is_no_master_of_several_chips(chips, tmp_path):
    frame = chips("frame.fits", (1500, _sci(1)), (3500, _sci(2)))
    message = (
        r"the bias .*one\.fits holds 1 image, and none of them is marked as that of frame\.fits\[SCI,1\], one of 2"
    )
    with pytest.raises(UserError, match=message):
        ingest_frame(frame, tmp_path / "o.fits", SkyIngestConfig(bias=(chips("one.fits", (1000, {})),)))


@pytest.mark.parametrize(
    ("card", "frame", "bias", "message"),
    [
        ("XBINNING", 2, 1, "another binning: XBINNING is 1, and 2 in frame"),
        ("CCDSUM", "2 2", "1 1", "another binning: CCDSUM is 1 1"),
        ("DETSEC", "[1:64,1:64]", "[65:128,1:64]", "another window: DETSEC"),
    ],
)
def test_another_read_out_is_named(chips, tmp_path, card, frame, bias, message):
    frame = chips("frame.fits", (1500, {}), primary={card: frame})
    bias = chips("bias.fits", (1000, {}), primary={card: bias})
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        ingest_frame(frame, tmp_path / "o.fits", SkyIngestConfig(bias=(bias,)))


def test_a_trimmed_master_does_not_fit_an_overscan(chips, tmp_path, rng):
    pixels = np.rint(rng.normal(1500, 5, (64, 80))).astype(np.uint16)
    fits.writeto(tmp_path / "frame.fits", pixels, fits.Header({"TRIMSEC": "[17:80,1:64]"}))
    with pytest.raises(UserError, match=r"it is trimmed, and the frame still has its overscan"):
        ingest_frame(
            tmp_path / "frame.fits", tmp_path / "o.fits", SkyIngestConfig(bias=(chips("bias.fits", (1000, {})),))
        )
