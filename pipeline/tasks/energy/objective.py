"""Energy regression: log10 of the true energy, with an uncertainty."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import UserError
from pipeline.tasks.decode.energy import LOG_VARIANCE_RANGE
from pipeline.tasks.training import Monitor, Objective, check_target, weighted_mean
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch

# Beyond half a decade an image tells nothing of its energy (cut off at the camera's edge, a muon ring): there the
# error counts linearly, so that such images do not steer the fit.
HUBER_DELTA_DEX = 0.5


class EnergyObjective(Objective):
    """Gammas only, unweighted: an energy estimate is for what passed as a gamma, and class weights would bend the
    spectrum towards the hadrons'.

    The mean is fitted by a Huber loss, the variance by a Gaussian likelihood that the mean does not feel: fitted
    together, a network first explains hard images by a large variance and then stops learning from them [1]_.

    References
    ----------
    .. [1] Seitzer et al. (2022), "On the pitfalls of heteroscedastic uncertainty estimation", arXiv:2203.09168.
    """

    task = "energy"
    kind = "camera"
    monitor = Monitor("log10_energy_rms", "lower")
    where: ClassVar[Mapping[str, int]] = {"true_primary_id": 0}
    equalise = False

    @property
    def num_outputs(self) -> int:
        """log10(E / TeV), and its log variance where that is asked for."""
        return 2 if self.config.predict_uncertainty else 1

    def check(self, train: TileReader, validation: TileReader) -> None:
        """Besides the common checks: the true energy is known, of every tile."""
        super().check(train, validation)
        for reader in (train, validation):
            check_target(reader, "energy", self.task)
            energies = reader.events(["true_energy_tev"])["true_energy_tev"]
            wrong = ~(np.isfinite(energies) & (energies > 0))
            if wrong.any():
                raise UserError(
                    f"{wrong.sum()} of {len(energies)} tiles of the {reader.split_name} split have no positive true "
                    "energy; make the tiles from simulated files only"
                )

    def target_arrays(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """log10 of the true energy in TeV, shape (N,)."""
        return {"log10_energy": batch.targets["energy"][:, 0].astype(np.float32)}

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Huber loss of the mean, scaled to the size of a squared error, plus the likelihood of the variance."""
        residual = outputs[:, 0] - batch["log10_energy"]
        per_tile = 2 * F.huber_loss(residual, torch.zeros_like(residual), reduction="none", delta=HUBER_DELTA_DEX)
        # Weighted to the size of the likelihood (order 1): residuals are a few tenths of a decade.
        total = 10 * weighted_mean(per_tile, batch["weights"])
        if outputs.shape[1] > 1:
            log_variance = outputs[:, 1].clamp(*LOG_VARIANCE_RANGE)
            likelihood = 0.5 * (log_variance + residual.detach().square() * torch.exp(-log_variance))
            total = total + 0.1 * weighted_mean(likelihood, batch["weights"])
        return total

    def metrics(self) -> "EnergyMetrics":
        """Rms, bias and the width of the pulls."""
        return EnergyMetrics()


class EnergyMetrics:
    """Weighted moments of the residual in log10(E), in running sums."""

    def __init__(self) -> None:
        self.sums = np.zeros(4)

    def add(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Take in one batch."""
        residual = (outputs[:, 0] - batch["log10_energy"]).double()
        pull2 = torch.zeros_like(residual)
        if outputs.shape[1] > 1:
            pull2 = residual.square() * torch.exp(-outputs[:, 1].double().clamp(*LOG_VARIANCE_RANGE))
        weights = batch["weights"].double()
        terms = torch.stack([torch.ones_like(residual), residual, residual.square(), pull2])
        self.sums += (terms * weights).sum(1).cpu().numpy()

    def compute(self) -> dict[str, float]:
        """`log10_energy_rms` (about zero, so bias counts), `log10_energy_bias`, `pull_rms` (1 is calibrated)."""
        total, first, second, pull2 = self.sums
        return {
            "log10_energy_rms": float(np.sqrt(second / total)),
            "log10_energy_bias": float(first / total),
            "pull_rms": float(np.sqrt(pull2 / total)),
        }


OBJECTIVE = EnergyObjective
