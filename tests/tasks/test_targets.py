"""From truth to what losses compare with."""

import numpy as np
import pytest
from scipy.ndimage import maximum_filter
from synthetic_tiles import camera_batch, sky_batch

from pipeline.sky.dq import DQ
from pipeline.tasks import get_targets


def test_the_direction_is_relative_to_the_centre_of_gravity_and_turns():
    tiles = camera_batch(6)
    targets = get_targets("direction")
    stored = targets.of_truth(tiles)["direction"]
    angle = np.radians(tiles.events["hillas_psi"])
    np.testing.assert_allclose(stored, 0.8 * np.stack([np.cos(angle), np.sin(angle)], axis=1), atol=1e-6)
    assert {entry.name: entry.shape((24, 24)) for entry in targets.stored} == {"direction": (2,)}
    np.testing.assert_array_equal(targets.arrays(tiles)["displacement_deg"], tiles.targets["direction"])
    assert targets.motions == {"displacement_deg": "vector", "outward": "vector"}


def test_the_axis_points_away_from_the_centre_of_the_camera():
    tiles = camera_batch(3)
    tiles.events |= {"hillas_psi": np.array([20.0, 20.0, np.nan]), "hillas_phi": np.array([30.0, 190.0, 0.0])}
    axis = np.array([np.cos(np.radians(20)), np.sin(np.radians(20))])
    np.testing.assert_allclose(get_targets("direction").arrays(tiles)["outward"], [axis, -axis, (0, 0)], rtol=1e-6)


def test_targets_of_the_camera_are_read_from_what_is_stored():
    tiles = camera_batch(6)
    for task, name, expected in (
        ("energy", "log10_energy", np.log10(tiles.events["true_energy_tev"])),
        ("gammaness", "gamma", tiles.events["true_primary_id"] == 0),
    ):
        targets = get_targets(task)
        stored = targets.of_truth(tiles)
        assert {entry.name: entry.shape((24, 24)) for entry in targets.stored} == {task: (1,)}
        assert stored[task].shape == (6, 1)
        tiles.targets = stored
        (found,) = targets.arrays(tiles).values()
        assert list(targets.arrays(tiles)) == [name]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected.astype(np.float32))
        assert targets.motions == {}


@pytest.mark.parametrize("noise2noise", [False, True])
def test_planes_of_the_denoiser_move_with_the_image(noise2noise):
    targets = get_targets("denoise")
    found = targets.arrays(sky_batch(3, noise2noise=noise2noise))
    planes = {name for name, array in found.items() if array.ndim > 1}
    assert planes == found.keys() & targets.motions.keys()
    assert ("core" in planes) is not noise2noise
    assert set(targets.motions.values()) == {"map"}
    assert found.keys() - planes == ({"photon_slope", "scatter"} if noise2noise else {"photon_slope"})


def test_noise2noise_labels_what_only_one_exposure_has():
    tiles = sky_batch(8, noise2noise=True)
    truth = sky_batch(8)
    found = get_targets("denoise").arrays(tiles)
    hits = ((truth.masks & 8) != 0) & found["usable"]
    hits &= maximum_filter(tiles.targets["clean"][:, 0], size=(1, 5, 5)) < 260  # dark all around, in the partner too
    bright = hits & (tiles.images[:, 0] > 600)
    assert found["defect"][bright].mean() > 0.99
    assert found["defect"][~hits & (truth.masks == 0)].mean() < 1e-3


def test_noise2noise_learns_how_far_sources_change_between_exposures():
    """Sources that come back 20 % brighter or fainter: the scatter is found, and they do not drown the sky's noise."""
    tiles = sky_batch(8, noise2noise=True)
    flux = 4000.0 * (1 + 0.2 * np.random.default_rng(5).normal(size=(2, 8, 32, 32)))
    tiles.images[:, 0] += flux[0]
    tiles.targets["clean"][:, 0] += flux[1]
    found = get_targets("denoise").arrays(tiles)
    np.testing.assert_allclose(found["scatter"], 0.2 * np.sqrt(2), rtol=0.1)  # of the difference of two exposures
    alone = tiles.select(np.array([0]))
    alone.images[:, 0], alone.targets["clean"][:, 0] = 200.0, 200.0
    assert get_targets("denoise").arrays(alone)["scatter"] == 0


def test_the_denoiser_is_told_of_defects_and_stars_of_simulated_frames():
    tiles = sky_batch(2)
    tiles.targets["stars"] = np.zeros((2, 2, 32, 32), np.float32)
    tiles.targets["stars"][0, :, 5, 6] = 3000.0, 3.5
    found = get_targets("denoise").arrays(tiles)
    snr = np.abs(tiles.targets["defect_snr"][:, 0].astype(np.float32))
    np.testing.assert_array_equal(found["defect"], (snr >= 3) & ~found["missing"])
    assert not (found["faint"] & (found["defect"] | found["good"])).any()
    assert found["star_flux"][0, 5, 6] == pytest.approx(3000 / np.sqrt(225))
    assert found["star_fwhm_px"][0, 5, 6] == 3.5
    assert np.count_nonzero(found["star_flux"]) == np.count_nonzero(found["star_fwhm_px"]) == 1


def test_a_trail_counts_neither_way_for_the_denoiser():
    """But a cosmic ray on it is a defect."""
    tiles = sky_batch(1)
    tiles.masks[:] = 0
    for name, of_trail, of_both in (("defect_snr", 10.0, 12.0), ("defect_bits", DQ.TRAIL, DQ.TRAIL | DQ.COSMIC_RAY)):
        plane = tiles.targets[name][0, 0]
        plane[:] = 0
        plane[20], plane[20, 4] = of_trail, of_both
    found = {name: plane[0] for name, plane in get_targets("denoise").arrays(tiles).items()}
    trail = np.zeros((32, 32), bool)
    trail[20] = True
    for name, expected in (("usable", ~trail), ("faint", trail), ("good", ~trail), ("defect", np.zeros_like(trail))):
        expected = expected.copy()
        if name in ("defect", "faint"):
            expected[20, 4] = name == "defect"
        np.testing.assert_array_equal(found[name] & ~found["missing"], expected & ~found["missing"], err_msg=name)
