"""The atmosphere against tabulated values and its own derivatives."""

import numpy as np
import pytest

from pipeline.camera.showers.atmosphere import (
    REFRACTIVITY_SEA_LEVEL,
    density_at_depth,
    depth_at,
    height_at,
    mean_refractivity,
    refractivity_at_depth,
)


@pytest.mark.parametrize(
    ("height_m", "depth_g_cm2"),
    # US standard atmosphere, CORSIKA manual
    [(0, 1036.1), (2158, 797.6), (5000, 553.0), (10_000, 271.6), (20_000, 56.9), (40_000, 3.04)],
)
def test_depths(height_m, depth_g_cm2):
    assert depth_at(float(height_m)) == pytest.approx(depth_g_cm2, rel=0.01)


def test_depth_is_continuous_between_layers():
    for edge in (4e3, 10e3, 40e3):
        assert depth_at(edge - 1e-3) == pytest.approx(depth_at(edge + 1e-3), rel=1e-3)


@pytest.mark.parametrize("height_m", [100.0, 3999.0, 4001.0, 9000.0, 15e3, 39e3, 60e3, 90e3])
def test_height_inverts_depth(height_m):
    assert height_at(depth_at(height_m)) == pytest.approx(height_m, abs=1e-3)


@pytest.mark.parametrize("height_m", [500.0, 6000.0, 12e3, 25e3, 50e3])
def test_density_is_the_slope_of_the_depth(height_m):
    slope = (depth_at(height_m - 1) - depth_at(height_m + 1)) / 200  # per cm
    assert density_at_depth(depth_at(height_m)) == pytest.approx(slope, rel=1e-5)


def test_refractivity_scales_with_density():
    assert refractivity_at_depth(depth_at(0.0)) == pytest.approx(REFRACTIVITY_SEA_LEVEL)
    # Scale height of about 9 km near the ground
    assert refractivity_at_depth(depth_at(9000.0)) == pytest.approx(REFRACTIVITY_SEA_LEVEL / np.e, rel=0.06)


def test_mean_refractivity_is_the_mean_along_the_path():
    heights = np.linspace(2000, 12_000, 20_001)
    mean = np.mean([refractivity_at_depth(depth_at(h)) for h in heights])
    assert mean_refractivity(depth_at(12e3), 12e3, depth_at(2e3), 2e3) == pytest.approx(mean, rel=1e-3)


def test_top_of_the_atmosphere():
    assert depth_at(200e3) == 0.0
    assert height_at(0.0) == 100e3
