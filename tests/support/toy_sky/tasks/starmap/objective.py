"""Cross-entropy of the pixels."""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from pipeline.tasks.starmap.spec import SPEC
from pipeline.tasks.starmap.targets import TARGETS
from torch import Tensor
from torchmetrics import Metric

from pipeline.tasks.interfaces import Targets
from pipeline.tasks.spec import TaskSpec
from pipeline.training.objective import Objective


class StarmapObjective(Objective):
    """Binary cross-entropy."""

    spec: ClassVar[TaskSpec] = SPEC
    targets: ClassVar[Targets] = TARGETS

    def loss(self, outputs: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs[:, 0], target["source"])

    def metrics(self) -> Metric:
        return StarmapMetrics()


class StarmapMetrics(Metric):
    """Mean cross-entropy."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, target: Mapping[str, Tensor]) -> None:
        loss = F.binary_cross_entropy_with_logits(outputs[:, 0], target["source"], reduction="none").double()
        self.sums += torch.stack([loss.sum(), torch.tensor(float(loss.numel()), dtype=torch.float64)])

    def compute(self) -> dict[str, float]:
        total, n_pixels = self.sums.tolist()
        return {"source_loss": total / n_pixels}


OBJECTIVE = StarmapObjective
