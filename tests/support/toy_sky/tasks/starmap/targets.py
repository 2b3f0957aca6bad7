"""Source pixels: where the noise-free frame is 1 sigma above its background."""

from typing import ClassVar

import numpy as np

from pipeline.tasks.interfaces import Motion, StoredTarget, Targets
from pipeline.tiles.shards import TileBatch


class StarmapTargets(Targets):
    """1 on a source, 0 elsewhere."""

    stored: ClassVar[tuple[StoredTarget, ...]] = (StoredTarget("source", per_pixel=True),)
    motions: ClassVar[dict[str, Motion]] = {"source": "map"}

    def of_truth(self, batch: TileBatch) -> dict[str, np.ndarray]:
        limit = (batch.events["level"] + batch.events["noise"])[:, None, None, None]
        return {"source": (np.nan_to_num(batch.targets["clean"]) > limit).astype(np.float32)}

    def arrays(self, batch: TileBatch) -> dict[str, np.ndarray]:
        return {"source": batch.targets["source"][:, 0]}


TARGETS = StarmapTargets()
