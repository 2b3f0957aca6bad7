import numpy as np
import pytest

from pipeline.config import SkySimulationConfig
from pipeline.sky.scenes import draw_scene, power_law


@pytest.fixture(scope="module")
def config():
    return SkySimulationConfig(shape=(128, 160), stars_per_frame=30, galaxies_per_frame=8)


def test_scene_is_reproducible_and_positive(config):
    first = draw_scene(config, np.random.default_rng(5))
    second = draw_scene(config, np.random.default_rng(5))
    assert np.array_equal(first.expected_e, second.expected_e)
    assert first.expected_e.shape == (128, 160)
    assert (first.sources_e >= 0).all()
    assert (first.sky_e > 0).all()


def test_star_has_its_flux_at_its_place():
    config = SkySimulationConfig(
        shape=(129, 129), stars_per_frame=1, galaxies_per_frame=0, star_flux_e=(1e5, 1.0001e5), fwhm_px=(3.0, 3.01)
    )
    checked = 0
    for seed in range(200):
        scene = draw_scene(config, np.random.default_rng(seed))
        stars = scene.stars
        if stars["x"].size != 1 or not (40 < stars["x"][0] < 88 and 40 < stars["y"][0] < 88):
            continue
        y, x = np.mgrid[:129, :129]
        near = np.hypot(x - stars["x"][0], y - stars["y"][0]) < 9
        light = scene.sources_e
        assert light.sum() == pytest.approx(stars["flux_e"][0], rel=0.06)  # the wings end at the sky's noise
        assert np.sum(x * light * near) / np.sum(light * near) == pytest.approx(stars["x"][0], abs=0.06)
        assert np.sum(y * light * near) / np.sum(light * near) == pytest.approx(stars["y"][0], abs=0.06)
        checked += 1
        if checked == 3:
            break
    assert checked == 3


def test_sky_mean_and_gradient():
    config = SkySimulationConfig(
        shape=(64, 96), stars_per_frame=0, galaxies_per_frame=0, sky_e_per_s=(1.0, 1.000001), sky_gradient=0.2
    )
    sky = draw_scene(config, np.random.default_rng(1)).sky_e
    assert sky.mean() == pytest.approx(600, rel=1e-3)
    assert 1.05 < sky.max() / sky.min() < 1.6


@pytest.mark.parametrize("slope", [-1.6, -1.0, 0.5])
def test_power_law_matches_its_mean(slope, rng):
    low, high = 2.0, 50.0
    draws = power_law(rng, (low, high), slope, 200_000)
    grid = np.linspace(low, high, 200_001)
    density = grid**slope
    mean = np.sum(grid * density) / np.sum(density)
    assert draws.min() >= low
    assert draws.max() <= high
    assert abs(draws.mean() - mean) < 5 * draws.std() / np.sqrt(draws.size)
