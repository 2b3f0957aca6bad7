"""Gamma or hadron: a classification whose classes are made alike in energy, offset and size by weights."""

from collections.abc import Mapping

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from pipeline import statistics
from pipeline.errors import TooFewEventsError
from pipeline.tasks.training import Monitor, Objective, check_target, weighted_mean
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch


class GammanessObjective(Objective):
    """Binary cross-entropy of the logit, weighted.

    Smoothed labels [1]_ stand a little inside 0 and 1, so that no logit has to grow without end; validation has them
    too, and its metric, which ranks, does not care.

    References
    ----------
    .. [1] Szegedy et al. (2016), "Rethinking the Inception architecture", arXiv:1512.00567, sect. 7; K = 2 classes.
    """

    task = "gammaness"
    kind = "camera"
    has_labels = True
    monitor = Monitor("auc", "higher")

    @property
    def num_outputs(self) -> int:
        """One logit."""
        return 1

    def check(self, train: TileReader, validation: TileReader) -> None:
        """Besides the common checks: both classes are in both splits, with weight."""
        super().check(train, validation)
        for reader in (train, validation):
            check_target(reader, "gammaness", self.task)
            events = reader.events(["true_primary_id"])
            gamma = events["true_primary_id"] == 0
            weighted = events["weights"] > 0
            n_gammas, n_hadrons = int((gamma & weighted).sum()), int((~gamma & weighted).sum())
            if min(n_gammas, n_hadrons) == 0:
                raise TooFewEventsError(
                    f"gammaness needs gammas and hadrons of overlapping energy, offset and size, but the "
                    f"{reader.split_name} split has {n_gammas} gammas and {n_hadrons} hadrons of any weight; add the "
                    "manifest of the missing class to the same `lightpool manifest`, or simulate it in the same range"
                )

    def target_arrays(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """1 for gammas, 0 for hadrons, shape (N,)."""
        return {"gamma": batch.targets["gammaness"][:, 0].astype(np.float32)}

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Weighted binary cross-entropy."""
        labels, smoothing = batch["gamma"], self.config.label_smoothing
        if smoothing:
            labels = labels * (1 - smoothing) + smoothing / 2
        per_tile = F.binary_cross_entropy_with_logits(outputs[:, 0], labels, reduction="none")
        return weighted_mean(per_tile, batch["weights"])

    def metrics(self) -> "GammanessMetrics":
        """Area under the ROC curve."""
        return GammanessMetrics()


class GammanessMetrics:
    """Three numbers per validation tile are kept: 12 bytes each."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []

    def add(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Take in one batch."""
        columns = (outputs[:, 0], batch["gamma"], batch["weights"])
        self.parts.append(np.stack([column.float().cpu().numpy() for column in columns]))

    def compute(self) -> dict[str, float]:
        """`auc`, weighted."""
        scores, labels, weights = np.concatenate(self.parts, axis=1)
        return {"auc": float(statistics.auc(scores, labels > 0.5, weights.astype(np.float64)))}


OBJECTIVE = GammanessObjective
