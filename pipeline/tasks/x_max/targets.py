"""Depth of the shower's maximum: from the simulated truth to the target."""

from typing import ClassVar

import numpy as np

from pipeline.tasks.interfaces import StoredTarget, Targets
from pipeline.tiles.shards import TileBatch

#: The network's output is (X_max - ZERO) / UNIT: of order 1 for gammas from 20 GeV to 10 TeV.
ZERO_G_CM2, UNIT_G_CM2 = 300.0, 100.0


class XMaxTargets(Targets):
    """The depth of the maximum. It does not depend on the image's orientation."""

    stored: ClassVar[tuple[StoredTarget, ...]] = (StoredTarget("x_max"),)

    def of_truth(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """The depth [g/cm2], shape (N, 1); NaN where the simulation does not tell."""
        return {"x_max": batch.events["true_x_max_g_cm2"][:, None].astype(np.float32)}

    def arrays(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """`x_max`, shape (N,), as the network gives it."""
        return {"x_max": ((batch.targets["x_max"][:, 0] - ZERO_G_CM2) / UNIT_G_CM2).astype(np.float32)}


TARGETS = XMaxTargets()
