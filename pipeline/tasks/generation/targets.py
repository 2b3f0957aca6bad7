"""Generation of camera images: the image itself is what is learnt, so there is no target beside it."""

import numpy as np

from pipeline.tasks.interfaces import Targets
from pipeline.tiles.shards import TileBatch


class GenerationTargets(Targets):
    """Nothing: the network compares its own outputs with its input."""

    def arrays(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """None."""
        return {}


TARGETS = GenerationTargets()
