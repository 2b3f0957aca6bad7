"""Gamma or hadron: a classification whose classes are made alike in energy, offset and size by weights."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from pipeline import statistics
from pipeline.errors import TooFewEventsError
from pipeline.tasks.gammaness.spec import SPEC
from pipeline.tasks.gammaness.targets import GAMMA, TARGETS
from pipeline.tasks.interfaces import Targets
from pipeline.tasks.spec import TaskSpec
from pipeline.tiles.reader import TileReader
from pipeline.training.objective import Objective, weighted_mean


class GammanessObjective(Objective):
    """Binary cross-entropy of the logit, weighted.

    Smoothed labels [1]_ stand a little inside 0 and 1, so that no logit has to grow without end; validation has them
    too, and its metric, which ranks, does not care.

    References
    ----------
    .. [1] Szegedy et al. (2016), "Rethinking the Inception architecture", arXiv:1512.00567, sect. 7; K = 2 classes.
    """

    spec: ClassVar[TaskSpec] = SPEC
    targets: ClassVar[Targets] = TARGETS

    def check(self, reader: TileReader) -> None:
        """Besides the common checks: both classes are there, with weight."""
        super().check(reader)
        events = reader.events(["true_primary_id"])
        gamma = events["true_primary_id"] == GAMMA
        weighted = events["weights"] > 0
        n_gammas, n_hadrons = int((gamma & weighted).sum()), int((~gamma & weighted).sum())
        if min(n_gammas, n_hadrons) == 0:
            raise TooFewEventsError(
                f"gammaness needs gammas and hadrons of overlapping energy, offset and size, but the "
                f"{reader.split_name} split has {n_gammas} gammas and {n_hadrons} hadrons of any weight; add the "
                "manifest of the missing class to the same `lightpool manifest`, or simulate it in the same range"
            )

    def loss(self, outputs: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Weighted binary cross-entropy."""
        labels, smoothing = target["gamma"], self.options.label_smoothing
        if smoothing:
            labels = labels * (1 - smoothing) + smoothing / 2
        per_tile = F.binary_cross_entropy_with_logits(outputs[:, 0], labels, reduction="none")
        return weighted_mean(per_tile, target["weights"])

    def metrics(self) -> Metric:
        """Area under the ROC curve."""
        return GammanessMetrics()


class GammanessMetrics(Metric):
    """Three numbers per validation tile are kept, 12 bytes: torchmetrics' own curves take no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("parts", [], dist_reduce_fx="cat")

    def update(self, outputs: Tensor, target: Mapping[str, Tensor]) -> None:
        """Take in one batch."""
        columns = (outputs[:, 0], target["gamma"], target["weights"])
        self.parts.append(torch.stack([column.float() for column in columns], dim=1))

    def compute(self) -> dict[str, float]:
        """`auc`, weighted."""
        parts = self.parts if isinstance(self.parts, Tensor) else torch.cat(self.parts)
        scores, labels, weights = parts.cpu().numpy().T
        return {"auc": float(statistics.auc(scores, labels > 0.5, weights.astype(np.float64)))}


OBJECTIVE = GammanessObjective
