"""What a forest estimates in place of a network's energy: its logarithm, which errors are even in."""

import numpy as np

from pipeline.camera.baselines import Estimand
from pipeline.tasks.energy.targets import spectrum_weights

LOG10_ENERGY = "log10_energy"
ESTIMANDS = {
    LOG10_ENERGY: Estimand(
        lambda events: np.log10(events["true_energy_tev"]),
        columns=("true_energy_tev",),
        weights=lambda events: spectrum_weights(np.log10(events["true_energy_tev"])),
    )
}
