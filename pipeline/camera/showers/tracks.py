"""One step of a charged particle: light, magnetic field, multiple scattering. Shared by electrons and muons."""

import math
from typing import NamedTuple

import numpy as np

from pipeline.camera.showers.atmosphere import density_at_depth, height_at
from pipeline.camera.showers.cherenkov import N_PROFILE_STEPS, PROFILE_STEP_G_CM2, radiate
from pipeline.camera.showers.compilation import inner
from pipeline.camera.showers.particles import CHARGE, MASS_GEV, SPEED_OF_LIGHT_M_PER_NS, random_azimuth, rotated

RADIATION_LENGTH_G_CM2 = 36.66  # dry air, Particle Data Group (2024), atomic and nuclear properties
SCATTERING_GEV = 0.0150  # multiple scattering: rms plane angle (15 MeV / beta p) sqrt(t)
STEEPEST = 0.1  # |uz| below this: nearly horizontal, beyond the flat atmosphere; such particles are given up


class Steps(NamedTuple):
    """Cuts and step sizes. With these, total light is 0.5 % below that of steps half or a quarter as long.

    Attributes
    ----------
    cut_gev : float
        Photons and electrons (total energy less mass) below are given up. 20 MeV is the Cherenkov threshold of
        electrons at sea level.
    max_radiation_lengths : float
        Longest step of an electron.
    max_scatter_rad : float
        Largest rms scattering angle per step.
    max_energy_loss : float
        Largest continuous loss of an electron in a step, relative to its energy.
    follow_dark : bool
        Follow electrons below the Cherenkov threshold at their height. They lose energy faster than the threshold
        falls on their way down, so they never shine again: needed only to count particles.
    """

    cut_gev: float = 0.020
    max_radiation_lengths: float = 0.1
    max_scatter_rad: float = 0.1
    max_energy_loss: float = 0.2
    follow_dark: bool = False


@inner
def scattering_per_sqrt_length(beta_momentum):
    """Rms multiple scattering angle per plane and sqrt(radiation length) [rad]."""
    return SCATTERING_GEV / beta_momentum


@inner
def bent(direction, charge, momentum, length_m, field_t):
    """Change of direction in a magnetic field: du = 0.2998 q / p (u x B) L, with p in GeV, B in T, L in m."""
    ux, uy, uz = direction
    bx, by, bz = field_t
    k = charge * 0.299792458 * length_m / momentum
    return k * (uy * bz - uz * by), k * (uz * bx - ux * bz), k * (ux * by - uy * bx)


@inner
def charged_step(kind, energy, loss, step_g_cm2, position, direction, depth, world, record):
    """Move an electron or muon by one step.

    Parameters
    ----------
    kind : int
        Particle code.
    energy : float
        Total energy at the beginning [GeV].
    loss : float
        Continuous energy loss [GeV per g/cm2].
    step_g_cm2 : float
        Length along the track. Its choice is final: whatever shortens it has to come before.
    position, direction, depth
        Beginning of the step.

    Returns
    -------
    alive : bool
        False when the particle has reached the ground or turned too far from the vertical.
    position, direction, depth
        End of the step.
    """
    x, y, z, t = position
    ux, uy, uz = direction
    mass = MASS_GEV[kind]
    momentum = math.sqrt(energy * energy - mass * mass)
    beta = momentum / energy
    end_depth = depth - step_g_cm2 * uz
    grounded = end_depth >= world.observation_depth_g_cm2
    if grounded:
        end_depth = world.observation_depth_g_cm2
        step_g_cm2 = (end_depth - depth) / -uz
        end_z = world.observation_height_m
    else:
        end_z = height_at(end_depth)
    length = (z - end_z) / -uz

    radiation_lengths = step_g_cm2 / RADIATION_LENGTH_G_CM2
    scatter = scattering_per_sqrt_length(beta * momentum) * math.sqrt(radiation_lengths)
    middle_energy = energy - 0.5 * step_g_cm2 * loss
    if middle_energy > mass and length > 0.0:
        beta2 = 1.0 - (mass / middle_energy) ** 2
        radiate(position, direction, depth, end_depth, length, beta2, scatter, world, record)
    bin_ = int(0.5 * (depth + end_depth) / PROFILE_STEP_G_CM2)
    if bin_ < N_PROFILE_STEPS:
        record.profile[1, bin_] += (end_depth - depth) / PROFILE_STEP_G_CM2

    dx, dy, dz = bent(direction, CHARGE[kind], momentum, length, world.field_t)
    norm = 1.0 / math.sqrt((ux + dx) ** 2 + (uy + dy) ** 2 + (uz + dz) ** 2)
    # Rayleigh distributed polar angle: two independent Gaussian planes
    polar = scatter * math.sqrt(-2.0 * math.log(1.0 - np.random.random()))
    direction = rotated(((ux + dx) * norm, (uy + dy) * norm, (uz + dz) * norm), polar, random_azimuth())
    # The mean of both directions correlates the sideways shift with the angle as it should be, theta L / 2.
    position = (
        x + 0.5 * length * (ux + direction[0]),
        y + 0.5 * length * (uy + direction[1]),
        end_z,
        t + length / (SPEED_OF_LIGHT_M_PER_NS * beta),
    )
    alive = not grounded and direction[2] < -STEEPEST
    return alive, position, direction, end_depth


@inner
def step_limit(momentum, beta, depth, steps, max_radiation_lengths, max_length_m):
    """Longest step [g/cm2] that keeps scattering small and the atmosphere's density nearly constant."""
    angle = steps.max_scatter_rad / scattering_per_sqrt_length(beta * momentum)
    by_angle = angle * angle * RADIATION_LENGTH_G_CM2
    by_length = max_length_m * 100.0 * density_at_depth(depth)
    return min(max_radiation_lengths * RADIATION_LENGTH_G_CM2, by_angle, by_length)
