"""Generation of camera images: there is nothing to decode of images that exist.

What becomes of the maps that the network generates is in `pipeline.camera.generated`.
"""

from collections.abc import Mapping

import numpy as np

from pipeline.tasks.interfaces import Decoder
from pipeline.tiles.shards import TileBatch


class GenerationDecoder(Decoder):
    """No columns."""

    def decode(self, outputs: np.ndarray, batch: TileBatch) -> dict[str, np.ndarray]:
        """None."""
        return {}

    def pulls(self, values: Mapping[str, np.ndarray], events: Mapping[str, np.ndarray]) -> np.ndarray:
        """Refused: no uncertainty is stated."""
        raise NotImplementedError("generated images have no uncertainty")


DECODER = GenerationDecoder()
