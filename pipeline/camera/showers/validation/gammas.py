"""Development and total light of gamma showers, against CORSIKA's photon files or the numbers taken from them."""

import math
from pathlib import Path

import numpy as np

from pipeline.camera.corsika import read_showers
from pipeline.camera.showers.cherenkov import PROFILE_STEP_G_CM2
from pipeline.camera.showers.tracks import Steps
from pipeline.camera.showers.validation.light import (
    GAMMA_FILES,
    PUBLISHED,
    conditions_of,
    inclined_gamma,
    photon_world,
    simulate,
)
from pipeline.camera.showers.validation.rows import Reference, Row, compared, mean_and_error


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
        shape = development(profiles, tables[0].step_g_cm2)
        for key, quantity in (("particles", "sum"), ("maximum", "maximum"), ("depth", "depth")):
            references[f"{key}_{energy}"] = Reference(*shape[quantity], source)
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
        shape = development(shown.particles, PROFILE_STEP_G_CM2)
        words = f"{energy} GeV gamma, zenith 40 deg: "
        if f"particles_{energy}" in references:
            rows += [
                compared(f"particles_{energy}", words + "sum of N(e > 20 MeV) x 20 g/cm2", "g/cm2",
                         references[f"particles_{energy}"], shape["sum"]),
                compared(f"maximum_{energy}", words + "largest N(e)", "", references[f"maximum_{energy}"],
                         shape["maximum"]),
                compared(f"depth_{energy}", words + "vertical depth of it", "g/cm2", references[f"depth_{energy}"],
                         shape["depth"]),
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
