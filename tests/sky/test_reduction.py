"""What a reduction does to simulated frames: correlated noise, no sky, uncertainties that are a little wrong."""

import numpy as np
import pytest

from pipeline.config import SkySimulationConfig
from pipeline.sky.reduction import Reduction, interpolation_kernel


def test_frames_are_raw_unless_the_configuration_says_otherwise(rng):
    assert all(Reduction.draw(SkySimulationConfig(), rng) is None for _ in range(20))


def test_shares_and_errors_are_those_of_the_configuration(rng):
    config = SkySimulationConfig(sky_subtracted_fraction=0.4, resampled_fraction=0.25, stated_error=0.2)
    drawn = [Reduction.draw(config, rng) for _ in range(2000)]
    made = [one for one in drawn if one is not None]
    assert len(made) / 2000 == pytest.approx(0.4 + 0.25 - 0.4 * 0.25, abs=0.04)
    assert np.mean([one.subtracts_sky for one in made]) == pytest.approx(0.4 / 0.55, abs=0.05)
    factors = np.array([one.error_factor for one in made])
    assert factors.min() == pytest.approx(0.8, abs=0.01)
    assert factors.max() == pytest.approx(1.2, abs=0.01)


@pytest.mark.parametrize(("method", "centre"), [("bilinear", 0.3), ("lanczos", 0.3)])
def test_an_interpolation_moves_an_image_by_part_of_a_pixel(method, centre):
    kernel = interpolation_kernel(0.3, method)
    assert len(kernel) % 2 == 1
    assert kernel.sum() == pytest.approx(1)
    offset = np.arange(len(kernel)) - len(kernel) // 2
    assert abs((kernel * offset).sum()) == pytest.approx(centre, abs=0.02)


def test_noise_has_the_variance_and_the_correlation_of_the_kernel(rng):
    kernel = interpolation_kernel(0.4, "bilinear")
    reduction = Reduction(subtracts_sky=False, kernels=(kernel, kernel), error_factor=1.0)
    noise = reduction.resample(rng.normal(0, 3.0, (400, 400)))
    variance = reduction.resample_variance(np.full((400, 400), 9.0))
    one_axis = 0.4**2 + 0.6**2
    np.testing.assert_allclose(variance, 9 * one_axis**2)
    assert noise.var() == pytest.approx(9 * one_axis**2, rel=0.03)
    assert np.mean(noise[1:] * noise[:-1]) / noise.var() == pytest.approx(0.4 * 0.6 / one_axis, abs=0.02)


def test_what_was_missing_spreads_and_nothing_else_does():
    kernel = interpolation_kernel(0.4, "bilinear")
    mask = np.zeros((9, 9), bool)
    mask[4, 4] = True
    spread = Reduction(False, (kernel, kernel), 1.0).spread(mask)
    assert spread.sum() == 4
    assert spread[4, 4]
    assert Reduction(True, None, 1.0).spread(mask) is mask
