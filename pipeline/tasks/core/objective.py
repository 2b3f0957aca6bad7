"""Regression of the core: the vector from the telescope to the shower's axis, with an uncertainty."""

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
from pipeline.tasks.core.decode import LOG_VARIANCE_RANGE
from pipeline.tasks.core.spec import SPEC
from pipeline.tasks.core.targets import TARGETS, UNIT_M, core_vector_m
from pipeline.tasks.interfaces import Targets
from pipeline.tasks.spec import TaskSpec
from pipeline.tiles.reader import TileReader
from pipeline.training.objective import Objective, weighted_mean

# Beyond 100 m the error counts linearly: the core of a faint image can be anywhere on a ring.
HUBER_DELTA = 1.0
VARIANCE_WEIGHT = 0.1


class CoreObjective(Objective):
    """Huber loss of the vector; the variance by a Gaussian likelihood that the vector does not feel."""

    spec: ClassVar[TaskSpec] = SPEC
    targets: ClassVar[Targets] = TARGETS

    def check(self, reader: TileReader) -> None:
        """Besides the common checks: the core of every tile is known relative to the telescope and its pointing."""
        super().check(reader)
        names = ["true_core_x_m", "true_core_y_m", "tel_x_m", "tel_y_m", "tel_z_m"]
        vectors = core_vector_m(reader.events([*names, "pointing_alt_deg", "pointing_az_deg"]))
        unknown = ~np.isfinite(vectors).all(axis=1)
        if unknown.any():
            raise UserError(
                f"{unknown.sum()} of {len(unknown)} tiles of the {reader.split_name} split have no true core relative "
                "to the telescope and its pointing; make the tiles from simulated files that say where it pointed"
            )

    def loss(self, outputs: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Huber loss of the distance, scaled to the size of a squared error, plus the likelihood of the variance."""
        distance = (outputs[:, :2] - target["core"]).norm(dim=1)
        per_tile = 2 * F.huber_loss(distance, torch.zeros_like(distance), reduction="none", delta=HUBER_DELTA)
        total = weighted_mean(per_tile, target["weights"])
        if outputs.shape[1] > 2:
            log_variance = outputs[:, 2].clamp(*LOG_VARIANCE_RANGE)
            likelihood = log_variance + 0.5 * distance.detach().square() * torch.exp(-log_variance)
            total = total + VARIANCE_WEIGHT * weighted_mean(likelihood, target["weights"])
        return total

    def metrics(self) -> Metric:
        """Resolution and the width of the pulls."""
        return CoreMetrics()


class CoreMetrics(Metric):
    """Four numbers per validation tile are kept: containment needs all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("parts", [], dist_reduce_fx="cat")

    def update(self, outputs: Tensor, target: Mapping[str, Tensor]) -> None:
        """Take in one batch."""
        distance = (outputs[:, :2] - target["core"]).norm(dim=1)
        impact = (outputs[:, :2].norm(dim=1) - target["core"].norm(dim=1)).abs()
        pull2 = torch.zeros_like(distance)
        if outputs.shape[1] > 2:
            pull2 = distance.square() / 2 * torch.exp(-outputs[:, 2].clamp(*LOG_VARIANCE_RANGE))
        self.parts.append(torch.stack([distance, impact, pull2, target["weights"]], dim=1).float())

    def compute(self) -> dict[str, float]:
        """`core_resolution_m`, `impact_resolution_m`, `pull_rms` (1 is calibrated)."""
        parts = self.parts if isinstance(self.parts, Tensor) else torch.cat(self.parts)
        distance, impact, pull2, weights = parts.cpu().numpy().astype(np.float64).T
        return {
            "core_resolution_m": UNIT_M * float(statistics.containment(distance, weights)),
            "impact_resolution_m": UNIT_M * float(statistics.containment(impact, weights)),
            "pull_rms": math.sqrt(statistics.mean(pull2, weights)),
        }


OBJECTIVE = CoreObjective
