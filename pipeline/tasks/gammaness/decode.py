"""Gamma ray or hadron: from the logit to a score."""

import numpy as np

from pipeline.tasks.interfaces import Decoder
from pipeline.tiles.shards import TileBatch


class GammanessDecoder(Decoder):
    """Output: the logit of gammaness, for classes of equal weight."""

    def decode(self, outputs: np.ndarray, batch: TileBatch) -> dict[str, np.ndarray]:
        """Gammaness, shape (N,)."""
        logit = np.clip(outputs[:, 0].astype(np.float64), -80, 80)
        return {"gammaness": 1.0 / (1.0 + np.exp(-logit))}


DECODER = GammanessDecoder()
