"""Muons: few in number, but a muon near the telescope draws a ring or an arc of thousands of photo-electrons."""

import math

import numpy as np

from pipeline.camera.showers.compilation import inner
from pipeline.camera.showers.particles import (
    ELECTRON,
    MU_MINUS,
    MUON_MASS_GEV,
    POSITRON,
    exponential,
    push,
)
from pipeline.camera.showers.tracks import charged_step, step_limit

LIFETIME_NS = 2196.98  # Particle Data Group (2024)
CUT_GEV = 1.0  # total energy; the Cherenkov threshold of muons is 4 GeV at sea level. Their decays below are given up
MAX_RADIATION_LENGTHS = 4.0
MAX_STEP_M = (
    50.0  # light leaves from one point per step, and a telescope sees the last 500 m of a muon's path as a ring
)


@inner
def energy_loss(energy):
    """Continuous loss a + b E in air [GeV per g/cm2] (Groom et al. 2001, At. Data Nucl. Data Tables 78, 183)."""
    return 2.1e-3 + 3.5e-6 * energy


@inner
def decay_share():
    """Share of the muon's energy that its electron takes, from dn/dx = 5/3 - 3 x^2 + 4/3 x^3.

    Unpolarised, relativistic: Gaisser, Engel & Resconi (2016), Cosmic Rays and Particle Physics, table 6.1.
    """
    while True:
        x = np.random.random()
        if np.random.random() * 5 / 3 < 5 / 3 - 3 * x**2 + 4 / 3 * x**3:
            return x


@inner
def follow_muon(stack, n, kind, energy, position, direction, depth, world, steps, record):
    """Take a muon to the ground, to its decay or below the cut; returns the new number of particles on the stack."""
    lifetime = LIFETIME_NS * exponential()
    while energy > CUT_GEV:
        momentum = math.sqrt(energy**2 - MUON_MASS_GEV**2)
        loss = energy_loss(energy)
        step = step_limit(momentum, momentum / energy, depth, steps, MAX_RADIATION_LENGTHS, MAX_STEP_M)
        before = position[3]
        alive, _, position, direction, depth = charged_step(
            kind, energy, loss, step, position, direction, depth, world, record
        )
        if not alive:
            break
        lifetime -= (position[3] - before) * MUON_MASS_GEV / energy
        energy -= step * loss
        if lifetime < 0:
            child = ELECTRON if kind == MU_MINUS else POSITRON
            return push(stack, n, child, decay_share() * energy, position, direction)
    return n
