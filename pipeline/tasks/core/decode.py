"""Core of the shower: from network outputs to a place on the ground."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from pipeline.directions import on_ground, pointing_axes
from pipeline.tasks.core.targets import UNIT_M, core_vector_m, place_m
from pipeline.tasks.interfaces import Decoder
from pipeline.tiles.shards import TileBatch

#: Range of the predicted log variance of the core [(100 m)2]: from 1 m to 500 m.
LOG_VARIANCE_RANGE = (-9.2, 3.2)


class CoreDecoder(Decoder):
    """Outputs: vector from the telescope to the axis, and the log variance if the network was trained to give it."""

    columns: ClassVar[tuple[str, ...]] = ("pointing_alt_deg", "pointing_az_deg", "tel_x_m", "tel_y_m", "tel_z_m")
    uncertainties: ClassVar[tuple[str, ...]] = (
        "reco_impact_uncert_m", "reco_core_uncert_x_m", "reco_core_uncert_y_m",
    )  # fmt: skip

    def decode(self, outputs: np.ndarray, batch: TileBatch) -> dict[str, np.ndarray]:
        """Impact distance and core, shape (N,) each; the core is NaN where pointing or telescope are unknown."""
        vector = UNIT_M * outputs[:, :2].astype(np.float64)
        sigma = np.full(len(outputs), np.nan)
        if outputs.shape[1] > 2:
            sigma = UNIT_M * np.exp(0.5 * np.clip(outputs[:, 2].astype(np.float64), *LOG_VARIANCE_RANGE))
        core, spread = _core_m(vector, batch.events)
        return {
            # An event of several telescopes has no distance: each of them has.
            "reco_impact_m": np.where("reference_x_m" in batch.events, np.nan, np.hypot(*vector.T)),
            "reco_impact_uncert_m": sigma,
            "reco_core_x_m": core[:, 0],
            "reco_core_y_m": core[:, 1],
            "reco_core_uncert_x_m": sigma * spread[:, 0],
            "reco_core_uncert_y_m": sigma * spread[:, 1],
        }

    def pulls(self, values: Mapping[str, np.ndarray], events: Mapping[str, np.ndarray]) -> np.ndarray:
        """Along both axes of the plane perpendicular to the pointing."""
        reco = {"true_core_x_m": values["reco_core_x_m"], "true_core_y_m": values["reco_core_y_m"]}
        error = core_vector_m({**events, **reco}) - core_vector_m(events)
        sigma = values["reco_impact_uncert_m"]
        return error / np.where(sigma > 0, sigma, np.nan)[:, None]


def _core_m(vector_m: np.ndarray, events: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Core on the ground, and how far it moves per metre in the tilted plane (root of squares), shape (N, 2) each."""
    pointing = events["pointing_alt_deg"], events["pointing_az_deg"]
    axes = pointing_axes(*pointing)[:2]
    core = on_ground(
        place_m(events).astype(np.float64) + sum(vector_m[:, [i]] * axis for i, axis in enumerate(axes)), *pointing
    )
    return core, np.hypot(*(on_ground(axis, *pointing) for axis in axes))


DECODER = CoreDecoder()
