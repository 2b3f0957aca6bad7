"""Light per energy of proton showers, compared with CORSIKA's photon file."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.camera.corsika import read_showers
from pipeline.camera.showers.validation.light import conditions_of, photon_world, simulate
from pipeline.camera.showers.validation.rows import Reference, Row, compared

PROTON_FILE = "camera/corsika/sth_run1_proton_za20_North_1LST.corsika.zst"
PROTON_BINS_GEV = (10, 20, 40, 100, 300, 3000)

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
