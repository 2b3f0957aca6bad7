"""Core of the shower: from the simulated truth to the target."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from pipeline.directions import pointing_axes
from pipeline.tasks.interfaces import Motion, StoredTarget, Targets
from pipeline.tiles.shards import TileBatch

#: Outputs of the network are in this unit, so that they are of order 1.
UNIT_M = 100.0


class CoreTargets(Targets):
    """The vector from the telescope to the shower's axis, in tile axes; it turns with the image."""

    stored: ClassVar[tuple[StoredTarget, ...]] = (StoredTarget("core", 2),)
    motions: ClassVar[Mapping[str, Motion]] = {"core": "vector"}

    def of_truth(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """The vector [m], shape (N, 2): along fov_lon, along fov_lat; NaN where the pointing is unknown."""
        return {"core": core_vector_m(batch.events).astype(np.float32)}

    def arrays(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """`core`, shape (N, 2), in units of 100 m."""
        return {"core": (batch.targets["core"] / UNIT_M).astype(np.float32)}


TARGETS = CoreTargets()


def core_vector_m(events: Mapping[str, np.ndarray]) -> np.ndarray:
    """True core minus `place_m` in the plane perpendicular to the pointing, shape (N, 2), along fov_lon and fov_lat."""
    core = np.stack([events["true_core_x_m"], events["true_core_y_m"], np.zeros(len(events["true_core_x_m"]))], axis=1)
    from_telescope = core - place_m(events)
    along_lon, along_lat, _ = pointing_axes(events["pointing_alt_deg"], events["pointing_az_deg"])
    return np.stack([(from_telescope * axis).sum(axis=1) for axis in (along_lon, along_lat)], axis=1)


def place_m(events: Mapping[str, np.ndarray]) -> np.ndarray:
    """What the core counts from, shape (N, 3): the telescope, or the reference of an event of several."""
    kind = "reference" if "reference_x_m" in events else "tel"
    return np.stack([events[f"{kind}_{axis}_m"] for axis in "xyz"], axis=1)
