"""Muons: few in number, but a muon near the telescope draws a ring or an arc of thousands of photo-electrons.

Slow ones shine through the electrons that they decay to: these are a seventh of the light of 15 GeV protons.
"""

import math

import numpy as np

from pipeline.camera.showers.atmosphere import refractivity_at_depth
from pipeline.camera.showers.compilation import inner
from pipeline.camera.showers.particles import (
    ELECTRON,
    MU_MINUS,
    MUON_MASS_GEV,
    POSITRON,
    exponential,
    push,
    random_azimuth,
    rotated,
)
from pipeline.camera.showers.tracks import charged_step, step_limit

LIFETIME_NS = 2196.98  # Particle Data Group (2024)
CUT_GEV = 0.2  # total energy; electrons of slower ones, 37 MeV in the mean in their rest frame, hardly shine
MAX_RADIATION_LENGTHS = 4.0
# Light leaves from one point per step, and a telescope sees the last 500 m of a muon's path as a ring.
MAX_STEP_M = 50.0
MAX_DARK_STEP_M = 300.0  # below the Cherenkov threshold; short against the 6 km that a muon of 1 GeV lives


@inner
def energy_loss(energy):
    """Continuous loss a + b E in air [GeV per g/cm2] (Groom et al. 2001, At. Data Nucl. Data Tables 78, 183)."""
    return 2.1e-3 + 3.5e-6 * energy


@inner
def decay_electron(energy):
    """Energy [GeV] and angle from the muon's direction [rad] of the electron that a muon decays to.

    In the rest frame dn/dx = 2 x^2 (3 - 2 x) with x = 2 E / m_mu, in all directions alike: unpolarised, without the
    electron's mass (Particle Data Group 2024, review "Muon decay parameters").
    """
    while True:
        x = np.random.random()
        if np.random.random() < x * x * (3 - 2 * x):
            break
    rest_energy = 0.5 * x * MUON_MASS_GEV
    cos = 2 * np.random.random() - 1
    gamma = energy / MUON_MASS_GEV
    beta = math.sqrt(1 - 1 / gamma**2)
    along = gamma * rest_energy * (cos + beta)
    return gamma * rest_energy * (1 + beta * cos), math.atan2(rest_energy * math.sqrt(1 - cos * cos), along)


@inner
def follow_muon(stack, n, kind, energy, position, direction, depth, world, steps, record):
    """Take a muon to the ground, to its decay or below the cut; returns the new number of particles on the stack."""
    lifetime = LIFETIME_NS * exponential()
    # beta n = 1 at the ground, where n is largest: gamma^2 = 1 / (1 - 1/n^2) ~ 1 / (2 (n - 1))
    threshold = MUON_MASS_GEV / math.sqrt(2 * refractivity_at_depth(world.observation_depth_g_cm2))
    while energy > CUT_GEV:
        momentum = math.sqrt(energy**2 - MUON_MASS_GEV**2)
        loss = energy_loss(energy)
        longest = MAX_STEP_M if energy > threshold else MAX_DARK_STEP_M
        step = step_limit(momentum, momentum / energy, depth, steps, MAX_RADIATION_LENGTHS, longest)
        before = position[3]
        alive, position, direction, depth = charged_step(
            kind, energy, loss, step, position, direction, depth, world, record
        )
        if not alive:
            break
        lifetime -= (position[3] - before) * MUON_MASS_GEV / energy
        energy -= step * loss
        if lifetime < 0:
            child = ELECTRON if kind == MU_MINUS else POSITRON
            electron_energy, polar = decay_electron(max(energy, MUON_MASS_GEV))
            return push(stack, n, child, electron_energy, position, rotated(direction, polar, random_azimuth()))
    return n
