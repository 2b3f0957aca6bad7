"""One direction per event: the mean of the telescopes', with the choice of ends that fits best."""

import numpy as np
import pytest

from pipeline.camera.dl2.directions import DirectionMean
from pipeline.directions import altaz_of_fov, offset_deg

ALT0, AZ0 = 70.0, 359.0  # north is in the field of view


def add(mean, event, source_deg, other_deg, *, sigma_deg=0.1, log_odds=2.0, weight=100.0):
    """One telescope's images: chosen and other end as places in the field of view, shape (n, 2)."""
    n = len(event)
    values = {}
    for name, place in (("", source_deg), ("_other_end", other_deg)):
        place = np.broadcast_to(place, (n, 2))
        values[f"alt{name}"], values[f"az{name}"] = altaz_of_fov(place[:, 0], place[:, 1], ALT0, AZ0)
    values |= {"alt_uncert": np.full(n, sigma_deg), "end_log_odds": np.full(n, log_odds)}
    return mean.add(np.asarray(event), values, np.full(n, weight))


def separation_deg(result, source_deg):
    return offset_deg(result["alt"], result["az"], *altaz_of_fov(*np.asarray(source_deg, float), ALT0, AZ0))


def test_one_telescope_keeps_its_direction_and_uncertainty():
    mean = DirectionMean(2)
    assert add(mean, [0], (0.5, 0.2), (-0.5, 0.4), sigma_deg=0.2).tolist() == [True]
    result = mean.result()
    assert separation_deg(result, (0.5, 0.2))[0] < 1e-9
    np.testing.assert_allclose(result["alt_uncert"], [0.2, np.nan])
    np.testing.assert_allclose(result["az_uncert"][0], 0.2 / np.cos(np.radians(result["alt"][0])))
    assert result["ang_distance_uncert"][0] == pytest.approx(1.5096 * 0.2, rel=1e-4)
    assert np.isnan(result["alt"][1])


def test_weights_are_inverse_variances_where_uncertainties_are_stated():
    mean = DirectionMean(1)
    add(mean, [0], (1.4, 0.0), (9, 9), sigma_deg=0.1)
    add(mean, [0], (0.9, 0.0), (9, 9), sigma_deg=0.2)
    result = mean.result()
    assert separation_deg(result, (1.3, 0.0))[0] < 1e-3  # small angles: nearly as on a plane
    assert result["alt_uncert"][0] == pytest.approx(0.1 * 0.2 / np.hypot(0.1, 0.2))
    assert 0 <= result["az"][0] < 360


def test_without_uncertainties_weights_are_image_sizes():
    mean = DirectionMean(1)
    add(mean, [0], (1.0, 0.0), (9, 9), sigma_deg=np.nan, weight=300.0)
    add(mean, [0], (0.0, 0.0), (-9, 3), sigma_deg=np.nan, weight=100.0)
    result = mean.result()
    assert separation_deg(result, (0.75, 0.0))[0] < 1e-3
    assert np.isnan(result["alt_uncert"][0])


@pytest.mark.parametrize("sigma_deg", [0.1, np.nan])
@pytest.mark.parametrize("n_telescopes", [2, 3, 6, 9])
def test_a_wrong_end_is_found_by_the_others(n_telescopes, sigma_deg):
    mean = DirectionMean(1)
    for telescope in range(n_telescopes):
        angle = np.pi * telescope / n_telescopes
        other = 0.3 + 1.5 * np.cos(angle), -0.2 + 1.5 * np.sin(angle)
        ends = [(0.3, -0.2), other]
        if telescope == n_telescopes - 1:
            ends = ends[::-1]
        add(mean, [0], *ends, sigma_deg=sigma_deg, log_odds=0.5, weight=100.0 - telescope)
    assert separation_deg(mean.result(), (0.3, -0.2))[0] < 1e-9


def test_certain_ends_win_over_scatter():
    mean = DirectionMean(1)
    add(mean, [0], (0.0, 0.0), (1.0, 0.0), log_odds=50.0)
    add(mean, [0], (0.0, 0.3), (1.0, 0.0), log_odds=50.0)  # the other ends would agree
    assert separation_deg(mean.result(), (0.0, 0.15))[0] < 1e-3


def test_events_do_not_mix_whatever_their_number_of_telescopes():
    rng = np.random.default_rng(5)
    n_events = 500
    source, seen = rng.uniform(-1, 1, (n_events, 2)), rng.random((n_events, 8)) < 0.5
    mean = DirectionMean(n_events)
    for telescope in range(8):
        event = rng.permutation(np.flatnonzero(seen[:, telescope]))
        away = rng.uniform(1, 2, (len(event), 1)) * rng.choice([-1, 1], (len(event), 2))
        add(mean, event, source[event], source[event] + away, log_odds=3.0)
    result = mean.result()
    has = seen.any(axis=1)
    assert np.isnan(result["alt"][~has]).all()
    assert (separation_deg({k: v[has] for k, v in result.items()}, source[has].T) < 1e-6).all()
