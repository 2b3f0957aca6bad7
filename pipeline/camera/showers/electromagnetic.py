"""Photons, electrons and positrons.

Pair production and Compton scattering of photons; hard bremsstrahlung of electrons above the cut, and continuous
losses: ionisation and bremsstrahlung below the cut. Left out, as they do not change light or shape by more than a
per cent: knock-on electrons above the cut, annihilation in flight, photonuclear reactions, the LPM effect.

References
----------
.. [1] Rossi (1952), High-Energy Particles: approximation B, complete screening.
.. [2] Berger et al., XCOM: photon cross sections, NIST Standard Reference Database 8.
.. [3] Berger et al., ESTAR: stopping power for electrons, NIST Standard Reference Database 124.
"""

import math

import numpy as np

from pipeline.camera.showers.atmosphere import height_at, refractivity_at_depth
from pipeline.camera.showers.compilation import inner
from pipeline.camera.showers.particles import (
    ELECTRON,
    ELECTRON_MASS_GEV,
    PHOTON,
    POSITRON,
    SPEED_OF_LIGHT_M_PER_NS,
    exponential,
    push,
    random_azimuth,
    rotated,
)
from pipeline.camera.showers.tracks import RADIATION_LENGTH_G_CM2, charged_step, step_limit

THOMSON_CM2 = 6.6524587e-25
ELECTRONS_PER_GRAM = 3.006e23  # N_A Z/A of air
MAX_STEP_M = 2000.0


@inner
def pair_production(energy_gev):
    """Pair production coefficient of air [cm2/g], from [2]_, linear in log(energy) between its entries."""
    log10 = math.log10(energy_gev)
    if energy_gev < 0.1:
        return 0.00795 + (log10 + 1.69897) / 0.69897 * (0.0143 - 0.00795)
    if energy_gev < 1.0:
        return 0.0143 + (log10 + 1.0) * (0.0187 - 0.0143)
    if energy_gev < 10.0:
        return 0.0187 + log10 * (0.0205 - 0.0187)
    return 0.02122 - 0.0007 * math.sqrt(10.0 / energy_gev)


@inner
def compton_scattering(energy_gev):
    """Compton coefficient of air [cm2/g]: Klein-Nishina for k = E / m >> 1, 3/8 sigma_T / k (ln 2k + 1/2)."""
    k = energy_gev / ELECTRON_MASS_GEV
    return 0.375 * THOMSON_CM2 * ELECTRONS_PER_GRAM / k * (math.log(2 * k) + 0.5)


@inner
def pair_energy_share():
    """Share x of one partner: dsigma/dx ~ 1 - 4/3 x (1 - x), complete screening [1]_."""
    while True:
        x = np.random.random()
        if np.random.random() < 1 - 4 / 3 * x * (1 - x):
            return x


@inner
def compton_energy_share(k):
    """Share e of the energy that a photon keeps (k = E / m), sampled from the Klein-Nishina cross section.

    dsigma/de ~ (1/e + e) (1 - e sin^2 / (1 + e^2)); 1/e is sampled directly, the rest by rejection (Butcher & Messel).
    """
    e_min = 1 / (1 + 2 * k)
    while True:
        e = e_min * math.exp(np.random.random() * -math.log(e_min))
        cos = 1 - (1 - e) / (e * k)
        if np.random.random() < (1 / e + e - (1 - cos * cos)) * e / 2:
            return e


@inner
def opening_angle(energy):
    """Angle at which an electron or a radiated photon leaves, of the order of m / E [rad]."""
    return ELECTRON_MASS_GEV / energy * math.sqrt(exponential())


@inner
def produce_pair(stack, n, energy, position, direction, cut):
    """A photon becomes an electron and a positron."""
    positron_energy = pair_energy_share() * energy
    azimuth = random_azimuth()
    if positron_energy > cut:
        away = rotated(direction, opening_angle(positron_energy), azimuth)
        n = push(stack, n, POSITRON, positron_energy, position, away)
    electron_energy = energy - positron_energy
    if electron_energy > cut:
        away = rotated(direction, opening_angle(electron_energy), azimuth + math.pi)
        n = push(stack, n, ELECTRON, electron_energy, position, away)
    return n


@inner
def scatter_compton(stack, n, energy, position, direction, cut):
    """A photon gives part of its energy to an electron at rest."""
    k = energy / ELECTRON_MASS_GEV
    e = compton_energy_share(k)
    cos = min(max(1 - (1 - e) / (e * k), -1.0), 1.0)
    azimuth = random_azimuth()
    photon_energy = e * energy
    electron_energy = energy - photon_energy
    if photon_energy > cut:
        away = rotated(direction, math.acos(cos), azimuth)
        n = push(stack, n, PHOTON, photon_energy, position, away)
    if electron_energy > cut:
        # momentum balance along the direction of flight
        momentum = math.sqrt(energy**2 + photon_energy**2 - 2 * energy * photon_energy * cos)
        cos_electron = min(max((energy - photon_energy * cos) / momentum, -1.0), 1.0)
        away = rotated(direction, math.acos(cos_electron), azimuth + math.pi)
        n = push(stack, n, ELECTRON, electron_energy, position, away)
    return n


@inner
def follow_photon(stack, n, energy, position, direction, depth, world, steps, record):
    """Take a photon to its interaction; returns the new number of particles on the stack."""
    if energy < steps.cut_gev:
        return n
    pair = pair_production(energy)
    compton = compton_scattering(energy)
    x, y, z, t = position
    ux, uy, uz = direction
    end_depth = depth - exponential() / (pair + compton) * uz
    if end_depth >= world.observation_depth_g_cm2:
        return n
    end_z = height_at(end_depth)
    length = (z - end_z) / -uz
    position = (x + ux * length, y + uy * length, end_z, t + length / SPEED_OF_LIGHT_M_PER_NS)
    if record.first_interaction_m[0] < 0:
        record.first_interaction_m[0] = end_z
    if np.random.random() * (pair + compton) < pair:
        return produce_pair(stack, n, energy, position, direction, steps.cut_gev)
    return scatter_compton(stack, n, energy, position, direction, steps.cut_gev)


@inner
def ionisation_loss(energy):
    """Collision loss of electrons in air [GeV per g/cm2], a fit to [3]_ with its slow relativistic rise."""
    return 2.0e-3 + 1.3e-4 * math.log(energy / 0.010)


@inner
def hard_bremsstrahlung(y_min):
    """Radiations per radiation length above the share y_min: the integral of (4/3 - 4/3 y + y^2) / y [1]_."""
    if y_min >= 1:
        return 0.0
    return -4 / 3 * math.log(y_min) - 4 / 3 * (1 - y_min) + 0.5 * (1 - y_min * y_min)


@inner
def soft_bremsstrahlung_loss(cut):
    """Energy radiated below the cut [GeV per g/cm2]: the integral of 4/3 E dy up to y = cut / E."""
    return 4 / 3 * cut / RADIATION_LENGTH_G_CM2


@inner
def radiated_share(y_min):
    """Share y of a hard bremsstrahlung photon, from (4/3 - 4/3 y + y^2) / y above `y_min`."""
    while True:
        y = y_min ** (1 - np.random.random())
        if np.random.random() * 4 / 3 < 4 / 3 - 4 / 3 * y + y * y:
            return y


@inner
def follow_electron(stack, n, kind, energy, position, direction, depth, world, steps, record):
    """Take an electron or positron to its end; returns the new number of particles on the stack.

    The path to the next hard bremsstrahlung is drawn once, in mean free paths, and used up step by step; as the
    energy falls so does the rate. The trap here: a step may not be shortened once its share of that path is used up,
    or the particle radiates too rarely the smaller the steps are. All limits therefore come first.
    """
    to_radiation = exponential()
    soft_loss = soft_bremsstrahlung_loss(steps.cut_gev)
    while energy > steps.cut_gev + ELECTRON_MASS_GEV:
        gamma2 = (energy / ELECTRON_MASS_GEV) ** 2
        # threshold beta n = 1: gamma^2 = 1 / (1 - 1/n^2) ~ 1 / (2 (n - 1))
        if not steps.follow_dark and gamma2 * 2 * refractivity_at_depth(depth) < 1:
            break
        beta = math.sqrt(1 - 1 / gamma2)
        loss = ionisation_loss(energy) + soft_loss
        step = step_limit(beta * energy, beta, depth, steps, steps.max_radiation_lengths, MAX_STEP_M)
        step = min(step, steps.max_energy_loss * energy / loss)
        y_min = steps.cut_gev / energy
        rate = hard_bremsstrahlung(y_min) / RADIATION_LENGTH_G_CM2
        radiates = rate * step >= to_radiation
        if radiates:
            step = to_radiation / rate
        to_radiation -= rate * step

        alive, _, position, direction, depth = charged_step(
            kind, energy, loss, step, position, direction, depth, world, record
        )
        if not alive:
            break
        energy -= step * loss
        if not radiates:
            continue
        if record.first_interaction_m[0] < 0:
            record.first_interaction_m[0] = position[2]
        to_radiation = exponential()
        y_min = steps.cut_gev / energy
        if y_min < 1:
            photon_energy = radiated_share(y_min) * energy
            away = rotated(direction, opening_angle(energy), random_azimuth())
            n = push(stack, n, PHOTON, photon_energy, position, away)
            energy -= photon_energy
    return n
