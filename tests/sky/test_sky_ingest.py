import logging
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError, UserError
from pipeline.sky.dq import DQ
from pipeline.sky.frames import read_frame
from pipeline.sky.ingest import ingest_frame
from pipeline.sky.truth import read_truth, truth_path


def test_ingested_simulation_compares_with_its_truth(ingested):
    frame, truth = read_frame(ingested), read_truth(truth_path(ingested))
    assert (frame.unit, frame.zero_known) == ("electron", True)
    good = (truth.dq == 0) & (frame.dq == 0)
    pull = ((frame.sci - truth.clean_e) / frame.err)[good]
    assert abs(np.median(pull)) < 0.06
    assert 1.4826 * np.median(np.abs(pull)) == pytest.approx(1, abs=0.06)
    missing = (truth.dq & DQ.MISSING) != 0
    assert np.array_equal((frame.dq & DQ.MISSING) != 0, missing)
    assert np.isnan(frame.sci[missing]).all()


def test_ingested_header(ingested, simulated):
    with fits.open(simulated) as before, fits.open(ingested) as after:
        header = after["SCI"].header
        assert [hdu.name for hdu in after] == ["SCI", "ERR", "DQ"]
        assert header["BUNIT"] == "electron"
        assert {"LPLEVEL", "LPNOISE", "LPGAIN", "LPRDN", "LPBIAS", "LPSATUR"} <= set(header)
        assert any("gain" in line for line in header["HISTORY"])
        for key in ("OBJECT", "DATE-OBS", "EXPTIME", "CRVAL1", "CD1_1", "LPTRUTH"):
            assert header[key] == before[0].header[key]
        assert np.allclose(WCS(header).wcs.cd, WCS(before[0].header).wcs.cd)


def test_result_counts(simulated, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        result = ingest_frame(simulated, tmp_path / "out.fits", SkyIngestConfig())
    assert result["unit"] == "electron"
    assert result["flagged_pixels"]["missing data"] > 0
    assert any("gain" in message for message in caplog.messages)
    assert (tmp_path / "out.truth.fits").is_file()
    assert (tmp_path / "out.fits.provenance.json").is_file()
    with pytest.raises(UserError, match=r"out\.fits exists"):
        ingest_frame(simulated, tmp_path / "out.fits", SkyIngestConfig())


def test_equal_runs_give_equal_bytes(simulated, tmp_path):
    for name in ("a", "b"):
        ingest_frame(simulated, tmp_path / f"{name}.fits", SkyIngestConfig())
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


def test_without_a_gain_it_stays_in_adu(write_fits, tmp_path):
    result = ingest_frame(write_fits(), tmp_path / "out.fits", SkyIngestConfig())
    assert result["unit"] == "adu"
    assert any("gain unknown" in note for note in result["notes"])
    assert fits.getheader(tmp_path / "out.fits")["BUNIT"] == "adu"


@pytest.fixture
def calibration_files(rng, write_fits):
    shape = (64, 64)
    response = 1 + 0.2 * np.linspace(-1, 1, 64)[None, :] * np.ones(shape)
    bias = 400 + rng.normal(0, 2, (3, *shape))
    dark = 400 + 50 + rng.normal(0, 2, (3, *shape))
    flat = 400 + 20_000 * response + rng.normal(0, 50, (3, *shape))
    science = 400 + rng.poisson(2 * 50 + 1000 * response) + rng.normal(0, 5, shape)
    groups = {
        kind: tuple(
            str(write_fits(f"{kind}{n}.fits", pixels=np.rint(image).astype(np.uint16), EXPTIME=exposure, GAIN=1.0))
            for n, image in enumerate(stack)
        )
        for kind, stack, exposure in (("bias", bias, 0.0), ("dark", dark, 100.0), ("flat", flat, 5.0))
    }
    frame = write_fits("science.fits", pixels=np.rint(science).astype(np.uint16), EXPTIME=200.0, GAIN=1.0)
    return frame, groups


def test_bias_dark_and_flat(calibration_files, tmp_path):
    science, groups = calibration_files
    result = ingest_frame(science, tmp_path / "out.fits", SkyIngestConfig(background_box_px=16, **groups))
    frame = read_frame(tmp_path / "out.fits")
    # flat, dark (50 in 100 s) and bias are gone; 400 ADU of bias in the flat would have bent it by 2 %
    assert np.median(frame.sci[:, :16]) == pytest.approx(1000, rel=0.005)
    assert np.median(frame.sci[:, -16:]) == pytest.approx(1000, rel=0.005)
    assert frame.zero_known
    assert sum("median of 3" in note for note in result["notes"]) == 3


def test_calibration_that_does_not_fit(calibration_files, write_fits, tmp_path):
    science, groups = calibration_files
    small = str(write_fits("small.fits", pixels=np.full((10, 10), 400, np.uint16)))
    with pytest.raises(UserError, match=r"the bias .*small\.fits has the shape \(10, 10\), the frame \(64, 64\)"):
        ingest_frame(science, tmp_path / "out.fits", SkyIngestConfig(bias=(small,)))
    with pytest.raises(UserError, match=r"calibration frame nowhere\.fits does not exist"):
        ingest_frame(science, tmp_path / "out.fits", SkyIngestConfig(flat=("nowhere.fits",)))
    with pytest.raises(UserError, match=r"is exposed for 100 s and .* for 200 s"):
        ingest_frame(science, tmp_path / "out.fits", SkyIngestConfig(dark=groups["dark"]))
    electrons = write_fits("electrons.fits", BUNIT="electron", pixels=np.random.default_rng(0).normal(9, 2, (64, 64)))
    with pytest.raises(InputFileError, match="apply to frames in ADU"):
        ingest_frame(electrons, tmp_path / "out.fits", SkyIngestConfig(bias=groups["bias"]))
    no_time = write_fits("notime.fits", pixels=np.random.default_rng(0).integers(400, 500, (64, 64)).astype(np.uint16))
    with pytest.raises(InputFileError, match="has no exposure time"):
        ingest_frame(no_time, tmp_path / "out.fits", SkyIngestConfig(bias=groups["bias"], dark=groups["dark"]))


# ---- real frames -----------------------------------------------------------------------------------------------------
def real_frames(data_dir):
    """All frames, but only two of the sixty exposures of one field."""
    frames = sorted((data_dir / "sky").rglob("*.fits*"))
    series = [path for path in frames if path.parent.name == "microobs_hatp32"]
    return [path for path in frames if path not in series[2:]]


def reason_to_refuse(path):
    """What no configuration-free reading can take for a frame: collections and masks."""
    if path.name == "real_galaxy_PSF_images.fits":
        return "holds 100 images"
    # one mask of the many has so many flagged pixels that it looks like an image
    is_mask = "_ood_" in path.name and "c4d_150110" not in path.name
    return "is it a mask" if is_mask else None


def test_every_real_frame_is_ingested_or_refused_plainly(data_dir, tmp_path):
    for number, path in enumerate(real_frames(data_dir)):
        out = tmp_path / f"{number}.fits"
        refused = reason_to_refuse(path)
        if refused is not None:
            with pytest.raises(InputFileError, match=refused):
                ingest_frame(path, out, SkyIngestConfig())
            continue
        assert ingest_frame(path, out, SkyIngestConfig())["noise"] > 0, path
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd cards of real cameras
            with fits.open(path, disable_image_compression=True) as before, fits.open(out) as after:
                assert len(after) >= len(before), path


def test_photon_statistics_of_a_real_camera(data_dir):
    frame = read_frame(data_dir / "sky" / "saao" / "a8280271.fits")
    assert (frame.gain_e_per_adu, frame.read_noise_e, frame.bias_level) == (1.9, 5.0, 214.0)
    assert frame.noise == pytest.approx(np.sqrt(frame.level + frame.read_noise_e**2), rel=0.03)


def test_distortions_and_masks_of_real_files_are_kept(data_dir, tmp_path):
    for name, card in (("kmtnet/20180413SAAO_targ.fits", "PV1_1"), ("panoptes/solved.fits.fz", "A_2_0")):
        ingest_frame(data_dir / "sky" / name, tmp_path / "out.fits", SkyIngestConfig(), force=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(data_dir / "sky" / name) as before, fits.open(tmp_path / "out.fits") as after:
                number = next(n for n, hdu in enumerate(before) if hdu.header["NAXIS"] == 2)
                assert after[number].header[card] == before[number].header[card]
                assert after[number].header["CTYPE1"] == before[number].header["CTYPE1"]
