"""Light and particle numbers of showers, against CORSIKA's photon files or the numbers taken from them.

Photons are counted as they are radiated, between two wavelengths and with no absorption, as in those files. CORSIKA
made them with atmospheres of its own (winter profiles of the two sites): at equal depth their density differs by up to
8 %, which changes the light by less than 1 %.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.camera.corsika import Run, Shower, read_showers
from pipeline.camera.showers.atmosphere import depth_at
from pipeline.camera.showers.cherenkov import (
    PROFILE_STEP_G_CM2,
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
from pipeline.camera.showers.validation.rows import Reference, Row, compared, mean_and_error

GAMMA_FILES = {
    100: "camera/corsika/st_v036_gamma_run7_za40_South_lsts_700.corsika.zst",
    50: "camera/corsika/st_v032_gamma_run7_za40_South_lsts_602.corsika.zst",
}
VERTICAL_FILE = "camera/corsika/pe_3_gammas_reuse_5.dat"
PROTON_FILE = "camera/corsika/sth_run1_proton_za20_North_1LST.corsika.zst"
PROTON_BINS_GEV = (10, 20, 40, 100, 300, 3000)

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

POOL_RADIUS_M = 12.5
POOL_AZIMUTHS = 8
_ROOM_RAYS = 1 << 20


@dataclass(frozen=True)
class Conditions:
    """What a shower is thrown into.

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


# ---- development of gammas -------------------------------------------------------------------------------------------
def development(profiles: np.ndarray, step_g_cm2: float) -> dict[str, tuple[float, float]]:
    """Sum, height and depth of the maximum of a mean profile, each with its error.

    Parameters
    ----------
    profiles : ndarray, shape (n, n_levels)
        Particles of each shower at levels every `step_g_cm2` from 0.

    Returns
    -------
    dict
        ``sum`` [g/cm2], ``maximum``, ``depth`` [g/cm2]; errors of the last two by leaving out one shower after the
        other (jackknife).
    """

    def peak(mean: np.ndarray) -> tuple[float, float]:
        # A parabola through five levels: fluctuations of single ones do not move it.
        i = int(np.clip(np.argmax(mean), 2, len(mean) - 3))
        a, b, c = np.polyfit(np.arange(-2, 3), mean[i - 2 : i + 3], 2)
        shift = -b / (2 * a) if a < 0 else 0.0
        return c - b * b / (4 * a) if a < 0 else float(mean[i]), step_g_cm2 * (i + shift)

    n = len(profiles)
    total = profiles.sum(axis=0)
    maximum, depth = peak(total / n)
    partial = np.array([peak((total - profile) / (n - 1)) for profile in profiles])
    errors = np.sqrt((n - 1) / n * ((partial - partial.mean(axis=0)) ** 2).sum(axis=0))
    return {
        "sum": mean_and_error(step_g_cm2 * profiles.sum(axis=1)),
        "maximum": (float(maximum), float(errors[0])),
        "depth": (float(depth), float(errors[1])),
    }


def check_gammas(n_showers: int, data: Path | None) -> tuple[list[Row], dict]:
    """Development of 100 GeV gammas, and light of 100 and 50 GeV, 40 deg."""
    references, curves = dict(PUBLISHED), {}
    for energy, name in GAMMA_FILES.items():
        if data is None:
            continue
        showers = list(read_showers(data / name))
        run, n = showers[0][0], len(showers)
        source = f"CORSIKA, {n} showers of {Path(name).name}"
        tables = [shower.longitudinal for _, shower in showers]
        profiles = np.array([table.electrons + table.positrons for table in tables])
        found = development(profiles, tables[0].step_g_cm2)
        for key, quantity in (("particles", "sum"), ("maximum", "maximum"), ("depth", "depth")):
            references[f"{key}_{energy}"] = Reference(*found[quantity], source)
        light = np.array([table.photons.sum() for table in tables])
        references[f"light_{energy}"] = Reference(*mean_and_error(light), source)
        curves[f"reference_{energy}"] = {
            "level_g_cm2": tables[0].level_g_cm2,
            "particles": profiles.mean(axis=0),
            "error": profiles.std(axis=0, ddof=1) / math.sqrt(n),
            "model": f"CORSIKA ({run.high_energy_model})",
        }
    rows = []
    for energy in GAMMA_FILES:
        conditions = inclined_gamma(float(energy))
        if data is not None:
            conditions = conditions_of(*next(read_showers(data / GAMMA_FILES[energy])))
        shown = simulate(conditions, photon_world(conditions), range(n_showers), Steps(follow_dark=True))
        found = development(shown.particles, PROFILE_STEP_G_CM2)
        words = f"{energy} GeV gamma, zenith 40 deg: "
        if f"particles_{energy}" in references:
            rows += [
                compared(f"particles_{energy}", words + "sum of N(e > 20 MeV) x 20 g/cm2", "g/cm2",
                         references[f"particles_{energy}"], found["sum"]),
                compared(f"maximum_{energy}", words + "largest N(e)", "", references[f"maximum_{energy}"],
                         found["maximum"]),
                compared(f"depth_{energy}", words + "vertical depth of it", "g/cm2", references[f"depth_{energy}"],
                         found["depth"]),
            ]  # fmt: skip
        rows.append(
            compared(f"light_{energy}", words + "photons 240-1000 nm", "", references[f"light_{energy}"], shown.light)
        )
        curves[f"ours_{energy}"] = {
            "level_g_cm2": PROFILE_STEP_G_CM2 * np.arange(shown.particles.shape[1]),
            "particles": shown.particles.mean(axis=0),
            "error": shown.particles.std(axis=0, ddof=1) / math.sqrt(n_showers),
        }
    return rows, {"profile": curves}


# ---- light pool ------------------------------------------------------------------------------------------------------
def rings(radii_m: np.ndarray, direction: tuple[float, float, float]) -> np.ndarray:
    """Places at ground level at given distances from the shower axis: shape (len(radii_m), POOL_AZIMUTHS, 3)."""
    ux, uy, uz = direction
    zenith, azimuth = math.acos(-uz), math.atan2(uy, ux)
    along = np.array([math.cos(zenith) * math.cos(azimuth), math.cos(zenith) * math.sin(azimuth), math.sin(zenith)])
    level = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
    angle = 2 * math.pi / POOL_AZIMUTHS * np.arange(POOL_AZIMUTHS)
    circle = np.cos(angle)[:, None] * along + np.sin(angle)[:, None] * level
    places = np.asarray(radii_m, float)[:, None, None] * circle
    return places - (places[..., 2:] / uz) * np.array(direction)


@dataclass(frozen=True)
class Pool:
    """A light pool that is compared: gammas of one energy and zenith angle.

    Attributes
    ----------
    file : str
        Photon file with telescopes at single places.
    hump_m : tuple of 2 floats
        The brightest ring lies between these distances from the axis.
    """

    file: str
    words: str
    conditions: Conditions
    hump_m: tuple[float, float]


POOLS = {
    "pool_50": Pool(GAMMA_FILES[50], "50 GeV gammas, zenith 40 deg", inclined_gamma(50.0), (130, 175)),
    "pool_100": Pool(GAMMA_FILES[100], "100 GeV gammas, zenith 40 deg", inclined_gamma(100.0), (130, 175)),
    "pool_vertical": Pool(
        VERTICAL_FILE, "150-180 GeV gammas, zenith 0",
        replace(inclined_gamma(166.0, 0.0), wavelength_nm=(290.0, 700.0), observation_height_m=2200.0), (90, 130),
    ),
}  # fmt: skip


def check_pool(n_showers: int, data: Path | None) -> tuple[list[Row], dict]:
    """Photons per area against impact, for gammas from 40 deg and from the zenith."""
    rows, curves = [], {}
    radii = np.arange(10.0, 400.0, 10.0)
    for name, pool in POOLS.items():
        conditions = pool.conditions
        places = rings(radii, conditions.direction).reshape(-1, 3)
        photons = simulate(conditions, photon_world(conditions, places, POOL_RADIUS_M), range(n_showers)).photons
        density = photons.reshape(n_showers, len(radii), POOL_AZIMUTHS).mean(axis=2)
        density *= 100 / (math.pi * POOL_RADIUS_M**2 * conditions.energy_gev)
        mean, spread = density.mean(axis=0), density.std(axis=0, ddof=1)
        curves[name] = {
            "words": pool.words, "wavelength_nm": conditions.wavelength_nm, "impact_m": radii, "density": mean,
            "error": spread / math.sqrt(n_showers), "spread": spread,
        }  # fmt: skip
        if data is None and name == "pool_50":
            inside = radii <= 130
            flat = density[:, inside] @ radii[inside] / radii[inside].sum()  # mean over the area
            words = f"{pool.words}: photons per m2 and 100 GeV within 130 m"
            rows.append(compared(name, words, "1/m2", PUBLISHED[name], flat))
        if data is not None:
            row, curves[name]["places"] = _same_places(name, data / pool.file, pool.words, n_showers)
            rows.append(row)
        smooth = np.convolve(mean, np.ones(3) / 3, mode="same")
        beyond = (radii > 60) & (radii < 250)
        brightest = float(radii[beyond][np.argmax(smooth[beyond])])
        words = f"{pool.words}: impact of the brightest ring"
        source = "edge of the light pool at 2.1 km"
        low, high = pool.hump_m
        rows.append(Row(name.replace("pool", "hump"), words, "m", brightest, 5.0, source, low=low, high=high))
    return rows, {"pool": curves}


def _same_places(name: str, path: Path, words: str, n_showers: int) -> tuple[Row, dict]:
    """Photons on the very telescopes of a file, all of them together; and each of them for the figure.

    The error of the reference is the spread of the simulated showers: the file's are too few to know it.
    """
    impact, theirs, ours, spread = [], [], [], []
    showers = list(read_showers(path))
    n = max(n_showers // len(showers), 4)
    for number, (run, shower) in enumerate(showers):
        conditions = conditions_of(run, shower)
        places = np.concatenate([use.telescopes_m for use in shower.uses])
        world = photon_world(conditions, places, float(run.radius_m[0]))
        area = math.pi * run.radius_m[0] ** 2 * shower.energy_gev / 100
        impact.append(np.concatenate([shower.impact_m(use) for use in shower.uses]))
        theirs.append(np.concatenate([use.photons for use in shower.uses]) / area)
        seeds = range(number * n, (number + 1) * n)
        ours.append(simulate(conditions, world, seeds).photons / area)
        spread.append(ours[-1].mean(axis=1).std(ddof=1))
    error = math.sqrt(np.mean(np.square(spread)) / len(showers))
    largest = max(distances.max() for distances in impact)
    row = compared(
        name, f"{words}: photons per m2 and 100 GeV at {sum(map(len, impact))} places within {largest:.0f} m", "1/m2",
        Reference(float(np.mean([d.mean() for d in theirs])), error, f"CORSIKA, {len(showers)} showers of {path.name}"),
        (float(np.mean([densities.mean() for densities in ours])), error / math.sqrt(n)),
    )  # fmt: skip
    points = {
        "impact_m": np.concatenate(impact),
        "reference": np.concatenate(theirs),
        "ours": np.concatenate([densities.mean(axis=0) for densities in ours]),
    }
    return row, points


# ---- protons ---------------------------------------------------------------------------------------------------------
PROTON_EXPLANATION = (
    "Not resolved. The reference has 13 showers, and its light per energy does not grow from 26 to 152 GeV, as that of "
    "hadronic showers should; it was made with QGSJET-II above 80 GeV, this simulation uses Sibyll 2.3d, and models "
    "differ most at 100 GeV (Parsons & Schoorlemmer 2019, Phys. Rev. D 100, 023010). prod3b, also made with QGSJET-II, "
    "leans the same way."
)
PROTON_BOUND_PERCENT = 45.0


def check_protons(n_repeats: int, data: Path | None) -> tuple[list[Row], dict]:
    """Light per energy of protons: the very energies and directions of the file, each `n_repeats` times.

    The 4000 events of the file are 200 showers with 20 uses each. The error of its mean is taken from the spread of the
    simulated showers at the same energies, which is known much better than that of a dozen; under the hypothesis that
    is tested, that both are the same, it is the right one.
    """
    if data is None:
        return [], {}
    showers = list(read_showers(data / PROTON_FILE))
    energy = np.array([shower.energy_gev for _, shower in showers])
    theirs = np.array([shower.longitudinal.photons.sum() for _, shower in showers]) / energy
    ours = np.empty((n_repeats, len(showers)))
    for i, (run, shower) in enumerate(showers):
        conditions = conditions_of(run, shower)
        seeds = range(i * n_repeats, (i + 1) * n_repeats)
        ours[:, i] = simulate(conditions, photon_world(conditions), seeds).light / shower.energy_gev
    rows, points = [], []
    for low, high in pairwise(PROTON_BINS_GEV):
        chosen = (energy >= low) & (energy < high)
        n = int(chosen.sum())
        variance = ours[:, chosen].var(axis=0, ddof=1)
        reference_error = math.sqrt(variance.sum()) / n
        source = f"CORSIKA, {n} showers of {Path(PROTON_FILE).name}"
        words = f"{low}-{high} GeV" if high != PROTON_BINS_GEV[-1] else f"above {low} GeV"
        bounded = {}
        if low == 100:
            bounded = {"explanation": PROTON_EXPLANATION, "bound_percent": PROTON_BOUND_PERCENT}
        rows.append(
            compared(
                f"proton_light_{low}", f"protons {words}, zenith 20 deg: photons 240-700 nm per energy", "1/GeV",
                Reference(float(theirs[chosen].mean()), reference_error, source),
                (float(ours[:, chosen].mean()), reference_error / math.sqrt(n_repeats)),
                **bounded,
            )
        )  # fmt: skip
        points.append(
            [float(np.exp(np.log(energy[chosen]).mean())), float(theirs[chosen].mean()), reference_error,
             float(ours[:, chosen].mean()), rows[-1].error]
        )  # fmt: skip
    energies, reference, reference_error, mean, error = np.transpose(points)
    curve = {
        "energy_gev": energies, "reference": reference, "reference_error": reference_error,
        "ours": mean, "ours_error": error, "single_energy_gev": energy, "single_reference": theirs,
    }  # fmt: skip
    return rows, {"protons": curve}


# ---- steps and time --------------------------------------------------------------------------------------------------
def check_steps(n_showers: int, data: Path | None) -> tuple[list[Row], dict]:
    """Light with all steps half as long."""
    conditions = inclined_gamma(100.0)
    world, steps = photon_world(conditions), Steps()
    halved = replace_steps(steps, 0.5)
    long = simulate(conditions, world, range(n_showers), steps).light
    short = simulate(conditions, world, range(n_showers, 2 * n_showers), halved).light
    ratio = float(short.mean() / long.mean())
    error = ratio * math.hypot(*(mean_and_error(light)[1] / light.mean() for light in (long, short)))
    words = "100 GeV gamma: light with steps half as long, relative"
    return [Row("steps", words, "", ratio, error, "independence of the step", low=0.99, high=1.01)], {}


def replace_steps(steps: Steps, factor: float) -> Steps:
    """Steps `factor` times as long."""
    return steps._replace(
        max_radiation_lengths=factor * steps.max_radiation_lengths,
        max_scatter_rad=factor * steps.max_scatter_rad,
        max_energy_loss=factor * steps.max_energy_loss,
    )


def check_time(n_showers: int, data: Path | None) -> tuple[list[Row], dict]:
    """CPU time per shower seen by 12 telescopes within 300 m, against energy."""
    curves = {}
    angle, radius = 2.4 * np.arange(12), 300 * np.sqrt((np.arange(12) + 0.5) / 12)  # even over the disc
    places = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), np.full(12, 16.0)])
    for name, primary in (("gamma", PHOTON), ("proton", PROTON)):
        energies = np.geomspace(30, 10_000, 6)
        seconds = []
        for energy in energies:
            conditions = replace(inclined_gamma(float(energy), 20.0), primary=primary, wavelength_nm=(300.0, 330.0))
            world = photon_world(conditions, places, 11.0)
            n = max(4, round(n_showers * 100 / energy))
            simulate(conditions, world, [0])  # compiled before the clock runs
            seconds.append(simulate(conditions, world, range(1, n + 1)).cpu_s)
        curves[name] = {"energy_gev": energies, "cpu_s": np.array(seconds)}
    slope = float(np.polyfit(np.log(curves["gamma"]["energy_gev"]), np.log(curves["gamma"]["cpu_s"]), 1)[0])
    words = "power of the energy that the time of a gamma shower follows"
    return [Row("time", words, "", slope, 0.0, "linear", low=0.85, high=1.1)], {"time": curves}
