"""Direction of the primary gamma ray: from the simulated truth to the target."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from pipeline.tasks.interfaces import Motion, StoredTarget, Targets
from pipeline.tiles.shards import TileBatch


class DirectionTargets(Targets):
    """The vector from the image's centre of gravity to the source, in tile axes; it turns with the image.

    A network sees the image, not where it lies in the camera: pooling forgets places.
    """

    stored: ClassVar[tuple[StoredTarget, ...]] = (StoredTarget("direction", 2),)
    motions: ClassVar[Mapping[str, Motion]] = {"displacement_deg": "vector"}

    def of_truth(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """The vector [deg], shape (N, 2): along fov_lon, along fov_lat; NaN where the pointing is unknown."""
        return {"direction": displacement_deg(batch.events)}

    def arrays(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """`displacement_deg`, shape (N, 2)."""
        return {"displacement_deg": batch.targets["direction"].astype(np.float32)}


TARGETS = DirectionTargets()


def displacement_deg(events: Mapping[str, np.ndarray]) -> np.ndarray:
    """Source minus centre of gravity in the field of view, shape (N, 2), float32; NaN where the pointing is unknown."""
    parts = (events[f"true_fov_{axis}_deg"] - events[f"hillas_fov_{axis}"] for axis in ("lon", "lat"))
    return np.stack(list(parts), axis=1).astype(np.float32)
