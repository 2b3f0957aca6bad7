"""Showers whose photons and particles are counted as in CORSIKA's photon files, and the numbers taken from those.

Photons are counted as they are radiated, between two wavelengths and with no absorption, as in those files. CORSIKA
made them with atmospheres of its own (winter profiles of the two sites): at equal depth their density differs by up to
8 %, which changes the light by less than 1 %.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.camera.corsika import Run, Shower
from pipeline.camera.showers.atmosphere import depth_at
from pipeline.camera.showers.cherenkov import (
    Record,
    World,
    new_record,
    place_telescopes,
    yield_table,
)
from pipeline.camera.showers.interactions import load_library
from pipeline.camera.showers.particles import PHOTON, PROTON
from pipeline.camera.showers.tracks import Steps
from pipeline.camera.showers.transport import follow_shower
from pipeline.camera.showers.validation.rows import Reference

GAMMA_FILES = {
    100: "camera/corsika/st_v036_gamma_run7_za40_South_lsts_700.corsika.zst",
    50: "camera/corsika/st_v032_gamma_run7_za40_South_lsts_602.corsika.zst",
}

_PUBLISHED = "CORSIKA 7.8, {} showers of the Cherenkov Telescope Array's test productions"
# Means of GAMMA_FILES and their errors: gammas of 100 and 50 GeV from 40 deg, 2147 m, taken as `check_gammas` and
# `check_pool` take them.
PUBLISHED = {
    "particles_100": Reference(16690, 80, _PUBLISHED.format(20)),
    "maximum_100": Reference(70.8, 5.4, _PUBLISHED.format(20)),
    "depth_100": Reference(184, 13, _PUBLISHED.format(20)),
    "light_100": Reference(8.36e6, 0.09e6, _PUBLISHED.format(20)),
    "light_50": Reference(4.12e6, 0.06e6, _PUBLISHED.format(10)),
    "pool_50": Reference(9.4, 1.0, _PUBLISHED.format(10)),
}

_ROOM_RAYS = 1 << 20


@dataclass(frozen=True)
class Conditions:
    """Conditions under which a shower is simulated.

    Attributes
    ----------
    primary : int
        Stack code.
    energy_gev : float
    direction : tuple of 3 floats
        Of flight (north, west, up).
    field_t : tuple of 3 floats
    observation_height_m : float
    wavelength_nm : tuple of 2 floats
        Photons are counted between these.
    """

    primary: int
    energy_gev: float
    direction: tuple[float, float, float]
    field_t: tuple[float, float, float]
    observation_height_m: float
    wavelength_nm: tuple[float, float]


def inclined_gamma(energy_gev: float, zenith_deg: float = 40.0) -> Conditions:
    """A gamma as in `GAMMA_FILES`, or from another zenith angle."""
    zenith = math.radians(zenith_deg)
    return Conditions(
        primary=PHOTON,
        energy_gev=energy_gev,
        direction=(math.sin(zenith), 0.0, -math.cos(zenith)),
        field_t=(20.55e-6, 0.0, 9.37e-6),
        observation_height_m=2147.0,
        wavelength_nm=(240.0, 1000.0),
    )


def conditions_of(run: Run, shower: Shower) -> Conditions:
    """Those of a shower in a photon file."""
    return Conditions(
        primary=PROTON if shower.primary == 14 else PHOTON,
        energy_gev=shower.energy_gev,
        direction=shower.direction,
        field_t=shower.field_t,
        observation_height_m=run.observation_height_m,
        wavelength_nm=run.wavelength_nm,
    )


def photon_world(conditions: Conditions, telescopes_m: np.ndarray | None = None, radius_m: float = 1.0) -> World:
    """A world that counts photons on spheres of `radius_m` at `telescopes_m` (n, 3), relative to the core at ground."""
    height = conditions.observation_height_m
    table, step = yield_table(height, 0.0, np.array(conditions.wavelength_nm), np.ones(2), absorption=False)
    world = World(
        observation_height_m=height,
        observation_depth_g_cm2=float(depth_at(height)),
        field_t=conditions.field_t,
        pointing=tuple(-np.array(conditions.direction)),
        yield_per_m=table[None],
        yield_step_m=step,
        sphere_radius_m=np.array([radius_m]),
        cos_field_of_view=np.array([-1.0]),
    )
    return world if telescopes_m is None else place_telescopes(world, telescopes_m + np.array([0.0, 0.0, height]))


@dataclass(frozen=True)
class Showers:
    """What was counted in showers of one kind.

    Attributes
    ----------
    light : ndarray, shape (n,)
        Photons radiated in each.
    particles : ndarray, shape (n, n_levels)
        Electrons above 20 MeV, and muons, that cross each level, every 20 g/cm2 from 0.
    photons : ndarray, shape (n, n_telescopes)
        On each sphere.
    cpu_s : float
        CPU time per shower.
    """

    light: np.ndarray
    particles: np.ndarray
    photons: np.ndarray
    cpu_s: float


def follow(conditions: Conditions, world: World, seed: int, steps: Steps, record: Record) -> Record:
    """Follow one shower; the record is emptied before."""
    record.n_rays[0], record.first_interaction_m[0] = 0, -1.0
    record.profile[:] = 0
    follow_shower(
        conditions.primary, conditions.energy_gev, conditions.direction, world, load_library(), steps, seed, record
    )
    if record.n_rays[0] > len(record.rays):
        return follow(conditions, world, seed, steps, new_record(int(1.2 * record.n_rays[0])))
    return record


def simulate(conditions: Conditions, world: World, seeds: Sequence[int], steps: Steps | None = None) -> Showers:
    """Follow showers, one for each seed. Electrons are counted in the dark, too, if the `steps` follow them there."""
    steps = steps or Steps()
    record = new_record(_ROOM_RAYS if world.telescopes_m.size else 1)
    light, particles, photons = [], [], []
    began = time.process_time()
    for seed in seeds:
        record = follow(conditions, world, seed, steps, record)
        light.append(record.profile[0].sum())
        mean = record.profile[1]
        particles.append(0.5 * (np.append(0, mean[:-1]) + mean))  # from means between levels to levels
        telescope = record.rays["telescope"][: record.n_rays[0]]
        photons.append(np.bincount(telescope, minlength=world.telescopes_m.shape[1]))
    cpu_s = (time.process_time() - began) / len(seeds)
    return Showers(np.array(light), np.array(particles), np.array(photons), cpu_s)
