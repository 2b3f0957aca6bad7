"""Make the interaction library with chromo: run by hand, never by the pipeline.

    pip install chromo
    python -m pipeline.camera.showers.make_interaction_library pipeline/data/interactions.npz

Deterministic for one version of chromo; eleven CPU minutes. Sibyll and UrQMD are programs of their authors with terms
of use of their own: cite Riehn et al. (2020), Bass et al. (1998), Bleicher et al. (1999) and Dembinski et al. (2023),
as the file states.
"""

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

PROJECTILES = ("p", "pi+", "K+")
NITROGEN = (14, 7)  # mass number, charge
# The models meet at 80 GeV, where each has a node: below it only UrQMD is used, as in CORSIKA, above it only Sibyll,
# which is not meant for less than 10 GeV in the centre of mass.
URQMD_GEV = (2.5, 4.0, 7.0, 13.0, 25.0, 48.0, 80.0)
SIBYLL_GEV = (80.0, 170.0, 400.0, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5)
MIN_KINETIC_GEV = 0.15
NUCLEON_MASS_GEV = 0.94
CITATION = (
    "Sibyll 2.3d: Riehn et al. 2020, Phys. Rev. D 102, 063002. "
    "UrQMD 3.4: Bass et al. 1998, Prog. Part. Nucl. Phys. 41, 255; Bleicher et al. 1999, J. Phys. G 25, 1859. "
    "chromo: Dembinski, Fedynitch & Prosekin 2023, PoS(ICRC2023) 189."
)

# Monte Carlo particle numbers -> stack codes (particles.py). Strange baryons pass as the nucleon they decay to most.
CODES = {
    22: 0, 11: 1, -11: 2, 13: 3, -13: 4, 2212: 5, -2212: 5, 2112: 6, -2112: 6, 211: 7, -211: 8, 321: 9, -321: 10,
    130: 11, 310: 12, 111: 13, 221: 14, 3122: 6, -3122: 6, 3222: 5, -3222: 5, 3112: 6, -3112: 6, 3212: 6, -3212: 6,
    3322: 6, -3322: 6, 3312: 6, -3312: 6, 3334: 6, -3334: 6,
}  # fmt: skip
BARYON_CODES = (5, 6)
LIGHT_CODES = (0, 1, 2, 13, 14)  # photons, electrons, pi0, eta: what becomes an electromagnetic shower
OVERSAMPLING = {"UrQMD34": 10, "Sibyll23d": 30}  # what takes a few minutes


def _forward_secondaries(event: Any) -> np.ndarray:
    """Stack code and momentum of the secondaries worth following: shape (n, 4)."""
    code = np.array([CODES.get(int(pid), -1) for pid in event.pid])
    kinetic = event.en - np.where(np.isin(code, BARYON_CODES), NUCLEON_MASS_GEV, 0.0)
    keep = (code >= 0) & (event.pz > 0) & (kinetic > MIN_KINETIC_GEV)
    return np.column_stack([code, event.px, event.py, event.pz])[keep]


def _events(
    generator: Any, kinematics: Any, n_events: int, oversampling: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Final states that represent a larger sample.

    The light of a proton shower follows the energy that goes into photons and neutral mesons, which differs by its own
    size from one interaction to the next: 300 of them give its mean to 5 %. So `oversampling` times as many are made,
    put in order of that energy, and one of as many neighbours is kept: a stratified sample, with the mean and the
    spread of all.
    """
    generator.kinematics = kinematics
    states = [_forward_secondaries(event.final_state()) for event in generator(oversampling * n_events)]
    states.sort(key=_light_gev)
    for first in range(0, len(states), oversampling):
        yield states[first + rng.integers(oversampling)]


def _light_gev(secondaries: np.ndarray) -> float:
    """Momentum of the secondaries that become electromagnetic showers, added up."""
    chosen = secondaries[np.isin(secondaries[:, 0], LIGHT_CODES)]
    return float(np.linalg.norm(chosen[:, 1:], axis=1).sum())


def make_library(n_events: int, seed: int) -> dict[str, np.ndarray]:
    """Sample `n_events` final states per projectile and energy; the arrays of the file."""
    from chromo.constants import GeV
    from chromo.kinematics import CompositeTarget, FixedTarget
    from chromo.models import Sibyll23d, UrQMD34

    air = CompositeTarget([("N14", 0.785), ("O16", 0.215)], label="air")
    models = ((UrQMD34, URQMD_GEV), (Sibyll23d, SIBYLL_GEV))
    generators = {model: model(FixedTarget(grid[-1] * GeV, "p", NITROGEN), seed=seed) for model, grid in models}
    sibyll = generators[Sibyll23d]
    rng = np.random.default_rng(seed)
    particles, n_particles, cross_section_mb = [], [], []
    for projectile in PROJECTILES:
        for model, grid in models:
            for energy in grid:
                kinematics = FixedTarget(energy * GeV, projectile, NITROGEN)
                for event in _events(generators[model], kinematics, n_events, OVERSAMPLING[model.__name__], rng):
                    particles.append(event)
                    n_particles.append(len(event))
                # Production cross sections hardly change below Sibyll's range: its lowest is used.
                at = FixedTarget(max(energy, SIBYLL_GEV[0]) * GeV, projectile, air)
                cross_section_mb.append(sibyll.cross_section(at).prod)
            print(f"{projectile} {model.__name__}: {sum(n_particles)} particles so far", file=sys.stderr)
    kind, px, py, pz = np.concatenate(particles).T
    return {
        "format": np.array("lightpool-interactions-1"),
        "citation": np.array(CITATION),
        "made_with": np.array(f"chromo {version('chromo')}, seed {seed}"),
        "projectiles": np.array(PROJECTILES),
        "energy_gev": np.array(URQMD_GEV + SIBYLL_GEV),
        "cross_section_mb": np.reshape(cross_section_mb, (len(PROJECTILES), -1)).astype(np.float32),
        "n_particles": np.array(n_particles, np.uint16),
        "kind": kind.astype(np.int8),
        # Transverse momenta need three digits, of the order of 0.3 GeV; the longitudinal range is too wide for float16.
        "px": px.astype(np.float16),
        "py": py.astype(np.float16),
        "pz": pz.astype(np.float32),
    }


def main() -> None:
    """Command line: output path, events per node, seed."""
    parser = argparse.ArgumentParser(description="Make the library of hadronic final states")
    parser.add_argument("out")
    parser.add_argument("--events", type=int, default=270, help="events per projectile and energy")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    # UrQMD leaves pi0 and other short-lived particles undecayed, and chromo warns each time: the shower decays them.
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    out = Path(arguments.out).absolute()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # UrQMD leaves its tables where it runs
        arrays = make_library(arguments.events, arguments.seed)
        os.chdir(out.parent)
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    main()
