"""Gamma ray or hadron."""

import numpy as np

from pipeline.tasks.decode import Column
from pipeline.tiles.shards import TileBatch


class GammanessDecoder:
    """Output: the logit of gammaness, for classes of equal weight."""

    task = "gammaness"
    outputs = ("logit",)
    columns = (Column("gammaness", "", "score in [0, 1], 1 = gamma"),)

    def decode(self, outputs: np.ndarray, batch: TileBatch) -> dict[str, np.ndarray]:
        """Gammaness, shape (N,)."""
        logit = np.clip(outputs[:, 0].astype(np.float64), -80, 80)
        return {"gammaness": 1.0 / (1.0 + np.exp(-logit))}


DECODER = GammanessDecoder()
