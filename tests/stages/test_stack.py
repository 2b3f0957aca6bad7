"""Exposures of one field combined: values, uncertainty and mask against the known sky."""

import json

import numpy as np
import pytest
from astropy.io import fits
from scipy.ndimage import map_coordinates

from pipeline.config import Config, parse_config
from pipeline.errors import InputFileError, TooFewEventsError, UserError
from pipeline.sky import stacking
from pipeline.sky.dq import DQ, has
from pipeline.stages.stack import stack

SHAPE, LEVEL, NOISE = (120, 140), 200.0, 8.0
DRIFTS = [(0.0, 0.0), (3.4, -2.0), (-2.0, 5.25), (6.0, 3.0), (-4.5, -3.5), (1.0, 7.0), (2.0, 2.0)]
MIDDLE = len(DRIFTS) // 2
HOLE = (60, 70)  # missing in every exposure, at one place of the sky
CONFIG = parse_config({"ingest": {"sky": {"bias_level_adu": 0.0}}})


def sky_of(rng):
    y, x = np.mgrid[:200, :220]
    light = np.zeros((200, 220))
    for _ in range(90):
        flux, x0, y0 = rng.uniform(3e3, 3e4), rng.uniform(10, 210), rng.uniform(10, 190)
        light += flux * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 2 / 1.7**2) / (2 * np.pi * 1.7**2)
    return light


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """Drifting exposures of growing sky and transparency, each with tracks of its own in its mask."""
    rng = np.random.default_rng(5)
    light, folder = sky_of(rng), tmp_path_factory.mktemp("night")
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    paths = []
    for number, (dx, dy) in enumerate(DRIFTS):
        clean = map_coordinates(light, [y + 40 + dy, x + 40 + dx], order=3)
        image = (1 + 0.04 * number) * clean + LEVEL + 5 * number + rng.normal(0, NOISE, SHAPE)
        mask = np.zeros(SHAPE, np.int16)
        row, column = rng.integers(10, 100, 2)
        image[row, column : column + 15] += 2_000
        mask[row, column : column + 15] = DQ.COSMIC_RAY
        hole = (round(HOLE[0] + DRIFTS[MIDDLE][1] - dy), round(HOLE[1] + DRIFTS[MIDDLE][0] - dx))
        mask[hole[0] - 1 : hole[0] + 2, hole[1] - 1 : hole[1] + 2] = DQ.SATURATED
        science = fits.ImageHDU(image.astype(np.float32), name="SCI")
        science.header.update(BUNIT="electron", RDNOISE=NOISE, OBJECT="field")
        err = fits.ImageHDU(np.full(SHAPE, NOISE, np.float32), name="ERR")
        bits = fits.ImageHDU(mask, name="DQ")
        for bit in DQ:
            bits.header[f"LPBIT{int(bit)}"] = bit.name
        bits.header["LPDQ"] = "bits as follows"
        paths.append(folder / f"exposure_{number}.fits")
        fits.HDUList([fits.PrimaryHDU(), science, err, bits]).writeto(paths[-1])
    truth = map_coordinates(light, [y + 40 + DRIFTS[MIDDLE][1], x + 40 + DRIFTS[MIDDLE][0]], order=3)
    return paths, truth * (1 + 0.04 * MIDDLE) + LEVEL + 5 * MIDDLE


@pytest.fixture(scope="module")
def stacked(night, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "stack.fits"
    return stack(CONFIG, night[0], out), out


def inner(plane):
    return plane[12:-12, 12:-12]


def test_the_mean_is_the_sky_and_its_uncertainty_is_that_of_the_mean(night, stacked):
    facts, out = stacked
    assert facts["n_combined"] == len(DRIFTS)
    with fits.open(out) as hdus:
        sci, err, dq, number = (hdus[name].data for name in ("SCI", "ERR", "DQ", "NEXP"))
        assert hdus["SCI"].header["NCOMBINE"] == len(DRIFTS)
        assert hdus["SCI"].header["OBJECT"] == "field"
    good = (inner(dq) == 0) & (inner(number) == len(DRIFTS))
    assert good.mean() > 0.5
    empty = good & (inner(night[1]) < LEVEL + 5 * MIDDLE + 0.2)
    pull = (inner(sci) - inner(night[1])) / inner(err)
    assert pull[empty].mean() == pytest.approx(0, abs=0.2)
    assert pull[empty].std() == pytest.approx(1, abs=0.06)
    # Interpolation averages neighbours: less noise than the mean of so many pixels has.
    assert 0.5 < np.median(inner(err)[empty]) / (NOISE / np.sqrt(len(DRIFTS))) < 1.0


def test_defects_are_rejected(night, stacked):
    with fits.open(stacked[1]) as hdus:
        sci, number, clipped = (hdus[name].data for name in ("SCI", "NEXP", "CLIPPED"))
    struck = inner(number) < len(DRIFTS)
    assert struck.any()
    assert np.abs((inner(sci) - inner(night[1]))[struck]).max() < 60
    assert np.abs(inner(clipped) - inner(night[1])).mean() < 2 * NOISE


def test_what_is_bad_in_all_exposures_is_said_to_be_bad(stacked):
    with fits.open(stacked[1]) as hdus:
        sci, dq, number = (hdus[name].data for name in ("SCI", "DQ", "NEXP"))
    assert number[HOLE] == 0
    assert np.isfinite(sci[HOLE])
    assert has(dq[HOLE], DQ.SATURATED)
    assert has(dq[HOLE], DQ.LOW_CONFIDENCE)


def test_rows_at_a_time_do_not_change_a_bit(night, stacked, tmp_path, monkeypatch):
    monkeypatch.setattr(stacking, "_PIXELS_AT_ONCE", 10_000)
    out = tmp_path / "stack.fits"
    stack(CONFIG, night[0], out)
    with fits.open(out) as one, fits.open(stacked[1]) as other:
        for name in ("SCI", "ERR", "DQ", "CLIPPED", "NEXP"):
            assert one[name].data.tobytes() == other[name].data.tobytes()


def test_what_was_combined_is_recorded(night, stacked):
    stamp = json.loads(stacked[1].with_name("stack.fits.provenance.json").read_text())
    assert set(stamp["inputs"]) == {path.name for path in night[0]}
    history = "\n".join(fits.getheader(stacked[1], "SCI")["HISTORY"])
    assert history.count("combined: exposure_") == len(DRIFTS)
    assert "the files' own masks" in history


def test_an_exposure_without_the_field_is_left_out(night, tmp_path, rng, caplog):
    other = tmp_path / "cloudy.fits"
    hdu = fits.ImageHDU((LEVEL + rng.normal(0, NOISE, SHAPE)).astype(np.float32), name="SCI")
    hdu.header.update(BUNIT="electron", RDNOISE=NOISE)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(other)
    facts = stack(CONFIG, [*night[0][:4], other], tmp_path / "stack.fits")
    assert facts["left_out"] == {"cloudy.fits": "too few stars in common"}
    assert "stack.fits: cloudy.fits is left out" in caplog.text
    assert fits.getheader(tmp_path / "stack.fits", "SCI")["NCOMBINE"] == 4
    with pytest.raises(TooFewEventsError, match=r"2 of 3 exposures can be registered .* at least three"):
        stack(CONFIG, [*night[0][:2], other], tmp_path / "none.fits")
    assert not (tmp_path / "none.fits").exists()


def test_stacks_that_cannot_be_made(night, tmp_path, stacked):
    with pytest.raises(TooFewEventsError, match="at least three exposures of one field, got 2"):
        stack(Config(), night[0][:2], tmp_path / "a.fits")
    with pytest.raises(UserError, match="end the name in"):
        stack(Config(), night[0], tmp_path / "a.h5")
    with pytest.raises(UserError, match="exists"):
        stack(CONFIG, night[0], stacked[1])
    small = tmp_path / "small.fits"
    hdu = fits.ImageHDU(np.random.default_rng(0).normal(100, 5, (80, 90)).astype(np.float32), name="SCI")
    hdu.header.update(BUNIT="electron", RDNOISE=NOISE)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(small)
    with pytest.raises(InputFileError, match=r"has the shape \(80, 90\), but exposure_0.fits \(120, 140\)"):
        stack(CONFIG, [*night[0][:2], small], tmp_path / "a.fits")
    with pytest.raises(UserError, match=r"exposure_2.fits is an input, which stays as it is"):
        stack(CONFIG, night[0], night[0][2], force=True)


def raw_exposures(folder, drifts=(-16, -8, 0, 8, 16), overscan=24, **cards):
    """Frames with an overscan on the right, whose stars move along x; the sky has 700 adu with the bias."""
    light = sky_of(np.random.default_rng(8))
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    width, paths = SHAPE[1] + overscan, []
    for number, drift in enumerate(drifts):
        rng = np.random.default_rng(number)
        raw = rng.normal(500, 4, (SHAPE[0], width))
        raw[:, : SHAPE[1]] += map_coordinates(light, [y + 40, x + 40 + drift], order=3) + LEVEL
        raw[:, : SHAPE[1]] += rng.normal(0, np.sqrt(LEVEL), SHAPE)
        hdu = fits.PrimaryHDU(np.rint(raw).astype(np.uint16))
        hdu.header.update(GAIN=1.0, RDNOISE=4.0, **cards)
        if overscan:
            hdu.header.update(DATASEC=f"[1:{SHAPE[1]},1:{SHAPE[0]}]", BIASSEC=f"[{SHAPE[1] + 1}:{width},1:{SHAPE[0]}]")
        paths.append(folder / f"raw_{number}.fits")
        hdu.writeto(paths[-1])
    return paths


def test_overscans_are_no_sky(tmp_path):
    stack(Config(), raw_exposures(tmp_path), tmp_path / "stack.fits")
    with fits.open(tmp_path / "stack.fits") as hdus:
        sky, n_exposures, dq = hdus[0].data, hdus["NEXP"].data, hdus["DQ"].data
    edge = slice(SHAPE[1] - 8, SHAPE[1])  # two of the five have their overscan here
    assert np.median(sky[:, edge]) == pytest.approx(700, abs=10)
    assert (n_exposures[5:-5, edge] == 3).all()
    assert np.isnan(sky[:, SHAPE[1] :]).all()
    assert has(dq[:, SHAPE[1] :], DQ.MISSING).all()


def test_a_mosaic_of_colours_is_not_shifted(tmp_path):
    paths = raw_exposures(tmp_path, overscan=0, BAYERPAT="RGGB", BIASLVL=500.0)
    with pytest.raises(InputFileError, match=r"raw_0.fits is a mosaic of colours \(BAYERPAT = RGGB\)"):
        stack(Config(), paths, tmp_path / "stack.fits")
    stack(parse_config({"predict": {"bayer": "none"}}), paths, tmp_path / "stack.fits")


def test_an_exposure_counts_once(night, tmp_path):
    copy, link = tmp_path / "copy.fits", tmp_path / "link.fits"
    copy.write_bytes(night[0][0].read_bytes())
    link.symlink_to(night[0][0])
    for again in (night[0][0], copy, link):
        with pytest.raises(InputFileError, match=r"and .*exposure_0.fits are the same exposure"):
            stack(CONFIG, [*night[0][:3], again], tmp_path / "stack.fits")
    assert not (tmp_path / "stack.fits").exists()


def test_exposures_of_several_filters_are_warned_of(tmp_path):
    paths = raw_exposures(tmp_path, FILTER="V")
    fits.setval(paths[1], "FILTER", value="B")
    facts = stack(Config(), paths, tmp_path / "stack.fits")
    assert "the exposures are of several filters, whose light is not the same: B (1), V (4)" in facts["warnings"]
