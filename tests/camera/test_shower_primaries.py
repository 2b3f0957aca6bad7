"""What showers begin with: spectra, directions, cores; and that pyirf finds the weights they were thrown with."""

import math

import astropy.units as u
import numpy as np
import pytest
from pyirf.simulations import SimulatedEventsInfo
from pyirf.spectral import PowerLaw, calculate_event_weights

from pipeline.camera.showers.particles import MASS_GEV, NEUTRON, PRIMARIES, PROTON
from pipeline.camera.showers.primaries import (
    MAX_NUCLEONS,
    Purpose,
    around,
    pointing,
    power_law,
    random_key,
    throw,
    view_centre,
)
from pipeline.config import ShowerClass, ShowersConfig, parse_config
from pipeline.directions import offset_deg
from pipeline.errors import UserError

CENTRE_M = np.array([30.0, -80.0, 14.0])


def thrown(n, seed=1, particle="gamma", **settings):
    """Many primaries of one class, and their configuration."""
    of_class = {name: settings.pop(name) for name in list(settings) if name in ShowerClass.model_fields}
    shower_class = ShowerClass(particle=particle, **of_class)
    cfg = ShowersConfig(classes=(shower_class,), **settings)
    keys = (random_key(seed, 1, Purpose.SHOWER, number) for number in range(1, n + 1))
    return [throw(cfg, shower_class, CENTRE_M, key) for key in keys], cfg


@pytest.mark.parametrize("index", [-2.0, -1.0, -2.7])
def test_power_law(index):
    low, high = 0.1, 10.0
    assert power_law(0.0, low, high, index) == pytest.approx(low)
    assert power_law(1.0, low, high, index) == pytest.approx(high)
    values = np.array([power_law(share, low, high, index) for share in (np.arange(20_000) + 0.5) / 20_000])
    # the number in equal steps of energy follows E^index
    counts, edges = np.histogram(values, np.geomspace(low, high, 9))
    grid = np.sqrt(edges[:-1] * edges[1:])
    slope = np.polyfit(np.log(grid), np.log(counts / np.diff(edges)), 1)[0]
    assert slope == pytest.approx(index, abs=0.02)


@pytest.mark.parametrize("offset", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("angle", [0.0, 1.0, math.pi])
def test_around_is_that_far_away(offset, angle):
    alt, az = around(1.1, 3.0, offset, angle)
    degrees = np.degrees([alt, az, 1.1, 3.0])
    assert offset_deg(*degrees) == pytest.approx(math.degrees(offset), abs=1e-6)
    if offset:
        # towards larger altitude, and from there to larger azimuth
        assert math.copysign(1, alt - 1.1) == math.copysign(1, math.cos(angle))
        assert (az > 3.0 + 1e-9) == (math.sin(angle) > 1e-9)


def test_past_the_zenith_the_azimuth_turns():
    alt, az = around(math.radians(89), 0.3, math.radians(3), 0.0)
    assert math.degrees(alt) == pytest.approx(88)
    assert az == pytest.approx(0.3 + math.pi)


def test_point_source():
    primaries, cfg = thrown(20, viewcone_deg=0, offset_deg=0.7, zenith_deg=30, azimuth_deg=350)
    alt, az = (np.degrees([getattr(primary, name) for primary in primaries]) for name in ("alt_rad", "az_rad"))
    np.testing.assert_allclose(alt, 60.7, rtol=1e-12)
    np.testing.assert_allclose(az, 350, rtol=1e-12)
    assert np.degrees(pointing(cfg)) == pytest.approx((60, 350))
    assert np.degrees(view_centre(cfg, cfg.classes[0])) == pytest.approx((60.7, 350))


def test_diffuse_directions_fill_the_view_cone_evenly():
    primaries, _ = thrown(2000, viewcone_deg=5.0, offset_deg=1.0, positions_per_shower=1)
    alt, az = (np.degrees([getattr(primary, name) for primary in primaries]) for name in ("alt_rad", "az_rad"))
    offset = offset_deg(alt, az, 71.0, 180.0)
    assert offset.max() < 5.0
    # Solid angle grows with the square of a small offset
    counts, _ = np.histogram((offset / 5.0) ** 2, 4, (0, 1))
    assert np.all(abs(counts - 500) < 5 * math.sqrt(500))
    flight = np.array([primary.direction for primary in primaries])
    np.testing.assert_allclose(np.linalg.norm(flight, axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(flight[:, 2], -np.sin(np.radians(alt)), rtol=1e-9)
    # Coming from the south (180 deg), they fly to the north.
    assert np.all(flight[:, 0] > 0)


def test_cores_fill_a_disc_across_the_axis_around_the_middle_of_the_array():
    primaries, _ = thrown(300, zenith_deg=60, viewcone_deg=0, scatter_radius_m=500, positions_per_shower=20)
    distance = np.concatenate([primary.core_distance_m for primary in primaries])
    impact = np.concatenate([primary.impact_m(CENTRE_M[None])[:, 0] for primary in primaries])
    np.testing.assert_allclose(impact, distance, rtol=1e-9)
    counts, _ = np.histogram((distance / 500) ** 2, 5, (0, 1))
    assert counts.sum() == 6000
    assert np.all(abs(counts - 1200) < 5 * math.sqrt(1200))
    # On the ground the disc is an ellipse, longer along the direction of flight, and shifted for the height of 14 m.
    cores = np.concatenate([primary.cores_m for primary in primaries])
    assert cores[:, 0].std() / cores[:, 1].std() == pytest.approx(2.0, rel=0.05)
    assert cores[:, 0].mean() == pytest.approx(30.0 + 14.0 * math.tan(math.pi / 3), abs=20)
    assert cores[:, 1].mean() == pytest.approx(-80.0, abs=10)


def test_a_shower_is_keyed_by_seed_run_and_number():
    (first, second), cfg = thrown(2)
    assert first.energy_gev != second.energy_gev
    for key, same in (((1, 1), True), ((2, 1), False), ((1, 2), False)):
        again = throw(cfg, cfg.classes[0], CENTRE_M, random_key(*key, Purpose.SHOWER, 2))
        assert (again.energy_gev == second.energy_gev) is same
        assert np.array_equal(again.cores_m, second.cores_m) is same
        assert np.array_equal(again.seeds, second.seeds) is same
    states = {tuple(random_key(1, 1, purpose, item).generate_state(2)) for purpose in Purpose for item in (1, 2)}
    assert len(states) == 2 * len(Purpose)


def test_nuclei_are_the_superposition_of_their_nucleons():
    nucleons, code = PRIMARIES["helium"]
    assert sorted(nucleons) == [PROTON, PROTON, NEUTRON, NEUTRON]
    assert code == 402
    assert len(nucleons) <= MAX_NUCLEONS
    (primary,), _ = thrown(1, particle="helium")
    assert len(set(primary.seeds.tolist())) == MAX_NUCLEONS
    # The lowest energy that a configuration of nuclei would make sense for is far above their rest mass.
    assert MASS_GEV[list(nucleons)].sum() < 4


def test_ids_are_those_of_sim_telarray():
    ids = {name: code for name, (_, code) in PRIMARIES.items()}
    assert ids == {"gamma": 0, "electron": 1, "muon": 2, "proton": 101, "helium": 402}


def test_start_height_is_checked():
    accepted = parse_config({"showers": {"classes": [{"particle": "muon", "start_height_m": 1000}]}})
    assert accepted.showers.classes[0].start_height_m == 1000
    with pytest.raises(UserError, match=r"start_height_m: .*greater than 0, got -1"):
        parse_config({"showers": {"classes": [{"particle": "muon", "start_height_m": -1}]}})


# ---- weights ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("viewcone_deg", "target"),
    [
        (0.0, PowerLaw(3e-7 / (u.TeV * u.m**2 * u.s), -2.6, 1 * u.TeV)),
        (3.0, PowerLaw(1e-1 / (u.TeV * u.m**2 * u.s * u.sr), -2.7, 1 * u.TeV)),
    ],
    ids=["point source", "diffuse"],
)
def test_weights_reproduce_a_spectrum(viewcone_deg, target):
    """Weights of all thrown showers add up to the particles that cross the scattering area in the time."""
    n, uses, time = 3000, 2, 1 * u.h
    primaries, cfg = thrown(n, viewcone_deg=viewcone_deg, spectral_index=-2.0, positions_per_shower=uses)
    thrown_as = cfg.classes[0]
    simulated = PowerLaw.from_simulation(
        SimulatedEventsInfo(
            n_showers=n * uses,
            energy_min=thrown_as.energy_min_tev * u.TeV,
            energy_max=thrown_as.energy_max_tev * u.TeV,
            max_impact=thrown_as.scatter_radius_m * u.m,
            spectral_index=thrown_as.spectral_index,
            viewcone_min=0 * u.deg,
            viewcone_max=thrown_as.viewcone_deg * u.deg,
        ),
        obstime=time,
    )
    energy = np.repeat([primary.energy_gev for primary in primaries], uses) * 1e-3 * u.TeV
    weights = calculate_event_weights(energy, target, simulated)
    area = math.pi * (thrown_as.scatter_radius_m * u.m) ** 2
    sky = 2 * math.pi * (1 - math.cos(math.radians(viewcone_deg))) * u.sr if viewcone_deg else 1
    k = target.index + 1
    integral = target.normalization * u.TeV * (thrown_as.energy_max_tev**k - thrown_as.energy_min_tev**k) / k
    expected = (integral * area * sky * time).to_value("")
    relative_error = float(np.std(weights) / np.mean(weights)) / math.sqrt(n)
    assert relative_error < 0.02
    assert weights.sum() == pytest.approx(expected, rel=4 * relative_error)
