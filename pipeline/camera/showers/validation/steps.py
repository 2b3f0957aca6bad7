"""What must not depend on the length of steps, and the time that showers take."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.camera.showers.particles import PHOTON, PROTON
from pipeline.camera.showers.tracks import Steps
from pipeline.camera.showers.validation.light import inclined_gamma, photon_world, simulate
from pipeline.camera.showers.validation.rows import Row, mean_and_error


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
