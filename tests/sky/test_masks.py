"""Masks of other pipelines: only what makes the light of a pixel wrong counts as bad, and stars never do."""

import numpy as np
import pytest
from astropy.io import fits

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError, UserError
from pipeline.sky.dq import DQ, UNTRUSTED, has
from pipeline.sky.frames import read_frame, read_frames
from pipeline.sky.frames.mask_tables import NOT_BAD, TABLES, meaning_of

SHAPE = (128, 128)


@pytest.fixture
def field(rng):
    """Twelve stars on sky, and where their light is."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    centres = rng.uniform(15, 113, (12, 2))
    stars = sum(5000 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 4.0) for cx, cy in centres)
    return rng.poisson(stars + 400).astype(np.float32), stars


@pytest.fixture
def read(tmp_path, field):
    """A frame of the stars with a mask beside it, read: `read(mask, mask cards, primary cards, **configuration)`."""

    def make(mask, cards=None, primary=None, name="MASK", **configuration):
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(field[0], name="SCI"), fits.ImageHDU(mask, name=name)]
        hdus[0].header.update(primary or {})
        with pytest.warns(fits.verify.VerifyWarning) if any(len(key) > 8 for key in cards or {}) else _nothing():
            for key, value in (cards or {}).items():
                hdus[2].header[key] = value
        path = tmp_path / "frame.fits"
        fits.HDUList(hdus).writeto(path, overwrite=True)
        return read_frame(path, SkyIngestConfig(**configuration))

    return make


class _nothing:
    def __enter__(self):
        return None

    def __exit__(self, *_):
        return None


def bits(*places, dtype=np.int32):
    """A mask with values at (row 40 + k, column 40)."""
    mask = np.zeros(SHAPE, dtype)
    for k, value in enumerate(places):
        mask[40 + k, 40] = value
    return mask


# ---- names in the file -----------------------------------------------------------------------------------------------
def test_planes_of_rubin(read, field):
    mask = np.where(field[1] > 20, 32, 0).astype(np.int32) | bits(1, 2, 4, 8, 16, 0, 256)
    names = {"BAD": 0, "SAT": 1, "INTRP": 2, "CR": 3, "EDGE": 4, "DETECTED": 5, "NO_DATA": 8}
    frame = read(mask, {f"MP_{name}": bit for name, bit in names.items()})
    assert list(frame.dq[40:47, 40]) == [DQ.BAD, DQ.SATURATED, 0, DQ.COSMIC_RAY, 0, 0, DQ.MISSING]
    assert np.count_nonzero(frame.dq) == 4
    assert frame.warnings == ()


@pytest.mark.parametrize(
    "cards",
    [
        {"MSKNAM00": "FLAT", "MSKVAL00": 1, "MSKNAM1": "CR", "MSKVAL1": 256, "MSKNAM2": "STARCORE", "MSKVAL2": 4096},
        {"BIT0": "BPM", "BIT8": "Cosmic ray", "BIT12": "halo of a star"},
        {"IMGBITM": "BPM,A,B,C,D,E,F,G,CR,H,I,J,DETECTED"},
    ],
)  # fmt: skip
def test_other_ways_to_name_bits(read, cards):
    frame = read(bits(1, 256, 4096), cards)
    assert list(frame.dq[40:43, 40]) == [DQ.BAD, DQ.COSMIC_RAY, 0]


def test_names_in_comments_of_numbered_bits(read):
    """ZTF and PTF: the same bit means other things, so that only the cards can say."""
    cards = {"BIT01": (1, "OBJECT (detected by SExtractor)"), "BIT08": (8, "SATURATED"), "BIT09": (9, "DEAD/BAD")}
    assert list(read(bits(2, 256, 512), cards).dq[40:43, 40]) == [0, DQ.SATURATED, DQ.BAD]


def test_a_table_of_names(tmp_path, field):
    columns = [
        fits.Column("BIT", "J", array=[0, 2]),
        fits.Column("VALUE", "J", array=[1, 4]),
        fits.Column("NAME", "20A", array=["DO_NOT_USE", "JUMP_DET"]),
    ]
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(field[0], name="SCI"), fits.ImageHDU(bits(1, 4), name="DQ")]
    fits.HDUList([*hdus, fits.BinTableHDU.from_columns(columns, name="DQ_DEF")]).writeto(tmp_path / "frame.fits")
    assert list(read_frame(tmp_path / "frame.fits").dq[40:42, 40]) == [DQ.BAD, 0]


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("AIRCRAFT/SATELLITE TRACK", DQ.TRAIL), ("DEAD (UNRESPONSIVE)", DQ.BAD), ("NAN (not a number)", DQ.MISSING),
        ("GHOST FROM BRIGHT SOURCE", DQ.GHOST), ("HALO FROM BRIGHT SOURCE", NOT_BAD), ("LOW RESPONSIVITY", NOT_BAD),
        ("PIXEL SPIKE (POSSIBLE RAD HIT)", DQ.COSMIC_RAY), ("CCD BLEED", DQ.BLEED), ("SATUR", DQ.SATURATED),
        ("NOT_DEBLENDED", NOT_BAD), ("DETECTED_NEGATIVE", NOT_BAD), ("UNMASKEDNAN", DQ.MISSING), ("STREAK", DQ.TRAIL),
        ("CONV.BAD", DQ.BAD), ("CONV.POOR", NOT_BAD), ("IVAR0", DQ.MISSING), ("xyzzy", None),
    ],
)  # fmt: skip
def test_glossary(name, meaning):
    assert meaning_of(name) == meaning


# ---- cameras that are known ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("primary", "value", "expected"),
    [
        ({"TELESCOP": "JWST"}, 4, 0),  # JUMP_DET
        ({"TELESCOP": "JWST"}, 1 | 4, DQ.BAD),
        ({"TELESCOP": "HST", "INSTRUME": "ACS"}, 4096, DQ.COSMIC_RAY),
        ({"TELESCOP": "HST", "INSTRUME": "WFC3", "DETECTOR": "UVIS"}, 2048, DQ.SATURATED),
        ({"TELESCOP": "HST", "INSTRUME": "WFC3", "DETECTOR": "IR"}, 2048, 0),  # a bright star in the zero read
        ({"TELESCOP": "HST", "INSTRUME": "WFPC2"}, 8, DQ.SATURATED),
        ({"TELESCOP": "HST", "INSTRUME": "WFPC2"}, 1024, 0),  # a warm pixel that was repaired
        ({"TELESCOP": "EUCLID", "INSTRUME": "VIS"}, 1 << 18, 0),  # the light of a star
        ({"TELESCOP": "EUCLID", "INSTRUME": "VIS"}, 1 << 24, 0),  # an object
        ({"TELESCOP": "EUCLID", "INSTRUME": "VIS"}, 16 | 8, DQ.COSMIC_RAY | DQ.SATURATED),
        ({"TELESCOP": "Gemini-South", "INSTRUME": "GMOS-S"}, 8, DQ.COSMIC_RAY),
        ({"INSTRUME": "DECam", "PLVER": "V4.8.2a"}, 5, DQ.COSMIC_RAY),  # a code
        ({"INSTRUME": "DECam", "PLVER": "V4.8.2a"}, 7, 0),
        ({"INSTRUME": "DECam", "PLVER": "V3.2.0"}, 2 | 64, DQ.SATURATED | DQ.BLEED),  # bits
        ({"INSTRUME": "DECam", "DESFNAME": "D00_r.fits"}, 32, 0),  # a bright star
    ],
)
def test_cameras(read, primary, value, expected):
    frame = read(bits(value), primary=primary, name="DQ")
    assert frame.dq[40, 40] == expected
    assert np.count_nonzero(frame.dq) == (expected != 0)


def test_a_convention_by_name(read):
    assert read(bits(512), dq_convention="sdss").dq[40, 40] == DQ.COSMIC_RAY
    assert read(bits(512), dq_convention="ignore").dq[40, 40] == 0
    with pytest.raises(
        UserError, match="dq_convention is 'sloan'; accepted: ignore, nonzero_is_bad, zero_is_bad, jwst"
    ):
        read(bits(512), dq_convention="sloan")


def test_configured_bits_win_over_names(read):
    frame = read(bits(1, 2), {"MP_DETECTED": 0, "MP_SAT": 1}, dq_bits={1: int(DQ.GHOST)})
    assert list(frame.dq[40:42, 40]) == [DQ.GHOST, DQ.SATURATED]


def test_tables_are_consistent():
    for table in TABLES.values():
        values = [known.value for known in table.flags]
        assert len(set(values)) == len(values), table.name
        assert table.codes or all(value.bit_count() == 1 for value in values)
        assert all(known.meaning is not None and not known.meaning & DQ.RESTORED for known in table.flags)


# ---- masks that nothing explains -------------------------------------------------------------------------------------
def test_true_is_bad(read):
    for value in (1, 255):
        frame = read(bits(value, dtype=np.uint8))
        assert frame.dq[40, 40] == DQ.BAD
        assert frame.warnings == ()


def test_a_mask_of_sources_is_not_taken_as_bad(read, field):
    frame = read((field[1] > 20).astype(np.uint8))
    assert not has(frame.dq, UNTRUSTED).any()
    assert len(frame.warnings) == 1
    assert "lie on the sources and are not taken as bad: 1 (" in frame.warnings[0]


def test_positions_of_sources_are_not_taken_as_bad(read, field):
    peaks = field[1] > 4500
    frame = read(np.where(peaks, 64, 0).astype(np.int32) | bits(1, 2))
    assert list(frame.dq[40:42, 40]) == [DQ.BAD, DQ.BAD]
    assert np.count_nonzero(frame.dq) == 2
    assert any("64" in text for text in frame.warnings)
    assert any("taken as bad pixels: 1 (0.0061 %), 2 (0.0061 %)" in text for text in frame.warnings)


def test_tracks_of_particles_are_bad(read, field):
    """Bright, too, but narrow."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[20:60, 30] = mask[90, 10:70] = 1
    field[0][mask > 0] += 3000
    frame = read(mask)
    assert np.array_equal(has(frame.dq, DQ.BAD), mask > 0)


@pytest.mark.parametrize(("mask", "share"), [(np.full(SHAPE, 6, np.uint8), "100"), (1 - bits(1, 1, 1), "100")])
def test_a_mask_of_nearly_everything_is_refused(read, mask, share):
    with pytest.raises(
        InputFileError, match=rf"the mask in MASK would have {share} % of .*more than 30 % .*zero_is_bad"
    ):
        read(mask)


def test_one_means_good_where_configured(read):
    frame = read(1 - bits(1, 1, dtype=np.uint8), dq_convention="zero_is_bad")
    assert list(np.flatnonzero(frame.dq)) == [40 * 128 + 40, 41 * 128 + 40]


def test_the_limit_is_configurable(read):
    mask = np.zeros(SHAPE, np.uint8)
    mask[:64] = 1
    assert np.count_nonzero(has(read(mask, max_masked_fraction=0.6).dq, DQ.BAD)) == 64 * 128
    with pytest.raises(InputFileError, match="50 % of the pixels replaced, more than 40 %"):
        read(mask, max_masked_fraction=0.4)


@pytest.mark.parametrize(("quality", "where"), [("MASKONE", 0), ("MASKZERO", 1)])
def test_quality_planes_of_eso(read, quality, where):
    mask = bits(1, dtype=np.uint8)
    frame = read(mask if where else 1 - mask, {"HDUCLAS2": "QUALITY", "HDUCLAS3": quality}, name="ANYTHING")
    assert list(np.flatnonzero(frame.dq)) == [40 * 128 + 40]


@pytest.mark.parametrize("values", [(0.5, 0.25), (-1.0, 1.0), (np.nan, 1.0)])
def test_masks_of_floats(read, values):
    """Resampling makes fractions and overshoots: what is not 0 is bad; NaN says nothing."""
    frame = read(bits(*values, dtype=np.float32))
    assert list(frame.dq[40:42, 40] > 0) == [bool(np.isfinite(values[0])), True]


def test_a_mask_of_another_shape_is_refused(read):
    with pytest.raises(
        InputFileError, match=r"the mask in MASK has \(64, 64\) pixels, and its image \(128, 128\); remove"
    ):
        read(np.zeros((64, 64), np.uint8))
    assert not read(np.zeros((64, 64), np.uint8), dq_convention="ignore").dq.any()


def test_several_masks(tmp_path, field):
    extra = [
        fits.ImageHDU(bits(1, 0, dtype=np.uint8), name="BPM"),
        fits.ImageHDU(bits(0, 1, dtype=np.uint8), name="mask "),
    ]
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(field[0], name="SCI"), *extra]
    fits.HDUList(hdus).writeto(tmp_path / "frame.fits")
    assert list(read_frame(tmp_path / "frame.fits").dq[40:42, 40]) == [DQ.BAD, DQ.BAD]


def test_masks_beside_a_mosaic_are_matched_by_name(tmp_path, rng):
    """Chips of the same size: the first mask of that size is not everybody's."""
    chips, masks = [fits.PrimaryHDU()], [fits.PrimaryHDU()]
    for k, name in enumerate(("N4", "S4")):
        chips.append(fits.ImageHDU(rng.normal(100, 5, (40, 40)).astype(np.float32), name=name))
        masks.append(fits.ImageHDU(np.zeros((40, 40), np.uint8), name=name))
        chips[-1].header["CCDNUM"] = k
        masks[-1].data[k, k] = 1
    fits.HDUList(chips).writeto(tmp_path / "c4d_ooi.fits")
    fits.HDUList([masks[0], masks[2], masks[1]]).writeto(tmp_path / "c4d_ood.fits")
    first, second = read_frames(tmp_path / "c4d_ooi.fits", SkyIngestConfig(mask_suffix=("_ooi", "_ood")))
    assert (list(np.flatnonzero(first.dq)), list(np.flatnonzero(second.dq))) == ([0], [41])


# ---- parts without light ---------------------------------------------------------------------------------------------
def test_corners_and_gaps_are_missing(tmp_path, field):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = field[0] - 400
    outside = (x + 0.4 * y > 130) | (abs(x - 60) < 5)
    image[outside] = 0
    fits.PrimaryHDU(image).writeto(tmp_path / "drizzled.fits")
    frame = read_frame(tmp_path / "drizzled.fits")
    assert np.mean(has(frame.dq, DQ.MISSING) == outside) > 0.997  # tips of less than 8 pixels
    assert frame.noise == pytest.approx(20, rel=0.1)
    assert "have the value 0 without any noise over large parts" in frame.warnings[0]


def test_saturated_stars_and_coarse_sky_are_not_missing(tmp_path, rng, field):
    image = field[0]
    image[50:62, 50:62] = 65535  # a plateau
    fits.PrimaryHDU(image).writeto(tmp_path / "plateau.fits")
    assert not has(read_frame(tmp_path / "plateau.fits").dq, DQ.MISSING).any()
    coarse = np.round(rng.normal(3, 0.4, SHAPE)).astype(np.int16)
    fits.PrimaryHDU(coarse).writeto(tmp_path / "coarse.fits")
    assert not has(read_frame(tmp_path / "coarse.fits").dq, DQ.MISSING).any()


def test_no_weight_is_missing_but_not_on_stars(tmp_path, field):
    weight = np.full(SHAPE, 1 / 400, np.float32)
    weight[:8] = 0
    weight[field[1] > 3000] = 0  # saturated for the pipeline
    hdus = [fits.PrimaryHDU(field[0]), fits.ImageHDU(weight, name="WHT")]
    fits.HDUList(hdus).writeto(tmp_path / "frame.fits")
    frame = read_frame(tmp_path / "frame.fits")
    assert has(frame.dq[:8], DQ.MISSING).all()
    assert not has(frame.dq[field[1] > 3000], UNTRUSTED).any()


@pytest.mark.parametrize(
    ("name", "usual", "useless"),
    [
        ("ERR", 20, 0), ("ERR", 20, np.inf), ("ERR", 20, np.nan), ("ERR", 20, 1e4), ("ERR", 20, 1e10),
        ("VAR", 400, np.inf), ("IVAR", 1 / 400, 0), ("IVAR", 1 / 400, 1e-9), ("WHT", 1 / 400, 1e-9),
    ],
)  # fmt: skip
def test_what_an_uncertainty_says_nothing_of_is_missing(tmp_path, field, name, usual, useless):
    """However a program writes that a pixel was not observed; a star's large uncertainty is small beside its light."""
    plane = np.full(SHAPE, usual, np.float32)
    plane[:8] = useless
    bright = field[1] > 3000
    plane[bright] = 400 if name == "ERR" else usual
    fits.HDUList([fits.PrimaryHDU(field[0]), fits.ImageHDU(plane, name=name)]).writeto(tmp_path / "frame.fits")
    frame = read_frame(tmp_path / "frame.fits")
    assert has(frame.dq[:8], DQ.MISSING).all()
    assert not has(frame.dq[8:], UNTRUSTED).any()
    assert np.unique(frame.err[:8]) == pytest.approx(20, rel=1e-4)
    assert frame.err[bright] == pytest.approx(400 if name == "ERR" else 20, rel=1e-4)


# ---- uncertainties ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "value", "cards"),
    [
        ("ERR", 20, {}), ("SIGMA", 20, {}), ("RMS", 20, {}), ("STD", 20, {}), ("ERROR", 20, {"BUNIT": "adu"}),
        ("VAR", 400, {"BUNIT": "adu**2"}), ("STAT", 400, {}), ("IVAR", 1 / 400, {"BUNIT": "1 / adu2"}),
        ("INVVAR", 1 / 400, {}),
        ("UNCERT", 20, {}), ("UNCERT", 20, {"UTYPE": "StdDevUncertainty"}),
        ("UNCERT", 400, {"UTYPE": "VarianceUncertainty", "BUNIT": "adu2"}),
        ("UNCERT", 1 / 400, {"UTYPE": "InverseVariance"}), ("NOISE MAP", 400, {"HDUCLAS2": "ERROR", "HDUCLAS3": "MSE"}),
        ("V", 400, {"EXTTYPE": "VARIANCE"}), ("WHT", 1 / 400, {}),
    ],
)  # fmt: skip
def test_kinds_of_uncertainty(tmp_path, rng, name, value, cards):
    hdus = [fits.PrimaryHDU(rng.normal(900, 20, SHAPE).astype(np.float32)), fits.ImageHDU(np.full(SHAPE, value, "f4"))]
    hdus[1].header.update({"EXTNAME": name} | cards)
    fits.HDUList(hdus).writeto(tmp_path / "frame.fits")
    frame = read_frame(tmp_path / "frame.fits")
    assert np.median(frame.err) == pytest.approx(20, rel=1e-3)


@pytest.mark.parametrize(("unit", "value"), [("electron", 80), ("adu", 40), ("", 40)])
def test_uncertainty_in_another_unit(tmp_path, rng, unit, value):
    """The image in ADU, with a noise of 40, and 2 electrons per ADU."""
    hdus = [fits.PrimaryHDU(rng.normal(9000, 40, SHAPE).astype(np.float32)), fits.ImageHDU(np.full(SHAPE, value, "f4"))]
    hdus[0].header.update(BUNIT="adu", GAIN=2.0)
    hdus[1].header.update(EXTNAME="ERR", BUNIT=unit)
    fits.HDUList(hdus).writeto(tmp_path / "frame.fits")
    frame = read_frame(tmp_path / "frame.fits", SkyIngestConfig(bias_level_adu=6000))
    assert frame.unit == "electron"
    assert np.median(frame.err) == pytest.approx(80, rel=1e-3)


@pytest.mark.parametrize(
    ("unit", "name", "of_plane"),
    [
        ("electron/s", "VAR", "electron2 / s2"), ("MJy/sr", "VAR", "MJy2 / sr2"), ("adu/s", "VAR", "adu2 / s2"),
        ("ADU/s", "VAR", "DN2 / s2"), ("electron/s", "VAR", "(electron / s)2"), ("electron", "VAR", "e-2"),
        ("electron/s", "VAR", "electron**2 s**-2"), ("e-/s", "VAR", "(ELECTRONS/s)^2"),
        ("MJy/sr", "IVAR", "1 / (MJy2 / sr2)"), ("MJy/sr", "IVAR", "(MJy/sr)**-2"), ("MJy/sr", "IVAR", "sr2 / MJy2"),
        ("MJy/sr", "VAR", "MJy/sr"),  # copied from the image
        ("10**(-20)*erg/s/cm**2", "VAR", "(10**(-20)*erg/s/cm**2)**2"), ("flux", "VAR", "flux2"),
    ],
)  # fmt: skip
def test_units_of_variances(tmp_path, rng, unit, name, of_plane):
    value = 400 if name == "VAR" else 1 / 400
    hdus = [fits.PrimaryHDU(rng.normal(900, 20, SHAPE).astype(np.float32)), fits.ImageHDU(np.full(SHAPE, value, "f4"))]
    hdus[0].header["BUNIT"] = unit
    hdus[1].header.update(EXTNAME=name, BUNIT=of_plane)
    fits.HDUList(hdus).writeto(tmp_path / "frame.fits")
    frame = read_frame(tmp_path / "frame.fits")
    assert not frame.err_modelled
    assert np.median(frame.err) == pytest.approx(20, rel=1e-3)


@pytest.mark.parametrize(("unit", "name", "value"), [("kJy2 / sr2", "VAR", 4e-4), ("1 / (kJy2 / sr2)", "IVAR", 2500)])
def test_variances_in_another_unit(tmp_path, rng, unit, name, value):
    hdus = [fits.PrimaryHDU(rng.normal(900, 20, SHAPE).astype(np.float32)), fits.ImageHDU(np.full(SHAPE, value, "f4"))]
    hdus[0].header["BUNIT"] = "Jy/sr"
    hdus[1].header.update(EXTNAME=name, BUNIT=unit)
    fits.HDUList(hdus).writeto(tmp_path / "frame.fits")
    assert np.median(read_frame(tmp_path / "frame.fits").err) == pytest.approx(20, rel=1e-3)


@pytest.mark.parametrize("unit", ["s", "flux", "1 / (MJy2 / sr2)"])
def test_variances_in_units_of_other_things_are_not_used(tmp_path, rng, unit):
    hdus = [fits.PrimaryHDU(rng.normal(900, 20, SHAPE).astype(np.float32)), fits.ImageHDU(np.full(SHAPE, 400, "f4"))]
    hdus[0].header["BUNIT"] = "MJy/sr"
    hdus[1].header.update(EXTNAME="VAR", BUNIT=unit)
    fits.HDUList(hdus).writeto(tmp_path / "frame.fits")
    (warning,) = read_frame(tmp_path / "frame.fits").warnings
    assert warning == f"the VAR extension is in {unit}, the image in MJy/sr: it is not used"


def test_relative_weights_are_scaled_to_the_noise(tmp_path, rng):
    """Exposure times, or ratios: half the weight is 1.41 times the noise, and the median that of the sky."""
    weight = np.full(SHAPE, 1200, np.float32)
    weight[:, :32] = 600
    hdus = [fits.PrimaryHDU(rng.normal(900, 20, SHAPE).astype(np.float32)), fits.ImageHDU(weight, name="EXP")]
    fits.HDUList(hdus).writeto(tmp_path / "frame.fits")
    frame = read_frame(tmp_path / "frame.fits")
    assert np.median(frame.err) == pytest.approx(20, rel=0.05)
    assert frame.err[5, 5] / frame.err[5, 60] == pytest.approx(2**0.5, rel=1e-4)


# ---- real files ------------------------------------------------------------------------------------------------------
def test_masks_of_real_files(data_dir):
    """DECam's codes around a saturated star, whose core is not to be replaced; flags of HST's UVIS."""
    cfg = SkyIngestConfig(mask_suffix=("_ooi_", "_ood_"), weight_suffix=("_ooi_", "_oow_"))
    (path,) = (data_dir / "sky/legacypipe/testcase7").rglob("*_ooi_z_ls9.S11.fits")
    frame = read_frame(path, cfg)
    assert np.count_nonzero(has(frame.dq, DQ.SATURATED)) == 612
    assert np.count_nonzero(has(frame.dq, DQ.BLEED)) == 682
    assert np.count_nonzero(frame.dq) == 612 + 682
    brightest = np.argsort(frame.sci, axis=None)[-20:]
    assert not has(frame.dq.ravel()[brightest], UNTRUSTED).any()
    first, second = read_frames(data_dir / "sky/hst_mef/sample_ipppssoot_flc.fits")
    assert sorted(first.dq[first.dq > 0]) == [DQ.HOT, DQ.COSMIC_RAY]
    assert not second.dq.any()  # uncertain flat field on 30 pixels
