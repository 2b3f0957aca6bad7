"""Hadrons and muons: conservation laws, cross sections, decays, and the library file."""

import math
from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline.camera.showers.compilation import compiled
from pipeline.camera.showers.hadronic import (
    cross_section_mb,
    decay,
    decay_in_two,
    interact,
    isospin_mirror,
    sample_node,
)
from pipeline.camera.showers.interactions import load_library
from pipeline.camera.showers.muons import decay_electron
from pipeline.camera.showers.particles import (
    ETA,
    K_LONG,
    K_MINUS,
    K_PLUS,
    K_SHORT,
    MASS_GEV,
    MU_MINUS,
    MU_PLUS,
    MUON_MASS_GEV,
    NEUTRON,
    PARTICLE,
    PHOTON,
    PI_MINUS,
    PI_PLUS,
    PI_ZERO,
    PION_MASS_GEV,
    PROTON,
    rotated,
)
from pipeline.errors import InputFileError

POSITION = (1.0, 2.0, 15e3, 3.0)
DIRECTION = rotated((0.0, 0.0, -1.0), 0.2, 0.5)


@compiled
def seed_compiled(seed):
    np.random.seed(seed)  # noqa: NPY002 (numba's generator)


@pytest.fixture(autouse=True)
def _seeded():
    seed_compiled(2)


@pytest.fixture(scope="module")
def library():
    return load_library()


def momenta(particles):
    """Three-momenta [GeV], shape (n, 3)."""
    p = np.sqrt(np.maximum(particles["energy"] ** 2 - MASS_GEV[particles["kind"]] ** 2, 0))
    return p[:, None] * np.column_stack([particles["ux"], particles["uy"], particles["uz"]])


# ---- library ---------------------------------------------------------------------------------------------------------
def test_library_is_sound(library):
    n_nodes = len(library.energy_gev)
    assert np.all(np.diff(library.energy_gev) >= 0)
    assert library.energy_gev[-1] >= 3e5
    assert library.n_events >= 150
    assert len(library.first_particle) == 3 * n_nodes * library.n_events + 1
    assert library.first_particle[-1] == len(library.kind) == len(library.px) == len(library.pz)
    assert library.kind.min() >= 0
    assert library.kind.max() < len(MASS_GEV)
    assert np.all(library.pz > 0)
    # transverse momenta of a few hundred MeV
    assert 0.2 < np.hypot(library.px, library.py).mean() < 0.6


@pytest.mark.parametrize(
    ("projectile", "energy_gev", "mb"),
    # Sibyll 2.3d, production on nitrogen; air is 3 % heavier
    [(0, 1e2, 265.7), (0, 1e3, 277), (0, 1e4, 298), (0, 1e5, 325), (1, 1e2, 200.9), (1, 1e5, 269)],
)
def test_cross_sections(library, projectile, energy_gev, mb):
    assert cross_section_mb(projectile, energy_gev, library) == pytest.approx(mb, rel=0.06)


def test_nodes_are_chosen_by_log_energy(library):
    low, high = library.energy_gev[8:10]
    energy = low**0.75 * high**0.25
    nodes = np.array([sample_node(energy, library) for _ in range(4000)])
    assert set(nodes) == {8, 9}
    assert np.mean(nodes == 9) == pytest.approx(0.25, abs=0.03)
    assert sample_node(1e7, library) == len(library.energy_gev) - 1
    assert sample_node(0.5, library) == 0


@pytest.mark.parametrize("kind", [PROTON, NEUTRON, PI_MINUS, K_PLUS, K_LONG])
@pytest.mark.parametrize("energy_gev", [150.0, 2000.0])
def test_interactions_conserve_energy_and_direction(library, kind, energy_gev):
    stack = np.empty(5000, PARTICLE)
    energies, total = [], np.zeros(3)
    for _ in range(400):
        n = interact(stack, 0, kind, energy_gev, POSITION, DIRECTION, library)
        energies.append(stack["energy"][:n].sum())
        total += momenta(stack[:n]).sum(axis=0)
    # A nucleon of the target may be among the secondaries, and backward ones are left out.
    assert np.mean(energies) == pytest.approx(energy_gev, rel=0.04)
    assert np.max(energies) < 1.6 * energy_gev  # neighbouring node, scaled
    np.testing.assert_allclose(total / np.linalg.norm(total), DIRECTION, atol=3e-3)


@pytest.mark.parametrize(("kind", "energy_gev"), [(PI_PLUS, 0.3), (PI_PLUS, 0.5), (PI_MINUS, 1.0), (K_PLUS, 0.8)])
def test_interactions_below_the_library_make_no_energy(library, kind, energy_gev):
    stack, available = np.empty(5000, PARTICLE), []
    for _ in range(1000):
        n = interact(stack, 0, kind, energy_gev, POSITION, DIRECTION, library)
        baryon = np.isin(stack["kind"][:n], (PROTON, NEUTRON))
        available.append((stack["energy"][:n] - np.where(baryon, MASS_GEV[PROTON], 0.0)).sum())
    assert np.mean(available) < 1.25 * energy_gev


def test_interactions_of_mirror_particles_are_mirror_images(library):
    assert isospin_mirror(isospin_mirror(PI_PLUS)) == PI_PLUS
    counts = {}
    for kind in (PI_PLUS, PI_MINUS):
        stack, charge = np.empty(5000, PARTICLE), 0
        for _ in range(300):
            n = interact(stack, 0, kind, 100.0, POSITION, DIRECTION, library)
            kinds = stack["kind"][:n]
            charge += np.sum(kinds == PI_PLUS) - np.sum(kinds == PI_MINUS)
        counts[kind] = charge
    assert counts[PI_PLUS] > 0 > counts[PI_MINUS]


def test_a_file_that_is_no_library(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, format=np.array("something else"))
    with pytest.raises(InputFileError, match=r"other\.npz is not an interaction library .*make_interaction_library"):
        load_library(path)
    path.write_bytes((Path(pipeline.__file__).parent / "data" / "interactions.npz").read_bytes()[:100_000])
    with pytest.raises(InputFileError, match="is not an interaction library"):
        load_library(path)
    path.write_bytes(b"not a zip file")
    with pytest.raises(InputFileError, match="is not an interaction library"):
        load_library(path)
    with pytest.raises(InputFileError, match="is not an interaction library"):
        load_library(tmp_path / "missing.npz")


# ---- decays ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("energy_gev", [0.2, 3.0, 500.0])
def test_two_body_decay_conserves_four_momentum(energy_gev):
    stack = np.empty(10, PARTICLE)
    mass = MASS_GEV[K_SHORT]
    energy = max(energy_gev, 1.0001 * mass)
    n = decay_in_two(stack, 0, mass, energy, PI_PLUS, PION_MASS_GEV, PI_MINUS, PION_MASS_GEV, POSITION, DIRECTION)
    assert n == 2
    assert stack["energy"][:2].sum() == pytest.approx(energy)
    total = momenta(stack[:2]).sum(axis=0)
    np.testing.assert_allclose(total, math.sqrt(energy**2 - mass**2) * np.array(DIRECTION), atol=1e-6 * energy)
    assert (stack[0]["x"], stack[0]["t"]) == (POSITION[0], POSITION[3])


def test_muon_from_a_pion_takes_between_r_and_one():
    """Flat between (m_mu / m_pi)^2 and 1 of the energy, for a fast pion."""
    stack = np.empty(10, PARTICLE)
    energies = []
    for _ in range(3000):
        assert decay(stack, 0, PI_PLUS, 50.0, POSITION, DIRECTION) == 1
        assert stack["kind"][0] == MU_PLUS
        energies.append(stack["energy"][0] / 50.0)
    least = (MUON_MASS_GEV / PION_MASS_GEV) ** 2
    assert min(energies) > least - 1e-3
    assert np.mean(energies) == pytest.approx((1 + least) / 2, abs=0.01)


def test_branching_ratios():
    stack = np.empty(10, PARTICLE)
    outcomes = []
    for _ in range(2000):
        n = decay(stack, 0, K_MINUS, 10.0, POSITION, DIRECTION)
        outcomes.append(tuple(sorted(stack["kind"][:n].tolist())))
    assert set(outcomes) == {(MU_MINUS,), (PI_MINUS, PI_ZERO)}
    assert np.mean([o == (MU_MINUS,) for o in outcomes]) == pytest.approx(0.64, abs=0.05)


@pytest.mark.parametrize("kind", [PI_ZERO, ETA, K_LONG, K_SHORT])
def test_neutral_mesons_decay_into_their_energy(kind):
    stack = np.empty(10, PARTICLE)
    for _ in range(50):
        n = decay(stack, 0, kind, 30.0, POSITION, DIRECTION)
        assert stack["energy"][:n].sum() == pytest.approx(30.0)
        if kind == PI_ZERO:
            assert stack["kind"][:n].tolist() == [PHOTON, PHOTON]


def test_electrons_of_muons_have_the_michel_mean():
    muon_energy = 20.0
    energy, angle = np.transpose([decay_electron(muon_energy) for _ in range(20_000)])
    # x (5/3 - 3 x^2 + 4/3 x^3), the spectrum of a fast muon's electron (Gaisser, Engel & Resconi 2016, table 6.1)
    assert np.mean(energy) / muon_energy == pytest.approx(0.35, abs=0.008)
    assert energy.max() <= muon_energy
    # The momentum across is at most that of the rest frame, half the muon's mass.
    assert (energy * np.sin(angle)).max() == pytest.approx(MUON_MASS_GEV / 2, rel=0.02)
