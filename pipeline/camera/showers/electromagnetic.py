"""Photons, electrons and positrons.

Pair production, Compton scattering and photoproduction of hadrons by photons; hard bremsstrahlung, knock-on electrons
and annihilation of positrons in flight above the cut, and continuous losses below it. Neglected, as they do not change
light or shape by more than a per cent: knock-on electrons of muons and hadrons, muon pairs, the LPM effect.

References
----------
.. [1] Rossi (1952), High-Energy Particles: bremsstrahlung and pairs at complete screening, collisions of electrons.
.. [2] Berger et al., XCOM: photon cross sections, NIST Standard Reference Database 8.
.. [3] Berger et al., ESTAR: stopping power for electrons, NIST Standard Reference Database 124; Sternheimer et al.
   (1984), At. Data Nucl. Data Tables 30, 261: its density effect.
.. [4] Butcher & Messel (1960), Nucl. Phys. 20, 15: screening functions, as in Nelson et al. (1985), The EGS4 Code
   System, SLAC-265, section 2.7.
.. [5] Heitler (1954), The Quantum Theory of Radiation, 3rd ed., section 27.
.. [6] Bianchi et al. (1996), Phys. Rev. C 54, 1688, up to 1.2 GeV; Particle Data Group (2024), total hadronic cross
   sections, with shadowing as in Bauer et al. (1978), Rev. Mod. Phys. 50, 261, beyond.
"""

import math

import numpy as np

from pipeline.camera.showers.atmosphere import height_at, refractivity_at_depth
from pipeline.camera.showers.compilation import inner
from pipeline.camera.showers.hadronic import interact
from pipeline.camera.showers.particles import (
    ELECTRON,
    ELECTRON_MASS_GEV,
    PHOTON,
    PI_MINUS,
    PI_PLUS,
    PI_ZERO,
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
CLASSICAL_CM2 = 3 / 8 * THOMSON_CM2  # pi r_e^2
COLLISION_GEV_CM2_PER_G = 2 * CLASSICAL_CM2 * ELECTRONS_PER_GRAM * ELECTRON_MASS_GEV  # 2 pi r_e^2 n_e m: 0.0766 MeV
AIR_CHARGE = 7.37  # effective Z of air
COULOMB = 0.0029  # Coulomb correction f(Z) of air
MAX_STEP_M = 2000.0

# Pair production coefficient of dry air (N2 75.52, O2 23.14, Ar 1.28 % by mass) in the fields of nuclei and electrons
# [cm2/g], from [2]_.
PAIR_LOG_GEV = np.log(
    np.array([0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.0, 2.0, 5.0, 10.0, 30.0, 100.0])
)
PAIR_CM2_PER_G = np.array(
    [0.00792, 0.00962, 0.01172, 0.01353, 0.01434, 0.01568, 0.01653, 0.01756, 0.01858, 0.01928, 0.01954, 0.02015,
     0.02059, 0.02077, 0.02091, 0.02097]
)  # fmt: skip
# Photoproduction of hadrons on nuclei [6]_: cross section per nucleon [mb], to 15 %.
HADRON_LOG_GEV = np.log(np.array([0.15, 0.2, 0.25, 0.32, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 1e2, 1e3, 1e5]))
HADRON_MB = np.array([0.0, 0.18, 0.33, 0.42, 0.32, 0.22, 0.19, 0.18, 0.15, 0.13, 0.115, 0.105, 0.098, 0.092, 0.1, 0.14])
NUCLEONS_PER_GRAM_MB = 6.022e-4  # N_A times 1 mb [cm2/g]
PION_THRESHOLD_GEV = 0.15
MANY_PIONS_GEV = 2.5  # the library of interactions begins here


@inner
def interpolated(x, grid, values):
    """Straight lines between the entries of a table, constant beyond."""
    i = 1
    while i < len(grid) - 1 and grid[i] < x:
        i += 1
    share = min(max((x - grid[i - 1]) / (grid[i] - grid[i - 1]), 0.0), 1.0)
    return values[i - 1] + share * (values[i] - values[i - 1])


@inner
def pair_production(energy_gev):
    """Pair production coefficient of air [cm2/g], linear in log(energy) between the entries of its table."""
    return interpolated(math.log(energy_gev), PAIR_LOG_GEV, PAIR_CM2_PER_G)


@inner
def photoproduction(energy_gev):
    """Coefficient of photoproduction of hadrons in air [cm2/g]: 1.4 % of pairs at 0.32 GeV, 0.3 % above 5 GeV."""
    if energy_gev < PION_THRESHOLD_GEV:
        return 0.0
    return NUCLEONS_PER_GRAM_MB * interpolated(math.log(energy_gev), HADRON_LOG_GEV, HADRON_MB)


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
def produce_hadrons(stack, n, energy, position, direction, library):
    """A photon becomes hadrons: as a pion that interacts (vector dominance), or a single pion at low energies.

    All charges of the pion are alike, which accounts for its absorption in the nucleus, too.
    """
    u = 3 * np.random.random()
    if energy > MANY_PIONS_GEV:
        return interact(stack, n, PI_PLUS if u < 1.5 else PI_MINUS, energy, position, direction, library)
    kind = PI_ZERO if u < 1 else PI_PLUS if u < 2 else PI_MINUS
    return push(stack, n, kind, energy, position, direction)


@inner
def follow_photon(stack, n, energy, position, direction, depth, world, library, steps, record):
    """Take a photon to its interaction; returns the new number of particles on the stack."""
    if energy < steps.cut_gev:
        return n
    pair = pair_production(energy)
    compton = compton_scattering(energy)
    total = pair + compton + photoproduction(energy)
    x, y, z, t = position
    ux, uy, uz = direction
    end_depth = depth - exponential() / total * uz
    if end_depth >= world.observation_depth_g_cm2:
        return n
    end_z = height_at(end_depth)
    length = (z - end_z) / -uz
    position = (x + ux * length, y + uy * length, end_z, t + length / SPEED_OF_LIGHT_M_PER_NS)
    if record.first_interaction_m[0] < 0:
        record.first_interaction_m[0] = end_z
    choice = np.random.random() * total
    if choice < pair:
        return produce_pair(stack, n, energy, position, direction, steps.cut_gev)
    if choice < pair + compton:
        return scatter_compton(stack, n, energy, position, direction, steps.cut_gev)
    return produce_hadrons(stack, n, energy, position, direction, library)


# ---- electrons and positrons: what happens to them continuously ------------------------------------------------------
@inner
def collision_loss(energy):
    """Collision loss of electrons in air at a quarter of its density at sea level [GeV per g/cm2].

    Straight lines in log(energy) through [3]_ (0.3 MeV more at 1 GeV than at sea level: the density effect sets in
    later); within 2 % from 20 MeV to 20 GeV.
    """
    slope = 2.11e-4 if energy < 0.1 else 1.25e-4
    return 2.473e-3 + slope * math.log(energy / 0.1)


@inner
def knock_on_loss(x_min):
    """The part of it that goes into knock-on electrons above the share `x_min` of the energy [GeV per g/cm2].

    The integral of x (1/x^2 + 1/(1-x)^2 + 1) up to 1/2; see `knock_on_rate`.
    """
    if x_min >= 0.5:
        return 0.0
    at_half = 2 + 1 / 8 - 2 * math.log(2)
    lower = math.log(x_min * (1 - x_min)) + 1 / (1 - x_min) + 0.5 * x_min * x_min
    return COLLISION_GEV_CM2_PER_G * (at_half - lower)


@inner
def soft_bremsstrahlung_loss(energy, cut):
    """Energy radiated below the cut [GeV per g/cm2]: E times the integral of the screened spectrum up to cut / E.

    4/3 - 4/3 y + y^2 with `screening` integrates to 1 - 0.46 cut / E times 4/3 cut, within 1 % from 30 MeV on.
    """
    return 4 / 3 * cut * (1 - 0.46 * cut / energy) / RADIATION_LENGTH_G_CM2


# ---- and what happens to them at a point -----------------------------------------------------------------------------
@inner
def hard_bremsstrahlung(y_min):
    """Radiations per radiation length above the share y_min: the integral of (4/3 - 4/3 y + y^2) / y [1]_."""
    if y_min >= 1:
        return 0.0
    return -4 / 3 * math.log(y_min) - 4 / 3 * (1 - y_min) + 0.5 * (1 - y_min * y_min)


@inner
def radiated_share(y_min):
    """Share y of a hard bremsstrahlung photon, from (4/3 - 4/3 y + y^2) / y above `y_min`."""
    while True:
        y = y_min ** (1 - np.random.random())
        if np.random.random() * 4 / 3 < 4 / 3 - 4 / 3 * y + y * y:
            return y


@inner
def screening(y, energy):
    """Bremsstrahlung of share y relative to that at complete screening, at most 1: a quarter less at 50 MeV [4]_.

    The nucleus is bare to electrons that pass it within an atom's radius, which slow ones do when they radiate much.
    """
    delta = 136 * ELECTRON_MASS_GEV / AIR_CHARGE ** (1 / 3) * y / (energy * (1 - y))
    if delta <= 1:
        phi_1 = 20.867 - 3.242 * delta + 0.625 * delta * delta
        phi_2 = 20.029 - 1.930 * delta - 0.086 * delta * delta
    else:
        phi_1 = phi_2 = 21.12 - 4.184 * math.log(delta + 0.952)
    log_charge = math.log(AIR_CHARGE) / 3 + COULOMB
    forward, flat = 1 + (1 - y) ** 2, 2 / 3 * (1 - y)
    complete = forward * (20.867 / 4 - log_charge) - flat * (20.029 / 4 - log_charge)
    return max(forward * (phi_1 / 4 - log_charge) - flat * (phi_2 / 4 - log_charge), 0.0) / complete


@inner
def knock_on_rate(energy, x_min):
    """Knock-on electrons above the share x_min of the energy [cm2/g].

    Moller's cross section for fast electrons, 1/x^2 + 1/(1-x)^2 + 1, up to x = 1/2 (the slower one of the two is called
    the knock-on) [1]_; positrons pass as electrons.
    """
    if x_min >= 0.5:
        return 0.0
    return COLLISION_GEV_CM2_PER_G / energy * (0.5 + 1 / x_min - 1 / (1 - x_min) - x_min)


@inner
def knock_on_share(x_min):
    """Share x of a knock-on electron; 1/x^2 is sampled directly, the rest by rejection."""
    while True:
        x = x_min / (1 - np.random.random() * (1 - 2 * x_min))
        if np.random.random() * 2.25 < 1 + (x / (1 - x)) ** 2 + x * x:
            return x


@inner
def annihilation_rate(energy):
    """Annihilation of positrons in flight into two photons [cm2/g], for gamma >> 1 [5]_."""
    gamma = energy / ELECTRON_MASS_GEV
    return CLASSICAL_CM2 * ELECTRONS_PER_GRAM / gamma * (math.log(2 * gamma) - 1)


@inner
def annihilation_share(energy):
    """Share x < 1/2 of the weaker photon, from 1/x + 1/(1-x) - 2 above its minimum m / 2 E [5]_."""
    x_min = 0.5 * ELECTRON_MASS_GEV / energy
    while True:
        x = x_min * (0.5 / x_min) ** np.random.random()
        if np.random.random() < 1 + x / (1 - x) - 2 * x:
            return x


@inner
def collision_angle(share, energy):
    """Angle of a particle that takes a share of the energy in a collision with an electron at rest [rad].

    From four-momenta with all masses except the target's neglected: 1 - cos = m (1 - x) / (x E).
    """
    return math.sqrt(2 * ELECTRON_MASS_GEV * (1 - share) / (share * energy))


@inner
def radiate_photon(stack, n, energy, position, direction, cut):
    """Hard bremsstrahlung; returns the new `n` and the electron's energy."""
    if energy <= cut:
        return n, energy
    y = radiated_share(cut / energy)
    # Called as often as at complete screening; the surplus is turned down here.
    if np.random.random() > screening(y, energy):
        return n, energy
    away = rotated(direction, opening_angle(energy), random_azimuth())
    return push(stack, n, PHOTON, y * energy, position, away), (1 - y) * energy


@inner
def knock_on(stack, n, energy, position, direction, cut):
    """Put a knock-on electron on the stack; returns the new `n` and the energy that is left.

    The deflection of the faster electron is part of its multiple scattering.
    """
    if energy <= 2 * cut:
        return n, energy
    x = knock_on_share(cut / energy)
    away = rotated(direction, collision_angle(x, energy), random_azimuth())
    return push(stack, n, ELECTRON, x * energy, position, away), (1 - x) * energy


@inner
def annihilate(stack, n, energy, position, direction, cut):
    """A positron becomes two photons."""
    x = annihilation_share(energy)
    azimuth = random_azimuth()
    away = rotated(direction, collision_angle(1 - x, energy), azimuth)
    n = push(stack, n, PHOTON, (1 - x) * energy, position, away)
    if x * energy > cut:
        away = rotated(direction, collision_angle(x, energy), azimuth + math.pi)
        n = push(stack, n, PHOTON, x * energy, position, away)
    return n


@inner
def follow_electron(stack, n, kind, energy, position, direction, depth, world, steps, record):
    """Take an electron or positron to its end; returns the new number of particles on the stack.

    The path to the next hard process is drawn once, in mean free paths, and used up step by step; as the energy falls
    the rates change. The trap here: a step may not be shortened once its share of that path is used up, or the
    particle radiates too rarely the smaller the steps are. All limits therefore come first.
    """
    to_process = exponential()
    lowest = steps.cut_gev + ELECTRON_MASS_GEV
    while energy > lowest:
        gamma2 = (energy / ELECTRON_MASS_GEV) ** 2
        # threshold beta n = 1: gamma^2 = 1 / (1 - 1/n^2) ~ 1 / (2 (n - 1))
        if not steps.follow_dark and gamma2 * 2 * refractivity_at_depth(depth) < 1:
            break
        beta = math.sqrt(1 - 1 / gamma2)
        cut_share = steps.cut_gev / energy
        loss = collision_loss(energy) - knock_on_loss(cut_share) + soft_bremsstrahlung_loss(energy, steps.cut_gev)
        step = step_limit(beta * energy, beta, depth, steps, steps.max_radiation_lengths, MAX_STEP_M)
        # The last step ends where the cut is reached, a keV beyond for the sake of rounding.
        step = min(step, steps.max_energy_loss * energy / loss, (energy - lowest + 1e-6) / loss)
        radiation = hard_bremsstrahlung(cut_share) / RADIATION_LENGTH_G_CM2
        annihilation = annihilation_rate(energy) if kind == POSITRON else 0.0
        rate = radiation + annihilation + knock_on_rate(energy, cut_share)
        happens = rate * step >= to_process
        if happens:
            step = to_process / rate
        to_process -= rate * step

        alive, position, direction, depth = charged_step(
            kind, energy, loss, step, position, direction, depth, world, record
        )
        if not alive:
            break
        energy -= step * loss
        if not happens:
            continue
        if record.first_interaction_m[0] < 0:
            record.first_interaction_m[0] = position[2]
        to_process = exponential()
        choice = np.random.random() * rate
        if choice < annihilation:
            return annihilate(stack, n, energy, position, direction, steps.cut_gev)
        if choice < annihilation + radiation:
            n, energy = radiate_photon(stack, n, energy, position, direction, steps.cut_gev)
        else:
            n, energy = knock_on(stack, n, energy, position, direction, steps.cut_gev)
    return n
