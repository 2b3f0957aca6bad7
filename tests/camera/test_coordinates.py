"""Angles: medians and sequences across north, values that are missing."""

import math

import numpy as np
import pytest

from pipeline.camera.dl1.coordinates import circular_median_rad, continuous_rad, finite_median, wrapped_rad


@pytest.mark.parametrize(
    ("azimuth_deg", "expected_deg"),
    [
        ([359.9, 359.95, 0.05, 0.1], 0.0),
        ([359.8, 359.9, 0.05], 359.9),
        ([-0.1, 0.3, 0.1], 0.1),
        ([359.9, 0.1], 0.0),
        ([179.0, 181.0, 180.5], 180.5),
        ([350.0, math.nan, 10.0, 20.0, math.inf], 10.0),
        ([10.0, 10.0, 10.0, 200.0], 10.0),  # one report that is wrong
        ([200.0, 10.0, 10.0, 350.0, 5.0], 5.0),  # the wrong one first
    ],
)
def test_the_median_of_azimuths_is_that_on_the_circle(azimuth_deg: list[float], expected_deg: float) -> None:
    got = circular_median_rad(np.radians(azimuth_deg))
    assert 0 <= got < 2 * math.pi
    assert math.degrees(wrapped_rad(np.array(got - math.radians(expected_deg)))) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("angle", [0.0, 3.141592653589793, 1.2345678901234567, 6.283185307179])
def test_the_median_of_equal_angles_is_this_angle_to_the_last_bit(angle: float) -> None:
    assert circular_median_rad(np.full(7, angle)) == angle


def test_turning_all_angles_turns_their_median() -> None:
    rng = np.random.default_rng(2)
    angle = rng.normal(0, 0.3, 31)
    for turn in rng.uniform(0, 2 * math.pi, 50):
        moved = circular_median_rad((angle + turn) % (2 * math.pi))
        assert wrapped_rad(np.array(moved - np.median(angle) - turn)) == pytest.approx(0, abs=1e-12)


def test_no_finite_value_has_no_median() -> None:
    for values in ([], [math.nan, math.inf]):
        assert math.isnan(circular_median_rad(np.array(values)))
        assert math.isnan(finite_median(np.array(values)))
    assert finite_median(np.array([math.nan, 1.0, 5.0, math.inf, 2.0])) == 2.0


def test_azimuths_over_time_do_not_jump_at_north() -> None:
    got = np.degrees(continuous_rad(np.radians([359.0, math.nan, 359.5, 0.5, 1.0, 359.0])))
    np.testing.assert_allclose(got, [359.0, math.nan, 359.5, 360.5, 361.0, 359.0], atol=1e-9)
