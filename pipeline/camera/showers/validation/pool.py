"""Photons per area against the distance from the shower axis, compared with CORSIKA's photon files."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.camera.corsika import read_showers
from pipeline.camera.showers.validation.light import (
    GAMMA_FILES,
    PUBLISHED,
    Conditions,
    conditions_of,
    inclined_gamma,
    photon_world,
    simulate,
)
from pipeline.camera.showers.validation.rows import Reference, Row, compared

VERTICAL_FILE = "camera/corsika/pe_3_gammas_reuse_5.dat"

POOL_RADIUS_M = 12.5
POOL_AZIMUTHS = 8


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
        The brightest ring is between these distances from the axis.
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
