import hashlib

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from pipeline.config import parse_config
from pipeline.errors import UserError
from pipeline.sky.dq import DQ
from pipeline.sky.truth import read_truth, truth_path
from pipeline.stages.simulate_sky import expose, simulate_sky


@pytest.fixture(scope="module")
def config():
    return parse_config(
        {"sky": {"shape": [96, 128], "stars_per_frame": 25, "galaxies_per_frame": 4, "gap_fraction": 0.03}}
    )


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_frame_is_what_a_camera_writes(config, tmp_path):
    path = simulate_sky(config, 3, tmp_path / "sky_run_0003.fits")
    with fits.open(path, do_not_scale_image_data=True) as hdus:
        header = hdus[0].header
        assert hdus[0].data.dtype == np.dtype(">i2")
        assert (header["BZERO"], header["BLANK"], header["BUNIT"]) == (32768, -32768, "adu")
        assert {"EXPTIME", "GAIN", "RDNOISE", "SATURATE", "BIASLVL", "DATE-OBS"} <= set(header)
        assert WCS(header).pixel_scale_matrix[1, 1] == pytest.approx(0.4 / 3600, rel=0.01)
        adu = hdus[0].data.astype(float) + 32768
        sky = np.median(adu[adu > 0])
    assert header["BIASLVL"] < sky < header["SATURATE"]
    truth = read_truth(truth_path(path))
    assert truth.clean_e.shape == (96, 128)
    assert np.array_equal(adu == 0, (truth.dq & DQ.MISSING) != 0)
    assert truth.dq.dtype == np.uint16
    assert set(truth.stars) == {"x", "y", "flux_e", "mag"}
    assert truth.parameters["DARKMEAN"] == pytest.approx(6.0)
    assert (path.parent / "sky_run_0003.fits.provenance.json").is_file()


def test_equal_runs_give_equal_bytes_and_other_seeds_others(config, tmp_path):
    paths = [
        simulate_sky(config, 1, tmp_path / name / "sky.fits", seed=seed)
        for name, seed in (("a", 4), ("b", 4), ("c", 5))
    ]
    first, second, other = (digest(path) for path in paths)
    assert first == second != other
    assert digest(truth_path(paths[0])) == digest(truth_path(paths[1]))


def test_clean_pixels_scatter_as_photon_and_read_noise_do(config):
    exposure = expose(config.sky, seed=2, run=7)
    gain = exposure.camera.gain_e_per_adu
    electrons = (exposure.adu.astype(float) - config.sky.bias_adu) * gain
    good = exposure.dq == 0
    sigma = np.sqrt(exposure.clean_e + exposure.camera.read_noise_e**2 + gain**2 / 12)
    pull = ((electrons - exposure.clean_e) / sigma)[good]
    # what stays below the flag's threshold (faint wings of tracks and trails) lifts both a little
    assert abs(np.median(pull)) < 0.05
    assert 1.4826 * np.median(np.abs(pull - np.median(pull))) == pytest.approx(1, abs=0.05)


def test_every_defect_is_in_the_truth(config):
    seen = 0
    for run in range(1, 8):
        seen |= int(np.bitwise_or.reduce(expose(config.sky, 1, run).dq.ravel()))
    assert seen & (DQ.BAD | DQ.HOT | DQ.COSMIC_RAY | DQ.TRAIL | DQ.MISSING) == seen & 63 & ~DQ.SATURATED
    assert seen & DQ.COSMIC_RAY
    assert seen & DQ.MISSING
    assert seen & DQ.TRAIL


def test_bright_stars_saturate(config):
    sky = config.sky.model_copy(update={"star_flux_e": (8e6, 9e6), "stars_per_frame": 3})
    exposure = expose(sky, 1, 1)
    saturated = (exposure.dq & DQ.SATURATED) != 0
    assert saturated.any()
    missing = (exposure.dq & DQ.MISSING) != 0
    assert (exposure.adu[saturated & ~missing] >= exposure.saturation_adu - 60).all()


def test_refuses_to_overwrite_and_odd_runs(config, tmp_path):
    path = simulate_sky(config, 1, tmp_path / "sky.fits")
    with pytest.raises(UserError, match=r"sky\.fits exists; choose another name or add --force"):
        simulate_sky(config, 1, path)
    with pytest.raises(UserError, match="--run 0 is not a run number"):
        simulate_sky(config, 0, tmp_path / "other.fits")
    assert simulate_sky(config, 2, path, force=True) == path
