"""Gamma ray or hadron: from the simulated truth to the target."""

from typing import ClassVar

import numpy as np

from pipeline.tasks.interfaces import StoredTarget, Targets
from pipeline.tiles.shards import TileBatch

GAMMA = 0  # ctapipe's number of the primary


class GammanessTargets(Targets):
    """1 for gammas, 0 for everything else. It does not depend on the image's orientation."""

    stored: ClassVar[tuple[StoredTarget, ...]] = (StoredTarget("gammaness"),)

    def of_truth(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """1 or 0, shape (N, 1)."""
        return {"gammaness": (batch.events["true_primary_id"] == GAMMA)[:, None].astype(np.float32)}

    def arrays(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """`gamma`, shape (N,)."""
        return {"gamma": batch.targets["gammaness"][:, 0].astype(np.float32)}


TARGETS = GammanessTargets()
