"""From the logit to a probability."""

import numpy as np

from pipeline.tasks.interfaces import Decoder
from pipeline.tiles.shards import TileBatch


class StarmapDecoder(Decoder):
    """One plane."""

    def decode(self, outputs: np.ndarray, batch: TileBatch) -> dict[str, np.ndarray]:
        return {"source_probability": 0.5 * (1 + np.tanh(0.5 * outputs[:, 0]))}


DECODER = StarmapDecoder()
