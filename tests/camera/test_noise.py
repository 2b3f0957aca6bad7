"""Noise of real cameras: each part is what it claims to be, and an image gets the same whatever is read with it."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.camera.dl1 import ImageChunk
from pipeline.camera.geometry import Camera
from pipeline.camera.noise import add_noise, fill_dead
from pipeline.config import NoiseConfig

SILENT = {"night_sky_max_pe": 0, "gain_spread_max": 0, "dead_fraction_max": 0}


def hexagonal_camera(rings=12):
    q, r = np.meshgrid(np.arange(-rings, rings + 1), np.arange(-rings, rings + 1))
    inside = abs(q + r) <= rings
    x, y = 0.05 * (q[inside] + 0.5 * r[inside]), 0.05 * np.sqrt(3) / 2 * r[inside]
    return Camera("Cam", x, y, np.full(len(x), 0.00216), True, 28.0, n_samples=40, sampling_rate_ghz=1.0)


CAMERA = hexagonal_camera()


def chunk_of(image, time=None, tel_id=3):
    n = len(image)
    ids = np.arange(n)
    image = np.asarray(image, np.float32)
    return ImageChunk(
        camera=CAMERA, tel_id=tel_id, obs_id=np.ones(n, int), event_id=100 + ids, shower_id=ids, time_s=np.zeros(n),
        image=image, peak_time=np.full_like(image, 20) if time is None else time, is_valid=np.ones(n, bool),
    )  # fmt: skip


def uniform(value, n):
    return np.full((n, CAMERA.n_pixels), value, np.float32)


def noisy(chunk, chosen=None, seed=1, **limits):
    return add_noise(
        chunk, NoiseConfig(**SILENT | limits), seed, np.ones(len(chunk), bool) if chosen is None else chosen
    )


def within(values, expected, sigmas=5):
    values = np.asarray(values, float)
    assert abs(values.mean() - expected) < sigmas * values.std() / np.sqrt(len(values))


# ---- night sky -------------------------------------------------------------------------------------------------------
def test_night_sky_is_a_whole_number_of_photoelectrons_less_their_mean():
    image = noisy(chunk_of(uniform(0, 400)), night_sky_max_pe=6).image
    mean_pe = -image.min(axis=1)  # of an image in which a pixel got none
    counts = image[mean_pe < 2] + mean_pe[mean_pe < 2, None]
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-5)
    # Less the mean: 0 on average. Poisson: in each image the variance is the mean, which is uniform from 0 to 6.
    within(image.mean(axis=1), 0)
    within(image.var(axis=1), 3)
    assert image.var(axis=1).max() < 6 * (1 + 5 * np.sqrt(2 / CAMERA.n_pixels))
    few = counts.var(axis=1) / mean_pe[mean_pe < 2]
    within(few, 1)


def test_pixels_that_the_night_sky_dominates_have_a_time_from_anywhere_in_the_readout():
    chunk = chunk_of(np.tile(np.where(np.arange(CAMERA.n_pixels) % 2, 1.0, 500.0), (200, 1)))
    found = noisy(chunk, night_sky_max_pe=6)
    dark = np.arange(CAMERA.n_pixels) % 2 == 1
    assert (found.peak_time[:, ~dark] == 20).all()
    changed = found.peak_time != 20
    mean_pe = 1 - found.image[:, dark].min(axis=1)  # of an image in which a dark pixel got none
    some = mean_pe < 2
    added = np.round(found.image[some][:, dark] - 1 + mean_pe[some, None])
    np.testing.assert_array_equal(changed[some][:, dark], added > 1)
    times = found.peak_time[changed]
    assert 0 <= times.min() < 0.1
    assert 39.9 < times.max() <= 40
    within(times, 20)
    within((times - 20) ** 2, 40**2 / 12)


# ---- gains -----------------------------------------------------------------------------------------------------------
def test_gains_are_normal_factors_with_a_width_drawn_per_image():
    factor = noisy(chunk_of(uniform(50, 400)), gain_spread_max=0.2).image / 50
    within(factor.mean(axis=1), 1)
    width = factor.std(axis=1)
    within(width, 0.1)
    assert 0.19 < width.max() < 0.2 * (1 + 5 / np.sqrt(2 * CAMERA.n_pixels))
    pulls = (factor - 1) / width[:, None]
    assert abs(np.mean(pulls**4) - 3) < 0.1
    # A factor: twice the charge, twice the change, and the times stay.
    twice = noisy(chunk_of(uniform(100, 400)), gain_spread_max=0.2)
    np.testing.assert_allclose(twice.image / 100, factor, rtol=1e-6)
    assert (twice.peak_time == 20).all()


def test_gains_are_not_negative():
    assert noisy(chunk_of(uniform(50, 400)), gain_spread_max=0.5).image.min() == 0


# ---- dead pixels -----------------------------------------------------------------------------------------------------
def test_share_of_dead_pixels_is_drawn_per_image():
    # No pixel is the mean of its neighbours, so a dead one is seen.
    chunk = chunk_of(np.random.default_rng(0).gamma(2, 3, (400, CAMERA.n_pixels)))
    share = (noisy(chunk, dead_fraction_max=0.1).image != chunk.image).mean(axis=1)
    within(share, 0.05)
    assert 0.08 < share.max() < 0.15


def test_dead_pixels_get_the_mean_of_their_living_neighbours():
    neighbors = CAMERA.neighbors
    inner = int(np.flatnonzero((neighbors >= 0).all(axis=1))[0])
    around = neighbors[inner]
    image, time = uniform(0, 2), uniform(5, 2)
    image[:, around], time[:, around] = np.arange(1, 7), 10 * np.arange(1, 7)
    image[0, inner] = 1e4
    dead = np.zeros_like(image, bool)
    dead[0, [inner, around[5]]] = True  # means are of 1 to 5
    image[1], time[1], dead[1] = 7, 7, True  # nothing lives
    fill_dead(image, time, dead, CAMERA)
    assert image[0, inner] == 3
    assert time[0, inner] == 30
    assert (image[1] == 0).all()
    assert (time[1] == 0).all()


def test_a_neighbour_without_a_number_counts_as_dead():
    inner = int(np.flatnonzero((CAMERA.neighbors >= 0).all(axis=1))[0])
    image, time = uniform(2, 1), uniform(4, 1)
    image[0, CAMERA.neighbors[inner][:3]] = np.nan
    image[0, CAMERA.neighbors[inner][3]] = 8
    dead = np.zeros_like(image, bool)
    dead[0, inner] = True
    fill_dead(image, time, dead, CAMERA)
    assert image[0, inner] == 4  # of 8, 2 and 2
    assert time[0, inner] == 4


def test_dead_pixels_are_those_of_ctapipe():
    invalid_pixels = pytest.importorskip("ctapipe.image.invalid_pixels")
    n = CAMERA.n_pixels
    matrix = np.zeros((n, n), bool)
    pixel, k = np.nonzero(CAMERA.neighbors >= 0)
    matrix[pixel, CAMERA.neighbors[pixel, k]] = True
    geometry = SimpleNamespace(neighbor_matrix=matrix)
    tel = {1: SimpleNamespace(camera=SimpleNamespace(geometry=geometry))}
    average = SimpleNamespace(subarray=SimpleNamespace(tel=tel))
    rng = np.random.default_rng(2)
    image, time = rng.normal(0, 50, (5, n)).astype(np.float32), rng.uniform(0, 40, (5, n)).astype(np.float32)
    dead = rng.random((5, n)) < np.array([0, 0.02, 0.2, 0.8, 0.99])[:, None]
    expected = [
        invalid_pixels.NeighborAverage.__call__(average, 1, image[i].copy(), time[i].copy(), dead[i][None])
        for i in range(5)
    ]
    fill_dead(image, time, dead, CAMERA)
    np.testing.assert_allclose(image, [one for one, _ in expected], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(time, [two for _, two in expected], rtol=1e-5, atol=1e-4)


# ---- what an image gets depends on nothing else ----------------------------------------------------------------------
ALL = {"night_sky_max_pe": 5, "gain_spread_max": 0.1, "dead_fraction_max": 0.05}


def test_noise_depends_on_seed_run_event_and_telescope_only():
    chunk = chunk_of(np.random.default_rng(0).gamma(2, 3, (20, CAMERA.n_pixels)))
    together = noisy(chunk, **ALL)
    order = np.random.default_rng(1).permutation(20)[:7]
    part = chunk_of(chunk.image[order])
    part.event_id = chunk.event_id[order]
    alone = noisy(part, **ALL)
    np.testing.assert_array_equal(alone.image, together.image[order])
    np.testing.assert_array_equal(alone.peak_time, together.peak_time[order])
    other_run = chunk_of(chunk.image)
    other_run.obs_id = other_run.obs_id + 1
    for other in (noisy(chunk, **ALL, seed=2), noisy(other_run, **ALL), noisy(chunk_of(chunk.image, tel_id=4), **ALL)):
        assert (other.image != together.image).mean() > 0.95
    assert (together.image[0] - chunk.image[0] != together.image[1] - chunk.image[1]).mean() > 0.95


def test_only_chosen_images_change_and_the_originals_never():
    image = np.random.default_rng(0).gamma(2, 3, (6, CAMERA.n_pixels)).astype(np.float32)
    image[:, 5] = np.nan
    time = uniform(12, 6)
    time[:, 9] = np.nan
    chunk = chunk_of(image.copy(), time.copy())
    chosen = np.arange(6) % 2 == 0
    found = noisy(chunk, chosen, night_sky_max_pe=5, gain_spread_max=0.1)
    np.testing.assert_array_equal(chunk.image, image)
    np.testing.assert_array_equal(chunk.peak_time, time)
    np.testing.assert_array_equal(found.image[~chosen], image[~chosen])
    np.testing.assert_array_equal(found.peak_time[~chosen], time[~chosen])
    assert (found.image[chosen] != image[chosen]).mean() > 0.95
    assert np.isnan(found.image[:, 5]).all()
    assert np.isnan(found.peak_time[:, 9]).all()
    np.testing.assert_array_equal(found.event_id, chunk.event_id)


def test_ids_may_be_negative():
    chunk = chunk_of(uniform(10, 2))
    chunk.event_id = np.array([-1, -5])
    found = noisy(chunk, **ALL)
    assert (found.image[0] != found.image[1]).any()


def test_limits_of_zero_change_nothing():
    chunk = chunk_of(np.random.default_rng(0).gamma(2, 3, (3, CAMERA.n_pixels)))
    found = noisy(chunk)
    np.testing.assert_array_equal(found.image, chunk.image)
    np.testing.assert_array_equal(found.peak_time, chunk.peak_time)
