"""Hadrons: the race between interaction and decay, final states from the library, and decays.

Cross sections and final states come from `interactions.Library`. Decays are two-body and isotropic in the rest frame,
with the leading channels only (Particle Data Group 2024).
"""

import math

import numpy as np

from pipeline.camera.showers.atmosphere import depth_at, height_at
from pipeline.camera.showers.cherenkov import radiate
from pipeline.camera.showers.compilation import inner
from pipeline.camera.showers.particles import (
    C_TAU_M,
    CHARGE,
    ETA,
    K_MINUS,
    K_PLUS,
    K_SHORT,
    MASS_GEV,
    MU_MINUS,
    MU_PLUS,
    MUON_MASS_GEV,
    NEUTRON,
    PHOTON,
    PI_MINUS,
    PI_PLUS,
    PI_ZERO,
    PI_ZERO_MASS_GEV,
    PION_MASS_GEV,
    PROTON,
    SPEED_OF_LIGHT_M_PER_NS,
    exponential,
    push,
    random_azimuth,
    rotated,
)

AIR_MASS_G_CM2_MB = 24144.0  # <A> / N_A in g/cm2 mb: lambda = 24144 / sigma(mb), <A> = 14.54
MIN_KINETIC_NUCLEON_GEV = 1.0  # below, a nucleon makes no pions worth following
MIN_SECONDARY_GEV = 0.04  # total energy
MIN_GAMMA = 30.0  # no Cherenkov light below, anywhere in the atmosphere
LIGHT_STEP_M = 100.0
IONISATION_GEV_PER_G_CM2 = 2.0e-3

K_TO_MU_NU, K_SHORT_TO_CHARGED, ETA_TO_TWO_PHOTONS, ETA_TO_THREE_PI_ZERO = 0.64, 0.69, 0.39, 0.33


@inner
def projectile_index(kind):
    """Row of the library: 0 nucleons, 1 pions, 2 kaons."""
    if kind in (PROTON, NEUTRON):
        return 0
    if kind in (PI_PLUS, PI_MINUS):
        return 1
    return 2


@inner
def isospin_mirror(kind):
    """The particle with up and down quarks exchanged. Nitrogen-14 is its own mirror image."""
    if kind == PROTON:
        return NEUTRON
    if kind == NEUTRON:
        return PROTON
    if kind == PI_PLUS:
        return PI_MINUS
    if kind == PI_MINUS:
        return PI_PLUS
    return kind


@inner
def bracket(energy, library):
    """The upper one of the two nodes around an energy, and the place between them, linear in log(energy).

    Beyond the grid the place is below 0 or above 1.
    """
    grid = library.log_energy
    x = math.log(energy)
    upper = 1
    while upper < len(grid) - 1 and grid[upper] < x:
        upper += 1
    return upper, (x - grid[upper - 1]) / (grid[upper] - grid[upper - 1])


@inner
def cross_section_mb(projectile, energy, library):
    """Production cross section on air [mb], linear in log(energy) and constant beyond the table."""
    upper, share = bracket(energy, library)
    table = library.cross_section_mb[projectile]
    return table[upper - 1] + min(max(share, 0.0), 1.0) * (table[upper] - table[upper - 1])


@inner
def sample_node(energy, library):
    """A node of the library's energy grid: one of the two neighbours, with probability linear in log(energy)."""
    upper, share = bracket(energy, library)
    return upper if np.random.random() < share else upper - 1


@inner
def interact(stack, n, kind, energy, position, direction, library):
    """Replace a hadron by the secondaries of one event of the library.

    Longitudinal momenta scale with the energy, transverse momenta stay, the azimuth is random. Below the lowest node
    transverse momenta shrink, too, as they would be more than the projectile has: pions of 0.3 GeV and more then keep
    their energy within a quarter.
    """
    node = sample_node(energy, library)
    event = library.first_event[projectile_index(kind), node]
    event += int(np.random.random() * library.n_events)
    scale = energy / library.energy_gev[node]
    across = min(energy / library.energy_gev[0], 1.0)
    turn = random_azimuth()
    mirrored = kind in (NEUTRON, PI_MINUS)
    for i in range(library.first_particle[event], library.first_particle[event + 1]):
        secondary = int(library.kind[i])
        px, py = across * float(library.px[i]), across * float(library.py[i])
        pz = scale * float(library.pz[i])
        transverse2 = px * px + py * py
        mass = MASS_GEV[secondary]
        total = math.sqrt(transverse2 + pz * pz + mass * mass)
        if total < MIN_SECONDARY_GEV:
            continue
        if mirrored:
            secondary = isospin_mirror(secondary)
        away = rotated(direction, math.atan2(math.sqrt(transverse2), pz), math.atan2(py, px) + turn)
        n = push(stack, n, secondary, total, position, away)
    return n


@inner
def decay_in_two(stack, n, mass, energy, kind_1, mass_1, kind_2, mass_2, position, direction):
    """Isotropic decay into two particles; one of kind -1 (a neutrino) is not followed.

    Rest frame: E1* = (M^2 + m1^2 - m2^2) / 2M, p*^2 = E1*^2 - m1^2; then boosted along the direction of flight.
    """
    energy = max(energy, mass)
    gamma = energy / mass
    beta = math.sqrt(1 - 1 / gamma**2)
    energy_1 = (mass**2 + mass_1**2 - mass_2**2) / (2 * mass)
    energy_2 = mass - energy_1
    p = math.sqrt(max(energy_1**2 - mass_1**2, 0.0))
    cos = 2 * np.random.random() - 1
    transverse = p * math.sqrt(1 - cos * cos)
    azimuth = random_azimuth()
    if kind_1 >= 0:
        polar = math.atan2(transverse, gamma * (p * cos + beta * energy_1))
        n = push(stack, n, kind_1, gamma * (energy_1 + beta * p * cos), position, rotated(direction, polar, azimuth))
    if kind_2 >= 0:
        polar = math.atan2(transverse, gamma * (-p * cos + beta * energy_2))
        away = rotated(direction, polar, azimuth + math.pi)
        n = push(stack, n, kind_2, gamma * (energy_2 - beta * p * cos), position, away)
    return n


@inner
def decay_pi_zero(stack, n, energy, position, direction):
    """pi0 -> two photons, at once."""
    return decay_in_two(stack, n, PI_ZERO_MASS_GEV, energy, PHOTON, 0.0, PHOTON, 0.0, position, direction)


@inner
def share_equally(stack, n, energy, kinds, position, direction):
    """Three-body decay with equal shares and no transverse momentum: good enough for a few per cent of all decays."""
    for kind in kinds:
        n = push(stack, n, kind, max(energy / 3, 1.001 * MASS_GEV[kind]), position, direction)
    return n


@inner
def decay(stack, n, kind, energy, position, direction):
    """Decay of a meson."""
    mass = MASS_GEV[kind]
    u = np.random.random()
    if kind == PI_ZERO:
        return decay_pi_zero(stack, n, energy, position, direction)
    if kind == ETA:
        if u < ETA_TO_TWO_PHOTONS:
            return decay_in_two(stack, n, mass, energy, PHOTON, 0.0, PHOTON, 0.0, position, direction)
        if u < ETA_TO_TWO_PHOTONS + ETA_TO_THREE_PI_ZERO:
            return share_equally(stack, n, energy, (PI_ZERO, PI_ZERO, PI_ZERO), position, direction)
        return share_equally(stack, n, energy, (PI_PLUS, PI_MINUS, PI_ZERO), position, direction)
    if kind in (PI_PLUS, PI_MINUS) or (kind in (K_PLUS, K_MINUS) and u < K_TO_MU_NU):
        muon = MU_PLUS if CHARGE[kind] > 0 else MU_MINUS
        return decay_in_two(stack, n, mass, energy, muon, MUON_MASS_GEV, -1, 0.0, position, direction)
    if kind in (K_PLUS, K_MINUS):
        pion = PI_PLUS if kind == K_PLUS else PI_MINUS
        return decay_in_two(stack, n, mass, energy, pion, PION_MASS_GEV, PI_ZERO, PI_ZERO_MASS_GEV, position, direction)
    if kind == K_SHORT:
        if u < K_SHORT_TO_CHARGED:
            return decay_in_two(
                stack, n, mass, energy, PI_PLUS, PION_MASS_GEV, PI_MINUS, PION_MASS_GEV, position, direction
            )
        return decay_in_two(
            stack, n, mass, energy, PI_ZERO, PI_ZERO_MASS_GEV, PI_ZERO, PI_ZERO_MASS_GEV, position, direction
        )
    # K_L: three pions represent all of its channels
    return share_equally(stack, n, energy, (PI_PLUS, PI_MINUS, PI_ZERO), position, direction)


@inner
def shine_along(position, direction, depth, length_m, beta2, world, record):
    """Cherenkov light of a straight track, in steps of at most `LIGHT_STEP_M`."""
    x, y, z, t = position
    ux, uy, uz = direction
    n_steps = int(length_m / LIGHT_STEP_M) + 1
    step = length_m / n_steps
    time_step = step / (SPEED_OF_LIGHT_M_PER_NS * math.sqrt(beta2))
    for i in range(n_steps):
        start = (x + i * step * ux, y + i * step * uy, z + i * step * uz, t + i * time_step)
        end_depth = depth_at(start[2] + step * uz)
        radiate(start, direction, depth, end_depth, step, beta2, 0.0, world, record)
        depth = end_depth


@inner
def follow_hadron(stack, n, kind, energy, position, direction, depth, world, library, record):
    """Take a hadron to its interaction, decay or the ground; returns the new number of particles on the stack.

    The magnetic field and scattering are neglected: over one interaction length they are small against the transverse
    momenta of the next interaction.
    """
    mass = MASS_GEV[kind]
    if energy <= mass or (kind in (PROTON, NEUTRON) and energy - mass < MIN_KINETIC_NUCLEON_GEV):
        return n
    x, y, z, t = position
    ux, uy, uz = direction
    momentum = math.sqrt(energy**2 - mass**2)
    mean_path = AIR_MASS_G_CM2_MB / cross_section_mb(projectile_index(kind), energy, library)
    end_depth = depth - mean_path * exponential() * uz
    grounded = end_depth >= world.observation_depth_g_cm2
    end_z = world.observation_height_m if grounded else height_at(end_depth)
    length = (z - end_z) / -uz
    decay_length = exponential() * C_TAU_M[kind] * momentum / mass
    decays = decay_length < length
    if decays:
        length = decay_length
        end_depth = depth_at(z + uz * length)
    if CHARGE[kind] != 0:
        gamma = energy / mass
        if gamma > MIN_GAMMA:
            shine_along(position, direction, depth, length, 1 - 1 / gamma**2, world, record)
        end_depth = min(end_depth, world.observation_depth_g_cm2)
        energy -= min(IONISATION_GEV_PER_G_CM2 * (end_depth - depth) / -uz, 0.5 * (energy - mass))
    time = length / (SPEED_OF_LIGHT_M_PER_NS * momentum / math.sqrt(momentum**2 + mass**2))
    position = (x + ux * length, y + uy * length, z + uz * length, t + time)
    if decays:
        return decay(stack, n, kind, energy, position, direction)
    if grounded:
        return n
    if record.first_interaction_m[0] < 0:
        record.first_interaction_m[0] = position[2]
    return interact(stack, n, kind, energy, position, direction, library)
