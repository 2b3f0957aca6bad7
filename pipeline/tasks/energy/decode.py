"""Energy of the primary gamma ray: from network outputs to TeV."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from pipeline.tasks.interfaces import Decoder
from pipeline.tiles.shards import TileBatch

#: Range of the predicted log variance of log10(E): from 0.2 % to a factor of 30.
LOG_VARIANCE_RANGE = (-14.0, 1.6)


class EnergyDecoder(Decoder):
    """Outputs: log10(E / TeV), and the log variance of that if the network was trained to give it."""

    uncertainties: ClassVar[tuple[str, ...]] = ("reco_energy_uncert_tev",)

    def decode(self, outputs: np.ndarray, batch: TileBatch) -> dict[str, np.ndarray]:
        """Energy and uncertainty, shape (N,) each; sigma_E = E ln(10) sigma(log10 E)."""
        energy_tev = 10.0 ** outputs[:, 0].astype(np.float64)
        if outputs.shape[1] > 1:
            sigma = np.exp(0.5 * np.clip(outputs[:, 1].astype(np.float64), *LOG_VARIANCE_RANGE))
        else:
            sigma = np.full(len(outputs), np.nan)
        return {"reco_energy_tev": energy_tev, "reco_energy_uncert_tev": energy_tev * np.log(10.0) * sigma}

    def pulls(self, values: Mapping[str, np.ndarray], events: Mapping[str, np.ndarray]) -> np.ndarray:
        """Of log10(E): the distribution of E itself is skewed."""
        energy_tev, uncert_tev = values["reco_energy_tev"], values["reco_energy_uncert_tev"]
        sigma = np.where(uncert_tev > 0, uncert_tev, np.nan) / (energy_tev * np.log(10.0))
        return (np.log10(energy_tev / events["true_energy_tev"]) / sigma)[:, None]


DECODER = EnergyDecoder()
