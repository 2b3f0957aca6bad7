"""Particle codes, masses, lifetimes, and the particle stack."""

import math

import numpy as np

from pipeline.camera.showers.compilation import inner

PHOTON, ELECTRON, POSITRON, MU_MINUS, MU_PLUS = 0, 1, 2, 3, 4
PROTON, NEUTRON, PI_PLUS, PI_MINUS, K_PLUS, K_MINUS, K_LONG, K_SHORT = 5, 6, 7, 8, 9, 10, 11, 12
PI_ZERO, ETA = 13, 14

SPEED_OF_LIGHT_M_PER_NS = 0.299792458
ELECTRON_MASS_GEV = 0.51099895e-3
MUON_MASS_GEV = 0.1056584
PION_MASS_GEV = 0.1395704
PI_ZERO_MASS_GEV = 0.1349768

# Masses, charges and c tau: Particle Data Group (2024), Phys. Rev. D 110, 030001.
MASS_GEV = np.array(
    [0.0, ELECTRON_MASS_GEV, ELECTRON_MASS_GEV, MUON_MASS_GEV, MUON_MASS_GEV, 0.9382721, 0.9395654, PION_MASS_GEV,
     PION_MASS_GEV, 0.493677, 0.493677, 0.497611, 0.497611, PI_ZERO_MASS_GEV, 0.547862]
)  # fmt: skip
CHARGE = np.array([0.0, -1.0, 1.0, -1.0, 1.0, 1.0, 0.0, 1.0, -1.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0])
# Infinite: lives longer than any flight here (neutron), or is handled elsewhere (muon, pi0, eta).
C_TAU_M = np.array([np.inf] * 7 + [7.8045, 7.8045, 3.711, 3.711, 15.34, 0.026844] + [np.inf] * 2)

# Primary particles: name -> (what is followed, each with an equal share of the energy; id of sim_telarray and ctapipe's
# `true_shower_primary_id`: 0 gamma, 1 electron, 2 negative muon, 100 A + Z a nucleus). A nucleus is the superposition
# of its nucleons, independent of each other; its first interaction is the highest of theirs.
PRIMARIES = {
    "gamma": ((PHOTON,), 0),
    "electron": ((ELECTRON,), 1),
    "muon": ((MU_MINUS,), 2),
    "proton": ((PROTON,), 101),
    "helium": ((PROTON, PROTON, NEUTRON, NEUTRON), 402),
}

PARTICLE = np.dtype(
    [("kind", "i8"), ("energy", "f8"), ("x", "f8"), ("y", "f8"), ("z", "f8"), ("t", "f8"),
     ("ux", "f8"), ("uy", "f8"), ("uz", "f8")]
)  # fmt: skip
STACK_SIZE = 50_000  # last in, first out: a 300 TeV proton needs a few thousand


@inner
def push(stack, n, kind, energy, position, direction):
    """Put a particle on the stack of `n`; returns the new `n`.

    Energies are total [GeV], positions are (x, y, z, t) [m, ns], directions unit vectors.
    """
    if n >= stack.shape[0]:
        raise RuntimeError("the particle stack of the shower simulation is full")
    p = stack[n]
    p.kind = kind
    p.energy = energy
    p.x, p.y, p.z, p.t = position
    p.ux, p.uy, p.uz = direction
    return n + 1


@inner
def rotated(direction, polar, azimuth):
    """The unit vector at angle `polar` from `direction`, at `azimuth` around it [rad]."""
    ux, uy, uz = direction
    sin_polar, cos_polar = math.sin(polar), math.cos(polar)
    a, b = sin_polar * math.cos(azimuth), sin_polar * math.sin(azimuth)
    transverse = math.sqrt(ux * ux + uy * uy)
    if transverse < 1e-8:
        return a, b, math.copysign(1.0, uz) * cos_polar
    vx = ux * cos_polar + (ux * uz * a - uy * b) / transverse
    vy = uy * cos_polar + (uy * uz * a + ux * b) / transverse
    vz = uz * cos_polar - transverse * a
    # Thousands of rotations follow one another: keep the rounding from adding up.
    scale = 1 / math.sqrt(vx * vx + vy * vy + vz * vz)
    return vx * scale, vy * scale, vz * scale


@inner
def exponential():
    """A path or a time in units of its mean."""
    return -math.log(1.0 - np.random.random())


@inner
def random_azimuth():
    """An angle uniform in [0, 2 pi)."""
    return 2 * math.pi * np.random.random()
