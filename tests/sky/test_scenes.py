import numpy as np
import pytest

from pipeline.config import SkySimulationConfig
from pipeline.sky.point_spread import Optics, PointSpread
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


# ---- what frames of all kinds have -----------------------------------------------------------------------------------
def drawn(n, **changes):
    """Stars of `n` frames."""
    config = SkySimulationConfig(shape=(64, 64), galaxies_per_frame=0, **changes)
    return [draw_scene(config, np.random.default_rng(seed)) for seed in range(n)]


@pytest.mark.slow
def test_some_stars_are_flat_in_magnitude():
    """Of a power law F^-1.6, a fifth of the stars are in the brighter half of the magnitudes; of flat ones, half."""
    for fraction, share in ((0.0, 0.2), (0.5, 0.35), (1.0, 0.5)):
        stars = [
            scene.stars["flux_e"]
            for scene in drawn(3, stars_per_frame=400, star_flux_e=(1e2, 1e4), flat_magnitude_fraction=fraction)
        ]
        assert np.mean(np.concatenate(stars) > 1e3) == pytest.approx(share, abs=0.06)


def test_crowded_frames_have_several_times_the_stars():
    counts = np.array([scene.stars["x"].size for scene in drawn(12, stars_per_frame=20, crowded_fraction=0.5)])
    assert 2 <= (counts > 60).sum() <= 10
    assert counts.max() <= 16 * 20 + 60


def second_moments(image):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] - (image.shape[0] - 1) / 2
    return np.array([(image * a * b).sum() / image.sum() for a, b in ((x, x), (y, y), (x, y))])


def test_a_trailed_star_is_longer_by_the_variance_of_its_path():
    round_star, trailed = (
        PointSpread(4.0, None, (0.0, 0.0), trail_px=length, trail_rad=np.pi / 4)
        .profile()
        .drawImage(nx=81, ny=81, scale=1.0)
        .array
        for length in (0.0, 6.0)
    )
    added = second_moments(trailed) - second_moments(round_star)
    np.testing.assert_allclose(added, 6.0**2 / 12 / 2, atol=0.15)


def test_spikes_have_their_share_of_the_light_and_four_arms():
    psf = PointSpread(3.0, 3.5, (0.0, 0.0), spike_share=0.04, spike_rad=0.0)
    light, column, row = psf.spikes(1e6, 50.3, 40.0, limit_e=0.01)
    assert light.sum() == pytest.approx(0.04e6, rel=0.05)
    assert light.argmax() == np.ravel_multi_index((40 - row, 50 - column), light.shape)
    beside = light[40 - row + 20, 50 - column + 20]
    assert all(arm > 100 * beside for arm in (light[40 - row, 70 - column], light[60 - row, 50 - column]))
    assert psf.spikes(10.0, 50.3, 40.0, limit_e=1.0)[0].size == 0


def test_nebulae_and_galaxies_add_light(config):
    plain = draw_scene(config, np.random.default_rng(5))
    with_nebula = draw_scene(config.model_copy(update={"nebula_fraction": 1.0}), np.random.default_rng(5))
    added = with_nebula.sources_e - plain.sources_e
    noise = np.sqrt(plain.sky_e.mean() + np.mean(config.read_noise_e) ** 2)
    assert added.min() >= 0
    assert 2 * noise < np.quantile(added, 0.999) * 1.0001
    assert np.quantile(added, 0.999) < 60 * noise * 1.0001
    edge_on = draw_scene(config.model_copy(update={"edge_on_fraction": 1.0}), np.random.default_rng(5))
    cuspy = draw_scene(config.model_copy(update={"cuspy_fraction": 1.0}), np.random.default_rng(5))
    assert not np.array_equal(edge_on.sources_e, plain.sources_e)
    assert not np.array_equal(cuspy.sources_e, edge_on.sources_e)


@pytest.mark.parametrize("fraction", ["unsteady_fraction", "aberrated_fraction"])
def test_stars_of_a_bad_telescope_keep_place_and_light_and_are_wider(fraction):
    config = SkySimulationConfig(fwhm_px=(2.5, 4.0), **{fraction: 1.0})
    wider = 0
    for seed in range(8):
        psf = PointSpread.draw(config, np.random.default_rng(seed))
        image = psf.profile().drawImage(nx=129, ny=129, scale=1.0).array
        assert image.sum() == pytest.approx(1, abs=0.03)
        y, x = np.mgrid[:129, :129] - 64
        near = np.hypot(x, y) < 4 * psf.width_px
        assert abs((image * near * x).sum()) < 0.35
        assert abs((image * near * y).sum()) < 0.35
        wider += psf.width_px > 1.05 * psf.fwhm_px
        assert image[np.hypot(x, y) <= psf.width_px / 2].sum() == pytest.approx(0.5, abs=0.1)
    assert wider >= 6


def test_an_unsteady_telescope_widens_a_star_by_the_variance_of_its_stops():
    stops = ((-1.5, -2.0), (1.5, 2.0))
    steady, unsteady = (
        PointSpread(4.0, 4.5, (0.0, 0.0), path=path).profile().drawImage(nx=201, ny=201, scale=1.0).array
        for path in ((), stops)
    )
    added = second_moments(unsteady) - second_moments(steady)
    np.testing.assert_allclose(added, [1.5**2, 2.0**2, 3.0], atol=0.15)


def test_defocus_makes_a_ring():
    optics = Optics(diffraction_px=1.5, aberrations=(0.69, 0.0, 0.0, 0.0, 0.0), obscuration=0.4)
    image = PointSpread(2.0, None, (0.0, 0.0), optics=optics).profile().drawImage(nx=61, ny=61, scale=1.0).array
    y, x = np.mgrid[:61, :61] - 30
    radius = np.hypot(x, y)
    ring = max(image[(radius >= r) & (radius < r + 1)].mean() for r in range(4, 14))
    assert ring > 2 * image[30, 30]


def test_brightness_far_out_is_that_of_the_drawn_profile():
    shear = (0.1, 0.0)
    plain = PointSpread(3.0, 3.0, shear)
    unsteady = PointSpread(3.0, 3.0, shear, path=((-1.0, 0.0), (1.0, 0.0)))
    aberrated = PointSpread(3.0, 3.0, shear, optics=Optics(1.0, (0.1, 0.0, 0.0, 0.0, 0.0), 0.3))
    radii = np.array([12, 16, 20])
    for psf in (plain, unsteady, aberrated):
        stated, image = psf.surface_brightness(radii), psf.profile().drawImage(nx=81, ny=81, scale=1.0).array
        for radius, value in zip(radii, stated, strict=True):
            assert value == pytest.approx(image[40, 40 + radius - 1 : 40 + radius + 2].mean(), rel=0.5)
    assert (unsteady.surface_brightness(radii) > plain.surface_brightness(radii)).all()
