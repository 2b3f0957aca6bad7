"""Direction of the primary gamma ray: from the simulated truth to the target."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from pipeline.directions import outward
from pipeline.tasks.interfaces import Motion, StoredTarget, Targets
from pipeline.tiles.shards import TileBatch


class DirectionTargets(Targets):
    """The vector from the image's centre of gravity to the source, in tile axes; it turns with the image.

    Of an event of several images, it begins where their axes meet. A network sees the image, not where it lies in the
    camera: pooling forgets places. So the outputs for an image may lean on its long axis, which turns with it, too.
    """

    stored: ClassVar[tuple[StoredTarget, ...]] = (StoredTarget("direction", 2),)
    motions: ClassVar[Mapping[str, Motion]] = {"displacement_deg": "vector", "outward": "vector"}
    columns: ClassVar[tuple[str, ...]] = ("hillas_psi", "hillas_phi", "true_energy_tev")

    def of_truth(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """The vector [deg], shape (N, 2): along fov_lon, along fov_lat; NaN where the pointing is unknown."""
        return {"direction": displacement_deg(batch.events)}

    def arrays(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """`displacement_deg`, and of images `outward`, shape (N, 2) each; `energy_tev`, shape (N,)."""
        found = {
            "displacement_deg": batch.targets["direction"].astype(np.float32),
            "energy_tev": np.asarray(batch.events["true_energy_tev"], np.float32),
        }
        if "hillas_psi" in batch.events:  # an event has no axis of its own
            found["outward"] = outward(batch.events).astype(np.float32)
        return found


TARGETS = DirectionTargets()


def displacement_deg(events: Mapping[str, np.ndarray]) -> np.ndarray:
    """Source minus `origin_deg` in the field of view, shape (N, 2), float32; NaN where the pointing is unknown."""
    source = np.stack([events["true_fov_lon_deg"], events["true_fov_lat_deg"]], axis=1)
    return (source - origin_deg(events)).astype(np.float32)


def origin_deg(events: Mapping[str, np.ndarray]) -> np.ndarray:
    """What displacements count from, shape (N, 2), along fov_lon and fov_lat.

    The centre of gravity of an image; the reference of an event (`pipeline.inputs.shower.events_of`).
    """
    kind = "reference_fov" if "reference_fov_lon" in events else "hillas_fov"
    return np.stack([events[f"{kind}_{axis}"] for axis in ("lon", "lat")], axis=1)
