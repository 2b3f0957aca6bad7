"""The loop over the particle stack: one shower, from its primary to the rays that reach the telescopes."""

import numpy as np

from pipeline.camera.showers.atmosphere import depth_at
from pipeline.camera.showers.compilation import compiled
from pipeline.camera.showers.electromagnetic import follow_electron, follow_photon
from pipeline.camera.showers.hadronic import decay, follow_hadron
from pipeline.camera.showers.muons import follow_muon
from pipeline.camera.showers.particles import (
    ETA,
    MU_MINUS,
    MU_PLUS,
    PARTICLE,
    PHOTON,
    PI_ZERO,
    POSITRON,
    SPEED_OF_LIGHT_M_PER_NS,
    STACK_SIZE,
    push,
)
from pipeline.camera.showers.tracks import STEEPEST


@compiled
def follow_shower(primary, energy_gev, direction, world, library, steps, seed, record):
    """Simulate one shower.

    Parameters
    ----------
    primary : int
        Stack code of the primary particle.
    energy_gev : float
        Its total energy [GeV].
    direction : tuple of 3 floats
        Direction of flight. The axis passes the core: x = y = 0 at the observation level.
    world : World
    library : Library
        Hadronic interactions.
    steps : Steps
    seed : int
        0 to 2^32 - 1. Seeds the generator of compiled code: the shower depends on nothing else.
    record : Record
        Filled in place.
    """
    np.random.seed(seed)
    stack = np.empty(STACK_SIZE, PARTICLE)
    path = (world.start_height_m - world.observation_height_m) / -direction[2]
    start = (
        -direction[0] * path,
        -direction[1] * path,
        world.start_height_m,
        -path / SPEED_OF_LIGHT_M_PER_NS,
    )
    n = push(stack, 0, primary, energy_gev, start, direction)
    while n > 0:
        n -= 1
        p = stack[n]
        kind, energy = p.kind, p.energy
        position, direction = (p.x, p.y, p.z, p.t), (p.ux, p.uy, p.uz)
        if direction[2] > -STEEPEST:
            continue
        depth = depth_at(position[2])
        if kind == PHOTON:
            n = follow_photon(stack, n, energy, position, direction, depth, world, library, steps, record)
        elif kind <= POSITRON:
            n = follow_electron(stack, n, kind, energy, position, direction, depth, world, steps, record)
        elif kind in (MU_MINUS, MU_PLUS):
            n = follow_muon(stack, n, kind, energy, position, direction, depth, world, steps, record)
        elif kind in (PI_ZERO, ETA):
            n = decay(stack, n, kind, energy, position, direction)
        else:
            n = follow_hadron(stack, n, kind, energy, position, direction, depth, world, library, record)
