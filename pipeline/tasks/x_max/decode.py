"""Depth of the shower's maximum: from network outputs to g/cm2."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from pipeline.tasks.interfaces import Decoder
from pipeline.tasks.x_max.targets import UNIT_G_CM2, ZERO_G_CM2
from pipeline.tiles.shards import TileBatch

#: Range of the predicted log variance [(100 g/cm2)2]: from 1 to 500 g/cm2.
LOG_VARIANCE_RANGE = (-9.2, 3.2)


class XMaxDecoder(Decoder):
    """Outputs: the depth, and its log variance if the network was trained to give it."""

    uncertainties: ClassVar[tuple[str, ...]] = ("reco_x_max_uncert_g_cm2",)

    def decode(self, outputs: np.ndarray, batch: TileBatch) -> dict[str, np.ndarray]:
        """Depth and uncertainty, shape (N,) each."""
        depth = ZERO_G_CM2 + UNIT_G_CM2 * outputs[:, 0].astype(np.float64)
        sigma = np.full(len(outputs), np.nan)
        if outputs.shape[1] > 1:
            sigma = UNIT_G_CM2 * np.exp(0.5 * np.clip(outputs[:, 1].astype(np.float64), *LOG_VARIANCE_RANGE))
        return {"reco_x_max_g_cm2": depth, "reco_x_max_uncert_g_cm2": sigma}

    def pulls(self, values: Mapping[str, np.ndarray], events: Mapping[str, np.ndarray]) -> np.ndarray:
        """Of the depth."""
        sigma = values["reco_x_max_uncert_g_cm2"]
        error = values["reco_x_max_g_cm2"] - events["true_x_max_g_cm2"]
        return (error / np.where(sigma > 0, sigma, np.nan))[:, None]


DECODER = XMaxDecoder()
