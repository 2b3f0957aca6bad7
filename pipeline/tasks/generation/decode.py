"""Generation of camera images: there is nothing to decode of images that exist.

What becomes of the maps that the network generates is in `pipeline.camera.generated`.
"""

import numpy as np

from pipeline.tasks.interfaces import Decoder
from pipeline.tiles.shards import TileBatch


class GenerationDecoder(Decoder):
    """No columns."""

    def decode(self, outputs: np.ndarray, batch: TileBatch) -> dict[str, np.ndarray]:
        """None."""
        return {}


DECODER = GenerationDecoder()
