"""Cherenkov light: arcs against blindly thrown photons, yields against their formula."""

import math

import numpy as np
import pytest

from pipeline.camera.showers.atmosphere import depth_at, refractivity_at_depth
from pipeline.camera.showers.cherenkov import (
    World,
    arc_half_width,
    new_record,
    place_telescopes,
    shine,
    transmission,
    yield_at,
    yield_table,
)
from pipeline.camera.showers.muons import follow_muon
from pipeline.camera.showers.particles import (
    MU_MINUS,
    MUON_MASS_GEV,
    PARTICLE,
    SPEED_OF_LIGHT_M_PER_NS,
    rotated,
)
from pipeline.camera.showers.tracks import Steps

GROUND_M = 2158.0
RADIUS_M = 11.0


def world_with(telescopes, *, photons_per_m=3000.0, radii_m=(RADIUS_M,), kind=None):
    """Telescopes that look straight up; the same light yield at all heights, and no magnetic field."""
    world = World(
        observation_height_m=GROUND_M,
        observation_depth_g_cm2=depth_at(GROUND_M),
        field_t=(0.0, 0.0, 0.0),
        pointing=(0.0, 0.0, 1.0),
        yield_per_m=np.full((len(radii_m), 300), photons_per_m),
        yield_step_m=200.0,
        sphere_radius_m=np.array(radii_m),
        cos_field_of_view=np.zeros(len(radii_m)),
    )
    return place_telescopes(world, np.array(telescopes, float), kind)


@pytest.mark.parametrize(("psi_deg", "radius_deg"), [(1.2, 0.1), (1.0, 0.3), (0.5, 0.8), (0.1, 1.5), (3.0, 0.1)])
def test_arc_against_brute_force(rng, psi_deg, radius_deg):
    cone, psi, radius = math.radians(1.2), math.radians(psi_deg), math.radians(radius_deg)
    half_width = arc_half_width(math.cos(cone), math.sin(cone), math.cos(psi), math.sin(psi), math.cos(radius))
    azimuth = rng.uniform(0, 2 * math.pi, 400_000)
    cos_to_centre = math.cos(cone) * math.cos(psi) + math.sin(cone) * math.sin(psi) * np.cos(azimuth)
    share = np.mean(cos_to_centre > math.cos(radius))
    assert half_width / math.pi == pytest.approx(share, abs=4e-3)


def test_track_through_the_centre_gives_all_or_nothing():
    cos, sin = math.cos(0.02), math.sin(0.02)
    assert arc_half_width(cos, sin, 1.0, 0.0, math.cos(0.03)) == math.pi
    assert arc_half_width(cos, sin, 1.0, 0.0, math.cos(0.01)) == 0.0


def test_rays_of_a_point_against_brute_force(rng):
    """Number, direction and time of rays on several spheres, for an inclined track."""
    position = (100.0, -50.0, 9000.0, 7.0)
    direction = rotated((0.0, 0.0, -1.0), 0.01, 0.3)
    cone = 0.018
    telescopes = np.array([[100.0, 60.0, GROUND_M], [190.0, -140.0, GROUND_M], [800.0, 0.0, GROUND_M]])
    world, record = world_with(telescopes), new_record(100_000)
    shine(position, direction, 100.0, math.cos(cone), math.sin(cone), 2e-4, world, record)
    rays = record.rays[: record.n_rays[0]]

    n = 300_000
    thrown = np.array([rotated(direction, cone, azimuth) for azimuth in rng.uniform(0, 2 * math.pi, n)])
    to_telescope = telescopes - np.array(position[:3])
    for i, w in enumerate(to_telescope):
        distance = np.linalg.norm(np.cross(thrown, w), axis=1)
        expected = np.count_nonzero(distance < RADIUS_M)
        got = np.count_nonzero(rays["telescope"] == i)
        assert abs(got - expected) < 5 * math.sqrt(2 * expected + 1)
    k = np.column_stack([rays["kx"], rays["ky"], rays["kz"]]).astype(float)
    w = to_telescope[rays["telescope"]]
    assert np.all(np.linalg.norm(np.cross(k, w), axis=1) < RADIUS_M * 1.001)
    np.testing.assert_allclose(k @ np.array(direction), math.cos(cone), atol=1e-6)
    time = 7.0 + np.sum(k * w, axis=1) / SPEED_OF_LIGHT_M_PER_NS * (1 + 2e-4)
    np.testing.assert_allclose(rays["t"], time, atol=0.01)


def test_each_telescope_has_the_yield_and_the_size_of_its_kind():
    """A large dim kind beside a small bright one: what each gets does not depend on the others."""
    position, direction, cone = (0.0, 0.0, 9000.0, 0.0), (0.0, 0.0, -1.0), 0.018
    ring_m = (9000.0 - GROUND_M) * math.tan(cone)
    angles = np.arange(6) * math.pi / 3
    telescopes = np.column_stack([ring_m * np.cos(angles), ring_m * np.sin(angles), np.full(6, GROUND_M)])
    radii_m, yields = (12.0, 2.0), np.array([300.0, 12_000.0])
    kind = np.array([0, 1, 1, 0, 1, 0])
    world = world_with(telescopes, radii_m=radii_m, kind=kind)._replace(yield_per_m=np.repeat(yields[:, None], 300, 1))
    record, counts = new_record(200_000), np.zeros(6)
    for _ in range(50):
        record.n_rays[0] = 0
        shine(position, direction, 20.0, math.cos(cone), math.sin(cone), 2e-4, world, record)
        counts += np.bincount(record.rays["telescope"][: record.n_rays[0]], minlength=6)
    # A sphere of radius R across the ring covers an arc of 2 R / ring of it
    expected = 50 * 20.0 * yields[kind] * 2 * np.array(radii_m)[kind] / (2 * math.pi * ring_m)
    np.testing.assert_array_less(abs(counts - expected), 5 * np.sqrt(expected) + 0.003 * expected)


def test_rays_outside_the_field_of_view_are_dropped():
    position, direction = (0.0, 0.0, 9000.0, 0.0), rotated((0.0, 0.0, -1.0), 0.1, 0.0)
    w = np.array(direction) * 8000.0
    telescope = [position[0] + w[0] + 140.0, position[1] + w[1], position[2] + w[2]]
    counts = []
    for limit in (0.2, 0.05):
        world, record = (
            world_with([telescope])._replace(cos_field_of_view=np.array([math.cos(limit)])),
            new_record(100_000),
        )
        shine(position, direction, 3.0, math.cos(0.018), math.sin(0.018), 2e-4, world, record)
        counts.append(record.n_rays[0])
    assert counts[0] > 100
    assert counts[1] == 0


def test_yield_without_absorption_is_frank_and_tamm():
    table, _ = yield_table(GROUND_M, 0.3, np.array([240.0, 1000.0]), np.ones(2), absorption=False)
    exact = 2 * math.pi / 137.035999 * (1 / 240e-9 - 1 / 1000e-9)
    np.testing.assert_allclose(table, exact, rtol=1e-3)


def test_yield_falls_with_height_and_zenith_angle():
    wavelength, efficiency = np.array([280.0, 400.0, 700.0]), np.array([0.0, 0.3, 0.0])
    vertical, step = yield_table(GROUND_M, 0.0, wavelength, efficiency)
    inclined, _ = yield_table(GROUND_M, math.radians(60), wavelength, efficiency)
    assert np.all(np.diff(vertical) <= 0)
    assert np.all(inclined[1:] < vertical[1:])
    world = world_with([[0, 0, 0]])._replace(yield_per_m=np.array([vertical, inclined]), yield_step_m=step)
    assert yield_at(0, GROUND_M + 10.5 * step, world) == pytest.approx((vertical[10] + vertical[11]) / 2)
    assert yield_at(0, 1e6, world) == pytest.approx(vertical[-1])
    assert yield_at(1, GROUND_M + 10.0 * step, world) == pytest.approx(inclined[10])


def test_transmission_of_blue_light():
    # A clear night on La Palma: about 0.8 from 10 km at 400 nm, much less in the ultraviolet
    blue, ultraviolet = transmission(np.array([400.0, 300.0]), 10e3, GROUND_M)
    assert 0.75 < blue < 0.88
    assert ultraviolet < 0.65


def test_muon_ring_has_the_light_of_its_radius():
    """A muon through the mirror's centre shines on it along R / sin(theta_c): N = K R sin(theta_c)."""
    photons_per_m = 30_000.0
    world = world_with([[0.0, 0.0, GROUND_M]], photons_per_m=photons_per_m)
    record = new_record(100_000)
    energy, height = 1000.0, GROUND_M + 1200.0
    start, depth = (0.0, 0.0, height, 0.0), depth_at(height)
    n_muons = 20
    for _ in range(n_muons):
        stack = np.empty(10, PARTICLE)
        follow_muon(stack, 0, MU_MINUS, energy, start, (0.0, 0.0, -1.0), depth, world, Steps(), record)
    # theta_c where the light comes from: 270 m above the mirror on average
    n = 1 + refractivity_at_depth(depth_at(GROUND_M + 270.0))
    sin_cone = math.sqrt(1 - 1 / (n**2 * (1 - (MUON_MASS_GEV / energy) ** 2)))
    expected = photons_per_m * RADIUS_M * sin_cone
    assert record.n_rays[0] / n_muons == pytest.approx(expected, rel=0.03)
    cos = -record.rays["kz"][: record.n_rays[0]].astype(float)
    assert math.degrees(np.median(np.arccos(cos))) == pytest.approx(math.degrees(math.asin(sin_cone)), rel=0.02)


def test_rays_beyond_the_record_are_counted():
    position, direction = (0.0, 0.0, 5000.0, 0.0), (0.0, 0.0, -1.0)
    world, record = world_with([[50.0, 0.0, GROUND_M]]), new_record(10)
    shine(position, direction, 7.0, math.cos(0.018), math.sin(0.018), 2e-4, world, record)
    assert record.n_rays[0] > 10
