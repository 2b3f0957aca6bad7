"""Electromagnetic showers: samplers against their formulas, whole showers against CORSIKA."""

import math

import numpy as np
import pytest

from pipeline.camera.showers.atmosphere import depth_at
from pipeline.camera.showers.cherenkov import World, new_record, place_telescopes, yield_table
from pipeline.camera.showers.compilation import compiled
from pipeline.camera.showers.electromagnetic import (
    COLLISION_GEV_CM2_PER_G,
    annihilate,
    annihilation_rate,
    annihilation_share,
    collision_loss,
    compton_energy_share,
    compton_scattering,
    hard_bremsstrahlung,
    knock_on,
    knock_on_loss,
    knock_on_rate,
    knock_on_share,
    pair_energy_share,
    pair_production,
    photoproduction,
    produce_hadrons,
    produce_pair,
    radiated_share,
    scatter_compton,
    screening,
    soft_bremsstrahlung_loss,
)
from pipeline.camera.showers.interactions import load_library
from pipeline.camera.showers.particles import (
    ELECTRON,
    ELECTRON_MASS_GEV,
    PARTICLE,
    PHOTON,
    PI_MINUS,
    PI_PLUS,
    PI_ZERO,
    POSITRON,
    rotated,
)
from pipeline.camera.showers.tracks import RADIATION_LENGTH_G_CM2, Steps, bent
from pipeline.camera.showers.transport import follow_shower

DOWN = (0.0, 0.0, -1.0)
ORIGIN = (0.0, 0.0, 10e3, 0.0)


@compiled
def seed_compiled(seed):
    np.random.seed(seed)  # noqa: NPY002 (numba's generator)


@pytest.fixture(autouse=True)
def _seeded():
    seed_compiled(1)


def moments(values):
    return np.mean(values), np.std(values) / math.sqrt(len(values))


# ---- single processes ------------------------------------------------------------------------------------------------
def test_pair_energies_follow_their_cross_section():
    x = np.array([pair_energy_share() for _ in range(20_000)])
    mean, error = moments((x - 0.5) ** 2)
    # integral of (x - 1/2)^2 (1 - 4/3 x (1 - x)) over that of the density, 7/9
    assert mean == pytest.approx((1 / 12 - 4 / 3 * (1 / 12 / 4 - 1 / 80)) / (7 / 9), abs=5 * error)
    mean, error = moments(x)
    assert mean == pytest.approx(0.5, abs=5 * error)


@pytest.mark.parametrize("y_min", [0.5, 1e-3])
def test_bremsstrahlung_shares_follow_their_spectrum(y_min):
    y = np.array([radiated_share(y_min) for _ in range(20_000)])
    # mean y = integral of (4/3 - 4/3 y + y^2) over hard_bremsstrahlung
    energy = 4 / 3 * (1 - y_min) - 2 / 3 * (1 - y_min**2) + (1 - y_min**3) / 3
    mean, error = moments(y)
    assert y.min() >= y_min
    assert mean == pytest.approx(energy / hard_bremsstrahlung(y_min), abs=5 * error)


def test_bremsstrahlung_rate_is_the_integral_of_its_spectrum():
    y = np.geomspace(1e-3, 1, 100_001)
    rate = np.trapezoid(4 / 3 - 4 / 3 * y + y**2, np.log(y))
    assert hard_bremsstrahlung(1e-3) == pytest.approx(rate, rel=1e-6)
    assert hard_bremsstrahlung(1.0) == 0.0


@pytest.mark.parametrize(("energy_gev", "cm2_per_g"), [(0.02, 0.0079), (0.1, 0.0143), (0.7, 0.0191), (10, 0.0208)])
def test_pair_production_at_tabulated_energies(energy_gev, cm2_per_g):
    assert pair_production(float(energy_gev)) == pytest.approx(cm2_per_g, rel=6e-3)


def test_pair_production_tends_to_seven_ninths_per_radiation_length():
    assert pair_production(1e4) == pytest.approx(7 / 9 / RADIATION_LENGTH_G_CM2, rel=0.015)


def test_pair_production_between_table_entries_follows_bethe_and_heitler():
    """Screened cross section of nitrogen (Butcher & Messel's functions), scaled to the entry at 1 GeV."""

    def formula(energy_gev):
        x = np.linspace(0, 1, 20_002)[1:-1]
        delta = 136 * ELECTRON_MASS_GEV / 7 ** (1 / 3) / (energy_gev * x * (1 - x))
        above = 21.12 - 4.184 * np.log(delta + 0.952)
        phi_1 = np.where(delta > 1, above, 20.867 - 3.242 * delta + 0.625 * delta**2) / 4 - math.log(7) / 3
        phi_2 = np.where(delta > 1, above, 20.029 - 1.930 * delta - 0.086 * delta**2) / 4 - math.log(7) / 3
        return np.maximum((x**2 + (1 - x) ** 2) * phi_1 + 2 / 3 * x * (1 - x) * phi_2, 0).mean()

    for energy_gev in (0.13, 0.25, 0.4, 3.0):
        expected = pair_production(1.0) * formula(energy_gev) / formula(1.0)
        assert pair_production(energy_gev) == pytest.approx(expected, rel=0.03)


def test_compton_share_follows_klein_nishina():
    k = 100.0
    e = np.linspace(1 / (1 + 2 * k), 1, 200_001)
    cos = 1 - (1 - e) / (e * k)
    density = 1 / e + e - (1 - cos**2)
    share = np.array([compton_energy_share(k) for _ in range(20_000)])
    mean, error = moments(share)
    assert mean == pytest.approx(np.sum(e * density) / np.sum(density), abs=5 * error)


def test_compton_coefficient():
    # XCOM, incoherent scattering at 50 MeV: 0.00493 cm2/g in water, Z/A 0.555; air has 0.499
    assert compton_scattering(0.05) == pytest.approx(0.00443, rel=0.02)


def test_photon_interactions_conserve_energy_and_momentum():
    stack = np.empty(10, PARTICLE)
    direction = rotated(DOWN, 0.3, 1.0)
    for make in (produce_pair, scatter_compton):
        n = make(stack, 0, 0.05, ORIGIN, direction, 1e-6)
        assert n == 2
        assert stack["energy"][:2].sum() == pytest.approx(0.05)
    # Compton: two massless bodies but for the electron's rest energy
    photon, electron = stack[0], stack[1]
    assert (photon["kind"], electron["kind"]) == (PHOTON, ELECTRON)
    total = sum(p["energy"] * np.array([p["ux"], p["uy"], p["uz"]]) for p in (photon, electron))
    np.testing.assert_allclose(total, 0.05 * np.array(direction), atol=3 * ELECTRON_MASS_GEV)


# ESTAR, dry air at sea level; the difference at high energies is the density effect at a quarter of that density
@pytest.mark.parametrize(
    ("energy_gev", "collision_mev", "rel"), [(0.02, 2.134, 0.01), (0.05, 2.313, 0.02), (1, 2.67, 0.05)]
)
def test_collision_loss(energy_gev, collision_mev, rel):
    assert 1e3 * collision_loss(float(energy_gev)) == pytest.approx(collision_mev, rel=rel)


# Seltzer & Berger (1986), At. Data Nucl. Data Tables 35, 345: their spectra for nitrogen, integrated, times X0 / E
@pytest.mark.parametrize(("energy_gev", "ratio"), [(0.05, 0.826), (0.1, 0.880), (1.0, 0.972), (10.0, 0.993)])
def test_screening_lowers_the_loss_by_radiation(energy_gev, ratio):
    y = np.concatenate([np.geomspace(1e-4, 0.5, 1000), 1 - np.geomspace(0.5, 1e-5, 1000)[1:]])
    screened = np.array([screening(share, energy_gev) for share in y])
    assert screened.min() >= 0
    assert screened.max() <= 1
    assert np.trapezoid(screened * (4 / 3 - 4 / 3 * y + y**2), y) == pytest.approx(ratio, abs=0.006)


@pytest.mark.parametrize("energy_gev", [0.03, 0.05, 0.1, 1.0])
def test_soft_radiation_is_the_integral_of_the_screened_spectrum(energy_gev):
    cut = 0.02
    y = np.linspace(1e-6, cut / energy_gev, 2001)
    density = np.array([screening(share, energy_gev) for share in y]) * (4 / 3 - 4 / 3 * y + y**2)
    expected = energy_gev * np.trapezoid(density, y) / RADIATION_LENGTH_G_CM2
    assert soft_bremsstrahlung_loss(energy_gev, cut) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("energy_gev", "cm2_per_g"), [(0.1, 0.0), (0.32, 2.5e-4), (10.0, 5.9e-5)])
def test_photoproduction_at_the_resonance_and_beyond(energy_gev, cm2_per_g):
    # The Delta resonance has 0.42 mb per nucleon in a nucleus, high energies 0.1 mb
    assert photoproduction(energy_gev) == pytest.approx(cm2_per_g, rel=0.02)


def test_photons_become_hadrons():
    stack, library = np.empty(1000, PARTICLE), load_library()
    kinds = [int(stack["kind"][0]) for _ in range(300) if produce_hadrons(stack, 0, 0.4, ORIGIN, DOWN, library) == 1]
    assert len(kinds) == 300
    assert set(kinds) == {PI_PLUS, PI_MINUS, PI_ZERO}
    assert np.mean(np.equal(kinds, PI_ZERO)) == pytest.approx(1 / 3, abs=0.1)
    energies = [stack["energy"][: produce_hadrons(stack, 0, 50.0, ORIGIN, DOWN, library)].sum() for _ in range(300)]
    assert np.mean(energies) == pytest.approx(50.0, rel=0.05)


@pytest.mark.parametrize("x_min", [0.02, 0.2, 0.45])
def test_knock_on_electrons_follow_their_cross_section(x_min):
    x = np.array([knock_on_share(x_min) for _ in range(20_000)])
    grid = np.linspace(x_min, 0.5, 20_001)
    density = 1 / grid**2 + 1 / (1 - grid) ** 2 + 1
    mean, error = moments(x)
    total = np.trapezoid(density, grid)
    assert x_min <= x.min()
    assert x.max() <= 0.5
    assert mean == pytest.approx(np.trapezoid(grid * density, grid) / total, abs=5 * error)
    assert knock_on_rate(0.5, x_min) == pytest.approx(COLLISION_GEV_CM2_PER_G / 0.5 * total, rel=1e-6)
    assert knock_on_loss(x_min) == pytest.approx(COLLISION_GEV_CM2_PER_G * np.trapezoid(grid * density, grid), rel=1e-6)


def test_annihilation_follows_heitler():
    # 50 MeV: a cross section per electron of pi r_e^2 / 98 (ln 196 - 1)
    energy = 98 * ELECTRON_MASS_GEV
    assert annihilation_rate(energy) == pytest.approx(2.495e-25 * 3.006e23 / 98 * (math.log(196) - 1), rel=1e-3)
    x = np.array([annihilation_share(energy) for _ in range(20_000)])
    grid = np.geomspace(1 / 196, 0.5, 20_001)
    density = 1 / grid + 1 / (1 - grid) - 2
    mean, error = moments(x)
    assert mean == pytest.approx(np.trapezoid(grid * density, grid) / np.trapezoid(density, grid), abs=5 * error)


def test_collisions_conserve_energy_and_momentum():
    stack = np.empty(10, PARTICLE)
    direction = rotated(DOWN, 0.3, 1.0)
    assert annihilate(stack, 0, 0.5, ORIGIN, direction, 0.0) == 2
    photons = stack[:2]
    assert photons["energy"].sum() == pytest.approx(0.5)
    total = sum(p["energy"] * np.array([p["ux"], p["uy"], p["uz"]]) for p in photons)
    np.testing.assert_allclose(total, 0.5 * np.array(direction), atol=4 * ELECTRON_MASS_GEV)
    n, left = knock_on(stack, 0, 0.5, ORIGIN, direction, 0.02)
    assert (n, stack["kind"][0]) == (1, ELECTRON)
    assert left + stack["energy"][0] == pytest.approx(0.5)
    assert left >= stack["energy"][0] >= 0.02
    # below twice the cut there is none
    assert knock_on(stack, 0, 0.039, ORIGIN, direction, 0.02) == (0, 0.039)


def test_pair_partners_have_opposite_charge():
    stack = np.empty(10, PARTICLE)
    assert produce_pair(stack, 0, 10.0, ORIGIN, DOWN, 0.0) == 2
    assert sorted(stack["kind"][:2]) == [ELECTRON, POSITRON]


def test_magnetic_field_bends_on_a_circle():
    # 1 GeV in 30.6 uT: radius p / (0.2998 B) = 109 km
    change = bent(DOWN, 1.0, 1.0, 1000.0, (30.6e-6, 0.0, 0.0))
    assert np.linalg.norm(change) == pytest.approx(1000.0 / (1.0 / (0.299792458 * 30.6e-6)))
    assert bent(DOWN, -1.0, 1.0, 1000.0, (30.6e-6, 0.0, 0.0))[1] == -change[1]
    # v x B of a positive particle flying down through a field to the north: to the east, -y
    assert change[1] < 0


def test_stack_overflow_is_an_error():
    stack = np.empty(1, PARTICLE)
    with pytest.raises(RuntimeError, match="the particle stack of the shower simulation is full"):
        produce_pair(stack, 0, 10.0, ORIGIN, DOWN, 0.0)


# ---- whole showers ---------------------------------------------------------------------------------------------------
ZENITH = math.radians(40)
CORSIKA_GROUND_M = 2147.0
CORSIKA_DIRECTION = (math.sin(ZENITH), 0.0, -math.cos(ZENITH))


def corsika_world(impacts_m=(), radius_m=12.5):
    """Site, field and wavelengths (240 to 1000 nm) of the CORSIKA runs; telescopes at eight azimuths per impact."""
    table, step = yield_table(CORSIKA_GROUND_M, ZENITH, np.array([240.0, 1000.0]), np.ones(2), absorption=False)
    direction = np.array(CORSIKA_DIRECTION)
    across, level = np.array([math.cos(ZENITH), 0, math.sin(ZENITH)]), np.array([0.0, 1.0, 0.0])
    telescopes = []
    for impact in impacts_m:
        for angle in np.arange(8) * math.pi / 4:
            position = impact * (math.cos(angle) * across + math.sin(angle) * level)
            telescopes.append(position - direction * position[2] / direction[2] + [0, 0, CORSIKA_GROUND_M])
    world = World(
        observation_height_m=CORSIKA_GROUND_M,
        observation_depth_g_cm2=depth_at(CORSIKA_GROUND_M),
        field_t=(20.55e-6, 0.0, 9.4e-6),
        pointing=(-CORSIKA_DIRECTION[0], 0.0, -CORSIKA_DIRECTION[2]),
        yield_per_m=table[None],
        yield_step_m=step,
        sphere_radius_m=np.array([radius_m]),
        cos_field_of_view=np.array([-1.0]),
    )
    return place_telescopes(world, np.array(telescopes).reshape(-1, 3))


def simulate(energy_gev, n_showers, world, steps):
    """Light of each shower; mean number of charged particles per 20 g/cm2; rays per telescope and shower."""
    library, record = load_library(), new_record(400_000)
    light, charged, rays = [], 0.0, 0.0
    for seed in range(n_showers):
        record.profile[:], record.n_rays[0], record.first_interaction_m[0] = 0, 0, -1
        follow_shower(PHOTON, energy_gev, CORSIKA_DIRECTION, world, library, steps, seed, record)
        assert record.n_rays[0] <= len(record.rays)
        light.append(record.profile[0].sum())
        charged += record.profile[1] / n_showers
        telescope = record.rays["telescope"][: record.n_rays[0]]
        rays += np.bincount(telescope, minlength=world.telescopes_m.shape[1]) / n_showers
    return np.array(light), charged, rays


def test_100_gev_gamma_against_corsika():
    """CORSIKA: sum of N(e > 20 MeV) x 20 g/cm2 16690, at most 71.5 particles at 200-210 g/cm2, 8.36e6 photons."""
    light, charged, _ = simulate(100.0, 60, corsika_world(), Steps(follow_dark=True))
    assert 20 * charged.sum() == pytest.approx(16690, rel=0.05)
    assert charged.max() == pytest.approx(71.5, rel=0.1)
    assert 20 * charged.argmax() + 10 == pytest.approx(205, abs=45)
    assert light.mean() == pytest.approx(8.36e6, rel=0.06)


def test_light_pool_against_corsika():
    """CORSIKA, 50 GeV: 4.12e6 photons, 9.0 to 9.8 per m2 and 100 GeV within 130 m of the axis."""
    light, _, rays = simulate(50.0, 120, corsika_world((20.0, 60.0, 95.0, 120.0)), Steps())
    assert light.mean() == pytest.approx(4.12e6, rel=0.06)
    density = rays.reshape(4, 8).mean(axis=1) / (math.pi * 12.5**2) * 2
    assert np.all((density > 8.0) & (density < 11.8))
    # flat within 80 m, then rising towards the hump
    assert density[1] == pytest.approx(density[0], rel=0.1)
    assert density[3] > density[0]


def test_dark_electrons_give_no_light():
    world = corsika_world()
    dark, _, _ = simulate(50.0, 150, world, Steps(follow_dark=True))
    lit, _, _ = simulate(50.0, 150, world, Steps())
    sigma = math.hypot(dark.std(), lit.std()) / math.sqrt(150)
    assert lit.mean() == pytest.approx(dark.mean(), abs=4 * sigma)


def test_light_does_not_depend_on_the_step():
    """Truncating a step after its share of the radiation path is used up makes showers longer the finer the steps."""
    n, world, standard = 200, corsika_world(), Steps()
    coarse, _, _ = simulate(50.0, n, world, standard)
    half = standard._replace(
        max_radiation_lengths=standard.max_radiation_lengths / 2,
        max_scatter_rad=standard.max_scatter_rad / 2,
        max_energy_loss=standard.max_energy_loss / 2,
    )
    fine, _, _ = simulate(50.0, n, world, half)
    sigma = math.hypot(coarse.std(), fine.std()) / math.sqrt(n) / fine.mean()
    assert sigma < 0.008
    assert coarse.mean() / fine.mean() == pytest.approx(1.0, abs=0.01 + 2 * sigma)


def test_a_shower_depends_on_its_seed_only():
    world = corsika_world((100.0,))
    first, _, first_rays = simulate(20.0, 3, world, Steps())
    again, _, again_rays = simulate(20.0, 3, world, Steps())
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first_rays, again_rays)
    assert len(np.unique(first)) == 3
