"""What simulated showers cost: triggered images per CPU second, and CPU time per shower against energy.

    python benchmarks/bench_showers.py [--seconds S] [--seed SEED] [--only rate|energy] [--quick]

One Large-Sized Telescope at 12 places around each shower of an E^-2 spectrum: gammas of 20 GeV to 10 TeV within 300 m
and 1 deg, protons of 60 GeV to 30 TeV within 350 m and 3 deg. Then showers of one energy, followed with 20 telescopes
around each, without cameras. All figures are CPU seconds of one process: a busy machine falsifies them less than wall
time, but still by some 10 % through its caches.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.camera.dl1 import DL1File
from pipeline.camera.showers.generate import ShowerSimulator
from pipeline.config import Config, ShowerClass, ShowersConfig
from pipeline.stages.simulate_showers import simulate_showers

SPECTRA = {
    "gamma": {"energy_min_tev": 0.02, "energy_max_tev": 10.0, "scatter_radius_m": 300.0, "viewcone_deg": 1.0},
    "proton": {"energy_min_tev": 0.06, "energy_max_tev": 30.0, "scatter_radius_m": 350.0, "viewcone_deg": 3.0},
}
USES_OF_SPECTRUM = 12
ENERGIES_TEV = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
USES_OF_ENERGY = 20
SHOWERS_AT_ONCE = 20
MIN_SHOWERS = 8


def one_telescope(uses: int, showers_per_run: int = 1_000_000, **thrown: object) -> ShowersConfig:
    shower_class = ShowerClass(runs=1, showers_per_run=showers_per_run, **thrown)
    return ShowersConfig(telescope="LST", positions_per_shower=uses, classes=(shower_class,))


def batches(first: int, size: int) -> Iterator[range]:
    return (range(start, start + size) for start in itertools.count(first, size))


def simulation_rate(particle: str, seconds: float, seed: int) -> tuple[int, int, float]:
    """Showers, triggered images and CPU seconds, without cleaning, parameters and file."""
    simulator = ShowerSimulator(one_telescope(USES_OF_SPECTRUM, particle=particle, **SPECTRA[particle]), 1, seed)
    simulator.showers(range(1, 4))  # compiles, or loads what is compiled
    n_showers = n_images = 0
    start = time.process_time()
    for numbers in batches(4, SHOWERS_AT_ONCE):
        n_images += sum(map(len, simulator.showers(numbers).chunks))
        n_showers += len(numbers)
        if time.process_time() - start > seconds:
            return n_showers, n_images, time.process_time() - start
    raise AssertionError("unreachable")


def file_rate(particle: str, n_showers: int, seed: int, folder: Path) -> tuple[int, float, int]:
    """Images, CPU seconds and bytes of `n_showers` as `lightpool simulate showers` does them, parameters included."""
    out = folder / f"{particle}.dl1.h5"
    for showers in (2, n_showers):  # the first compiles, and imports PyTables
        cfg = Config(showers=one_telescope(USES_OF_SPECTRUM, showers, particle=particle, **SPECTRA[particle]))
        start = time.process_time()
        simulate_showers(cfg, 1, out, seed=seed, force=True)
        used = time.process_time() - start
    with DL1File(out) as file:
        return file.n_images, used, out.stat().st_size


def rates(seconds: float, seed: int) -> Table:
    table = Table(
        "particle", "output", "showers", "images", "CPU s", "images / CPU s", "kB / image",
        title=f"One LST, {USES_OF_SPECTRUM} places per shower",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for particle in SPECTRA:
            n_showers, n_images, used = simulation_rate(particle, seconds, seed)
            table.add_row(particle, "none", f"{n_showers}", f"{n_images}", f"{used:.1f}", f"{n_images / used:.0f}", "")
            n_images, used, n_bytes = file_rate(particle, n_showers, seed, Path(folder))
            table.add_row(
                particle, "DL1", f"{n_showers}", f"{n_images}", f"{used:.1f}", f"{n_images / used:.0f}",
                f"{n_bytes / n_images / 1e3:.1f}",
            )  # fmt: skip
    return table


def shower_cost(particle: str, energy_tev: float, seconds: float, seed: int) -> np.ndarray:
    """CPU seconds of single showers of one energy."""
    thrown = SPECTRA[particle] | {"energy_min_tev": energy_tev * (1 - 1e-9), "energy_max_tev": energy_tev}
    simulator = ShowerSimulator(one_telescope(USES_OF_ENERGY, particle=particle, **thrown), 1, seed)
    simulator.follow(simulator.primary(1))
    costs: list[float] = []
    for number in itertools.count(2):
        primary = simulator.primary(number)
        start = time.process_time()
        simulator.follow(primary)
        costs.append(time.process_time() - start)
        if sum(costs) > seconds and len(costs) >= MIN_SHOWERS:
            return np.array(costs)
    raise AssertionError("unreachable")


def costs(seconds: float, seed: int, energies_tev: Sequence[float]) -> Table:
    table = Table(
        "particle", *(f"{energy:g} TeV" for energy in energies_tev), "exponent",
        title=f"CPU ms per shower with {USES_OF_ENERGY} telescopes; below, per TeV",
    )  # fmt: skip
    for particle in SPECTRA:
        samples = [shower_cost(particle, energy, seconds, seed) for energy in energies_tev]
        mean_ms = np.array([1e3 * sample.mean() for sample in samples])
        error = [sample.std(ddof=1) / np.sqrt(len(sample)) / sample.mean() for sample in samples]
        # Relative errors are errors of the logarithm
        exponent = np.polyfit(np.log(energies_tev), np.log(mean_ms), 1, w=1 / np.maximum(error, 0.02))[0]
        cells = [f"{ms:.3g} +- {ms * share:.2g}" for ms, share in zip(mean_ms, error, strict=True)]
        table.add_row(particle, *cells, f"{exponent:.2f}")
        table.add_row("", *(f"{ms / energy:.3g}" for ms, energy in zip(mean_ms, energies_tev, strict=True)), "")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="CPU seconds per spectrum, a tenth per energy")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("rate", "energy"))
    parser.add_argument("--quick", action="store_true", help="few showers of low energy: does it run?")
    arguments = parser.parse_args()
    console = Console(width=120)
    seconds, energies_tev = (0.1, ENERGIES_TEV[:2]) if arguments.quick else (arguments.seconds, ENERGIES_TEV)
    if arguments.only != "energy":
        console.print(rates(seconds, arguments.seed))
    if arguments.only != "rate":
        console.print(costs(0.1 * seconds, arguments.seed, energies_tev))


if __name__ == "__main__":
    main()
