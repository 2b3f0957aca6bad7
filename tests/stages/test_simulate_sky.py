import hashlib
import json
import os
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from pipeline.config import SkyDefect, parse_config
from pipeline.errors import UserError
from pipeline.sky.dq import DEFECTS, DQ, has
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


def test_the_truth_has_the_charge_of_defects_in_units_of_the_noise(config, tmp_path):
    sky = config.sky.model_copy(update={"trails_per_frame": 3.0, "dead_pixel_fraction": 5e-3})
    path = simulate_sky(config.model_copy(update={"sky": sky}), 2, tmp_path / "sky.fits")
    truth, exposure = read_truth(truth_path(path)), expose(sky, config.seed, 2)
    np.testing.assert_array_equal(truth.defect_snr, exposure.defect_snr)
    assert truth.defect_snr.dtype == np.float32
    electrons = (exposure.adu - sky.bias_adu) * exposure.camera.gain_e_per_adu
    noise = np.sqrt(exposure.clean_e + exposure.camera.read_noise_e**2)
    known = ~has(truth.dq, DQ.MISSING | DQ.SATURATED | DQ.BLEED)
    # What is left after the defects' charge is noise, on defects as elsewhere; a bright trail has its own photon noise.
    pull = ((electrons - exposure.clean_e) / noise - truth.defect_snr)[known]
    photons = np.sqrt(1 + np.maximum(truth.defect_snr[known] * noise[known], 0) / noise[known] ** 2)
    assert np.percentile(np.abs(pull / photons), 99.9) < 4.0
    # Faint defects are named too, down to 0.3 sigma; bits from 2 sigma on are those of the frame's own mask.
    named = has(truth.defect_bits, DEFECTS)
    assert not np.any(named & ~has(truth.dq, DQ.BAD) & (truth.defect_snr < 0.3))
    for bit in (DQ.COSMIC_RAY, DQ.HOT, DQ.TRAIL):
        assert has(truth.dq, bit).any()
        assert not np.any(has(truth.dq, bit) & ~has(truth.defect_bits, bit))
    assert np.count_nonzero(named) > 1.2 * np.count_nonzero(has(truth.dq, DEFECTS))
    alone = truth.defect_bits == DQ.BAD
    assert alone.any()
    assert np.all(truth.defect_snr[alone] < -0.3)


def test_charge_that_bleeds_is_in_the_truth(config):
    sky = config.sky.model_copy(update={"star_flux_e": (8e6, 9e6), "stars_per_frame": 3})
    exposure = expose(sky, 1, 1)
    bled = has(exposure.defect_bits, DQ.BLEED)
    assert bled.any()
    assert exposure.defect_snr[bled].min() > 0.2  # bleeding into a dead pixel leaves less
    assert not has(exposure.dq, DQ.BLEED).any()  # the mask of the frame says that these pixels are full


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


# ---- further defects -------------------------------------------------------------------------------------------------
TOY_DEFECT = """
from dataclasses import dataclass

import numpy as np

from pipeline.sky.defects import register_defect


@register_defect("toy_ghost")
@dataclass(frozen=True)
class ToyGhost:
    charge_e: float
    side_px: int = 20

    def sample(self, rng, shape):
        y, x = (int(rng.integers(n - self.side_px)) for n in shape)
        image = np.zeros(shape)
        image[y : y + self.side_px, x : x + self.side_px] = self.charge_e
        return image
"""


def with_defects(config, *entries):
    return config.sky.model_copy(update={"defects": tuple(SkyDefect(**entry) for entry in entries)})


def test_a_file_in_a_plugin_folder_is_a_defect(config, tmp_path):
    (tmp_path / "defects").mkdir()
    (tmp_path / "defects" / "toy.py").write_text(TOY_DEFECT)
    sky = config.sky.model_dump(mode="json")
    sky["defects"] = [{"name": "toy_ghost", "bit": "ghost", "kwargs": {"charge_e": 5000.0}}]
    (tmp_path / "toy.yaml").write_text(json.dumps({"name": "toy", "sky": sky}))
    code = "import sys; from pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [
        "simulate",
        "sky",
        "--config",
        str(tmp_path / "toy.yaml"),
        "--run",
        "1",
        "--out",
        str(tmp_path / "a.fits"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        capture_output=True, text=True, check=False, env=os.environ | {"LIGHTPOOL_PLUGINS": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plain = simulate_sky(config, 1, tmp_path / "b.fits")
    truth, plain_truth = (read_truth(truth_path(tmp_path / name)) for name in ("a.fits", "b.fits"))
    ghost = has(truth.dq, DQ.GHOST)
    assert ghost.sum() == 20 * 20
    np.testing.assert_array_equal(truth.clean_e, plain_truth.clean_e)  # it is no light of the sky
    assert not has(plain_truth.dq, DQ.GHOST).any()
    gain = truth.parameters["GAIN"]
    difference = fits.getdata(tmp_path / "a.fits").astype(float) - fits.getdata(plain).astype(float)
    seen = ~has(truth.dq, DQ.SATURATED | DQ.MISSING)
    assert np.abs(difference[ghost & seen] * gain - 5000).max() < 3 * gain
    assert not difference[~ghost & seen].any()


def test_further_defects_draw_from_streams_of_their_own(config):
    rays = {"name": "muons", "bit": "cosmic_ray", "kwargs": {"per_mpix": 500.0}}
    once, twice = (expose(with_defects(config, *[rays] * n), seed=3, run=1) for n in (1, 2))
    plain = expose(config.sky, seed=3, run=1)
    flagged = [np.count_nonzero(has(exposure.dq, DQ.COSMIC_RAY)) for exposure in (plain, once, twice)]
    assert flagged[0] < flagged[1] < flagged[2]  # the second draw is not the first again
    np.testing.assert_array_equal(plain.clean_e, twice.clean_e)
    alone = has(once.dq, DQ.COSMIC_RAY)
    assert has(twice.dq, DQ.COSMIC_RAY)[alone].all()


def test_a_defect_that_cannot_be_made_fails_before_anything_is_drawn(config, tmp_path):
    wrong = config.model_copy(update={"sky": with_defects(config, {"name": "muon", "bit": "cosmic_ray"})})
    with pytest.raises(UserError, match=r"unknown defect 'muon' in sky\.defects; did you mean muons\?"):
        simulate_sky(wrong, 1, tmp_path / "sky.fits")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sample", [np.zeros((3, 4)), np.full((96, 128), np.nan)])
def test_a_defect_gives_one_finite_charge_per_pixel(config, sample, monkeypatch):
    monkeypatch.setattr("pipeline.sky.defects.Muons.sample", lambda self, rng, shape: sample)
    monkeypatch.setattr("pipeline.stages.simulate_sky._particles", lambda cfg, camera, rng: np.zeros(cfg.shape))
    sky = with_defects(config, {"name": "muons", "bit": "cosmic_ray", "kwargs": {"per_mpix": 1.0}})
    with pytest.raises(UserError, match=r"the defect 'muons' gave .* one finite charge for each pixel of \(96, 128\)"):
        expose(sky, seed=1, run=1)


def test_bits_of_further_defects_are_those_of_defects():
    names = get_args(SkyDefect.model_fields["bit"].annotation)
    assert {DQ[name.upper()] for name in names} == set(DEFECTS)
    with pytest.raises(UserError, match=r"sky\.defects\.0\.bit: Input should be 'bad', .*, got 'saturated'"):
        parse_config({"sky": {"defects": [{"name": "muons", "bit": "saturated"}]}})


# ---- frames of all kinds ---------------------------------------------------------------------------------------------
def changed(config, **changes):
    return config.model_copy(update={"sky": config.sky.model_copy(update=changes)})


@pytest.mark.parametrize("resampled", [0.0, 1.0])
def test_a_reduced_frame_comes_in_electrons_without_sky_and_with_its_uncertainty(config, tmp_path, resampled):
    config = changed(config, sky_subtracted_fraction=1.0, resampled_fraction=resampled, stated_error=0.2)
    path = simulate_sky(config, 4, tmp_path / "sky.fits")
    truth = read_truth(truth_path(path))
    with fits.open(path) as hdus:
        sci, err, header = hdus[0].data.astype(float), hdus["ERR"].data.astype(float), hdus[0].header
    assert header["BUNIT"] == "electron"
    assert not {"GAIN", "BIASLVL", "SATURATE"} & set(header)
    missing = has(truth.dq, DQ.MISSING)
    np.testing.assert_array_equal(np.isnan(sci), missing)
    assert truth.parameters["SKYSUB"] is True
    assert truth.parameters["RESAMPLD"] is bool(resampled)
    good = (truth.dq == 0) & (truth.defect_bits == 0)
    pull = ((sci - truth.clean_e) / err)[good] * truth.parameters["ERRFACT"]
    assert np.median(truth.clean_e[good]) < np.median(err[good])
    assert abs(np.median(pull)) < 0.05
    assert 1.4826 * np.median(np.abs(pull)) == pytest.approx(1, abs=0.06)
    assert 0.8 <= truth.parameters["ERRFACT"] <= 1.2


def test_a_coarse_converter_has_steps_of_about_the_noise(config):
    exposure = expose(changed(config, coarse_adu_fraction=1.0).sky, 1, 1)
    noise = np.sqrt(exposure.scene.sky_e.mean() + exposure.camera.read_noise_e**2)
    assert 0.3 <= exposure.camera.gain_e_per_adu / noise <= 1.0


def test_tracks_begin_on_stars(config):
    """Where 25 stars take up a thousandth of the frame, half of the tracks touch them."""
    config = changed(config, silicon_um=(10.0, 10.0), cosmic_rays_per_mpix=4000.0, trails_per_frame=0.0)
    touched = {}
    for share in (0.0, 1.0):
        hit = total = 0.0
        for run in range(1, 5):
            exposure = expose(changed(config, tracks_on_stars=share).sky, 1, run)
            x, y = (np.rint(exposure.scene.stars[name]).astype(int) for name in ("x", "y"))
            near = np.zeros(exposure.dq.shape, bool)
            for dx in (-1, 0, 1):
                for dy in (-1, 0, 1):
                    near[np.clip(y + dy, 0, 95), np.clip(x + dx, 0, 127)] = True
            rays = has(exposure.defect_bits, DQ.COSMIC_RAY)
            hit, total = hit + rays[near].sum(), total + near.sum()
        touched[share] = hit / total
    assert touched[1.0] > 3 * touched[0.0]


def test_the_charge_of_tracks_is_scaled(config):
    whole, tenth = (
        expose(changed(config, track_charge=(scale, scale), trails_per_frame=0.0, hot_pixel_fraction=0.0).sky, 1, 2)
        for scale in (1.0, 0.1)
    )
    rays = has(tenth.defect_bits, DQ.COSMIC_RAY) & (whole.defect_bits == tenth.defect_bits)
    np.testing.assert_allclose(tenth.defect_snr[rays], 0.1 * whole.defect_snr[rays], rtol=1e-4)
