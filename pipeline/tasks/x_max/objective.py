"""Regression of the depth of the shower's maximum, with an uncertainty."""

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from pipeline import statistics
from pipeline.errors import UserError
from pipeline.tasks.interfaces import Targets
from pipeline.tasks.spec import TaskSpec
from pipeline.tasks.x_max.decode import LOG_VARIANCE_RANGE
from pipeline.tasks.x_max.spec import SPEC
from pipeline.tasks.x_max.targets import TARGETS, UNIT_G_CM2
from pipeline.tiles.reader import TileReader
from pipeline.training.objective import Objective, weighted_mean

HUBER_DELTA = 1.0
VARIANCE_WEIGHT = 0.1


class XMaxObjective(Objective):
    """Huber loss of the depth; the variance by a Gaussian likelihood that the depth does not feel."""

    spec: ClassVar[TaskSpec] = SPEC
    targets: ClassVar[Targets] = TARGETS

    def check(self, reader: TileReader) -> None:
        """Besides the common checks: the true depth of every tile is known."""
        super().check(reader)
        unknown = ~np.isfinite(reader.events(["true_x_max_g_cm2"])["true_x_max_g_cm2"])
        if unknown.any():
            raise UserError(
                f"{unknown.sum()} of {len(unknown)} tiles of the {reader.split_name} split have no true depth of the "
                "maximum; make the tiles from simulated files that hold it"
            )

    def loss(self, outputs: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Huber loss, scaled to the size of a squared error, plus the likelihood of the variance."""
        residual = outputs[:, 0] - target["x_max"]
        per_tile = 2 * F.huber_loss(residual, torch.zeros_like(residual), reduction="none", delta=HUBER_DELTA)
        total = weighted_mean(per_tile, target["weights"])
        if outputs.shape[1] > 1:
            log_variance = outputs[:, 1].clamp(*LOG_VARIANCE_RANGE)
            likelihood = 0.5 * (log_variance + residual.detach().square() * torch.exp(-log_variance))
            total = total + VARIANCE_WEIGHT * weighted_mean(likelihood, target["weights"])
        return total

    def metrics(self) -> Metric:
        """Resolution, bias and the width of the pulls."""
        return XMaxMetrics()


class XMaxMetrics(Metric):
    """Three numbers per validation tile are kept: containment needs all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("parts", [], dist_reduce_fx="cat")

    def update(self, outputs: Tensor, target: Mapping[str, Tensor]) -> None:
        """Take in one batch."""
        residual = outputs[:, 0] - target["x_max"]
        pull2 = torch.zeros_like(residual)
        if outputs.shape[1] > 1:
            pull2 = residual.square() * torch.exp(-outputs[:, 1].clamp(*LOG_VARIANCE_RANGE))
        self.parts.append(torch.stack([residual, pull2, target["weights"]], dim=1).float())

    def compute(self) -> dict[str, float]:
        """`x_max_resolution_g_cm2`, `x_max_bias_g_cm2`, `pull_rms` (1 is calibrated)."""
        parts = self.parts if isinstance(self.parts, Tensor) else torch.cat(self.parts)
        residual, pull2, weights = parts.cpu().numpy().astype(np.float64).T
        return {
            "x_max_resolution_g_cm2": UNIT_G_CM2 * float(statistics.containment(residual, weights)),
            "x_max_bias_g_cm2": UNIT_G_CM2 * float(statistics.median(residual, weights)),
            "pull_rms": math.sqrt(statistics.mean(pull2, weights)),
        }


OBJECTIVE = XMaxObjective
