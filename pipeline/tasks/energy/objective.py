"""Energy regression: log10 of the true energy, with an uncertainty."""

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from pipeline.errors import UserError
from pipeline.tasks.energy.decode import LOG_VARIANCE_RANGE
from pipeline.tasks.energy.spec import SPEC
from pipeline.tasks.energy.targets import TARGETS, spectrum_weights
from pipeline.tasks.interfaces import Targets
from pipeline.tasks.spec import TaskSpec
from pipeline.tiles.reader import TileReader
from pipeline.training.objective import Objective, weighted_mean

# Beyond half a decade an image tells nothing of its energy (cut off at the camera's edge, a muon ring): there the
# error counts linearly, so that such images do not steer the fit.
HUBER_DELTA_DEX = 0.5


class EnergyObjective(Objective):
    """Regression of the logarithm.

    The mean is fitted by a Huber loss, the variance by a Gaussian likelihood that the mean does not feel: fitted
    together, a network first explains hard images by a large variance and then stops learning from them [1]_.

    References
    ----------
    .. [1] Seitzer et al. (2022), "On the pitfalls of heteroscedastic uncertainty estimation", arXiv:2203.09168.
    """

    spec: ClassVar[TaskSpec] = SPEC
    targets: ClassVar[Targets] = TARGETS

    def check(self, reader: TileReader) -> None:
        """Besides the common checks: the true energy of every tile is known."""
        super().check(reader)
        energies = reader.events(["true_energy_tev"])["true_energy_tev"]
        wrong = ~(np.isfinite(energies) & (energies > 0))
        if wrong.any():
            raise UserError(
                f"{wrong.sum()} of {len(energies)} tiles of the {reader.split_name} split have no positive true "
                "energy; make the tiles from simulated files only"
            )

    def loss(self, outputs: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Huber loss of the mean, scaled to the size of a squared error, plus the likelihood of the variance."""
        residual = outputs[:, 0] - target["log10_energy"]
        per_tile = 2 * F.huber_loss(residual, torch.zeros_like(residual), reduction="none", delta=HUBER_DELTA_DEX)
        factors = spectrum_weights(target["log10_energy"])
        weights = target["weights"] * factors / factors.mean()
        # Weighted to the size of the likelihood (order 1): residuals are a few tenths of a decade.
        total = 10 * weighted_mean(per_tile, weights)
        if outputs.shape[1] > 1:
            log_variance = outputs[:, 1].clamp(*LOG_VARIANCE_RANGE)
            likelihood = 0.5 * (log_variance + residual.detach().square() * torch.exp(-log_variance))
            total = total + 0.1 * weighted_mean(likelihood, weights)
        return total

    def metrics(self) -> Metric:
        """Rms, bias and the width of the pulls."""
        return EnergyMetrics()


class EnergyMetrics(Metric):
    """Weighted moments of the residual in log10(E), in running sums."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, target: Mapping[str, Tensor]) -> None:
        """Take in one batch."""
        residual = (outputs[:, 0] - target["log10_energy"]).double()
        pull2 = torch.zeros_like(residual)
        if outputs.shape[1] > 1:
            pull2 = residual.square() * torch.exp(-outputs[:, 1].double().clamp(*LOG_VARIANCE_RANGE))
        weights = target["weights"].double()
        terms = torch.stack([torch.ones_like(residual), residual, residual.square(), pull2])
        self.sums += (terms * weights).sum(1)

    def compute(self) -> dict[str, float]:
        """`log10_energy_rms` (about zero, so bias counts), `log10_energy_bias`, `pull_rms` (1 is calibrated)."""
        total, first, second, pull2 = self.sums.tolist()
        return {
            "log10_energy_rms": math.sqrt(second / total),
            "log10_energy_bias": first / total,
            "pull_rms": math.sqrt(pull2 / total),
        }


OBJECTIVE = EnergyObjective
