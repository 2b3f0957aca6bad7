"""Energy of the primary gamma ray: from the simulated truth to the target."""

from typing import ClassVar

import numpy as np

from pipeline.tasks.interfaces import StoredTarget, Targets
from pipeline.tiles.shards import TileBatch


class EnergyTargets(Targets):
    """log10 of the true energy in TeV. It does not depend on the image's orientation."""

    stored: ClassVar[tuple[StoredTarget, ...]] = (StoredTarget("energy"),)

    def of_truth(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """log10(E / TeV), shape (N, 1)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return {"energy": np.log10(batch.events["true_energy_tev"])[:, None].astype(np.float32)}

    def arrays(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """`log10_energy`, shape (N,)."""
        return {"log10_energy": batch.targets["energy"][:, 0].astype(np.float32)}


TARGETS = EnergyTargets()
